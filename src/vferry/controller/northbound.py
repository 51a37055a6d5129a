"""OVN's northbound database, asked as a host is: where its ports may be bound, and that this changes."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from vferry.controller.configuration import OvnSettings
from vferry.host.api import Done, Operation, R, SetBinding
from vferry.host.ovsdb import Replica, Tls
from vferry.model.ovn import NORTHBOUND, LogicalPort
from vferry.model.problem import Exit, Problem

REQUESTED, ACTIVATION = "requested-chassis", "activation-strategy"
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
        done: Any = await asyncio.to_thread(self._set, operation.port, timeout_s)
        answer: R = done
        return answer

    async def ports(self, names: Iterable[str]) -> dict[str, LogicalPort]:
        """What it says of ports, by their names, but for those that it does not have. Problem ``host-unreachable``."""
        return await asyncio.to_thread(self._read, tuple(names))

    def _read(self, names: tuple[str, ...]) -> dict[str, LogicalPort]:
        with _Database(self._settings) as database:
            rows = (database.named(_PORTS, name) for name in names)
            return {row.name: _port(row) for row in rows if row is not None}

    def _set(self, wanted: LogicalPort, timeout_s: float) -> Done:
        with _Database(self._settings) as database:
            row = database.named(_PORTS, wanted.name)
            if row is None:
                raise Problem(
                    "logical-port-unknown",
                    f"OVN has no logical port {wanted.name}",
                    "Look with: ovn-nbctl show",
                    exit=Exit.REFUSED,
                )
            if _port(row) == wanted:
                return Done(changed=False)
            database.commit(lambda _: _apply(row, wanted), time.monotonic() + timeout_s)
            return Done(detail=wanted.requested_chassis or "")


_PORTS = "Logical_Switch_Port"


class _Database(Replica):
    schema = "OVN_Northbound"
    columns = {_PORTS: {"name": "string", "options": WORDS}}  # noqa: RUF012 - as its base has it

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


def _port(row: Any) -> LogicalPort:
    options = row.options
    return LogicalPort(
        name=row.name, requested_chassis=options.get(REQUESTED), activation_strategy=options.get(ACTIVATION)
    )


def _apply(row: Any, wanted: LogicalPort) -> None:
    for key, value in ((REQUESTED, wanted.requested_chassis), (ACTIVATION, wanted.activation_strategy)):
        if value is None:
            row.delkey("options", key)
        else:
            row.setkey("options", key, value)
