"""The relay's part of Open vSwitch as a whole: its settings, and the bridges of uplinks and of joined NICs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vferry.host.api import Done, SetRelayBridge, SetSwitch
from vferry.host.ovsdb import Database
from vferry.host.relay_bridge import BridgeSpec, PortSpec, set_spec
from vferry.host.relay_names import bridge_name, by_socket, guest_name, uplink_name
from vferry.model.problem import Exit, Problem
from vferry.model.relay import RelayPort, RelayVf
from vferry.model.switch import LOG, RESTART

MOST_QUEUES = 16
"""Of an uplink; each keeps 2,048 frames' room of the memory that all share."""
START_TIMEOUT_S = 60.0
"""DPDK clears all of its memory when it starts."""


def set_switch(root: Path, wanted: SetSwitch) -> Done:
    """Carries `SetSwitch` out."""
    with Database(root) as database:
        there = database.switch.other_config
        changes = {
            key: value
            for key, value in wanted.settings.items()
            if there.get(key) != value and (key not in wanted.instead_of or there.get(key) == wanted.instead_of[key])
        }
        if changes:
            database.change(lambda _: _configure(database.switch, changes), START_TIMEOUT_S)
            _check_settings(database, changes)
        if wanted.start and not database.wait(lambda: bool(database.switch.dpdk_initialized)):
            raise without_dpdk()
        return Done(changed=bool(changes), detail=", ".join(sorted(changes)))


def without_dpdk() -> Problem:
    """Problem ``dpdk-not-started``."""
    return Problem(
        "dpdk-not-started",
        "DPDK does not start in Open vSwitch",
        f"Look why: grep -i dpdk {LOG}. It tries once only: then {RESTART}",
        exit=Exit.REFUSED,
    )


def set_bridge(root: Path, wanted: SetRelayBridge) -> Done:
    """Carries `SetRelayBridge` out."""
    bridge = wanted.bridge
    uplinks = {up.name: ("dpdk", {"dpdk-devargs": up.address}) for up in bridge.uplinks}
    name = bridge.uplinks[0].name if len(uplinks) == 1 else f"{bridge.name}-up"
    ports = (PortSpec(name=name, interfaces=uplinks, queues=MOST_QUEUES),)
    return set_spec(root, BridgeSpec(name=bridge.name, ports=ports, mtu=bridge.mtu), present=wanted.present)


def set_joined(root: Path, port: RelayPort, vf: RelayVf, *, present: bool) -> Done:
    """Joins a guest's NIC to its VF by a bridge of their own that does not learn, or takes that back."""
    up, guest = uplink_name(port), guest_name(port.mac)
    ports = (
        PortSpec(name=up, interfaces={up: ("dpdk", {"dpdk-devargs": vf.address})}, queues=port.queues),
        PortSpec(name=guest, interfaces={guest: by_socket(port)}),
    )
    spec = BridgeSpec(name=bridge_name(port), ports=ports, mtu=port.mtu, joins=True)
    return set_spec(root, spec, present=present)


def _configure(switch: Any, changes: Mapping[str, str | None]) -> None:
    for key, value in changes.items():
        if value is None:
            switch.delkey("other_config", key)
        else:
            switch.setkey("other_config", key, value)


def _check_settings(database: Database, changes: Mapping[str, str | None]) -> None:
    there = database.switch.other_config
    for key, value in changes.items():
        if there.get(key) != value:
            raise Problem(
                "switch-refused",
                f"Open vSwitch has {key} {there.get(key)!r} after it was set to {value!r}",
                "Somebody else changes it: look with ovs-vsctl list Open_vSwitch",
                exit=Exit.REFUSED,
            )
