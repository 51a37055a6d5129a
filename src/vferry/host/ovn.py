"""What this host is to OVN, as its ovn-controller is told by Open vSwitch's database, and says by its own socket."""

from collections.abc import Mapping, Set
from pathlib import Path

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
        told: Mapping[str, str] = dict(switch["external_ids"][1])
        userspace = {each["name"] for each in bridges if each["datapath_type"] == "netdev"}
    except (OSError, RefusedError, ValueError, LookupError, TypeError):
        return None
    if not (told.get("system-id") and told.get("ovn-remote")):
        return None
    return _chassis(told, userspace, connected=_connected(root))


def read_zone(root: Path, logical_port: str) -> int | None:
    """In which zone the connections of a logical port are tracked on this host; None where it has none.

    `OSError`, `RefusedError` or `ValueError` where ovn-controller does not say.
    """
    for line in _ask_controller(root, "ct-zone-list").splitlines():
        name, _, number = line.rpartition(" ")
        if name == logical_port:
            return int(number)
    return None


def _chassis(told: Mapping[str, str], userspace: Set[str], *, connected: bool) -> Chassis:
    """`userspace`: the bridges that are there in user space, which alone it can join to one another."""
    name = told["system-id"]

    def own(key: str, default: str = "") -> str:
        """A key that ends with the chassis' name counts before the one for all of the host's (ovn-controller(8))."""
        return told.get(f"{key}-{name}", told.get(key, default))

    bridge = own("ovn-bridge", INTEGRATION)
    mappings = (each.partition(":") for each in own("ovn-bridge-mappings").split(","))
    return Chassis(
        name=name,
        bridge=bridge,
        userspace=bridge in userspace,
        connected=connected,
        networks=tuple(network for network, _, to in mappings if to in userspace),
        encap_types=tuple(filter(None, own("ovn-encap-type").split(","))),
    )


def _connected(root: Path) -> bool:
    try:
        return _ask_controller(root, "connection-status").strip() == "connected"
    except (OSError, RefusedError, ValueError, msgspec.MsgspecError):
        return False


def _ask_controller(root: Path, command: str) -> str:
    directory = root / CONTROLLER
    number = (directory / "ovn-controller.pid").read_text().strip()
    return str(ask(directory / f"ovn-controller.{number}.ctl", command, []))
