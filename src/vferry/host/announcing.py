"""Telling the network where a guest's NIC is: the bridge of this host by an entry, the switches outside by frames."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from vferry.host.announcement import of_address, rarp
from vferry.host.api import Announce, Done
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.sriov_netlink import Links, learn
from vferry.model.problem import Exit, Problem

TIMES_S = (0.0, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0)
"""When, since the first time, RARP frames are sent: what was lost, or undone by a late frame, is said again."""

ADDRESSED_S = (0.0, 2.0, 5.0)
"""When addresses are announced as well: not as often, nor as close, as RFC 4861 (3 times) and RFC 5227 (2 s) forbid."""


_latest: dict[str, Announce] = {}
"""By MAC, the announcement that is under way: a late frame of an earlier one would send switches back."""


class Wire(Protocol):
    """Takes whole Ethernet frames."""

    def send(self, frame: bytes, /) -> int: ...

    def close(self) -> None: ...


def open_wire(interface: str) -> Wire:
    """An interface's way out; a bridge above it sees nothing of it."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        wire.bind((interface, 0))
    except OSError:
        wire.close()
        raise
    return wire


def teach_bridge(links: Links, root: Path, port: str | None, mac: str, *, hold: bool = False) -> Done:
    """Unchanged where `port` is no port of a bridge. Problem ``bridge-refused``."""
    if port is None:
        return Done(changed=False)
    if not (root / "sys/class/net" / port / "brport").exists():
        return OpenVSwitch(root).teach(port, mac, hold=hold)
    try:
        links.change(learn(links.index(port), mac, hold=hold))
    except OSError as error:
        raise Problem(
            "bridge-refused",
            f"The bridge does not take {mac} for {port}: {os.strerror(error.errno or 0)}",
            f"Look with: bridge fdb show dev {port}",
            exit=Exit.REFUSED,
            mac=mac,
        ) from error
    return Done(detail=f"{mac} is behind {port}")


def announce(wanted: Announce, wire: Callable[[], Wire], sleep: Callable[[float], None] = time.sleep) -> Done:
    """Announces a NIC now, and over the next seconds again from a thread. Problem ``announce-failed``."""
    _latest[wanted.mac] = wanted
    try:
        opened = _first(wire, wanted)
    except OSError as error:
        raise _failed(wanted, error) from error
    threading.Thread(target=_repeat, args=(opened, wanted, sleep), name=f"announce-{wanted.mac}", daemon=True).start()
    return Done(detail=f"{len(TIMES_S)} times in {TIMES_S[-1]:g} s from {_origin(wanted)}")


def frames(wanted: Announce, at_s: float) -> tuple[bytes, ...]:
    """What is sent at one of `TIMES_S`."""
    addresses = wanted.addresses if at_s in ADDRESSED_S else ()
    announced = (of_address(wanted.mac, each, wanted.vlan, router=wanted.router) for each in addresses)
    return (rarp(wanted.mac, wanted.vlan), *announced)


def _first(wire: Callable[[], Wire], wanted: Announce) -> Wire:
    opened = wire()
    try:
        _say(opened, frames(wanted, TIMES_S[0]))
    except OSError:
        opened.close()
        raise
    return opened


def _repeat(wire: Wire, wanted: Announce, sleep: Callable[[float], None]) -> None:
    try:
        for before, at_s in pairwise(TIMES_S):
            sleep(at_s - before)
            if _latest.get(wanted.mac) is not wanted:
                return
            _say(wire, frames(wanted, at_s))
    except OSError:
        return  # the interface is gone: nobody is left to be told
    finally:
        wire.close()


def _say(wire: Wire, said: Iterable[bytes]) -> None:
    for frame in said:
        wire.send(frame)


def _origin(wanted: Announce) -> str:
    return wanted.interface or "its own port"


def _failed(wanted: Announce, error: OSError) -> Problem:
    return Problem(
        "announce-failed",
        f"{wanted.mac} was not announced from {_origin(wanted)}: {os.strerror(error.errno) if error.errno else error}",
        f"Look with: ip link show {wanted.interface}" if wanted.interface else "Look with: ovs-vsctl show",
        exit=Exit.REFUSED,
        mac=wanted.mac,
    )
