"""Connections that a switch is told of: what it is told, by a switch and a guest that are made up, and when."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from fakes import facts as f
from fakes.samples import GUEST
from fakes.samples import MAC as OWN_MAC
from vferry.host import switch_connections
from vferry.host.api import PortTracked, PutOutcome, PutPortConnections
from vferry.host.openflow import output
from vferry.host.openvswitch import RefusedError
from vferry.host.pipeline import PacketIn, commit, track
from vferry.host.segments import ACK, RST, SYN, Segment, answers, backwards, read_tcp, tcp, udp
from vferry.host.switch_connections import Asking, SwitchConnections, sent
from vferry.host.switch_tracking import Place
from vferry.model.connections import PortConnection, Way
from vferry.model.problem import Problem

MAC = bytes.fromhex("525400aa000b")
OWN, PEER, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"
PLACE = Place("br-int", 7, 5)
SEQ, ACKED = 1000, 2000


def stream(source: str, destination: str, port: int = 80) -> PortConnection:
    way = Way(source=source, destination=destination, ports=(4000, port))
    return PortConnection(protocol=6, way=way, mark=3, labels="ff")


INWARD, OUTWARD, THIRD = stream(PEER, OWN), stream(OWN, PEER), stream(OTHER, OWN)
DATAGRAMS = PortConnection(protocol=17, way=INWARD.way)
OUT = output(PLACE.port)
Answer = Callable[[Segment], list[bytes]]


@dataclass
class Switch:
    """A bridge with a guest behind the port. A call takes a millisecond, as the clock has it."""

    answer: Answer
    now: float = 0.0
    put_there: list[tuple[bytes, bytes]] = field(default_factory=list)
    asked: list[Segment] = field(default_factory=list)
    let: list[bytes] = field(default_factory=list)
    flows: dict[int, int] = field(default_factory=dict)
    """How many there are of each cookie."""
    coming: list[PacketIn] = field(default_factory=list)

    def clock(self) -> float:
        self.now += 0.001
        return self.now

    def put(self, frame: bytes, actions: bytes) -> None:
        if actions != OUT:
            self.put_there.append((frame, actions))
            return
        assert frame[:6] == MAC
        said = read_tcp(frame)
        assert said is not None
        self.asked.append(said)
        self.coming += [PacketIn(self._cookie_of(each), each) for each in self.answer(said) if self.flows]

    def _cookie_of(self, frame: bytes) -> int:
        segment = read_tcp(frame)
        assert segment is not None
        return next(iter(self.flows)) & ~0xFFFF | NUMBERS[segment.way]

    def let_in(self, port: int, frame: bytes) -> None:
        assert port == PLACE.port
        self.let.append(frame)

    def add_flow(self, _match: bytes, _actions: bytes, *, cookie: int, priority: int, ends_after_s: int) -> None:
        assert (priority, ends_after_s) == (switch_connections.PRIORITY, 1 + switch_connections.LEFT_S)
        self.flows[cookie] = self.flows.get(cookie, 0) + 1

    def drop_flows(self, cookie: int, mask: int) -> None:
        self.flows = {each: count for each, count in self.flows.items() if each & mask != cookie}

    def barrier(self) -> None:
        pass

    def passed(self, until: float) -> PacketIn | None:
        if self.coming:
            return self.coming.pop(0)
        self.now = max(self.now, until)
        return None

    def rest(self) -> list[PacketIn]:
        found, self.coming = self.coming, []
        return found


NUMBERS: dict[Way, int] = {}
"""By the direction in which the guest sends, the number that a connection has among those asked for."""


def ask(*connections: PortConnection, answer: Answer) -> tuple[Switch, int]:
    """Puts connections; answers how many were not."""
    NUMBERS.clear()
    streams = [each for each in connections if each.protocol == 6]
    NUMBERS.update({way: at for at, each in enumerate(streams) for way in (each.way, backwards(each.way))})
    switch = Switch(answer)
    pipeline: Any = switch
    left = Asking(pipeline, PLACE, MAC, switch.clock).put(connections, 1.0)
    assert switch.flows == {}, "they are gone, whatever came"
    return switch, left


def told(asked: Segment) -> bytes:
    """What a guest says to a segment that it did not await."""
    return tcp(backwards(asked.way), SEQ, ACKED)


def flagged(frame: bytes, flags: int) -> bytes:
    return frame[:47] + bytes([flags]) + frame[48:]


def with_data(frame: bytes, data: bytes) -> bytes:
    return frame[:16] + (int.from_bytes(frame[16:18]) + len(data)).to_bytes(2) + frame[18:] + data


def known(connection: PortConnection, seq: int, ack: int) -> list[tuple[bytes, bytes]]:
    """What makes a stream known whose first direction has these numbers."""
    forth, back = tcp(connection.way, seq, ack), tcp(answers(connection), ack, seq)
    return [
        (forth, commit(PLACE.zone, 3, 0xFF, connection.served)),
        (back, track(PLACE.zone)),
        (forth, track(PLACE.zone)),
    ]


def test_a_stream_is_known_by_the_numbers_that_the_guest_tells() -> None:
    """In the direction in which it began, be that the guest's or not."""
    # Both are of the peer's, too: two more say whose end the guest is.
    switch, left = ask(OUTWARD, THIRD, answer=lambda asked: [told(asked)])
    assert left == 0
    assert switch.put_there == [*known(OUTWARD, SEQ, ACKED), *known(THIRD, ACKED, SEQ)]
    assert [each.way for each in switch.asked] == [backwards(OUTWARD.way), THIRD.way]
    assert switch.let == [tcp(OUTWARD.way, SEQ, ACKED), tcp(backwards(THIRD.way), SEQ, ACKED)]


