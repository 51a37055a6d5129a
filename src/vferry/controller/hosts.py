"""The hosts that a controller knows: registered in its state folder, reached through their agents."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from vferry.controller.authority import Authority
from vferry.controller.state import State, find_state
from vferry.host.api import (
    Done,
    InstallCertificate,
    InstallQemuCertificate,
    LimitHost,
    RequestCertificate,
    RequestQemuCertificate,
    Session,
    TakeInventory,
)
from vferry.host.client import RemoteHost, connect
from vferry.host.durable import write_durably
from vferry.model.host import Inventory
from vferry.model.problem import Exit, Problem

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PROBE_FROM = re.compile(r"netns:[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A registered host. `probe_from` says where probes of its guests leave: ``netns:NAME``, or None for here."""

    name: str
    uri: str
    probe_from: str | None = None


def list_hosts(state: State | None = None) -> tuple[HostRecord, ...]:
    """In the order of their names. Problem ``hosts-unreadable``."""
    path = (state or find_state()).hosts
    try:
        records = msgspec.json.decode(path.read_bytes(), type=list[HostRecord])
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise Problem(
            "hosts-unreadable", f"{path} cannot be read: {error}", "Remove it and add the hosts again"
        ) from error
    return tuple(sorted(records, key=lambda record: record.name))


def find_host(name: str, state: State | None = None) -> HostRecord:
    """Problem ``host-unknown``, which lists the known ones."""
    records = list_hosts(state)
    for record in records:
        if record.name == name:
            return record
    known = ", ".join(record.name for record in records)
    raise Problem(
        "host-unknown",
        f"There is no host {name}; known: {known}" if known else f"There is no host {name}, nor any other",
        f"Add it: vferry host add {name} ssh://root@{name}",
        host=name,
    )


def open_host(name: str, session: Session | None = None, state: State | None = None) -> RemoteHost:
    """A registered host, to be closed by the caller. Connects at the first call. Problem ``host-unknown``."""
    state = state or find_state()
    return _connect(state, find_host(name, state), session)


async def add_host(name: str, uri: str, probe_from: str | None = None, state: State | None = None) -> Inventory:
    """Registers a host and gives it a certificate; adding it again renews that, and takes the new URI.

    Problems: ``host-name-invalid``, ``probe-from-invalid``, ``uri-invalid``, ``host-unreachable``,
    ``host-name-differs``, and the agent's own.
    """
    state = state or find_state()
    record = _checked(HostRecord(name=name, uri=uri, probe_from=probe_from))
    async with _connect(state, record) as host:
        inventory = await host.call(TakeInventory(), timeout_s=60.0)
        if inventory.name != name:
            raise Problem(
                "host-name-differs",
                f"The agent at {uri} is that of host {inventory.name}, not {name}",
                f"Add it as {inventory.name}, or change name in its /etc/vferry/agent.toml",
                exit=Exit.REFUSED,
            )
        await _certify(host, Authority(state.pki), inventory.migration.address)
    with _locked(state):
        _write(state, [*(r for r in list_hosts(state) if r.name != name), record])
    return inventory


async def remove_host(name: str, state: State | None = None) -> HostRecord:
    """Forgets a host; nothing changes on it. Problem ``host-unknown``."""
    state = state or find_state()
    with _locked(state):
        record = find_host(name, state)
        _write(state, [r for r in list_hosts(state) if r.name != name])
    return record


async def limit_host(name: str, bandwidth: int | None, state: State | None = None) -> Done:
    """Limits a host as `LimitHost` says. Problems: ``host-unknown``, ``host-too-old``, and the agent's own."""
    async with open_host(name, state=state) as host:
        with _known_to(
            name,
            "changes its limit of bandwidth by its configuration only",
            "or write bandwidth into [migration] of its /etc/vferry/agent.toml and restart the agent",
        ):
            return await host.call(LimitHost(bandwidth=bandwidth))


async def certify_qemu(name: str, state: State | None = None) -> Done:
    """Gives a host's QEMU a certificate of the authority for QEMUs, which has no say over agents and gateways.

    Problems: ``host-unknown``, ``host-too-old``, ``qemu-tls-of-others``, and the agent's own.
    """
    state = state or find_state()
    authority = Authority(state.pki / "qemu")
    async with open_host(name, state=state) as host:
        address = (await host.call(TakeInventory(), timeout_s=60.0)).migration.address
        with _known_to(name, "knows of no certificates for QEMU", "or do without --direct"):
            request = await host.call(RequestQemuCertificate(ca=authority.ca_pem))
        # QEMU takes a key's usage that permits key encipherment, which no such key is for, or no word of it.
        certificate = authority.sign(request.pem, name, address, key_usage=False)
        return await host.call(InstallQemuCertificate(certificate=certificate, ca=authority.ca_pem))


@contextmanager
def _known_to(name: str, how: str, otherwise: str) -> Iterator[None]:
    """Problem ``host-too-old`` where the agent does not know a call."""
    try:
        yield
    except Problem as problem:
        if problem.code != "call-unknown":
            raise
        raise Problem(
            "host-too-old",
            f"The agent of {name} is of a version that {how}",
            f"Upgrade vferry on {name}, {otherwise}",
            exit=Exit.REFUSED,
            host=name,
        ) from problem


async def _certify(host: RemoteHost, authority: Authority, address: str) -> None:
    request = await host.call(RequestCertificate())
    certificate = authority.sign(request.pem, host.name, address)
    await host.call(InstallCertificate(certificate=certificate, ca=authority.ca_pem))


def _connect(state: State, record: HostRecord, session: Session | None = None) -> RemoteHost:
    tls = Authority(state.pki).files if record.uri.startswith("https:") else None
    return connect(record.name, record.uri, tls, session, directory=state.sockets)


def _write(state: State, records: list[HostRecord]) -> None:
    write_durably(state.hosts, msgspec.json.format(msgspec.json.encode(records), indent=2))


@contextmanager
def _locked(state: State) -> Iterator[None]:
    with Path(f"{state.hosts}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _checked(record: HostRecord) -> HostRecord:
    if not NAME.fullmatch(record.name):
        raise Problem(
            "host-name-invalid",
            f"{record.name!r} is not a host's name",
            "Use a-z, 0-9 and -, at most 63, beginning with a letter or a digit",
        )
    if record.probe_from is not None and not PROBE_FROM.fullmatch(record.probe_from):
        raise Problem(
            "probe-from-invalid",
            f"{record.probe_from!r} does not say where probes leave from",
            "Write netns:NAME, a network namespace of this machine",
        )
    return record
