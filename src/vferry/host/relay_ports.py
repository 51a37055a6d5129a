"""Guests' NICs on a relay: each joined to its VF or its bridge, and kept, so that it is so again after a restart."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from vferry.host.api import BindVf, Done, JoinRelay, LeaveRelay
from vferry.host.durable import write_durably
from vferry.host.qemu_user import qemu_user
from vferry.host.relay_guest_port import set_port
from vferry.host.relay_names import guest_name
from vferry.host.relay_store import read_kept
from vferry.host.sriov import vf_driver
from vferry.host.sysfs import Write, read_file, write_attribute
from vferry.host.vf_driver import bind_vf
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.problem import Exit, Problem
from vferry.model.relay import SOCKETS, Relay, RelayPort, RelayState, RelayVf

FILE = "relay-ports.json"
DEVICES = "sys/bus/pci/devices"
BOOT = "proc/sys/kernel/random/boot_id"
_RELEASE = "vferry relay release HOST"


class _Kept(msgspec.Struct, frozen=True, kw_only=True, tag="join-relay"):
    """A port as it is kept: a `JoinRelay`, and the host's boot in which its VF was given what it is to have.

    Of one that an older agent has kept, nobody knows in which.
    """

    port: RelayPort
    settings: VfSettings = VfSettings()
    boot: str = ""

    @property
    def joined(self) -> JoinRelay:
        """What it is kept of."""
        return JoinRelay(port=self.port, settings=self.settings)


class RelayPorts:
    """The ports of one host, durably. They are changed in the name of migrations, and the relay itself is not."""

    def __init__(
        self, directory: Path, relay: Callable[[], Relay | None], root: Path = Path("/"), write: Write = write_attribute
    ) -> None:
        self._path = directory / FILE
        self._relay = relay
        self._root = root
        self._write = write
        self._lock = threading.RLock()

    def all(self) -> tuple[JoinRelay, ...]:
        """What is joined, or was begun to be. Problem ``relay-unreadable``."""
        return tuple(each.joined for each in self._kept())

    def users(self) -> dict[str, str]:
        """The guests that have VFs by it, by the VFs' PCI addresses."""
        ports = (each.port for each in self.all())
        return {port.vf.address: port.guest for port in ports if port.vf is not None}

    def by_socket(self) -> dict[str, RelayPort]:
        """The ports, by the sockets of the NICs."""
        return {each.port.socket: each.port for each in self.all()}

    def on_switch(self, guest: str, mac: str) -> str | None:
        """The name of a guest's port on a switched relay; None where it has none there."""
        try:
            there = self._find(mac.lower())
        except Problem:
            return None  # whoever announces a guest does so all the same
        found = there is not None and there.port.guest == guest and there.port.switch is not None
        return guest_name(mac.lower()) if found else None

    def if_unused(self, work: Callable[[], Done]) -> Done:
        """Does something that ends the relay. Problem ``relay-in-use`` where a guest is on it."""
        with self._lock:
            for each in self.all():
                raise Problem(
                    "relay-in-use",
                    f"{each.port.mac} of guest {each.port.guest} is on the relay",
                    "Move the guest to another host, or take its NIC off: vferry guest nic; "
                    f"where no guest has it any more: {_RELEASE} {each.port.mac}",
                    exit=Exit.REFUSED,
                )
            return work()

    def if_joined(self, joined: JoinRelay, work: Callable[[], Done]) -> Done:
        """Does something for a port that may have been taken off, or joined otherwise, since it was seen."""
        with self._lock:
            return work() if joined in self.all() else Done(changed=False)

    def once_a_boot(self, joined: JoinRelay, work: Callable[[], Done]) -> Done:
        """Does, as `if_joined`, what gives a port's VF its settings back, unless it has got them since the host's boot.

        In the middle of a move it has not all of them, and is to have no more. One that is not with the relay's driver
        was made anew since.
        """
        with self._lock:
            kept = next((each for each in self._kept() if each.joined == joined), None)
            if kept is None or self._set_since_boot(kept):
                return Done(changed=False)
            done = work()
            self._keep(joined, instead_of=joined)
            return done

    def keep_mac(self, pf: str, index: int, mac: str) -> None:
        """Has a guest's VF have at the next boot what MAC it has been given, or none: its guest may be elsewhere."""
        with self._lock:
            for each in self._kept():
                vf, settings = each.port.vf, each.settings
                if vf is not None and (vf.pf, vf.index) == (pf, index):
                    own = msgspec.structs.replace(settings, mac=None if mac == NO_MAC else mac)
                    self._write_down(msgspec.structs.replace(each, settings=own), instead_of=each.port)

    def join(self, wanted: JoinRelay) -> Done:
        """Carries `JoinRelay` out: kept first, so that whoever comes after a crash can take it back."""
        port = wanted.port
        with self._lock:
            there = self._find(port.mac)
            if there is not None and _place(there.port) != _place(port):
                raise _joined(there.port)
            self._check_relay(port)
            if there is not None and there.port.vf is not None:  # the driver that it had is what was seen first
                wanted = _with_driver(wanted, there.port.vf.driver)
            if wanted != there:
                self._keep(wanted, instead_of=there)
            self._make_directory(Path(port.socket).parent)
            changed = port.vf is not None and self._bind(port.vf, port.vf.bound)
            return Done(changed=set_port(self._root, port, present=True).changed or changed, detail=_place(port)[1])

    def whole(self, guest: str, mac: str) -> RelayPort:
        """A guest's port, made whole if it is not. Problems: as of `JoinRelay`, ``relay-not-joined``."""
        with self._lock:
            there = self._of(guest, mac)
            self.join(there)
            return there.port

    def of(self, guest: str, mac: str) -> RelayPort:
        """A guest's port, as it was joined. Problem ``relay-not-joined``."""
        return self._of(guest, mac).port

    def _of(self, guest: str, mac: str) -> JoinRelay:
        there = self._find(mac)
        if there is None or there.port.guest != guest:
            raise Problem(
                "relay-not-joined",
                f"The relay of this host has no port for {mac} of guest {guest}",
                "Look with: vferry relay show HOST",
                exit=Exit.REFUSED,
            )
        return there

    def leave(self, wanted: LeaveRelay) -> Done:
        """Carries `LeaveRelay` out; forgotten last."""
        with self._lock:
            there = self._find(wanted.mac)
            if there is None:
                return Done(changed=False)
            if there.port.guest != wanted.guest:
                raise _joined(there.port)
            vf = there.port.vf
            set_port(self._root, there.port, present=False)
            if vf is not None and (self._root / DEVICES / vf.address).exists():  # else the PF has fewer VFs by now
                self._bind(vf, vf.driver)
            self._keep(None, instead_of=there)
            return Done(detail=_place(there.port)[1])

    def _kept(self) -> tuple[_Kept, ...]:
        remedy = "Take off by hand the guests that it names, then remove the file"
        return tuple(read_kept(self._path, list[_Kept], "the relay's guests", remedy) or ())

    def _set_since_boot(self, kept: _Kept) -> bool:
        vf = kept.port.vf
        with_driver = vf is not None and vf_driver(self._root, vf.address) == vf.bound
        return with_driver and kept.boot != "" and kept.boot == self._boot()

    def _boot(self) -> str:
        return read_file(self._root / BOOT)

    def _find(self, mac: str) -> JoinRelay | None:
        return next((each for each in self.all() if each.port.mac == mac), None)

    def _bind(self, vf: RelayVf, driver: str | None) -> bool:
        return bind_vf(self._root, BindVf(address=vf.address, driver=driver), self._write).changed

    def _check_relay(self, port: RelayPort) -> None:
        """Whether there is a relay of the kind that the port is for."""
        relay = self._relay()
        if relay is None or relay.state is not RelayState.ENABLED or not _fits(relay, port):
            what = "direct relay" if port.switch is None else f"relay with a bridge {port.switch.bridge}"
            raise Problem(
                "relay-missing",
                f"This host has no {what}",
                f"Make one: vferry relay enable HOST --uplink PF{'' if port.switch is None else ' --switched'}",
                exit=Exit.REFUSED,
            )

    def _make_directory(self, path: Path) -> None:
        """That of its own sockets, which is gone after a restart of the host; QEMU makes them there."""
        if str(path) != SOCKETS:
            return
        directory = self._root / SOCKETS.lstrip("/")
        directory.mkdir(mode=0o755, exist_ok=True)
        user = qemu_user(self._root)
        if user is not None:
            os.chown(directory, user, -1)

    def _keep(self, wanted: JoinRelay | None, instead_of: JoinRelay | None) -> None:
        new = _Kept(port=wanted.port, settings=wanted.settings, boot=self._boot()) if wanted else None
        self._write_down(new, instead_of.port if instead_of else None)

    def _write_down(self, new: _Kept | None, instead_of: RelayPort | None) -> None:
        kept = [each for each in self._kept() if instead_of is None or each.port.mac != instead_of.mac]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self._path, msgspec.json.encode([*kept, *((new,) if new else ())]))


def _with_driver(wanted: JoinRelay, driver: str | None) -> JoinRelay:
    replace, vf = msgspec.structs.replace, wanted.port.vf
    return wanted if vf is None else replace(wanted, port=replace(wanted.port, vf=replace(vf, driver=driver)))


def _fits(relay: Relay, port: RelayPort) -> bool:
    if relay.switched:
        place = port.switch if port.vf is None else None
        return place is not None and (place.logical_port is not None or relay.bridge(place.bridge) is not None)
    return port.vf is not None and port.switch is None


def _place(port: RelayPort) -> tuple[str, str]:
    """What may not change under a port: whose it is, and its VF or its bridge."""
    if port.vf is not None:
        return port.guest, port.vf.address
    return port.guest, port.switch.bridge if port.switch is not None else ""


def _joined(port: RelayPort) -> Problem:
    return Problem(
        "relay-joined",
        f"{port.mac} of guest {port.guest} is on this host's relay already, with {port.joined_to}",
        f"Look with: vferry relay show HOST; where no guest there has it any more: {_RELEASE} {port.mac}",
        exit=Exit.REFUSED,
        guest=port.guest,
    )
