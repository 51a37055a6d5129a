"""NetworkManager's profile of a guest's NIC, as an installer or an operator writes it: bound to the NIC's MAC."""

from vferry.lab.topology import Guest

PLACE = "etc/NetworkManager/system-connections/lab.nmconnection"
SEARCH = "lab.example"


def profile(guest: Guest) -> str:
    """Its addresses, gateways and name servers, which nobody asks: the peer's."""
    link, own = guest.links[0], guest.subnet
    return f"""\
[connection]
id=lab
uuid={guest.uuid}
type=ethernet

[ethernet]
mac-address={link.mac}

[ipv4]
method=manual
address1={link.address}/24
gateway={own.address4}
dns={own.address4};
dns-search={SEARCH};

[ipv6]
method=manual
address1={link.address6}/64
gateway={own.address6}
dns={own.address6};
"""
