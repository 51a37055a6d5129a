"""OVN's northbound database, asked as a host is: what it says of ports, and that where they may be bound changes."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from vferry.controller.configuration import OvnSettings, read_controller_configuration
from vferry.controller.state import State
from vferry.host.api import Done, Operation, R, SetBinding
from vferry.host.ovsdb import Replica, Tls, first
from vferry.model.ovn import NORTHBOUND, KnownPort, LogicalPort
from vferry.model.problem import Exit, Problem

NORTHD_S = 30.0
"""How long ovn-northd may take: it computes all networks anew where it cannot tell what has changed."""

DYNAMIC = "dynamic"
"""In place of a MAC: `dynamic_addresses` has what OVN has chosen."""
REQUESTED, ACTIVATION = "requested-chassis", "activation-strategy"
ONE = {"key": "string", "min": 0, "max": 1}
SOME = {"key": "string", "min": 0, "max": "unlimited"}
WORDS = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}


class Northbound:
    """The steps' `Host` of this name. It takes `SetBinding` alone."""

    name = NORTHBOUND

    def __init__(self, settings: OvnSettings) -> None:
        self._settings = settings

    async def call(self, operation: Operation[R], *, timeout_s: float = 30.0) -> R:
        """Problems: those of `SetBinding`."""
        if not isinstance(operation, SetBinding):
            raise Problem("operation-unknown", f"{NORTHBOUND} cannot do {type(operation).__name__}")
        done: Any = await asyncio.to_thread(self._set, operation, timeout_s)
        answer: R = done
        return answer

    async def ports(self, names: Iterable[str]) -> dict[str, KnownPort]:
        """What it says of ports, by their names, but for those that it does not have. Problem ``host-unreachable``."""
        return await asyncio.to_thread(self._read, tuple(names))

    def _read(self, names: tuple[str, ...]) -> dict[str, KnownPort]:
        with _Database(self._settings) as database:
            rows = (database.named(_PORTS, name) for name in names)
            return {row.name: _known(row, database.localnets(row)) for row in rows if row is not None}

    def _set(self, operation: SetBinding, timeout_s: float) -> Done:
        wanted = operation.port
        with _Database(self._settings) as database:
            row = database.named(_PORTS, wanted.name)
            if row is None:
                raise Problem(
                    "logical-port-unknown",
                    f"OVN has no logical port {wanted.name}",
                    "Look with: ovn-nbctl show",
                    exit=Exit.REFUSED,
                )
            changes = _port(row) != wanted
            if changes:
                database.commit(lambda _: _apply(database, row, wanted), time.monotonic() + timeout_s)
            if operation.awaited:
                database.await_northd()
            return Done(changed=changes, detail=(wanted.requested_chassis or "") if changes else "")


async def ask(state: State, names: Iterable[str]) -> dict[str, KnownPort] | str:
    """What OVN says of ports, by their names, but for those that it does not have; or why it says nothing."""
    try:
        return await Northbound(read_controller_configuration(state).ovn).ports(names)
    except Problem as problem:
        return problem.message


_PORTS, _SWITCHES, _ALL = "Logical_Switch_Port", "Logical_Switch", "NB_Global"


class _Database(Replica):
    schema = "OVN_Northbound"
    columns = {  # noqa: RUF012 - as its base has it
        _PORTS: {
            "name": "string",
            "type": "string",
            "options": WORDS,
            "addresses": SOME,
            "dynamic_addresses": ONE,
            "port_security": SOME,
            "parent_name": ONE,
        },
        _SWITCHES: {"ports": {"key": {"type": "uuid", "refTable": _PORTS}, "min": 0, "max": "unlimited"}},
        _ALL: {"nb_cfg": "integer", "sb_cfg": "integer"},
    }

    def __init__(self, settings: OvnSettings) -> None:
        if settings.northbound is None:
            raise Problem(
                "northbound-unknown",
                "No northbound database of OVN is named",
                "Name it in the controller's configuration: [ovn] northbound",
                exit=Exit.REFUSED,
            )
        key, certificate, ca = settings.private_key, settings.certificate, settings.ca
        tls = Tls(private_key=key, certificate=certificate, ca=ca) if key and certificate and ca else None
        super().__init__(settings.northbound, tls)

    def localnets(self, port: Any) -> tuple[str, ...]:
        """The physical networks that a port's switch goes out to."""
        beside = next((each.ports for each in self.rows(_SWITCHES) if port in each.ports), ())
        names = (each.options.get("network_name") for each in beside if each.type == "localnet")
        return tuple(sorted(name for name in names if name))

    def await_northd(self) -> None:
        """Waits until ovn-northd has passed on what is there now. Problem ``northd-silent``."""
        target = max((row.nb_cfg for row in self.rows(_ALL)), default=0)
        if not self.wait(lambda: any(row.sb_cfg >= target for row in self.rows(_ALL)), NORTHD_S):
            raise Problem(
                "northd-silent",
                f"OVN's northbound database ({self.remote}) has it, and ovn-northd has not passed it on for "
                f"{NORTHD_S:.0f} s",
                "Look with: ovn-appctl -t ovn-northd status; ovn-sbctl show",
                exit=Exit.UNDONE,
            )

    def silent(self, why: str) -> Problem:
        return Problem(
            "host-unreachable",
            f"OVN's northbound database ({self.remote}) does not do its work: {why}",
            "Look with: ovn-nbctl show",
            exit=Exit.UNDONE,
        )

    def refused(self, why: str) -> Problem:
        return Problem(
            "northbound-refused",
            f"OVN's northbound database refuses what it was asked for: {why}",
            "Look with: ovn-nbctl list Logical_Switch_Port",
            exit=Exit.REFUSED,
        )

    def without_library(self, error: ImportError) -> Problem:
        return Problem(
            "switch-library-missing",
            f"Open vSwitch's Python binding, by which OVN is asked, is not here: {error}",
            "apt install python3-openvswitch (the venv is made with --system-site-packages)",
            exit=Exit.REFUSED,
        )


def _known(row: Any, localnets: tuple[str, ...]) -> KnownPort:
    addresses = (*row.addresses, *row.dynamic_addresses)
    return KnownPort(
        binding=_port(row),
        localnets=localnets,
        type=row.type,
        parent=first(row.parent_name) or None,
        macs=tuple(mac for mac in _macs(addresses) if mac != DYNAMIC),
        senders=_macs(row.port_security),
    )


def _macs(addresses: Iterable[str]) -> tuple[str, ...]:
    """What they begin with: each is a MAC, or a word in its place, with IP addresses after it (ovn-nb(5))."""
    return tuple(sorted({words[0].lower() for each in addresses if (words := each.split())}))


def _port(row: Any) -> LogicalPort:
    options = row.options
    return LogicalPort(
        name=row.name, requested_chassis=options.get(REQUESTED), activation_strategy=options.get(ACTIVATION)
    )


def _apply(database: _Database, row: Any, wanted: LogicalPort) -> None:
    for each in database.rows(_ALL):
        each.increment("nb_cfg")
    for key, value in ((REQUESTED, wanted.requested_chassis), (ACTIVATION, wanted.activation_strategy)):
        if value is None:
            row.delkey("options", key)
        else:
            row.setkey("options", key, value)
