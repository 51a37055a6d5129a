"""Taking a port off a relay whose NIC no guest has any more: what is to be done, or what stands in the way.

Such a port is left where a guest was undefined, or its NIC taken out of its definition: `vferry guest nic` needs both.
"""

import hashlib
from collections.abc import Iterator

from vferry.host.api import JoinRelay, LeaveRelay, SetVf
from vferry.model.definition import parse
from vferry.model.guest import Guest, Nic
from vferry.model.host import Inventory, VfSettings
from vferry.model.relay import RelayPort
from vferry.plan.facts import Finding, Found, Refusal, info, warning
from vferry.plan.host_step import HostStep

PREFIX = "release-"
"""How the ids of operations begin that take such ports off: one for each, which whoever asks again goes on with."""


class ReleaseAssessment(Found, frozen=True, kw_only=True):
    """What was found, and the steps if nothing stands in the way; `port` is the one that they take off."""

    mac: str
    port: RelayPort | None = None
    steps: tuple[HostStep, ...] = ()


def prefix(mac: str) -> str:
    """How the ids begin of what takes ports for a MAC off."""
    return f"{PREFIX}{mac.replace(':', '')}-"


def operation_of(port: RelayPort) -> str:
    """The id of what takes a port off; another guest's of the same MAC has another one."""
    return f"{prefix(port.mac)}{hashlib.sha256(port.guest.encode()).hexdigest()[:8]}"


def assess_release(host: Inventory, mac: str, persistent: str | None = None) -> ReleaseAssessment:
    """The way to a relay without a port. `persistent`: with what the port's guest is to boot, where it runs."""
    try:
        port = _port(host, mac)
        if port is None:
            note = info("release-none", f"The relay of {host.name} has no port for {mac}")
            return ReleaseAssessment(mac=mac, findings=(note,))
        _refuse_claimed(host, port)
        _refuse_used(host, port, persistent)
        _refuse_in_chain(host, port)
    except Refusal as refusal:
        return ReleaseAssessment(mac=mac, findings=(refusal.finding,))
    return ReleaseAssessment(mac=mac, findings=tuple(_notes(host, port)), port=port, steps=tuple(_steps(host, port)))


def left_on(host: Inventory) -> tuple[RelayPort, ...]:
    """The ports of a host's relay that no guest there has, nor is on its way to."""
    ports = host.relay.ports if host.relay else ()
    return tuple(port for port in ports if _user(host, port) is None and _claim_on(host, port) is None)


def about(host: Inventory) -> Iterator[Finding]:
    """What is left on a host's relay."""
    for port in left_on(host):
        yield warning(
            "release-left",
            f"No guest of {host.name} has {port.mac} any more, which was of {port.guest} ({port.joined_to})",
            f"Take it off: vferry relay release {host.name} {port.mac}",
        )


def _port(host: Inventory, mac: str) -> RelayPort | None:
    if host.relay is None:
        raise Refusal("release-no-relay", f"{host.name} has no relay", "Name a host that has one")
    return host.relay.port(mac)


def _refuse_claimed(host: Inventory, port: RelayPort) -> None:
    if operation := _claim_on(host, port):
        raise Refusal(
            "release-claimed",
            f"{port.guest} is claimed on {host.name} by operation {operation}",
            "Wait for it; if its controller is gone, see it to its end first: vferry operation recover",
        )


def _refuse_used(host: Inventory, port: RelayPort, persistent: str | None) -> None:
    if user := _user(host, port):
        raise Refusal(
            "release-nic-there",
            f"{user.name} on {host.name} has a NIC there: {port.mac}, {port.joined_to}",
            _off(user, port, persistent),
        )
    if persistent and _defines(persistent, port):
        raise Refusal(
            "release-nic-defined",
            f"{port.guest} on {host.name} runs without {port.mac} on the relay, and has it there from its next boot on",
            f"Change its definition: virsh edit {port.guest}",
        )


def _refuse_in_chain(host: Inventory, port: RelayPort) -> None:
    if port.switch and port.switch.chain:
        name = port.switch.chain.name
        raise Refusal(
            "release-in-chain",
            f"{port.mac} is in the service chain {name}",
            f"Take the chain back first: vferry relay chain {host.name} {name} --none",
        )


def _off(user: Guest, port: RelayPort, persistent: str | None) -> str:
    """How a guest's NIC is taken off: one that its definition has no more goes with this run of it."""
    if user.name != port.guest or all(nic.mac != port.mac for nic in user.nics):
        return f"Change its definition, which vferry has not made so: virsh edit {user.name}"
    if not user.persistent or (persistent and not _defines(persistent, port)):
        return f"Its definition has it no more: shut it down (virsh shutdown {user.name}), and ask again"
    return f"Take it off: vferry guest nic {user.name} {port.mac} --to vf, or --to virtio"


def _defines(persistent: str, port: RelayPort) -> bool:
    return any(source.get("path") == port.socket for source in parse(persistent).iterfind("devices/interface/source"))


def _user(host: Inventory, port: RelayPort) -> Guest | None:
    """Whoever has a NIC on it: a guest may have been renamed, or been given the port's VF by hand."""
    return next((guest for guest in host.guests if any(_is_on(nic, port) for nic in guest.nics)), None)


def _is_on(nic: Nic, port: RelayPort) -> bool:
    on_vf = nic.vf is not None and port.vf is not None and nic.vf.address == port.vf.address
    return on_vf or nic.socket == port.socket


def _claim_on(host: Inventory, port: RelayPort) -> str | None:
    """The operation that has the guest, other than what takes the port off."""
    own = operation_of(port)
    return next((each.operation for each in host.claims if each.guest == port.guest and each.operation != own), None)


def _steps(host: Inventory, port: RelayPort) -> Iterator[HostStep]:
    """The port last: until it is gone, it tells whoever asks again what is to be done."""
    vf = host.vf(port.vf.address) if port.vf else None
    pf = host.pf(vf.pf) if vf else None
    settings = vf.settings if vf else VfSettings()
    if vf and pf:
        yield HostStep(
            name="wipe-vf",
            summary=f"wipe VF {vf.index} of {vf.pf}",
            apply=(SetVf(pf=vf.pf, index=vf.index, settings=pf.wiped(vf)),),
            undo=(SetVf(pf=vf.pf, index=vf.index, settings=settings),),
        )
    back = f", and give {port.joined_to} back" if port.vf else ""
    yield HostStep(
        name="leave-relay",
        summary=f"take {port.mac} of {port.guest} off the relay{back}",
        apply=(LeaveRelay(guest=port.guest, mac=port.mac),),
        undo=(JoinRelay(port=port, settings=settings),),
    )


def _notes(host: Inventory, port: RelayPort) -> Iterator[Finding]:
    if port.switch and port.switch.logical_port:
        yield info(
            "release-ovns",
            f"{port.switch.logical_port} stays in OVN's database, and is bound on {host.name} no more",
        )
