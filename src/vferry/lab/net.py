"""The lab's networks: two namespaces with a bridge each, and the hosts' tap devices in them."""

import ctypes
import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from vferry.lab import outer
from vferry.lab.topology import DATA, GUESTS, HOSTS, NETWORKS, VLANS, Host, Network, Standby, Subnet, preferred
from vferry.model.problem import Exit, Problem

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
NAMESPACES = Path("/run/netns")
QUIET = "stp_state 0 forward_delay 0 mcast_snooping 0"


def exists(network: Network) -> bool:
    return (NAMESPACES / network.namespace).exists()


def create(standby: Standby) -> None:
    """Makes what is missing of the namespaces and bridges; nothing of it leads out of the machine."""
    for network in NETWORKS:
        if not exists(network):
            outer.call(["ip", "netns", "add", network.namespace])
            _configure(network, setup(network, standby))
            _quiet(network)


def _configure(network: Network, lines: str) -> None:
    outer.call(["ip", "-n", network.namespace, "-batch", "-"], stdin=lines)


def setup(network: Network, standby: Standby) -> str:
    """Lines for `ip -batch` that set up a namespace; it answers ping at the network's addresses."""
    lines = [
        "link set lo up",
        f"link add name {network.bridge} address {network.mac} type bridge {QUIET}",
        f"link set {network.bridge} up",
    ]
    lines += [f"address add {a} dev {network.bridge}" + " nodad" * (":" in a) for a in network.addresses]
    if network.namespace == DATA:
        lines += [line for vlan in VLANS for line in _vlan(network.bridge, vlan)]
        # The emulated igb gives its PF no multicast frames, and so a guest behind the PF no neighbour solicitation.
        lines += [
            f"neigh replace {link.address6} lladdr {link.mac} dev {link.subnet.device(network.bridge)} nud permanent"
            for guest in GUESTS
            for link in guest.links
        ]
    if network.aggregates(standby):
        lines += [line for host in HOSTS for line in _lag(network, host)]
    return "\n".join(lines) + "\n"


def _lag(network: Network, host: Host) -> list[str]:
    """The bridge that makes one port of a host's taps, and the pair of devices that joins it to the network's.

    It learns nothing: what comes in from the network goes to the taps that `preference` has it flood, and what comes
    in from a tap goes to the network.
    """
    bridge, port = network.lag(host.name), f"{network.bridge}-{host.name}"
    return [
        f"link add name {bridge} type bridge {QUIET}",
        f"link add name {bridge}-up type veth peer name {port}",
        *(f"link set {device} addrgenmode none" for device in (bridge, f"{bridge}-up", port)),
        f"link set {bridge}-up master {bridge}",
        f"link set {bridge}-up type bridge_slave learning off",
        f"link set {port} master {network.bridge}",
        *(f"link set {device} up" for device in (bridge, f"{bridge}-up", port)),
    ]


def _vlan(bridge: str, vlan: int) -> list[str]:
    """The peer's device in a VLAN, and the bridge's port that `vlan` joins it to; the bridge passes tagged frames."""
    subnet = Subnet(vlan, vlan)
    device, port = subnet.device(bridge), vlan_port(bridge, vlan)
    lines = [
        f"tuntap add dev {port} mode tap",
        f"link set {port} master {bridge} up",
        f"tuntap add dev {device} mode tap",
        f"link set {device} address 52:54:00:07:{vlan >> 8:02x}:{vlan & 255:02x} up",
    ]
    return lines + [f"address add {a} dev {device}" + " nodad" * (":" in a) for a in subnet.addresses]


def vlan_port(bridge: str, vlan: int) -> str:
    return f"{bridge}-tag{vlan}"


def _quiet(network: Network) -> None:
    """Keeps the outer machine's own IPv6 off: no router solicitations, no autoconfiguration."""
    script = "for f in all default; do echo 0 > /proc/sys/net/ipv6/conf/$f/accept_ra; done"
    outer.call(["ip", "netns", "exec", network.namespace, "sh", "-c", script])


def plug(network: Network, host: Host, standby: Standby) -> list[int]:
    """Makes the tap devices that lead to a host and returns their descriptors; a device goes when its is closed."""
    descriptors = [_in_namespace(network.namespace, tap) for tap in network.taps(host.name, standby)]
    _configure(network, plugging(network, host, standby))
    return descriptors


def plugging(network: Network, host: Host, standby: Standby) -> str:
    """Lines for `ip -batch` that join a host's taps to the network."""
    taps, aggregates = network.taps(host.name, standby), network.aggregates(standby)
    bridge = network.lag(host.name) if aggregates else network.bridge
    lines = "".join(f"link set {tap} master {bridge}\n" for tap in taps)
    if aggregates:
        lines += preference(network, host, standby, preferred(host, standby)[0])
    return lines + "".join(f"link set {tap} up\n" for tap in taps)


def prefer(network: Network, host: Host, standby: Standby, pf: str) -> None:
    """Has a network that aggregates a host's taps send what is for the host to one of its PFs."""
    _configure(network, preference(network, host, standby, pf))


def preference(network: Network, host: Host, standby: Standby, pf: str) -> str:
    """Lines for `ip -batch` that do what `prefer` says."""
    ways = zip(network.taps(host.name, standby), standby.pfs, strict=True)
    return "".join(_member(tap, "on" if own == pf else "off") for tap, own in ways)


def _member(tap: str, flood: str) -> str:
    """A tap of several that are one port, which get nothing from each other."""
    floods = f"flood {flood} mcast_flood {flood} bcast_flood {flood}"
    return f"link set {tap} type bridge_slave isolated on learning off {floods}\n"


def _in_namespace(namespace: str, tap: str) -> int:
    """Opens a tap device in a namespace, from a thread of its own, since a thread keeps the namespace it entered."""
    result: list[int | OSError] = []

    def enter() -> None:
        try:
            result.append(patiently(lambda: _enter_and_open(namespace, tap)))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise Problem("lab-no-tap", f"No tap device {tap} in {namespace}: {result[0]}", exit=Exit.UNDONE)
    return result[0]


def patiently(opened: Callable[[], int], wait_s: float = 30.0) -> int:
    """Opens a device that an emulator, killed just now, may still have: a process is gone before its files are."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return opened()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _enter_and_open(namespace: str, tap: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / namespace).open() as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return open_tap(tap, IFF_VNET_HDR)


def open_tap(tap: str, more: int = 0) -> int:
    """Opens a tap device in this thread's namespace, and makes it where it is missing; raises `OSError`.

    `more` are flags of the device beyond those that give each frame as it is.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    try:
        request = struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI | more)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def carry(network: Network, name: str, *, on: bool) -> None:
    """Cuts or joins the link that a tap is: while it is cut, no frame passes, and the host's NIC does not notice."""
    outer.call(["ip", "-n", network.namespace, "link", "set", name, "up" if on else "down"])


def pids(network: Network) -> list[int]:
    """Processes that run in a network's namespace."""
    if not exists(network):
        return []
    return [int(word) for word in outer.call(["ip", "netns", "pids", network.namespace]).split()]


def remove() -> None:
    """Removes the namespaces, and with them their bridges and devices."""
    for network in NETWORKS:
        if exists(network):
            outer.call(["ip", "netns", "delete", network.namespace])
