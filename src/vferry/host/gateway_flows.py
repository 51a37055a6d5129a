"""What a bridge does with a VLAN's frames on their way to a gateway and back, in OpenFlow's words.

Ethernet goes in MPLS without a control word (RFC 4448), and MPLS in GRE (RFC 4023). Where the gateway takes IPv4, the
bridge answers who asks for the gateway's address, and learns by that, and by each packet, which guest has which
address: in a second table, from which what comes back gets its MAC.
"""

import struct
from ipaddress import IPv4Address

from vferry.host.openflow import output
from vferry.host.pipeline import from_port, match_of, nicira, set_field
from vferry.model.relay import RelayGateway

PRIORITY = 100
LEARNT, LEARNT_IDLE_S, LEARNT_MOST = 1, 3600, 4096
"""The table of what is learnt, for how long that stays unused, and how many addresses a VLAN may have there."""

ENCAP, DECAP, LEARN, RESUBMIT = 46, 47, 45, 14
COPY_FIELD, DEC_TTL, POP_MPLS = 28, 24, 20
MPLS, ETHERNET, NEXT = 0x00018847, 0x00000000, 0x0000FFFE
"""Types of packets: of the ethertype's namespace, Ethernet, and what the header says that follows."""
IPV4, ARP, LABELLED = 0x0800, 0x0806, 0x8847
BACK, AS_IT_CAME = 0xFFFFFFF8, 0xFFF8
"""The port that a frame has come by, as an output and to be looked up by."""

ETH_TYPE, ETH_SRC, ETH_DST = 0x80000A02, 0x80000806, 0x80000606
MPLS_LABEL, MPLS_BOS = 0x80004404, 0x80004801
ARP_OP, ARP_SPA, ARP_TPA, ARP_SHA, ARP_THA = 0x80002A02, 0x80002C04, 0x80002E04, 0x80003006, 0x80003206
VLAN_OF = 0x00010004
"""A register: whose a packet is, by the number of the VLAN's port."""
NX_IN_PORT, NX_ETH_DST, NX_ETH_SRC, NX_ETH_TYPE, NX_IP_SRC, NX_IP_DST = 0x2, 0x206, 0x406, 0x602, 0xE04, 0x1004
NX_ARP_SPA, NX_ARP_SHA = 0x2004, 0x12206
"""Fields as Open vSwitch's own actions name them."""

Flow = tuple[bytes, bytes]
"""A match and its actions."""


def flows(gateway: RelayGateway, inner: int, outer: int) -> tuple[Flow, ...]:
    """All of a gateway, by the numbers of the VLAN's port and the tunnel's."""
    if gateway.address is not None:
        return _routed(gateway, IPv4Address(gateway.address).packed, inner, outer)
    label = gateway.label or 0
    return (
        (_from(inner), _put(label) + output(outer)),
        (_labelled(outer, label), _decap(NEXT) + _decap(ETHERNET) + output(inner)),
    )


def mac_of(vlan: int) -> bytes:
    """The gateway's MAC in a VLAN: on each host the same, so that guests need not learn another one."""
    return bytes((0x02, 0x76, 0x66, 0x00, vlan >> 8, vlan & 0xFF))


def _routed(gateway: RelayGateway, address: bytes, inner: int, outer: int) -> tuple[Flow, ...]:
    mac = mac_of(gateway.vlan)
    asked = ((ETH_TYPE, _short(ARP)), (ARP_OP, _short(1)), (ARP_TPA, address))
    sent = ((ETH_DST, mac), (ETH_TYPE, _short(IPV4)))
    put = b"" if gateway.label is None else _put(gateway.label)
    # What comes without Ethernet has got some from the bridge, with no MAC in it.
    came = _from(outer, (ETH_TYPE, _short(IPV4))) if gateway.label is None else _labelled(outer, gateway.label)
    taken = b"" if gateway.label is None else struct.pack("!HHH2x", POP_MPLS, 8, IPV4)
    whose = set_field(VLAN_OF, inner.to_bytes(4, "big"))
    found = nicira(RESUBMIT, struct.pack("!HB3x", AS_IT_CAME, LEARNT))
    return (
        (_from(inner, *asked), _learn(inner, NX_ARP_SPA, NX_ARP_SHA) + _answer(mac, address)),
        (
            _from(inner, *sent),
            _learn(inner, NX_IP_SRC, NX_ETH_SRC)
            + struct.pack("!HH4x", DEC_TTL, 8)
            + _decap(NEXT)
            + put
            + output(outer),
        ),
        (came, taken + whose + set_field(ETH_SRC, mac) + found),
    )


def _from(port: int, *fields: tuple[int, bytes]) -> bytes:
    """A match: what comes in by a port, and has these fields."""
    return match_of(from_port(port) + b"".join(struct.pack("!I", field) + value for field, value in fields))


def _labelled(port: int, label: int) -> bytes:
    """What comes by a tunnel with one label and no other."""
    return _from(port, (ETH_TYPE, _short(LABELLED)), (MPLS_LABEL, label.to_bytes(4, "big")), (MPLS_BOS, b"\x01"))


def _put(label: int) -> bytes:
    return nicira(ENCAP, struct.pack("!HI", 0, MPLS)) + set_field(MPLS_LABEL, label.to_bytes(4, "big"))


def _decap(kind: int) -> bytes:
    return nicira(DECAP, struct.pack("!2xI", kind))


def _learn(inner: int, address: int, mac: int) -> bytes:
    """What is for this address, of this VLAN, goes to this MAC by the port that the frame has come by."""
    head = struct.pack("!HHHQHBxHHIHH", LEARNT_IDLE_S, 0, PRIORITY, inner, 0, LEARNT, 0, 0, LEARNT_MOST, 0, 0)
    specs = struct.pack("!HHIH", 0x2010, IPV4, NX_ETH_TYPE, 0)
    specs += struct.pack("!HIIH", 0x2020, inner, VLAN_OF, 0)
    specs += struct.pack("!HIHIH", 0x0020, address, 0, NX_IP_DST, 0)
    specs += struct.pack("!HIHIH", 0x0830, mac, 0, NX_ETH_DST, 0)
    specs += struct.pack("!HIH", 0x1010, NX_IN_PORT, 0)
    body = head + specs
    return nicira(LEARN, body + bytes(-(10 + len(body)) % 8))


def _answer(mac: bytes, address: bytes) -> bytes:
    """Has who asks for an address know that it is at a MAC."""
    return (
        _copy(48, ETH_SRC, ETH_DST)
        + set_field(ETH_SRC, mac)
        + set_field(ARP_OP, _short(2))
        + _copy(48, ARP_SHA, ARP_THA)
        + _copy(32, ARP_SPA, ARP_TPA)
        + set_field(ARP_SHA, mac)
        + set_field(ARP_SPA, address)
        + output(BACK)
    )


def _copy(bits: int, of: int, to: int) -> bytes:
    return struct.pack("!HHHHH2xII4x", COPY_FIELD, 24, bits, 0, 0, of, to)


def _short(number: int) -> bytes:
    return number.to_bytes(2, "big")
