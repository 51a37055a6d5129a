"""The peer: this machine inside the data network and its VLANs, which the guests talk to. It also serves DHCP.

It is the switch at the other end of the hosts' bonds, too.
"""

import sys
from collections.abc import Sequence

from vferry.lab import net, outer, places, processes
from vferry.lab.topology import DATA, GUESTS, PEER4, VLANS, Guest, Host, Network, Standby, Subnet

LEASE = 60  # seconds; short, so that a guest renews during a test


def command(argv: Sequence[str]) -> list[str]:
    """Argument vector that runs `argv` inside the data network; without one, a shell."""
    return ["ip", "netns", "exec", DATA, *(argv or ["sh"])]


def dhcp_settings(guests: Sequence[Guest]) -> str:
    """Configuration of the DHCP server: fixed addresses for the guests that ask for one."""
    lines = [
        "interface data0",
        "start 10.9.0.200",
        "end 10.9.0.250",
        "option subnet 255.255.255.0",
        f"option router {PEER4}",
        f"option lease {LEASE}",
        f"lease_file {places.RUN}/udhcpd.leases",
        f"pidfile {places.RUN}/udhcpd.pid",
    ]
    lines += [f"static_lease {guest.mac} {guest.address}" for guest in guests if guest.kind == "dhcp"]
    return "\n".join(lines) + "\n"


def start_dhcp() -> None:
    """Starts the DHCP server unless it runs."""
    settings = places.RUN / "udhcpd.conf"
    if processes.find(str(settings)):
        return
    settings.write_text(dhcp_settings(GUESTS))
    (places.RUN / "udhcpd.leases").touch()
    outer.launch(command(["busybox", "udhcpd", "-f", str(settings)]), places.folder() / "dhcp.log")


def start_vlans(bridge: str) -> None:
    """Starts the process of each VLAN that puts the peer into it; it ends with the network's other processes."""
    for vlan in VLANS:
        devices = [Subnet(vlan, vlan).device(bridge), net.vlan_port(bridge, vlan)]
        argv = [sys.executable, "-m", "vferry.lab.vlan", *devices, str(vlan)]
        outer.launch(command(argv), places.folder() / f"vlan{vlan}.log")


def start_lacp(network: Network, host: Host, standby: Standby) -> None:
    """Starts the process that speaks LACP with a host's bond; it ends with the host's taps."""
    taps = network.taps(host.name, standby)
    argv = [sys.executable, "-m", "vferry.lab.lacp", network.mac, str(host.number), *taps]
    outer.launch(command(argv), places.folder() / f"{host.name}.lacp.log")
