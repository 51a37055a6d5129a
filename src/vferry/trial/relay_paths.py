"""The ways between two virtio NICs that `vferry bench relay` compares: no guest, and no NIC of hardware."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from vferry.host.relay_bridge import PortSpec
from vferry.trial import bouncer, dpdk_switch, kernel_bridge, kernel_switch, relay_rules
from vferry.trial.dpdk_switch import DpdkSwitch
from vferry.trial.ends import VHOST, End, Ends
from vferry.trial.kernel_switch import KernelSwitch
from vferry.trial.namespace import Namespace
from vferry.trial.switch import port

TAPS = ("tap0", "tap1")


class Place(NamedTuple):
    """Where a path is laid: an empty folder, the CPU that forwards, a network namespace."""

    folder: Path
    forwarding: int
    namespace: Namespace


class Way(NamedTuple):
    """A path: what this machine lacks for it, in words, or nothing; and what lays it, and says where NICs go."""

    missing: Callable[[], str]
    laid: Callable[[Place], AbstractContextManager[Ends]]


@contextmanager
def _relay(place: Place, lay: Callable[[DpdkSwitch, list[PortSpec]], None]) -> Iterator[Ends]:
    ends = End(place.folder / "nic0.sock"), End(place.folder / "nic1.sock")
    with DpdkSwitch(place.folder / "switch", place.forwarding, place.namespace) as switch:
        lay(switch, [_by_socket(f"g{at}", end) for at, end in enumerate(ends)])
        yield ends


def _direct(switch: DpdkSwitch, ports: list[PortSpec]) -> None:
    switch.join(ports, learning=False)


def _switched(switch: DpdkSwitch, ports: list[PortSpec]) -> None:
    switch.join(ports, learning=True)


def _by_socket(name: str, end: End) -> PortSpec:
    return port(name, "dpdkvhostuserclient", **{"vhost-server-path": str(end.path)})


@contextmanager
def _openvswitch(place: Place, lay: Callable[[KernelSwitch, list[PortSpec]], None]) -> Iterator[Ends]:
    ends = _taps(place)
    with KernelSwitch(place.folder / "switch", place.namespace) as switch:
        lay(switch, [port(tap) for tap in TAPS])
        yield ends


@contextmanager
def _bridge(place: Place, lay: Callable[[Namespace, Sequence[str]], None]) -> Iterator[Ends]:
    ends = _taps(place)
    lay(place.namespace, TAPS)
    yield ends


def _lan(namespace: Namespace, ports: Sequence[str]) -> None:
    kernel_bridge.bridge(namespace, "lan", ports)


def _taps(place: Place) -> Ends:
    for tap in TAPS:
        place.namespace.ip(f"tuntap add dev {tap} mode tap", f"link set {tap} up")
    return End(VHOST, TAPS[0]), End(VHOST, TAPS[1])


def _no_vhost() -> str:
    return "" if VHOST.exists() else f"there is no {VHOST}: modprobe vhost_net"


def _no_rules() -> str:
    return _no_vhost() or kernel_bridge.missing()


def _no_kernel_switch() -> str:
    return _no_vhost() or kernel_switch.missing()


WAYS = {
    "direct": Way(dpdk_switch.missing, lambda place: _relay(place, _direct)),
    "switched": Way(dpdk_switch.missing, lambda place: _relay(place, _switched)),
    "switched+rules": Way(dpdk_switch.missing, lambda place: _relay(place, relay_rules.lay)),
    "bridge": Way(_no_vhost, lambda place: _bridge(place, _lan)),
    "bridge+rules": Way(_no_rules, lambda place: _bridge(place, kernel_bridge.bridge_with_rules)),
    "openvswitch": Way(_no_kernel_switch, lambda place: _openvswitch(place, KernelSwitch.join)),
    "openvswitch+rules": Way(_no_kernel_switch, lambda place: _openvswitch(place, relay_rules.lay)),
}
"""By name: the direct relay, the switched one, and virtio on vhost-net with a bridge, or an Open vSwitch, of the
kernel; those that learn also as two, with rules and a tunnel."""


def missing(name: str) -> str:
    """What this machine lacks for a path and its traffic, in words; empty if nothing."""
    return bouncer.missing() or WAYS[name].missing()
