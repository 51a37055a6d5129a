"""The sender's half of a compressed connection: QEMU's stream in, blocks out, over one stream or several.

Each stream has a thread. They take turns at cutting, which keeps the order, and encode and send at the same time.
"""

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from vferry.transfer.block import pack_block_header
from vferry.transfer.codecs import NUMBERS, Codec, make_codec
from vferry.transfer.copies import SenderCopies
from vferry.transfer.counters import BlockCount, Counters
from vferry.transfer.cutting import BUFFER_BYTES, Cut, Cutter
from vferry.transfer.pump import Count
from vferry.transfer.stream import Stream
from vferry.transfer.tuner import Tuner
from vferry.transfer.tuning import Sample
from vferry.transfer.wire import END, FRAME

# A header is sent together with this much, as one record of TLS and one call.
JOINED_BYTES = 64 * 1024


class PackingChannel(NamedTuple):
    """What a packer shares: its number in the session, the session's copies if it may use them, the counters."""

    number: int
    copies: SenderCopies | None
    counters: Counters


class Packer:
    """Packs one connection's stream. `more` are its further streams to the receiver, which it closes."""

    def __init__(self, channel: PackingChannel, tuner: Tuner, more: Sequence[Stream] = ()) -> None:
        self._channel = channel
        self._tuner = tuner
        self._more = more
        self._turn = threading.Lock()
        self._tally = threading.Lock()
        self._error: BaseException | None = None

    def pump(self, local: Stream, peer: Stream, count: Count) -> None:
        """Carry what the local process writes to the peer gateway, and its half-close; raises OSError."""
        cutter = Cutter(local, self._channel.number, self._channel.copies, self._tuner)
        threads = [threading.Thread(target=self._run, args=(cutter, stream, peer, count)) for stream in self._more]
        for thread in threads:
            thread.daemon = True
            thread.start()
        try:
            self._pack(cutter, peer, count)
        except BaseException:
            for stream in self._more:
                stream.wake()
            raise
        for thread in threads:
            thread.join()
        if self._error:
            raise self._error

    def _run(self, cutter: Cutter, stream: Stream, first: Stream, count: Count) -> None:
        """Use one of the further streams; when it breaks, so does the first one, and with it the connection."""
        try:
            self._pack(cutter, stream, count)
        except BaseException as error:  # `pump` raises it
            self._error = error
            first.wake()
        finally:
            stream.close(reset=self._error is not None)

    def _pack(self, cutter: Cutter, peer: Stream, count: Count) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        codecs: dict[str, Codec] = {}
        while True:
            begin = time.monotonic()
            with self._turn:
                turn_s = time.monotonic() - begin
                cut = cutter.cut(buffer)
            if cut is None:
                break
            self._send(cut._replace(waited_s=cut.waited_s + turn_s), codecs, peer, count)
        peer.send(END)

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
        size, normal, zero = cut.header.stream_bytes, cut.normal_pages, cut.zero_pages
        pages = (normal + zero, zero, cut.delta_pages)
        times = (cut.waited_s, cut.prepared_s, encoded_at - begin, sent_at - encoded_at)
        self._channel.counters.add(BlockCount(name, size, wire_bytes, *pages, in_software))
        with self._tally:
            if normal or not cut.packets:
                self._tuner.observe(Sample(size, len(encoded), *times))
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
