"""Who receives a MAC's frames behind a NIC: a VF, or the PF and so the bridge. The embedded switch's filters."""

import errno
import time
from pathlib import Path

from msgspec import Struct

from vferry.host.api import Done
from vferry.host.sriov import pf_driver
from vferry.host.sriov_netlink import Links, NetlinkError
from vferry.host.sriov_settings import read_settings
from vferry.model.host import NO_MAC
from vferry.model.problem import Exit, Problem


class Order(Struct, frozen=True, kw_only=True):
    """In which order a driver's filters are changed when a MAC moves between a VF and its PF.

    `release_first`: the side that has the MAC lets go before the other takes it. `seen` says whether it was
    measured on this driver, or is only what should hold for it.
    """

    release_first: bool = True
    seen: bool = False


DEFAULT_ORDER = Order()
ORDERS: dict[str, Order] = {
    # Two owners of a MAC make igb deliver to the VF alone, so letting go first costs nothing. Nothing was lost.
    "igb": Order(release_first=True, seen=True),
}
"""By the PF's driver. i40e, ice, ixgbe, mlx5_core and bnxt_en: not seen, `DEFAULT_ORDER`.

i40e resets a running VF when the PF sets its MAC: there the VF must not be in use when its MAC is set.
"""


def set_forwarding(links: Links, pf: str, mac: str, *, present: bool) -> Done:
    """Adds a MAC to a PF's filter or removes it; unchanged when it is so already. Problem ``forwarding-refused``."""
    interface = links.index(pf)
    mac = mac.lower()
    if (mac in links.forwarding().get(interface, ())) == present:
        return Done(changed=False)
    try:
        _set(links, interface, mac, present=present)
    except NetlinkError as error:
        raise _refused(pf, mac, error) from error
    return Done()


def move_filter(links: Links, root: Path, pf: str, index: int, mac: str, *, to_vf: bool) -> Done:
    """Moves a MAC between a VF and its PF, both changes back to back; `detail` says how long lay between them.

    What is so already stays untouched. If the second change fails, the first is taken back.
    Problems: ``forwarding-refused``, ``vf-unknown``.
    """
    mac = mac.lower()
    interface = links.index(pf)
    vf_has = read_settings(links, interface, pf, index).mac
    pf_has = mac in links.forwarding().get(interface, ())
    driver = pf_driver(root, pf)
    order = ORDERS.get(driver, DEFAULT_ORDER)
    wanted_vf = mac if to_vf else NO_MAC
    changes = [
        _Change(vf=True, mac=wanted_vf, back=vf_has or NO_MAC, needed=vf_has != wanted_vf),
        _Change(vf=False, mac=mac, present=not to_vf, needed=pf_has == to_vf),
    ]
    # The VF's change comes first when it is the one that lets go.
    if to_vf == order.release_first:
        changes.reverse()
    changes = [change for change in changes if change.needed]
    if not changes:
        return Done(changed=False)
    between = _carry_out(links, interface, pf, index, changes)
    seen = "" if order.seen else f"; this order was not measured on {driver or 'this driver'}"
    return Done(detail=(f"{between * 1000:.1f} ms between the two" if len(changes) > 1 else "one half was done") + seen)


class _Change(Struct, frozen=True, kw_only=True):
    """A change of the VF's MAC (`mac`, before it `back`), or of the PF's entry (`present`)."""

    vf: bool
    mac: str
    needed: bool
    back: str = NO_MAC
    present: bool = False


def _carry_out(links: Links, interface: int, pf: str, index: int, changes: list[_Change]) -> float:
    done: list[tuple[_Change, float]] = []
    for change in changes:
        try:
            _make(links, interface, index, change)
        except NetlinkError as error:
            raise _refused(pf, change.mac, error, _take_back(links, interface, index, done)) from error
        done.append((change, time.monotonic()))
    return done[-1][1] - done[0][1]


def _make(links: Links, interface: int, index: int, change: _Change) -> None:
    if change.vf:
        links.set_vf(interface, {"vf": index, "mac": change.mac})
    else:
        _set(links, interface, change.mac, present=change.present)


def _take_back(links: Links, interface: int, index: int, done: list[tuple[_Change, float]]) -> str:
    """Takes the changes made so far back, and says so when it cannot."""
    for change, _at in reversed(done):
        try:
            if change.vf:
                links.set_vf(interface, {"vf": index, "mac": change.back})
            else:
                _set(links, interface, change.mac, present=not change.present)
        except NetlinkError as error:
            return f"; taking back what was done before it failed too ({_name(error)})"
    return ""


def _set(links: Links, interface: int, mac: str, *, present: bool) -> None:
    try:
        (links.add_forwarding if present else links.delete_forwarding)(interface, mac)
    except NetlinkError as error:
        if error.code != (errno.EEXIST if present else errno.ENOENT):
            raise


def _name(error: NetlinkError) -> str:
    full = error.code in (errno.ENOMEM, errno.ENOSPC)
    return "its filter is full" if full else errno.errorcode.get(error.code, str(error.code))


def _refused(pf: str, mac: str, error: NetlinkError, also: str = "") -> Problem:
    return Problem(
        "forwarding-refused",
        f"{pf} did not take the change for {mac}: {_name(error)}{also}",
        f"Look with: bridge fdb show dev {pf} | grep self; ip link show dev {pf}",
        exit=Exit.REFUSED,
        pf=pf,
        mac=mac,
    )