def test_one_that_a_balancer_gave_to_another_is_asked_for_as_the_guest_has_it() -> None:
    balanced = structs.replace(OUTWARD, served=Way(source=OWN, destination=OTHER, ports=(4000, 8080)))
    switch, left = ask(balanced, THIRD, answer=lambda asked: [told(asked)])
    assert left == 0
    assert switch.put_there[:3] == known(balanced, SEQ, ACKED)
    assert switch.asked[0].way == backwards(OUTWARD.way)
    assert answers(balanced) == Way(source=OTHER, destination=OWN, ports=(8080, 4000))


def test_datagrams_need_nothing_of_the_guest() -> None:
    switch, left = ask(DATAGRAMS, answer=lambda _: [])
    forth, back = udp(DATAGRAMS.way), udp(backwards(DATAGRAMS.way))
    known_there = [(forth, commit(PLACE.zone, 0, 0)), (back, track(PLACE.zone)), (forth, track(PLACE.zone))]
    assert (left, switch.asked, switch.put_there) == (0, [], known_there)


def test_one_who_is_silent_is_asked_again_and_not_for_ever() -> None:
    switch, left = ask(OUTWARD, THIRD, answer=lambda asked: [told(asked)] if asked.way == THIRD.way else [])
    assert left == 1
    assert switch.put_there == known(THIRD, ACKED, SEQ)
    assert 3 <= len(switch.asked) <= 2 + 1 / switch_connections.AGAIN_S
    assert switch.now < 1.2


def test_what_the_guest_does_not_know_stays_unknown_and_its_peer_is_not_told() -> None:
    switch, left = ask(OUTWARD, THIRD, answer=lambda asked: [flagged(told(asked), RST | ACK)])
    assert (left, switch.put_there, switch.let) == (2, [], [])


def test_one_that_the_guest_begins_anew_is_let_go() -> None:
    switch, left = ask(OUTWARD, THIRD, answer=lambda asked: [flagged(told(asked), SYN)])
    assert (left, switch.put_there, len(switch.let)) == (2, [], 2)


def test_data_waits_until_the_guest_says_how_far_it_is() -> None:
    """It may be sent again, from before what its peer has acknowledged."""
    data = with_data(tcp(OUTWARD.way, SEQ - 500, ACKED), b"again")

    def answer(asked: Segment) -> list[bytes]:
        if asked.way != backwards(OUTWARD.way):
            return []
        if asked.seq == (ACKED + switch_connections.OUTSIDE) % 2**32:  # far from its window, as it has said itself
            assert asked.ack == SEQ - 500
            return [told(asked)]
        return [data]

    switch, left = ask(OUTWARD, THIRD, answer=answer)
    assert left == 1
    assert switch.put_there == known(OUTWARD, SEQ, ACKED)
    assert switch.let[:2] == [data, tcp(OUTWARD.way, SEQ, ACKED)]


def test_what_came_of_it_is_let_go_in_the_end() -> None:
    data = with_data(tcp(OUTWARD.way, SEQ, ACKED), b"again")
    switch, left = ask(OUTWARD, THIRD, answer=lambda asked: [bytes(bytearray(data))] * (asked.way != THIRD.way))
    assert (left, switch.put_there, switch.let) == (2, [], [data])


def test_what_flows_of_others_pass_is_not_ours() -> None:
    strange = PacketIn(0x7666 << 48 | 9 << 16, tcp(OUTWARD.way, SEQ, ACKED))

    def answer(_asked: Segment) -> list[bytes]:
        switches[0].coming.append(strange)
        return []

    switches: list[Switch] = []
    NUMBERS.clear()
    switch = Switch(answer)
    switches.append(switch)
    pipeline: Any = switch
    assert Asking(pipeline, PLACE, MAC, switch.clock).put([OUTWARD, THIRD], 1.0) == 2
    assert (switch.put_there, switch.let) == ([], [])


