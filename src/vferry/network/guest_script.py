"""What is run inside a guest to make it choose a NIC: POSIX shell, safe to repeat, for any Linux with iproute2.

The scripts are in `guest/`, composed here. Each works on the two NICs that have one MAC, which it finds by itself.
"""

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from vferry.host.api import RunInGuest

Script = Callable[[str], str]
"""Makes a script for the NICs of a MAC. ValueError if it is none."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


_BUSY_GUEST_S = 150.0
"""A guest that is late has its network meanwhile; one that is given up goes on without its VF."""


def run(guest: str, script: str) -> RunInGuest:
    """Runs one of these scripts, with the time that a guest may need whose CPU is busy with packets."""
    return RunInGuest(guest=guest, script=script, timeout_s=_BUSY_GUEST_S)


def addresses_to_standby(mac: str) -> str:
    """Moves addresses and routes from the VF to the standby NIC; the VF goes on receiving."""
    return _compose(mac, "name", "move", "addresses-to-standby")


def addresses_to_vf(mac: str) -> str:
    """Brings a newly plugged VF up, gives it addresses, MAC and routes; the standby NIC goes on receiving."""
    return _compose(mac, "name", "move", "addresses-to-vf")


def bond_to_standby(mac: str) -> str:
    """Makes the standby NIC the active slave of the guest's bond, which still receives on both; enslaves a new one."""
    return _compose(mac, "name", "bond", "bond-to-standby")


def settle_bond(mac: str) -> str:
    """Takes back what `bond_to_standby` did to the bond's patience, where that keeps the standby NIC."""
    return _compose(mac, "bond", "bond-settle")


def bond_to_vf(mac: str) -> str:
    """Enslaves a newly plugged VF, unless the guest has done so, and makes it the active slave."""
    return _compose(mac, "name", "bond", "bond-to-vf")


def make_bond(mac: str) -> str:
    """Makes a bond over the standby NIC, and moves addresses and routes from the VF to it; the VF goes on receiving."""
    return _compose(mac, "name", "move", "bond", "make-bond")


def dissolve_bond(mac: str) -> str:
    """Gives the VF the addresses and routes of the bond that `make_bond` has made, and deletes that."""
    return _compose(mac, "move", "bond", "dissolve-bond")


def failover_to_vf(mac: str) -> str:
    """Waits until net_failover has a newly plugged VF that can send, and takes `pair_to_standby` back."""
    return _compose(mac, "pair", "failover-to-vf")


def pair_to_standby(mac: str) -> str:
    """Has a net_failover pair with a VF send by its virtio NIC and receive on both, where the guest has tc."""
    return _compose(mac, "pair", "pair-to-standby")


def settle_pair(mac: str) -> str:
    """Takes back what `pair_to_standby` did."""
    return _compose(mac, "pair", "pair-settle")


def quiet(mac: str) -> str:
    """Keeps what would fight a second NIC of this MAC quiet: strict rp_filter, NetworkManager, systemd-networkd."""
    return _compose(mac, "plugged", "hand-back", "own-vf", "quiet")


def quiet_on_standby(mac: str) -> str:
    """As `quiet`, for a guest that has the virtio NIC, and is to be given a VF."""
    return _compose(mac, "plugged", "hand-back", "own-standby", "quiet")


def settle(mac: str) -> str:
    """Takes back what `quiet` did, once there is one NIC of this MAC again, the VF."""
    return _compose(mac, "plugged", "hand-back", "own-vf", "settle")


def settle_on_standby(mac: str) -> str:
    """Takes back what `quiet` did, once there is one NIC of this MAC again, the virtio NIC."""
    return _compose(mac, "plugged", "hand-back", "own-standby", "settle")


def save_addresses(mac: str) -> str:
    """Writes the VF's addresses and routes down in the guest's /run, before the VF is taken away."""
    return _compose(mac, "name", "save")


def restore_addresses(mac: str) -> str:
    """Gives a newly plugged VF the addresses and routes that `save_addresses` wrote down."""
    return _compose(mac, "plugged", "hand-back", "name", "restore")


def _compose(mac: str, *parts: str) -> str:
    if not _MAC.fullmatch(mac):
        raise ValueError(f"not a MAC: {mac!r}")
    plain = mac.replace(":", "")
    # An interface's name has 15 characters at most.
    variables = f"set -eu\nmac={mac} key=vferry-{plain} temporary=vb{plain}\n"
    return variables + "".join(_read(part) for part in ("find", *parts))


@cache
def _read(part: str) -> str:
    text = (files("vferry.network") / "guest" / f"{part}.sh").read_text()
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
