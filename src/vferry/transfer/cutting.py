"""Cutting a local process's stream into blocks and making them smaller as far as no codec is needed.

Nothing is held back while the input idles, but for a packet that QEMU has begun to write and writes in one piece: that
one waits for its rest, `HOLD_MS` for it to go on and as long for it to end; and for packets that leave room in their
block: they wait for the next one, `GATHER_MS` at most. A SYNC, with which each round ends, ends its block, too.
Under load a block holds at most `BLOCK_BYTES`, or what is allowed at the moment, but a packet at least.

Where nothing is compressed, a block ends behind a packet's header, and the pages are left to be passed on as they are.
"""

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from vferry.transfer.allowance import BLOCK_BYTES, Allowance
from vferry.transfer.block import BlockHeader
from vferry.transfer.checksum import crc32
from vferry.transfer.copies import Fates, Moment, SenderCopies, SentPages
from vferry.transfer.splitting import OPAQUE_BYTES, Packet, Splitter
from vferry.transfer.stream import Stream
from vferry.transfer.table import PACKET_LIMIT, RESIDENT, Table, flatten_header, leave_out, pack_table, pages_at
from vferry.transfer.tuner import Tuner
from vferry.transfer.tuning import Choice

BUFFER_BYTES = BLOCK_BYTES + 16 * 1024
HOLD_MS = 100
GATHER_MS = 2
TIMEVAL = struct.Struct("ll")


class Cut(NamedTuple):
    """A block before it is encoded.

    `content` is what is left of the stream, the table and the differences, in the buffer that was given; `header` lacks
    the codec. What its `passed_bytes` count is still to be taken from the stream.
    """

    content: memoryview
    header: BlockHeader
    choice: Choice
    packets: list[Packet]
    resident_pages: int
    waited_s: float = 0.0
    prepared_s: float = 0.0

    @property
    def normal_pages(self) -> int:
        return sum(packet.header.normal_pages for packet in self.packets)

    @property
    def zero_pages(self) -> int:
        return sum(packet.header.zero_pages for packet in self.packets)


class Cutter:
    """Cuts one connection's stream; for one thread at a time."""

    def __init__(
        self,
        local: Stream,
        number: int,
        copies: SenderCopies | None,
        tuner: Tuner,
        *,
        allowed: Callable[[], Allowance] = Allowance,
        passing: bool = False,
    ) -> None:
        """`number` is the channel's in its session; `copies` the session's, if it may use them.

        With `passing`, who cuts passes on the `passed_bytes` of a cut before the next one.
        """
        self._local = local
        self._number = number
        self._copies = copies
        self._tuner = tuner
        self._allowed = allowed
        self._most = BLOCK_BYTES
        self._passing = passing
        local.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(*divmod(HOLD_MS * 1000, 1_000_000)))
        self._arrivals = select.poll()
        self._arrivals.register(local.socket, select.POLLIN)
        self._splitter = Splitter()
        self._packets: list[Packet] = []
        self._rest = b""
        self._base = 0
        self._sequence = 0
        self._round = 0
        self._ended = False

    def cut(self, buffer: memoryview) -> Cut | None:
        """Read the next block into a buffer of `BUFFER_BYTES`; None once there is no more. Raises OSError."""
        begin = time.monotonic()
        choice = self._tuner.choice
        self._most = self._allowed().block_bytes
        filled = self._fill(buffer, choice)
        ahead = self._ahead(choice)
        passed = ahead if self._splitter.begun == self._base else 0
        if passed:
            self._packets.append(self._splitter.pass_over())
        size = filled if passed or self._ended or (self._wanted(filled) > 0 and not ahead) else self._complete(filled)
        if not size:
            return None
        self._rest = bytes(buffer[size:filled])
        read_at = time.monotonic()
        cut = self._prepare(buffer, size, passed, choice)
        self._base += size + passed
        self._sequence += 1
        self._round += self._at_sync
        self._packets = []
        return cut._replace(waited_s=read_at - begin, prepared_s=time.monotonic() - read_at)

    def _ahead(self, choice: Choice) -> int:
        """How many bytes of pages come next that may go on unseen, their header being in the buffer."""
        may = self._passing and choice.codec == "none" and self._splitter.begun >= self._base
        return self._splitter.payload_ahead if may else 0

    def _fill(self, buffer: memoryview, choice: Choice) -> int:
        """Read until the block is full, the input idles or ends; returns how much there is."""
        filled = len(self._rest)
        buffer[:filled] = self._rest
        while not self._ended and (wanted := self._wanted(filled)) > 0 and not self._ahead(choice):
            if not self._arrivals.poll(self._patience_ms(filled)):
                break
            inside = self._splitter.inside
            size = self._local.recv_into(buffer[filled:][:wanted], whole=inside)
            self._ended = not size
            self._packets += self._splitter.feed(buffer[filled:][:size])
            filled += size
            if inside and size < wanted:
                break
        return filled

    def _patience_ms(self, filled: int) -> int | None:
        """How long to wait for more; None is for ever."""
        if not filled:
            return None
        if self._splitter.inside:
            return HOLD_MS
        return GATHER_MS if self._packets else 0

    @property
    def _at_sync(self) -> bool:
        return bool(self._packets) and self._packets[-1].header.sync

    def _wanted(self, filled: int) -> int:
        """How many bytes to read next; none if the block is full."""
        if self._splitter.opaque:
            return min(OPAQUE_BYTES, self._most) - filled
        wanted = self._splitter.wanted
        most = self._most if self._packets else BLOCK_BYTES
        is_full = self._at_sync or wanted > most - filled or len(self._packets) == PACKET_LIMIT
        return 0 if is_full else wanted

    def _complete(self, filled: int) -> int:
        """The end of what is complete in the buffer; all of it if nothing is."""
        return max(0, self._splitter.begun - self._base) or filled

    def _prepare(self, buffer: memoryview, size: int, passed: int, choice: Choice) -> Cut:
        """Take the checksum, then make headers and pages smaller in place, and put behind them what restores them."""
        stream = buffer[:size]
        checksum = crc32(stream)
        packets = [
            packet._replace(start=packet.start - self._base) for packet in self._packets if packet.start >= self._base
        ]
        with_pages = any(packet.header.normal_pages for packet in packets)
        choice = choice if with_pages or not packets else self._tuner.for_headers
        # Who keeps no copies saves the time for them, and without a codec the link is not what is slow.
        found = self._transform(stream, packets, self._copies if choice.codec != "none" else None)
        table = Table([packet.start for packet in packets], found.fates, found.slots, found.residents)
        end = leave_out(stream, packets, found.fates)
        packed = pack_table(table)
        for part in (packed, found.differences):
            buffer[end : end + len(part)] = part
            end += len(part)
        apart = (passed, table.left_out, len(found.differences))
        header = BlockHeader(0, self._sequence, size, len(packed), checksum, found.needs, *apart)
        return Cut(buffer[:end], header, choice, packets, found.fates.count(RESIDENT))

    def _transform(self, stream: memoryview, packets: list[Packet], copies: SenderCopies | None) -> Fates:
        offsets = [flatten_header(stream, packet.start) for packet in packets]
        if copies is None:
            return Fates()
        sent = [
            SentPages(header.ramblock, before[: header.normal_pages], pages_at(stream, start, header))
            for (start, header), before in zip(packets, offsets, strict=True)
            if header.normal_pages
        ]
        return copies.exchange(sent, Moment(self._number, self._sequence, self._round))
