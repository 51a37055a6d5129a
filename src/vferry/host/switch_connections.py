"""A guest's connections, put into Open vSwitch's tracking in user space: by frames that nobody gets (decision 23).

There is no other way to put them. A frame that is handed to the bridge with the action `ct(commit)` makes an entry; one
of the other direction makes it established. Of TCP the sequence numbers must be right. Only the guest knows them, and
tells them by any segment without data, so it is given one that it must answer (RFC 9293, section 3.10.7.4).
"""

import math
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from vferry.host.announcement import octets
from vferry.host.api import PutOutcome, PutPortConnections
from vferry.host.openflow import output, way_in
from vferry.host.openvswitch import RefusedError
from vferry.host.pipeline import PacketIn, Pipeline, commit, tcp_from, to_controller, track
from vferry.host.segments import RST, SYN, TCP, Segment, answers, backwards, read_tcp, tcp, udp
from vferry.host.switch_tracking import Place, find_place, read_tracked
from vferry.model.connections import PortConnection, Way
from vferry.model.problem import Problem
from vferry.model.relay import RelayPort
from vferry.model.switch import LOG

CONTROLLER = 0x7666
"""By which number Open vSwitch passes frames to us: ovn-controller's is 0."""
PRIORITY = 2000
"""Above OVN's own flows, which may block the port yet: what the guest says is heard all the same."""
AGAIN_S = 0.55
"""After how long a guest is asked once more that has not answered. Linux answers for each connection once in 0.5 s."""
TOGETHER, MOMENT_S = 64, 0.05
"""So many answers are awaited at a time, each for so long: Open vSwitch keeps 100 for us that we have not read."""
OUTSIDE = 1 << 31
"""As far as this from what the guest awaits, nothing is in its window."""
ARRIVED_S = 3.0
"""For how long a guest is asked that has just resumed here."""
SOON_S = 60.0
"""Longer than QEMU pauses a guest for its migration: one that comes later has come by another."""
LOOK_S = 0.01
"""How long is waited for an answer before the others are asked for theirs."""
LEFT_S = 10
"""How much longer than they are needed flows stay if nobody takes them away."""


