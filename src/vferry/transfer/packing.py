"""The sender's half of a compressed connection: QEMU's stream in, blocks out, over one stream or several.

Each stream has a thread. They take turns at cutting, which keeps the order, and encode and send at the same time.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vferry.transfer.allowance import Allowance
from vferry.transfer.block import pack_block_header
from vferry.transfer.codecs import NUMBERS, Codec, make_codec
from vferry.transfer.copies import SenderCopies
from vferry.transfer.counters import BlockCount, Counters
from vferry.transfer.cutting import BUFFER_BYTES, Cut, Cutter
from vferry.transfer.passage import Passage, passage
from vferry.transfer.pump import Count
from vferry.transfer.stream import Stream
from vferry.transfer.tuner import Tuner
from vferry.transfer.tuning import Sample
from vferry.transfer.wire import END, FRAME, WireError

# A header is sent together with this much, as one record of TLS and one call.
JOINED_BYTES = 64 * 1024


class PackingChannel(NamedTuple):
    """What a packer shares: its number in the session, the session's copies if it may use them, the counters."""

    number: int
    copies: SenderCopies | None
    counters: Counters


class _Sent(NamedTuple):
    """A block that was sent, without what passes behind it. `times` are those of a `Sample`."""

    codec: str
    wire_bytes: int
    encoded_bytes: int
    times: tuple[float, float, float, float]
    in_software: bool = False


class Packer:
    """Packs one connection's stream. `more` are its further streams to the receiver, which it closes."""

    def __init__(
        self,
        channel: PackingChannel,
        tuner: Tuner,
        more: Sequence[Stream] = (),
        allowed: Callable[[], Allowance] = Allowance,
    ) -> None:
        self._channel = channel
        self._tuner = tuner
        self._more = more
        self._allowed = allowed
        self._turn = threading.Lock()
        self._tally = threading.Lock()
        self._error: BaseException | None = None

    def pump(self, local: Stream, peer: Stream, count: Count) -> None:
        """Carry what the local process writes to the peer gateway, and its half-close; raises OSError."""
        number, copies, _ = self._channel
        # Pages that pass unseen go over the stream of their block, so there may be only one.
        cutter = Cutter(local, number, copies, self._tuner, allowed=self._allowed, passing=not self._more)
        threads = [threading.Thread(target=self._run, args=(cutter, stream, peer, count)) for stream in self._more]
        for thread in threads:
            thread.daemon = True
            thread.start()
        try:
            with passage(local, peer) as way:
                self._pack(cutter, peer, way, count)
            for thread in threads:
                thread.join()
        except BaseException:
            self.wake()
            raise
        if self._error:
            raise self._error

    def wake(self) -> None:
        """Have the further streams return: one may still be sending, to a dead host, when the first has ended."""
        for stream in self._more:
            stream.wake()

    def _run(self, cutter: Cutter, stream: Stream, first: Stream, count: Count) -> None:
        """Use one of the further streams; when it breaks, so does the first one, and with it the connection."""
        try:
            self._pack(cutter, stream, None, count)
        except BaseException as error:  # `pump` raises it
            self._error = error
            first.wake()
        finally:
            stream.close(reset=self._error is not None)

    def _pack(self, cutter: Cutter, peer: Stream, way: Passage | None, count: Count) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        codecs: dict[str, Codec] = {}
        while True:
            begin = time.monotonic()
            with self._turn:
                turn_s = time.monotonic() - begin
                cut = cutter.cut(buffer)
            if cut is None:
                break
            cut = cut._replace(waited_s=cut.waited_s + turn_s)
            if way and cut.header.passed_bytes:
                self._pass(cut, way, count)
            else:
                self._send(cut, codecs, peer, count)
        peer.send(END)

    def _pass(self, cut: Cut, way: Passage, count: Count) -> None:
        """Send a block as it is, and behind it the pages that it announces, unseen."""
        begin = time.monotonic()
        head = pack_block_header(cut.header._replace(codec=NUMBERS["none"]))
        wire_bytes = len(head) + len(cut.content)
        waited_s = self._pass_on(way, FRAME.pack(wire_bytes) + head + cut.content, cut.header.passed_bytes)
        times = (cut.waited_s + waited_s, cut.prepared_s, 0.0, time.monotonic() - begin - waited_s)
        self._tell(cut, _Sent("none", wire_bytes, len(cut.content), times), count)

    def _pass_on(self, way: Passage, head: bytes, size: int) -> float:
        """Pass so many bytes on behind a head; returns for how long they were waited for."""
        waited_s = 0.0
        while size:
            begin = time.monotonic()
            taken = way.take(min(size, self._allowed().block_bytes))
            waited_s += time.monotonic() - begin
            if not taken:
                raise WireError("the stream ended inside a packet")
            way.give(head)
            head = b""
            size -= taken
        return waited_s

    def _send(self, cut: Cut, codecs: dict[str, Codec], peer: Stream, count: Count) -> None:
        begin = time.monotonic()
        name, encoded, in_software = _encode(cut, codecs)
        encoded_at = time.monotonic()
        head = pack_block_header(cut.header._replace(codec=NUMBERS[name]))
        wire_bytes = len(head) + len(encoded)
        head = FRAME.pack(wire_bytes) + head
        if len(encoded) <= JOINED_BYTES:
            peer.send(head + encoded)
        else:
            peer.send(head)
            peer.send(encoded)
        sent_at = time.monotonic()
        times = (cut.waited_s, cut.prepared_s, encoded_at - begin, sent_at - encoded_at)
        self._tell(cut, _Sent(name, wire_bytes, len(encoded), times, in_software), count)

    def _tell(self, cut: Cut, sent: _Sent, count: Count) -> None:
        """Tell the counters, the tuner and whoever counts of a block that was sent."""
        passed, normal, zero = cut.header.passed_bytes, cut.normal_pages, cut.zero_pages
        size, wire_bytes = cut.header.stream_bytes + passed, sent.wire_bytes + passed
        pages = (normal + zero, zero, cut.header.left_out - cut.resident_pages, cut.resident_pages)
        self._channel.counters.add(BlockCount(sent.codec, size, wire_bytes, *pages, sent.in_software))
        with self._tally:
            if normal or not cut.packets:
                self._tuner.observe(Sample(len(cut.content) + passed, sent.encoded_bytes + passed, *sent.times))
            count(wire_bytes)


def _encode(cut: Cut, codecs: dict[str, Codec]) -> tuple[str, bytes | memoryview, bool]:
    """Encode as chosen, or not at all if that makes it no smaller; the codec's name, the bytes, whether in software."""
    name, level = cut.choice
    codec = codecs.get(name)
    if codec is None:
        codec = codecs[name] = make_codec(name)
    encoded = codec.encode(cut.content, level)
    if len(encoded) < len(cut.content):
        return name, encoded, codec.in_software
    return "none", cut.content, False
