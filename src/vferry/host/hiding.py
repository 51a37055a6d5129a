"""A VF that has a guest's macvtap takes what is for the guest from the guest's resume on, and not from before the copy.

libvirt gives the VF's interface the guest's MAC as it makes the macvtap, and brings the macvtap up just before the
guest goes on: what is between is seen by the kernel's word of it (docs/decisions/0026).
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from vferry.host.api import Done
from vferry.host.forwarding import parked
from vferry.host.sriov import IFF_UP, vf_interface, vf_of
from vferry.host.sriov_netlink import Links, set_address
from vferry.host.sriov_settings import apply_settings, read_settings
from vferry.host.sysfs import read_file
from vferry.model.host import VfSettings
from vferry.model.problem import Problem

RTMGRP_LINK = 1
LOOK_S = 1.0
"""How often is looked without a word of the kernel's, which may be lost where much changes at once."""

log = logging.getLogger("vferry.agent")


class Changes:
    """The changes of this host's interfaces, as they happen."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))
        self._socket.settimeout(LOOK_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def wait(self) -> None:
        """Until one of them has changed, or may have."""
        with contextlib.suppress(OSError):
            self._socket.recv(1)


class Hiding:
    """The VFs whose MACs wait for their guests: in memory, and after a restart known by what they have meanwhile."""

    def __init__(
        self,
        root: Path = Path("/"),
        links: Callable[[], Links] = Links,
        changes: Callable[[], Changes] = Changes,
    ) -> None:
        self._root = root
        self._links = links
        self._changes = changes
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], str] = {}
        """MACs, by PF and VF."""

    def hide(self, pf: str, index: int, mac: str) -> Done:
        """Has a thread see to it that a VF has a guest's MAC only once the macvtap on its interface is up."""
        vf, mac = (pf, index), mac.lower()
        with self._lock:
            if self._waiting.get(vf) == mac:
                return Done(changed=False)
            changes = self._changes()
            self._waiting[vf] = mac
        threading.Thread(target=self._follow, args=(vf, mac, changes), name=f"hide-{mac}", daemon=True).start()
        return Done()

    def take_up(self, nics: Iterable[tuple[str, str]]) -> None:
        """Goes on with what an agent before this one has begun. `nics`: the guests' interfaces here and their MACs."""
        with self._links() as links:
            for interface, mac in nics:
                vf = vf_of(self._root, interface)
                if vf is not None and self._filtered(links, vf) == parked(mac.lower()):
                    self.hide(*vf, mac)

    def forget(self, pf: str, index: int) -> None:
        """Leaves a VF as it is from now on."""
        with self._lock:
            self._waiting.pop((pf, index), None)

    def show(self, pf: str, index: int, mac: str) -> Done:
        """Gives a VF its guest's MAC back now, where it was taken away. Problem ``vf-setting-refused``."""
        with self._lock, self._links() as links:
            done = self._give(links, (pf, index), mac.lower())
            self._waiting.pop((pf, index), None)
            return done

    def _follow(self, vf: tuple[str, int], mac: str, changes: Changes) -> None:
        with changes:
            while self._waits(vf, mac):
                changes.wait()

    def _waits(self, vf: tuple[str, int], mac: str) -> bool:
        """Does what is to be done now, and says whether there will be more."""
        with self._lock:
            if self._waiting.get(vf) != mac:
                return False
            up = self._macvtap_up(vf)
            try:
                with self._links() as links:
                    if up:
                        self._give(links, vf, mac)
                    elif up is False:
                        self._take(links, vf, mac)
                over = bool(up)
            except (OSError, Problem) as error:
                log.warning("VF %d of %s, for %s: %s", vf[1], vf[0], mac, error)
                # One that cannot be hidden stays as libvirt has made it; one that is hidden must not stay so.
                over = up is False and isinstance(error, Problem) and error.code == "vf-setting-refused"
            if over:
                del self._waiting[vf]
            return not over

    def _macvtap_up(self, vf: tuple[str, int]) -> bool | None:
        """None before it is made."""
        interface = vf_interface(self._root, *vf)
        above = list((self._root / "sys/class/net" / interface).glob("upper_*")) if interface else []
        return any(int(read_file(each / "flags") or "0", 16) & IFF_UP for each in above) if above else None

    def _take(self, links: Links, vf: tuple[str, int], mac: str) -> None:
        """Not in mode bridge and the like, in which the interface has a MAC of its own.

        By the PF where the interface may not, as libvirt does it then.
        """
        interface, address = self._own(links, vf)
        if (address, self._filtered(links, vf)) != (mac, mac):
            return
        try:
            links.change(set_address(interface, parked(mac)))
        except OSError:
            apply_settings(links, *vf, VfSettings(mac=parked(mac)))

    def _give(self, links: Links, vf: tuple[str, int], mac: str) -> Done:
        """By the interface, as libvirt did; else by the PF, which keeps the VF from another one afterwards."""
        interface, address = self._own(links, vf)
        if address == parked(mac):
            with contextlib.suppress(OSError):
                links.change(set_address(interface, mac))
        elif address != mac:
            return Done(changed=False)
        by_pf = apply_settings(links, *vf, VfSettings(mac=mac))
        return Done(changed=address != mac or by_pf.changed)

    def _filtered(self, links: Links, vf: tuple[str, int]) -> str | None:
        """The MAC that the PF has for a VF."""
        return read_settings(links, links.index(vf[0]), *vf).mac

    def _own(self, links: Links, vf: tuple[str, int]) -> tuple[int, str]:
        """The index of a VF's interface, and its MAC; none where it has no interface."""
        name = vf_interface(self._root, *vf)
        if name is None:
            return 0, ""
        index = links.index(name)
        return index, (links.get(index).get_attr("IFLA_ADDRESS") or "").lower()
