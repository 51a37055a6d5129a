"""A connection as a host's connection tracking keeps it, for a filter that asks whether it is established."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Address = Annotated[str, Meta(min_length=2, max_length=45)]
Byte = Annotated[int, Meta(ge=0, le=0xFF)]
Half = Annotated[int, Meta(ge=0, le=0xFFFF)]
Word = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]


class Way(Struct, frozen=True, kw_only=True, array_like=True):
    """One direction of a connection: what a packet of it looks like. Of other protocols, the addresses alone."""

    source: Address
    destination: Address
    ports: tuple[Half, Half] | None = None
    """The source's and the destination's: of TCP, UDP, SCTP and what else has ports; of GRE its keys."""
    icmp: tuple[Half, Byte, Byte] | None = None
    """Identifier, type and code, of ICMP and ICMPv6."""


class Tcp(Struct, frozen=True, kw_only=True, array_like=True):
    """How far a TCP connection is (the kernel's TCP_CONNTRACK_*), and of both its senders the flags and the scale.

    Nothing is known of windows: whoever takes the connection over is liberal about them.
    """

    state: Annotated[int, Meta(ge=0, le=9)]
    flags: tuple[Byte, Byte] = (0, 0)
    scales: tuple[Byte, Byte] = (0, 0)


class Sctp(Struct, frozen=True, kw_only=True, array_like=True):
    """How far an SCTP association is (the kernel's SCTP_CONNTRACK_*), and the verification tag of each direction."""

    state: Byte
    tags: tuple[Word, Word] = (0, 0)


class Connection(Struct, frozen=True, kw_only=True, array_like=True):
    """One tracked connection, without NAT, helpers, labels and counters."""

    protocol: Byte
    original: Way
    reply: Way
    seen_reply: bool = False
    assured: bool = False
    """Whether it stays when the table is full."""
    timeout: Word = 0
    """In how many seconds it is forgotten, unless there is traffic."""
    zone: Half = 0
    mark: Word = 0
    tcp: Tcp | None = None
    sctp: Sctp | None = None


class PortConnection(Struct, frozen=True, kw_only=True, array_like=True):
    """One connection of a guest's port that Open vSwitch tracks in user space: TCP or UDP, and no NAT of its source."""

    protocol: Literal[6, 17]
    way: Way
    """The direction in which it began: filters may look at that again with each packet."""
    mark: Word = 0
    labels: Annotated[str, Meta(pattern=r"^[0-9a-f]{1,32}\Z")] = "0"
    """Those of the connection (ct_label), 128 bits in hexadecimal."""
    served: Way | None = None
    """The same as it gets to who serves it, where a balancer has chosen that one."""
