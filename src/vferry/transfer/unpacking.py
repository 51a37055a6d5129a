"""The receiver's half of a compressed connection: blocks in, over one stream or several, QEMU's stream out.

Each stream has a thread. They read and decode at the same time, and take turns at restoring and writing.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from vferry.transfer.checksum import crc32
from vferry.transfer.codecs import CODECS
from vferry.transfer.copies import ReceiverCopies
from vferry.transfer.counters import BlockCount, Counters
from vferry.transfer.decoding import Decoded, Decoder
from vferry.transfer.passage import Passage, passage
from vferry.transfer.progress import Progress
from vferry.transfer.pump import Count, give_all
from vferry.transfer.stream import Stream
from vferry.transfer.table import RESIDENT, pages_at, put_back, unpack_table
from vferry.transfer.turns import Turns
from vferry.transfer.wire import WireError


class UnpackingChannel(NamedTuple):
    """What an unpacker shares: its number in the session, the session's progress, its copies if it may use them."""

    number: int
    progress: Progress
    copies: ReceiverCopies | None
    counters: Counters


class Unpacker:
    """Restores one connection's stream."""

    def __init__(self, channel: UnpackingChannel) -> None:
        self._channel = channel
        self._turns = Turns()
        self._turns.join()
        self._peers: list[Stream] = []
        self._started = threading.Event()
        self._local: Stream
        self._count: Count

    def pump(self, peer: Stream, local: Stream, count: Count) -> None:
        """Carry what comes from the peer gateway to the local process, and its half-close.

        Raises OSError, and `WireError` for whatever is no block, or is not the block that is due.
        """
        self._peers.append(peer)
        self._local, self._count = local, count
        self._started.set()
        try:
            self._carry(peer)
            self._turns.finish()
        except BaseException:
            self.wake()
            raise
        finally:
            self._channel.progress.end(self._channel.number)
        local.end()

    def use(self, peer: Stream, accept: Callable[[], None]) -> None:
        """Carry what comes over a further stream, to its end, once `accept` has told the sender that it may use it.

        Raises as `pump` does, which then fails too.
        """
        self._turns.join()
        self._peers.append(peer)
        try:
            self._carry(peer, accept)
        except BaseException:
            self.wake()
            raise

    def abandon(self) -> None:
        """Say that the connection has ended, or will never be carried: its streams end, too."""
        if not self._started.is_set():
            self._turns.leave(failed=True)
            self._started.set()
        self.wake()

    def wake(self) -> None:
        """Have all its streams return: a further one may be waited for when the first has ended."""
        for peer in self._peers:
            peer.wake()

    def _carry(self, peer: Stream, accept: Callable[[], None] = lambda: None) -> None:
        """Carry a stream that has joined, and have it leave."""
        failed = True
        try:
            accept()
            self._started.wait()
            decoder = Decoder(peer)
            with passage(peer, self._local) as way:
                while block := decoder.read():
                    with self._turns.take(block.header.sequence):
                        self._deliver(block, way)
            failed = False
        finally:
            self._turns.leave(failed=failed)

    def _deliver(self, block: Decoded, way: Passage) -> None:
        header, content, wire_bytes, in_software = block
        stream, pages = content[: header.stream_bytes], (0, 0, 0, 0)
        if header.table_bytes:
            stream, pages = self._restore(block)
        if crc32(stream) != header.checksum:
            raise WireError(f"block {header.sequence} damaged")
        self._channel.progress.advance(self._channel.number, header.sequence)
        self._local.send(stream)
        self._count(wire_bytes)
        give_all(way, header.passed_bytes, self._count)
        size, wire_bytes = len(stream) + header.passed_bytes, wire_bytes + header.passed_bytes
        self._channel.counters.add(BlockCount(CODECS[header.codec], size, wire_bytes, *pages, in_software))

    def _restore(self, block: Decoded) -> tuple[memoryview, tuple[int, int, int, int]]:
        """Undo what the sender did to headers and pages, once what the block builds on is there."""
        header, content = block.header, block.content
        table_end = header.left_bytes + header.table_bytes
        table = unpack_table(content[header.left_bytes : table_end])
        if table.left_out != header.left_out:
            raise WireError("other pages left out than there should be")
        stream, packets = put_back(content[: header.left_bytes], table, header.stream_bytes, header.passed_bytes)
        if table.fates:
            if self._channel.copies is None or header.passed_bytes:
                raise WireError("page copies that were not agreed on")
            self._channel.progress.wait(self._channel.number, header.needs)
            pages = [pages_at(stream, start, packet) for start, packet in packets]
            self._channel.copies.restore(pages, table, content[table_end:])
        zero = sum(packet.zero_pages for _, packet in packets)
        normal = sum(packet.normal_pages for _, packet in packets)
        resident = table.fates.count(RESIDENT)
        return stream, (normal + zero, zero, header.left_out - resident, resident)
