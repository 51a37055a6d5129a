"""What the compressed connections of one migration have in common, at each gateway, and who may use it.

The sender opens a session with the first connection, lets all that come while none of them has ended join it, and
numbers them. The receiver knows a session while one of its connections is open. It grants page copies to the
connections of one session at a time, and none to one that joins a session it has forgotten; so both sides always mean
the same copies.
"""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from vferry.model.compression import FOR_HARDWARE, TRAITS, Codec
from vferry.transfer.allowance import Allowance
from vferry.transfer.codecs import CODECS
from vferry.transfer.copies import ReceiverCopies, SenderCopies
from vferry.transfer.counters import Counters
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.packing import Packer, PackingChannel
from vferry.transfer.progress import Progress
from vferry.transfer.resident import Residents
from vferry.transfer.stream import Stream
from vferry.transfer.tuner import AdaptiveTuner, FixedTuner, Tuner
from vferry.transfer.tuning import Choice
from vferry.transfer.unpacking import Unpacker, UnpackingChannel
from vferry.transfer.wire import NO_HASHES, Carriage, Hello, Reply, Status, WireError

CHANNELS = 1 << 16
# Fewer are not worth their trouble: no packet would find room.
LEAST_SLOTS = 256


class SenderSession:
    """One session of the sender. `joined` counts its connections so far."""

    def __init__(self, slots: int) -> None:
        self.identity = os.urandom(8)
        self.joined = 0
        self._slots = slots
        self._granted = 0
        self._copies: SenderCopies | None = None

    def hello(self, service: str, token: bytes) -> Hello:
        """Ask for one more connection of this session."""
        hello = Hello(service, token, Carriage.BLOCKS, 0, self.joined, self._slots, self.identity)
        self.joined += 1
        return hello

    def copies(self, reply: Reply) -> SenderCopies | None:
        """The copies that a connection may use with such a reply; the first one decides how many there are."""
        granted = reply.slots
        if self._copies is None and self._slots >= granted >= LEAST_SLOTS:
            self._copies, self._granted = SenderCopies(granted, reply.resident), granted
        return self._copies if granted == self._granted else None


class SenderSessions:
    """Compresses a service's connections: how, and in which session."""

    def __init__(self, codec: str, delta_bytes: int, counters: Counters, codecs: Iterable[str]) -> None:
        """`codec` is a name, or auto; `codecs` are those that work here."""
        self._codec = codec
        self._codecs = frozenset(codecs)
        self._counters = counters
        self._slots = delta_bytes // PAGE_BYTES
        self._lock = threading.Lock()
        self._current: SenderSession | None = None

    def hello(self, service: str, token: bytes) -> Hello:
        """Ask for a connection in the current session, or in a new one."""
        with self._lock:
            if self._current is None or self._current.joined == CHANNELS:
                self._current = SenderSession(self._slots)
            return self._current.hello(service, token)

    def check(self, reply: Reply) -> None:
        """Raise `WireError` if the receiver cannot undo the codec."""
        if self._codec not in {Codec.AUTO, *_names(reply.codecs)}:
            raise WireError(f"the receiving gateway has no codec {self._codec}: install vferry[compression] there")

    def packer(
        self, hello: Hello, reply: Reply, more: Sequence[Stream], allowed: Callable[[], Allowance] = Allowance
    ) -> Packer:
        """Make what carries a connection, with its further streams, and holds no more than is allowed."""
        with self._lock:
            session = self._current if self._current and self._current.identity == hello.session else None
            copies = session.copies(reply) if session else None
        if copies:
            self._counters.reserve(reply.slots * PAGE_BYTES)
        return Packer(PackingChannel(hello.channel, copies, self._counters), self._tuner(reply), more, allowed)

    def leave(self, hello: Hello) -> None:
        """Say that a connection has ended: later ones get a session of their own."""
        with self._lock:
            if self._current and self._current.identity == hello.session:
                self._current = None

    def _tuner(self, reply: Reply) -> Tuner:
        if self._codec == Codec.AUTO:
            wanting = FOR_HARDWARE - _names(reply.hardware)
            return AdaptiveTuner((self._codecs & _names(reply.codecs) - wanting) | {"none"})
        return FixedTuner(Choice(self._codec, TRAITS[self._codec].level))


def _names(numbers: Iterable[int]) -> frozenset[str]:
    return frozenset(CODECS[number] for number in numbers if number in CODECS)


class _Joined(NamedTuple):
    progress: Progress
    copies: ReceiverCopies | None
    open: dict[int, Unpacker]


class ReceiverSessions:
    """The sessions that are open at the receiver."""

    def __init__(
        self,
        delta_bytes: int,
        counters: Counters,
        codecs: Iterable[int],
        hardware: Iterable[int] = (),
        residents: Residents | None = None,
    ) -> None:
        """`delta_bytes` bounds the page copies of all sessions; `codecs` are the numbers of those that work here.

        `hardware` are those of them that have the hardware which they are for; `residents` the pages that are here.
        """
        self._residents = residents
        self._codecs, self._hardware = frozenset(codecs), frozenset(hardware)
        self._counters = counters
        self._slots = delta_bytes // PAGE_BYTES
        self._lock = threading.Lock()
        self._sessions: dict[bytes, _Joined] = {}

    def join(self, hello: Hello) -> tuple[Reply, Unpacker]:
        """Take a connection in; raises `WireError` for one that is there already. Call `leave` once it has ended."""
        with self._lock:
            session = self._sessions.get(hello.session)
            if session is None:
                session = _Joined(Progress(), self._grant(hello), {})
                self._sessions[hello.session] = session
            if hello.channel in session.open:
                raise WireError(f"channel {hello.channel} is open already")
            channel = UnpackingChannel(hello.channel, session.progress, session.copies, self._counters)
            unpacker = session.open[hello.channel] = Unpacker(channel)
        session.progress.begin(hello.channel)
        slots = session.copies.slots if session.copies else 0
        first = bool(slots) and not hello.channel
        resident = self._residents.hashes if first and self._residents else NO_HASHES
        return Reply(Status.ACCEPTED, self._codecs, slots, self._hardware, resident), unpacker

    def find(self, hello: Hello) -> Unpacker:
        """The connection that a further stream belongs to; raises `WireError` if it is not open."""
        with self._lock:
            session = self._sessions.get(hello.session)
            if session is None or hello.channel not in session.open:
                raise WireError(f"a stream for channel {hello.channel}, which is not open")
            return session.open[hello.channel]

    def leave(self, hello: Hello) -> None:
        """Forget a connection, and its session with the last one."""
        with self._lock:
            session = self._sessions[hello.session]
            session.open.pop(hello.channel).abandon()
            if not session.open:
                del self._sessions[hello.session]

    def _grant(self, hello: Hello) -> ReceiverCopies | None:
        slots = min(hello.slots, self._slots)
        busy = any(session.copies for session in self._sessions.values())
        if busy or hello.channel or slots < LEAST_SLOTS:
            return None
        self._counters.reserve(slots * PAGE_BYTES)
        return ReceiverCopies(slots, self._residents)
