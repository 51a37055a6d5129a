"""What the ports and bridges of a relay are called in Open vSwitch."""

from vferry.model.relay import RelayPort


def bridge_name(port: RelayPort) -> str:
    """The bridge of a direct relay: of 15 characters, which is all that there is for an interface's name."""
    return "vfr" + port.mac.replace(":", "")


def uplink_name(port: RelayPort) -> str:
    """The port of a direct relay that is its VF."""
    return "vfu" + port.mac.replace(":", "")


def guest_name(mac: str) -> str:
    """The port that is a guest's NIC."""
    return "vfg" + mac.replace(":", "")


def by_socket(port: RelayPort) -> tuple[str, dict[str, str]]:
    """What a guest's port is: it connects to the socket of its QEMU, again and again."""
    return "dpdkvhostuserclient", {"vhost-server-path": port.socket}
