"""What this host is to OVN, as its ovn-controller is told by Open vSwitch's database, and says by its own socket."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from vferry.host.openvswitch import DIRECTORY, RefusedError, ask
from vferry.model.ovn import Chassis

CONTROLLER = "run/ovn"
INTEGRATION = "br-int"
"""What its bridge is called, unless `ovn-bridge` says otherwise (ovn-controller(8))."""


def read_chassis(root: Path) -> Chassis | None:
    """None where no `system-id` and `ovn-remote` make it one, or where Open vSwitch does not answer."""
    selects = [
        {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["external_ids"]},
        {"op": "select", "table": "Bridge", "where": [], "columns": ["name", "datapath_type"]},
    ]
    try:
        (switch,), bridges = (
            answer["rows"] for answer in ask(root / DIRECTORY / "db.sock", "transact", ["Open_vSwitch", *selects])
        )
        told: Mapping[str, Any] = dict(switch["external_ids"][1])
        if not (told.get("system-id") and told.get("ovn-remote")):
            return None
        bridge = str(told.get("ovn-bridge", INTEGRATION))
        userspace = any((each["name"], each["datapath_type"]) == (bridge, "netdev") for each in bridges)
    except (OSError, RefusedError, ValueError, LookupError, TypeError):
        return None
    return Chassis(name=str(told["system-id"]), bridge=bridge, userspace=userspace, connected=_connected(root))


def read_zone(root: Path, logical_port: str) -> int | None:
    """In which zone the connections of a logical port are tracked on this host; None where it has none.

    `OSError`, `RefusedError` or `ValueError` where ovn-controller does not say.
    """
    for line in _ask_controller(root, "ct-zone-list").splitlines():
        name, _, number = line.rpartition(" ")
        if name == logical_port:
            return int(number)
    return None


def _connected(root: Path) -> bool:
    try:
        return _ask_controller(root, "connection-status").strip() == "connected"
    except (OSError, RefusedError, ValueError, msgspec.MsgspecError):
        return False


def _ask_controller(root: Path, command: str) -> str:
    directory = root / CONTROLLER
    number = (directory / "ovn-controller.pid").read_text().strip()
    return str(ask(directory / f"ovn-controller.{number}.ctl", command, []))