class SwitchConnections:
    """What is put of the guests of one host."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._locks: dict[str, threading.Lock] = {}

    def at_arrival(self, wanted: PutPortConnections, port: RelayPort) -> Callable[[], None]:
        """What is to be done when the guest resumes here: if that is soon, it is asked for all of them."""
        until = self._clock() + SOON_S

        def ask() -> None:
            if self._clock() < until:
                self.put(replace(wanted, wait_s=ARRIVED_S), port)

        return ask

    def put(self, wanted: PutPortConnections, port: RelayPort) -> PutOutcome:
        """Carries `PutPortConnections` out; of one port, one after the other."""
        with self._locks.setdefault(port.mac, threading.Lock()):
            place = find_place(self._root, port)
            known = {each.way for each in read_tracked(self._root, place).connections}
            missing = [each for each in wanted.connections if each.way not in known]
            now = [each for each in missing if wanted.wait_s or each.protocol != TCP]
            left = len(missing) - len(now) + (self._put(now, wanted.wait_s, place, port.mac) if now else 0)
        why = "the guest has not told their numbers" if left else ""
        return PutOutcome(taken=len(wanted.connections) - left, refused=left, why=why)

    def _put(self, connections: list[PortConnection], wait_s: float, place: Place, mac: str) -> int:
        try:
            with Pipeline(way_in(self._root, place.bridge), CONTROLLER) as pipeline:
                asking = Asking(pipeline, place, octets(mac), self._clock)
                return asking.put(connections, wait_s)
        except (OSError, RefusedError, ValueError) as error:
            raise Problem(
                "connections-unwritable",
                f"Open vSwitch does not take the connections of {mac}: {error}",
                f"Look at what it logs: {LOG}",
            ) from error


class Asking:
    """Puts connections of one port, and asks the guest for the numbers of those of TCP."""

    def __init__(self, pipeline: Pipeline, place: Place, mac: bytes, clock: Callable[[], float]) -> None:
        self._pipeline = pipeline
        self._place = place
        self._mac = mac
        self._clock = clock
        self._cookie = CONTROLLER << 48 | place.port << 16
        self._unknown: dict[int, PortConnection] = {}
        """By the numbers of their flows."""
        self._numbers: dict[Way, int] = {}
        """By the direction in which the guest sends."""
        self._held: dict[int, bytes] = {}
        """The first frame with data of each."""

    def put(self, connections: Sequence[PortConnection], wait_s: float) -> int:
        """How many are not known after that."""
        for each in connections:
            if each.protocol != TCP:
                self._know(each, udp(each.way), udp(answers(each)))
        streams = [each for each in connections if each.protocol == TCP]
        if not streams:
            self._pipeline.barrier()
            return 0
        try:
            self._listen(streams, math.ceil(wait_s) + LEFT_S)
            gone = self._ask(self._clock() + wait_s)
        finally:
            self._pipeline.drop_flows(self._cookie, ~0xFFFF & (1 << 64) - 1)
            self._pipeline.barrier()
            self._let_go(self._held.values())
            self._let_go(each.frame for each in self._pipeline.rest() if self._is_ours(each))
            self._pipeline.barrier()
        return gone + len(self._unknown)

    def _know(self, connection: PortConnection, forth: bytes, back: bytes) -> None:
        """Both ends have sent, and the first one once more: it is established from then on."""
        zone = self._place.zone
        self._pipeline.put(forth, commit(zone, connection.mark, int(connection.labels, 16), connection.served))
        self._pipeline.put(back, track(zone))
        self._pipeline.put(forth, track(zone))

    def _listen(self, streams: Sequence[PortConnection], ends_after_s: int) -> None:
        """Has all that the guest sends of them passed to us."""
        for number, (each, ways) in enumerate(zip(streams, sent(streams), strict=True)):
            self._unknown[number] = each
            for way in ways:
                self._numbers[way] = number
                self._pipeline.add_flow(
                    tcp_from(self._place.port, way),
                    to_controller(CONTROLLER),
                    cookie=self._cookie | number,
                    priority=PRIORITY,
                    ends_after_s=ends_after_s,
                )

    def _ask(self, until: float) -> int:
        """Asks until all are known; answers how many the guest does not know."""
        gone = 0
        # Ends that have agreed on timestamps may drop what has none (RFC 7323, section 3.2), but Linux (6.18) does not
        # answer what has an old one: so they are asked now this way, now that.
        due = deque((0.0, way, False) for way in self._numbers)
        awaited: dict[int, float] = {}
        while self._unknown and (now := self._clock()) < until:
            awaited = {number: at for number, at in awaited.items() if at > now and number in self._unknown}
            while len(awaited) < TOGETHER and due[0][0] <= now:
                _, way, stamped = due.popleft()
                due.append((now + AGAIN_S, way, not stamped))
                if self._numbers[way] in self._unknown:
                    awaited[self._numbers[way]] = now + MOMENT_S
                    self._provoke(way, word(), word(), (word(), word()) if stamped else None)
            gone += self._hear(min(until, now + LOOK_S))
        return gone

    def _provoke(self, way: Way, seq: int, ack: int, timestamps: tuple[int, int] | None = None) -> None:
        """Gives the guest a segment that is outside of its window, but for an accident.

        That does harm only where the other number, by a second accident, acknowledges just what is under way.
        """
        frame = tcp(backwards(way), seq, ack, to=self._mac, timestamps=timestamps)
        self._pipeline.put(frame, output(self._place.port))

    def _hear(self, until: float) -> int:
        """Takes what has come, or what comes first."""
        first = self._pipeline.passed(until)
        caught = ([] if first is None else [first]) + self._pipeline.rest()
        return sum(self._take(each) for each in caught if self._is_ours(each))

    def _is_ours(self, caught: PacketIn) -> bool:
        return caught.cookie & ~0xFFFF == self._cookie

    def _take(self, caught: PacketIn) -> bool:
        """Makes known what the guest has told the numbers of. True where it does not know the connection."""
        segment, number = read_tcp(caught.frame), caught.cookie & 0xFFFF
        connection = self._unknown.get(number)
        if segment is None or connection is None:
            self._let_go((caught.frame,))
            return False
        if segment.flags & (SYN | RST):
            self._forget(number)
            # What it resets is what we have said; what it begins is another one.
            self._let_go((caught.frame,) if segment.flags & SYN else ())
            return True
        if segment.length:
            # It may be sent again, from long before what was acknowledged last: what comes next must be told.
            if self._held.setdefault(number, caught.frame) is caught.frame:
                self._provoke(segment.way, segment.ack + OUTSIDE, segment.seq)
            return False
        self._know(connection, *_both(connection, segment))
        self._forget(number)
        self._let_go((self._held.pop(number, b""), caught.frame))
        return False

    def _forget(self, number: int) -> None:
        del self._unknown[number]
        self._pipeline.drop_flows(self._cookie | number, (1 << 64) - 1)

    def _let_go(self, frames: Iterable[bytes]) -> None:
        """Lets frames of the guest take their way through OVN's flows."""
        for frame in frames:
            if frame:
                self._pipeline.let_in(self._place.port, frame)


def word() -> int:
    """Any of 32 bits."""
    return secrets.randbits(32)


def sent(streams: Sequence[PortConnection]) -> Iterator[tuple[Way, ...]]:
    """Of each the direction in which the guest sends: its address is an end of most; both where that does not tell."""
    seen = Counter(address for each in streams for address in (each.way.source, each.way.destination))
    for each in streams:
        source, destination = seen[each.way.source], seen[each.way.destination]
        ways = each.way, backwards(each.way)
        yield ways if source == destination else ways[:1] if source > destination else ways[1:]


def _both(connection: PortConnection, told: Segment) -> tuple[bytes, bytes]:
    """The first direction's segment, and its answer, by what the guest has said of both numbers."""
    mine, other = (told.seq, told.ack) if told.way == connection.way else (told.ack, told.seq)
    return tcp(connection.way, mine, other), tcp(answers(connection), other, mine)
