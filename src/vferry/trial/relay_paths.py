"""The ways between two virtio NICs that `vferry bench relay` compares: no guest, and no NIC of hardware."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from vferry.trial import bouncer, dpdk_switch
from vferry.trial.bouncer import Bouncer
from vferry.trial.dpdk_switch import DpdkSwitch
from vferry.trial.namespace import Namespace

VHOST = Path("/dev/vhost-net")
BRIDGE, TAPS = "lan", ("tap0", "tap1")


class Place(NamedTuple):
    """Where a path is laid: an empty folder, the CPU of the traffic, the one that forwards, a network namespace."""

    folder: Path
    traffic: int
    forwarding: int
    namespace: Namespace


class Way(NamedTuple):
    """A path: what this machine lacks for it, in words, or nothing; and what lays it, with the traffic on it."""

    missing: Callable[[], str]
    laid: Callable[[Place], AbstractContextManager[Bouncer]]


@contextmanager
def _relay(place: Place, *, learning: bool) -> Iterator[Bouncer]:
    inside = place.namespace.inside()
    sockets = [place.folder / f"nic{at}.sock" for at in range(2)]
    with DpdkSwitch(place.folder / "switch", place.forwarding, inside) as switch:
        switch.join(sockets, learning=learning)
        backends = [f"path={socket},server=1" for socket in sockets]
        with Bouncer(place.folder / "traffic", place.traffic, backends, inside) as traffic:
            yield traffic


@contextmanager
def _bridge(place: Place) -> Iterator[Bouncer]:
    backends = [f"path={VHOST},iface={tap}" for tap in TAPS]
    with Bouncer(place.folder / "traffic", place.traffic, backends, place.namespace.inside()) as traffic:
        for line in (
            f"add name {BRIDGE} type bridge",
            f"set {BRIDGE} up",
            *(f"set {tap} master {BRIDGE} up" for tap in TAPS),
        ):
            place.namespace.run(["ip", "link", *line.split()])
        traffic.move_kernel(place.forwarding)
        yield traffic


def _no_vhost() -> str:
    return "" if VHOST.exists() else f"there is no {VHOST}: modprobe vhost_net"


WAYS = {
    "direct": Way(dpdk_switch.missing, lambda place: _relay(place, learning=False)),
    "switched": Way(dpdk_switch.missing, lambda place: _relay(place, learning=True)),
    "bridge": Way(_no_vhost, _bridge),
}
"""By name: the direct relay, the switched one, virtio on vhost-net and a bridge of the kernel."""


def missing(name: str) -> str:
    """What this machine lacks for a path and its traffic, in words; empty if nothing."""
    return bouncer.missing() or WAYS[name].missing()
