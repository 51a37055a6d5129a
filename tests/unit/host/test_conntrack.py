"""A guest's connections in the table of the kernel: the messages, what is asked of it, and the kernel's own answers."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from vferry.host.api import PutConnections, PutOutcome, ReadConnections
from vferry.host.conntrack import TOGETHER, put_connections, read_connections
from vferry.host.conntrack_netlink import Put, Table, create, decode, portable, replace, update
from vferry.host.sriov_netlink import HEADER
from vferry.host.wire import MAX_BODY
from vferry.model.connections import Connection, Sctp, Tcp, Way
from vferry.model.problem import Problem

GUEST, PEER, GUEST6, PEER6 = "192.0.2.12", "192.0.2.1", "2001:db8::12", "2001:db8::1"


def between(source: str, destination: str, protocol: int = 6, **values: Any) -> Connection:
    ports = (40000, 22) if protocol in (6, 17, 132, 47) else None
    return Connection(
        protocol=protocol,
        original=Way(source=source, destination=destination, ports=ports),
        reply=Way(source=destination, destination=source, ports=ports and (22, 40000)),
        **({"timeout": 100} | values),
    )


def ping(source: str, destination: str, protocol: int, kinds: tuple[int, int]) -> Connection:
    return Connection(
        protocol=protocol,
        original=Way(source=source, destination=destination, icmp=(7, kinds[0], 0)),
        reply=Way(source=destination, destination=source, icmp=(7, kinds[1], 0)),
        timeout=100,
    )


ESTABLISHED = between(
    PEER, GUEST, seen_reply=True, assured=True, timeout=432000, tcp=Tcp(state=3, flags=(3, 3), scales=(7, 9))
)
SAMPLES = (
    ESTABLISHED,
    structs.replace(between(PEER6, GUEST6), tcp=Tcp(state=1), zone=7, mark=0xFFFFFFFF),
    between(GUEST, PEER, 17, seen_reply=True),
    between(GUEST, PEER, 132, seen_reply=True, sctp=Sctp(state=4, tags=(5, 0xFFFFFFFF))),
    between(GUEST, PEER, 47),
    between(GUEST, PEER, 89),
    ping(GUEST, PEER, 1, (8, 0)),
    ping(GUEST6, PEER6, 58, (128, 129)),
)


def message(put: Put) -> bytes:
    """A put as the kernel would give the entry back."""
    _, family, attributes = put
    return HEADER.pack(0, 0, 0, 0, 0) + bytes((family, 0, 0, 0)) + attributes


class FakeTable:
    """Keeps what is put by its original direction, as the kernel does."""

    def __init__(self, *entries: bytes, errors: Iterable[int] = ()) -> None:
        self.messages, self.errors = entries, list(errors)
        self.put_together: list[int] = []

    def entries(self) -> Iterable[bytes]:
        return self.messages

    def put(self, requests: Sequence[Put]) -> list[int]:
        self.put_together.append(len(requests))
        return [self.errors.pop(0) if self.errors else 0 for _ in requests]


def table(*entries: bytes, errors: Iterable[int] = ()) -> Table:
    return cast("Table", FakeTable(*entries, errors=errors))


def put(connections: Sequence[Connection], lease_s: int | None = None) -> PutConnections:
    return PutConnections(guest="guest1", connections=tuple(connections), lease_s=lease_s)


@pytest.mark.parametrize("connection", SAMPLES, ids=lambda each: f"{each.protocol} {each.original.source}")
def test_an_entry_is_read_as_it_is_put(connection: Connection) -> None:
    assert decode(message(replace(connection))) == connection
    assert decode(message(create(connection, timeout=9))) == structs.replace(connection, timeout=9)
    assert decode(message(update(connection))) == structs.replace(connection, timeout=0)
    assert portable(message(replace(connection)))


ADDRESSES = st.one_of(
    *(
        st.tuples(st.ip_addresses(v=version), st.ip_addresses(v=version)).map(lambda two: (str(two[0]), str(two[1])))
        for version in (4, 6)
    )
)


@given(ADDRESSES, st.integers(0, 0xFFFF), st.integers(0, 9), st.integers(0, 7), st.integers(0, 0xFFFF))
def test_any_connection_is_read_as_it_is_put(
    ends: tuple[str, str], port: int, state: int, flags: int, zone: int
) -> None:
    way = Way(source=ends[0], destination=ends[1], ports=(port, 0))
    tcp = Tcp(state=state, flags=(flags, 0), scales=(14, 0))
    connection = Connection(protocol=6, original=way, reply=way, zone=zone, tcp=tcp, assured=True, timeout=port)
    found = decode(message(replace(connection)))
    assert (found.original.ports, found.zone, found.tcp) == (way.ports, zone, tcp)
    assert found == msgspec.json.decode(msgspec.json.encode(found), type=Connection)


def test_windows_are_not_tracked_in_what_is_put() -> None:
    """As conntrackd has it: 8 is IP_CT_TCP_FLAG_BE_LIBERAL, set in both directions, and in what is to be set."""
    said = message(replace(ESTABLISHED))
    assert said.count(bytes((3 | 8, 15))) == 2


def status(value: int) -> bytes:
    return b"\x08\x00\x03\x00" + value.to_bytes(4, "big")


@pytest.mark.parametrize(
    "more",
    [
        status(0x1E),
        status(0x2E),
        b"\x04\x00\x0f\x80",
        b"\x10\x00\x01\x80" + b"\x0c\x00\x03\x00\x00\x01\0\0" + b"\0" * 4,
    ],
    ids=["source NAT", "destination NAT", "adjusted sequence numbers", "a zone for one direction"],
)
def test_what_cannot_be_told_of_an_entry_is_seen(more: bytes) -> None:
    assert not portable(message(replace(ESTABLISHED)) + more)


def test_only_the_guest_s_connections_are_read_and_those_with_nat_counted() -> None:
    strangers = between(PEER, "198.51.100.1", mark=int.from_bytes(bytes((192, 0, 2, 12)), "big"))
    entries = [message(replace(each)) for each in (*SAMPLES, strangers)]
    found = read_connections(
        table(*entries, message(replace(ESTABLISHED)) + status(0x1E)),
        ReadConnections(addresses=(GUEST, "2001:DB8:0::12")),
    )
    assert found.connections == SAMPLES
    assert found.left_out == 1


def test_no_more_are_read_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vferry.host.conntrack.MOST_CONNECTIONS", 2)
    found = read_connections(table(*[message(replace(ESTABLISHED))] * 5), ReadConnections(addresses=(GUEST,)))
    assert (len(found.connections), found.left_out) == (2, 3)


def test_a_nonsensical_address_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        read_connections(table(), ReadConnections(addresses=("nonsense",)))
    assert caught.value.code == "address-invalid"
    for ends in ((PEER, GUEST6), (PEER6, GUEST), ("nonsense", GUEST)):
        with pytest.raises(Problem) as caught:
            put_connections(table(), put([between(*ends)]))
        assert caught.value.code == "connection-invalid"


@pytest.mark.parametrize(
    ("lease_s", "errors", "outcome"),
    [
        (None, (), PutOutcome(taken=2)),
        (None, (errno.EBUSY, 0), PutOutcome(taken=2)),
        (None, (errno.ENOMEM, 0), PutOutcome(taken=1, refused=1, why=os.strerror(errno.ENOMEM))),
        (60, (errno.EEXIST, 0, 0, 0), PutOutcome(taken=2)),
        (60, (errno.EEXIST, errno.EBUSY), PutOutcome(taken=2)),
        (60, (0, 0, errno.ENOMEM, errno.ENOENT), PutOutcome(taken=1, refused=1, why=os.strerror(errno.ENOENT))),
    ],
)
def test_what_becomes_of_each_is_counted(lease_s: int | None, errors: tuple[int, ...], outcome: PutOutcome) -> None:
    assert put_connections(table(errors=errors), put(SAMPLES[:2], lease_s)) == outcome


def test_the_kernel_is_given_as_many_as_it_can_answer() -> None:
    fake = FakeTable()
    assert put_connections(cast("Table", fake), put([ESTABLISHED] * (TOGETHER + 1), 60)).taken == TOGETHER + 1
    assert fake.put_together == [2 * TOGETHER, 2]


def test_as_many_as_may_be_put_fit_a_request() -> None:
    address = "2001:db8:1234:5678:9abc:def0:1234:5678"
    long = structs.replace(ESTABLISHED, zone=0xFFFF, mark=0xFFFFFFFF, timeout=0xFFFFFFFF)
    way = Way(source=address, destination=address, ports=(65535, 65535))
    full = put([structs.replace(long, original=way, reply=way)] * 2048, 3600)
    encoded = msgspec.json.encode(full)
    assert len(encoded) < MAX_BODY
    assert msgspec.json.decode(encoded, type=PutConnections) == full
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(put([ESTABLISHED] * 2049)), type=PutConnections)


PROGRAM = """
import sys, msgspec
sys.path[:0] = sys.argv[1:]
from test_conntrack import *
with Table() as table:
    read = lambda: read_connections(table, ReadConnections(addresses=(GUEST, GUEST6)))
    assert put_connections(table, put(SAMPLES, 60)) == PutOutcome(taken=len(SAMPLES))
    def close(seconds, wanted): return wanted - 5 <= seconds <= wanted
    def found(): return {structs.replace(each, timeout=0): each.timeout for each in read().connections}
    assert set(found()) == {structs.replace(each, timeout=0) for each in SAMPLES}, found()
    assert all(close(left, 60) for left in found().values()), found()
    later = [structs.replace(each, seen_reply=True, mark=5) for each in SAMPLES]
    assert put_connections(table, put(later)) == PutOutcome(taken=len(SAMPLES))
    assert all(close(found()[structs.replace(each, timeout=0)], each.timeout) for each in later), found()
    put_connections(table, put(SAMPLES, 60))  # known by now: a lease does not shorten what is there
    assert all(left > 90 for left in found().values()), found()
    many = [structs.replace(ESTABLISHED, original=Way(source=PEER, destination=GUEST, ports=(at, 80)),
                            reply=Way(source=GUEST, destination=PEER, ports=(80, at))) for at in range(1, 2049)]
    assert put_connections(table, put(many, 60)) == PutOutcome(taken=2048)
    assert len(read().connections) == 2048 + len(SAMPLES)
    swapped = structs.replace(many[0], original=Way(source=PEER, destination=GUEST, ports=(1, 81)))
    assert put_connections(table, put([swapped])) == PutOutcome(refused=1, why="File exists")
"""


def tracks() -> bool:
    return os.path.exists("/proc/sys/net/netfilter/nf_conntrack_count")  # noqa: PTH110 - a condition, at import


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not tracks(),
    reason="asking the kernel needs root, unshare and conntrack",
)
def test_the_kernel_takes_and_tells_it() -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", PROGRAM, os.path.dirname(__file__), *sys.path],  # noqa: PTH120
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
