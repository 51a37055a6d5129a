"""What is fuzzed: everything that reads bytes of another process. Each may refuse them, in the protocol's own words.

The first byte of an input chooses the target, so that one run covers all.
"""

from collections.abc import Callable
from contextlib import suppress

from atheris import FuzzedDataProvider
from transfer.mapped import residents
from transfer.qemu import page

from vferry.transfer.block import BlockHeader, Need, pack_block_header
from vferry.transfer.checksum import crc32
from vferry.transfer.copies import ReceiverCopies
from vferry.transfer.counters import Counters
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.progress import Progress
from vferry.transfer.splitting import Splitter
from vferry.transfer.stream import PlainStream
from vferry.transfer.unpacking import Unpacker, UnpackingChannel
from vferry.transfer.wire import (
    END,
    FRAME,
    FRAME_LIMIT,
    HELLO,
    REPLY,
    WireError,
    hello_body_size,
    reply_body_size,
    unpack_hello,
    unpack_reply,
)

THERE = residents(page(1), page(2))
SLOTS = 256


class Bytes(PlainStream):
    """A stream that gives bytes and then ends, and forgets what it gets."""

    bare = False

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)
        self.sent = 0

    def recv_into(self, buffer: memoryview, *, whole: bool = False) -> int:
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def send(self, data: memoryview | bytes) -> None:
        self.sent += len(data)

    def end(self) -> None:
        """Nobody reads."""

    def wake(self) -> None:
        """Nobody waits."""


def hello(data: bytes) -> None:
    """A sender's first words."""
    if len(data) >= HELLO.size:
        size = hello_body_size(data[: HELLO.size])
        unpack_hello(data[: HELLO.size], data[HELLO.size :][:size])


def reply(data: bytes) -> None:
    """A receiver's answer."""
    if len(data) >= REPLY.size:
        size = reply_body_size(data[: REPLY.size])
        unpack_reply(data[: REPLY.size], data[REPLY.size :][:size])


def receive(data: bytes) -> None:
    """Whatever comes where blocks are due, with two channels in the session, of which the other one has ended."""
    progress, local = Progress(), Bytes(b"")
    for channel in (0, 1):
        progress.begin(channel)
    progress.end(1)
    unpacker = Unpacker(UnpackingChannel(0, progress, ReceiverCopies(SLOTS, THERE), Counters()))
    unpacker.pump(Bytes(data), local, lambda _size: None)


def blocks(data: bytes) -> None:
    """Blocks whose checksums are right, whatever they say: no fuzzer finds a checksum."""
    provider = FuzzedDataProvider(data)
    frames = []
    for sequence in range(provider.ConsumeIntInRange(1, 6)):
        stream = provider.ConsumeBytes(provider.ConsumeIntInRange(1, 1 << 13))
        table = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 1 << 9))
        needs = [
            Need(provider.ConsumeIntInRange(0, 2), provider.ConsumeIntInRange(0, 3))
            for _ in range(provider.ConsumeIntInRange(0, 2))
        ]
        codec, wrong = provider.ConsumeIntInRange(0, 4), provider.ConsumeIntInRange(0, 7)
        left_out = provider.ConsumeIntInRange(0, 3)
        sizes = (len(stream) + left_out * PAGE_BYTES + (wrong == 1), len(table) + (wrong == 2))
        passed = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 1 << 9))
        differences = provider.ConsumeBytes(provider.ConsumeIntInRange(0, left_out << 8)) if left_out else b""
        apart = (len(passed) + (wrong == 3), left_out, len(differences) + (wrong == 4))
        header = BlockHeader(codec, sequence, *sizes, crc32(stream), needs, *apart)
        block = pack_block_header(header) + stream + table + differences
        frames.append(FRAME.pack(len(block)) + block + passed)
    receive(b"".join(frames) + END)


def split(data: bytes) -> None:
    """QEMU's stream, which may be anything, and is never refused."""
    splitter = Splitter()
    step = data[0] + 1 if data else 1
    for start in range(0, len(data), step):
        packets = splitter.feed(memoryview(data)[start : start + step])
        assert all(packet.start >= 0 for packet in packets)
        assert splitter.opaque or 0 < splitter.wanted <= FRAME_LIMIT
        if splitter.payload_ahead:
            splitter.pass_over()


TARGETS: tuple[Callable[[bytes], None], ...] = (hello, reply, receive, blocks, split)


def run(data: bytes) -> None:
    """One input; raises whatever must not happen."""
    if not data:
        return
    with suppress(WireError):
        TARGETS[data[0] % len(TARGETS)](data[1:])