def test_no_more_answers_are_awaited_at_a_time_than_are_kept_for_us() -> None:
    many = [stream(OWN, PEER, port) for port in range(1, 300)] + [THIRD]
    most = 0

    def answer(asked: Segment) -> list[bytes]:
        nonlocal most
        most = max(most, len(switches[-1].coming))
        return [told(asked)]

    switches: list[Switch] = []
    NUMBERS.update({way: at for at, each in enumerate(many) for way in (each.way, backwards(each.way))})
    switches.append(Switch(answer))
    pipeline: Any = switches[-1]
    assert Asking(pipeline, PLACE, MAC, switches[-1].clock).put(many, 1.0) == 0
    assert 1 < most <= switch_connections.TOGETHER


@pytest.mark.parametrize(
    ("streams", "ways"),
    [
        ([INWARD], [(INWARD.way, backwards(INWARD.way))]),
        ([INWARD, THIRD], [(backwards(INWARD.way),), (backwards(THIRD.way),)]),
        ([OUTWARD, THIRD], [(OUTWARD.way,), (backwards(THIRD.way),)]),
    ],
)
def test_which_end_the_guest_is(streams: list[PortConnection], ways: list[tuple[Way, ...]]) -> None:
    assert list(sent(streams)) == ways


class Told:
    """A host whose switch tracks some already, and what it is asked to put."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *tracked: PortConnection, left: int = 0) -> None:
        self.put: list[tuple[list[PortConnection], float]] = []
        self.now = 0.0
        self.connections = SwitchConnections(Path("/nowhere"), lambda: self.now)
        monkeypatch.setattr(switch_connections, "find_place", lambda *_: PLACE)
        monkeypatch.setattr(switch_connections, "read_tracked", lambda *_: PortTracked(connections=tracked))

        def put(_self: object, missing: list[PortConnection], wait_s: float, *_: object) -> int:
            self.put.append((missing, wait_s))
            return left

        monkeypatch.setattr(SwitchConnections, "_put", put)

    def asked(self, *connections: PortConnection, wait_s: float = 1.0) -> PutPortConnections:
        return PutPortConnections(guest=GUEST, mac=OWN_MAC, connections=connections, wait_s=wait_s)


def test_what_is_tracked_already_is_not_put_again(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Told(monkeypatch, INWARD)
    assert host.connections.put(host.asked(INWARD), f.BOUND_PORT) == PutOutcome(taken=1)
    assert host.connections.put(host.asked(INWARD, THIRD), f.BOUND_PORT) == PutOutcome(taken=2)
    assert host.put == [([THIRD], 1.0)]


def test_before_the_guest_is_there_only_datagrams_are_put(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Told(monkeypatch)
    assert host.connections.put(host.asked(THIRD, wait_s=0), f.BOUND_PORT).refused == 1
    assert host.put == []
    assert host.connections.put(host.asked(THIRD, DATAGRAMS, wait_s=0), f.BOUND_PORT).taken == 1
    assert host.put == [([DATAGRAMS], 0)]


def test_what_is_left_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Told(monkeypatch, left=1)
    assert host.connections.put(host.asked(INWARD, THIRD), f.BOUND_PORT) == PutOutcome(
        taken=1, refused=1, why="the guest has not told their numbers"
    )


@pytest.mark.parametrize(("after_s", "asked"), [(1.0, 1), (switch_connections.SOON_S + 1, 0)])
def test_a_guest_is_asked_as_it_arrives_if_that_is_soon(
    monkeypatch: pytest.MonkeyPatch, after_s: float, asked: int
) -> None:
    host = Told(monkeypatch)
    work = host.connections.at_arrival(host.asked(INWARD, wait_s=0), f.BOUND_PORT)
    host.now += after_s
    work()
    assert host.put == [([INWARD], switch_connections.ARRIVED_S)] * asked


def test_of_one_port_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Told(monkeypatch)
    began, may_end = threading.Event(), threading.Event()

    def put(_self: object, missing: list[PortConnection], *_: object) -> int:
        host.put.append((missing, 0))
        began.set()
        may_end.wait(5)
        return 0

    monkeypatch.setattr(SwitchConnections, "_put", put)
    threads = [
        threading.Thread(target=host.connections.put, args=(host.asked(each), f.BOUND_PORT)) for each in (INWARD, THIRD)
    ]
    for thread in threads:
        thread.start()
    began.wait(5)
    assert len(host.put) == 1
    may_end.set()
    for thread in threads:
        thread.join(5)
    assert len(host.put) == 2


@pytest.mark.parametrize("error", [ConnectionRefusedError("nobody"), RefusedError("OpenFlow error 1"), ValueError("?")])
def test_a_switch_that_does_not_take_them_is_a_problem(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(switch_connections, "find_place", lambda *_: PLACE)
    monkeypatch.setattr(switch_connections, "read_tracked", lambda *_: PortTracked())

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(switch_connections, "Pipeline", refuse)
    wanted = PutPortConnections(guest=GUEST, mac=OWN_MAC, connections=(INWARD,), wait_s=1.0)
    with pytest.raises(Problem, match=str(error).replace("?", r"\?")) as caught:
        SwitchConnections(Path("/nowhere")).put(wanted, f.BOUND_PORT)
    assert caught.value.code == "connections-unwritable"
