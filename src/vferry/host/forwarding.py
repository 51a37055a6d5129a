"""Who receives a MAC's frames behind a NIC: a VF, or the PF and so the bridge. The embedded switch's filters."""

import errno
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from vferry.host.api import Done, MoveFilter
from vferry.host.sriov import forwarding_limit, pf_driver, slaves
from vferry.host.sriov_netlink import Links, set_vf
from vferry.host.sriov_netlink import set_forwarding as forwarding_message
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


def set_forwarding(links: Links, root: Path, pf: str, mac: str, *, present: bool) -> Done:
    """Adds a MAC to the filter of a PF or a bond, or removes it; unchanged when it is so already.

    Problem ``forwarding-refused``.
    """
    interface = links.index(pf)
    mac = mac.lower()
    entries = links.forwarding()
    if (mac in entries.get(interface, ())) == present:
        return Done(changed=False)
    if present:
        _refuse_full(links, root, pf, mac, entries)
    error = _carry_out(links, [_Change(interface=interface, mac=mac, vf=None, present=present)])
    if error:
        raise _refused(pf, mac, error)
    return Done()


def parked(mac: str, *, relay: bool = False) -> str:
    """A MAC that no frame is sent to, for a VF that must not take the guest's back; another one for its `relay`'s.

    With no MAC from the PF, igb lets the VF's driver set one itself, and igbvf asks for the guest's again whenever
    it resets, as it does while it is unplugged: frames would then go to a VF that nobody reads. Seen on igb.
    """
    first, second = ("0a", "0e") if relay else ("02", "06")
    return (second if mac.startswith(first) else first) + mac[2:]


def move_filter(links: Links, root: Path, wanted: MoveFilter) -> Done:
    """Moves a MAC between a VF and its uplink, or another VF, both changes in one packet to the kernel.

    What is so already stays untouched. If one change is refused, the other is taken back. `detail` says how long it
    took. Problems: ``forwarding-refused``, ``vf-unknown``.
    """
    pf, index, mac, to_vf, uplink, other = (
        wanted.pf,
        wanted.index,
        wanted.mac.lower(),
        wanted.to_vf,
        wanted.uplink,
        wanted.other,
    )
    driver = pf_driver(root, pf)
    order = ORDERS.get(driver, DEFAULT_ORDER)
    changes = [*_of_vf(links, pf, index, mac, parked(mac), present=to_vf)]
    if other is not None:
        changes += _of_vf(links, other.pf, other.index, mac, parked(mac, relay=True), present=not to_vf)
    elif uplink is not None:
        changes += _of_uplink(links, root, uplink, mac, present=not to_vf)
    # Whoever lets go has `present` False.
    changes.sort(key=lambda change: change.present == order.release_first)
    if not changes:
        return Done(changed=False)
    started = time.monotonic()
    error = _carry_out(links, changes)
    took_ms = (time.monotonic() - started) * 1000
    if error:
        raise _refused(pf, mac, error)
    seen = "" if order.seen else f"; this order was not measured on {driver or 'this driver'}"
    both = uplink is not None or other is not None
    return Done(detail=f"{len(changes)} of {2 if both else 1} changes, {took_ms:.1f} ms{seen}")


def unpark(links: Links, pf: str, index: int, mac: str) -> Done:
    """Takes the placeholder of `mac` from a VF. Problems: ``forwarding-refused``, ``vf-unknown``."""
    interface = links.index(pf)
    before = read_settings(links, interface, pf, index).mac
    if before != parked(mac.lower()):
        return Done(changed=False)
    error = _carry_out(links, [_Change(interface=interface, mac=NO_MAC, vf=index, present=True, back=before)])
    if error:
        raise _refused(pf, mac, error)
    return Done()


def _of_vf(links: Links, pf: str, index: int, mac: str, instead: str, *, present: bool) -> Iterator["_Change"]:
    interface = links.index(pf)
    before = read_settings(links, interface, pf, index).mac or NO_MAC
    if before != (mac if present else instead):
        yield _Change(interface=interface, mac=mac, vf=index, present=present, instead=instead, back=before)


def _of_uplink(links: Links, root: Path, uplink: str, mac: str, *, present: bool) -> Iterator["_Change"]:
    interface, entries = links.index(uplink), links.forwarding()
    if (mac in entries.get(interface, ())) == present:
        return
    if present:
        _refuse_full(links, root, uplink, mac, entries)
    yield _Change(interface=interface, mac=mac, vf=None, present=present)


class _Change(Struct, frozen=True, kw_only=True):
    """A MAC comes to (`present`) or leaves a filter: that of VF number `vf` of an interface, or the interface's own.

    `instead`: what a VF has that it leaves. `back`: the VF's before.
    """

    interface: int
    mac: str
    vf: int | None
    present: bool
    instead: str = NO_MAC
    back: str = NO_MAC

    def message(self) -> Any:
        if self.vf is None:
            return forwarding_message(self.interface, self.mac, present=self.present)
        return set_vf(self.interface, self.vf, "IFLA_VF_MAC", {"mac": self.mac if self.present else self.instead})

    def undoing(self) -> Any:
        if self.vf is None:
            return forwarding_message(self.interface, self.mac, present=not self.present)
        return set_vf(self.interface, self.vf, "IFLA_VF_MAC", {"mac": self.back})

    def failed(self, error: int) -> bool:
        """Whether an errno means more than that it was so already."""
        so_already = errno.EEXIST if self.present else errno.ENOENT
        return error != 0 and not (self.vf is None and error == so_already)


def _refuse_full(links: Links, root: Path, interface: str, mac: str, entries: Mapping[int, tuple[str, ...]]) -> None:
    """A bond takes any number of MACs, and a NIC of it that is full passes none more, or all: so they are counted."""
    for name in slaves(root, interface):
        limit = forwarding_limit(root, name)
        held = {*entries.get(links.index(name), ()), *entries.get(links.index(interface), ())}
        if limit is not None and len(held) >= limit:
            raise _refused(name, mac, _name(errno.ENOSPC))


def _carry_out(links: Links, changes: list[_Change]) -> str:
    """Makes all the changes, or none: then it says why."""
    errors = links.change_together(*(change.message() for change in changes))
    outcome = list(zip(changes, errors, strict=True))
    failed = [error for change, error in outcome if change.failed(error)]
    if not failed:
        return ""
    back = [change.undoing() for change, error in reversed(outcome) if error == 0]
    stuck = [error for error in links.change_together(*back) if error] if back else []
    also = f"; taking back the other change failed too ({_name(stuck[0])})" if stuck else ""
    return _name(failed[0]) + also


def _name(error: int) -> str:
    full = error in (errno.ENOMEM, errno.ENOSPC)
    return "its filter is full" if full else os.strerror(error)


def _refused(pf: str, mac: str, why: str) -> Problem:
    return Problem(
        "forwarding-refused",
        f"{pf} did not take the change for {mac}: {why}",
        f"Look with: bridge fdb show dev {pf} | grep self; ip link show dev {pf}",
        exit=Exit.REFUSED,
        pf=pf,
        mac=mac,
    )
