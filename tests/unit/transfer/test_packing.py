"""Packing and unpacking without gateways: streams of several channels come back, whatever order blocks arrive in."""

import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vferry.transfer import cutting
from vferry.transfer.allowance import BLOCK_BYTES, PACKET_BYTES, Allowance
from vferry.transfer.block import BlockHeader, pack_block_header, unpack_block
from vferry.transfer.checksum import crc32
from vferry.transfer.copies import ReceiverCopies, SenderCopies
from vferry.transfer.counters import Counters
from vferry.transfer.cutting import HOLD_MS
from vferry.transfer.multifd import PAGE_BYTES, SYNC
from vferry.transfer.packing import Packer, PackingChannel
from vferry.transfer.progress import Progress
from vferry.transfer.pump import Pump
from vferry.transfer.resident import Residents
from vferry.transfer.splitting import Splitter
from vferry.transfer.stream import PlainStream
from vferry.transfer.table import Table, pack_table
from vferry.transfer.tuner import FixedTuner, Tuner
from vferry.transfer.tuning import Choice, Sample
from vferry.transfer.unpacking import Unpacker, UnpackingChannel
from vferry.transfer.wire import END, FRAME, NO_HASHES, WireError

from .conftest import WAIT_S, wait_for
from .mapped import residents
from .qemu import INITIAL, packet, page, streams


def ignore(_size: int) -> None:
    """Count nothing."""


LZ4 = FixedTuner(Choice("lz4", 1))
OFF = FixedTuner(Choice("none", 0))


class Fickle:
    """Changes its mind with every block."""

    for_headers = LZ4.choice

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)  # noqa: S311

    @property
    def choice(self) -> Choice:
        return self._chance.choice([OFF.choice, LZ4.choice])

    def observe(self, sample: Sample) -> None:
        """Learn nothing."""


class Wire(PlainStream):
    """Keeps what is sent, and gives it again with pauses."""

    bare = False

    def __init__(self, pauses: Callable[[], float] = lambda: 0.0) -> None:
        self.data = bytearray()
        self._pauses = pauses
        self._read = 0

    def send(self, data: memoryview | bytes) -> None:
        self.data += data

    def recv_into(self, buffer: memoryview, *, whole: bool = False) -> int:
        time.sleep(self._pauses())
        part = self.data[self._read : self._read + len(buffer)]
        buffer[: len(part)] = part
        self._read += len(part)
        return len(part)

    def end(self) -> None:
        self.ended = True

    def wake(self) -> None:
        """Nobody waits in it."""

    def frames(self) -> list[bytes]:
        """The blocks, without the end frame."""
        found, rest = [], bytes(self.data)
        while rest != END and rest:
            (size,) = FRAME.unpack_from(rest)
            found.append(rest[FRAME.size : FRAME.size + size])
            rest = rest[FRAME.size + size :]
        return found


class Session:
    """Packs and unpacks channels that share copies of pages."""

    def __init__(self, slots: int = 1024, tuner: Tuner = LZ4, there: Residents | None = None) -> None:
        self._tuner = tuner
        self.sent, self.received = Counters(), Counters()
        hashes = there.hashes if there else NO_HASHES
        self._sender, self._receiver = SenderCopies(slots, hashes), ReceiverCopies(slots, there)
        self._progress = Progress()

    def pack(self, number: int, pieces: list[bytes], wire: Wire) -> None:
        """Write pieces to a packer as QEMU would."""
        packer = Packer(PackingChannel(number, self._sender, self.sent), self._tuner)
        near, far = socket.socketpair()
        with near, far:
            thread = threading.Thread(target=packer.pump, args=(PlainStream(far), wire, ignore))
            thread.start()
            for piece in pieces:
                near.sendall(piece)
            near.shutdown(socket.SHUT_WR)
            thread.join()

    def unpacker(self, number: int) -> Pump:
        self._progress.begin(number)
        return Unpacker(UnpackingChannel(number, self._progress, self._receiver, self.received)).pump


def in_threads(work: list[Callable[[], Any]]) -> None:
    """Run all at once, and raise what one of them raises."""
    errors: list[BaseException] = []

    def run(one: Callable[[], Any]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    for error in errors:
        raise error


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def through(session: Session, pieces: list[list[bytes]], seed: int) -> list[bytes]:
    """Pack all channels at once, unpack all at once with other pauses, and return what came out of each."""
    chance = random.Random(seed)  # noqa: S311
    wires = [Wire(lambda: chance.random() / 500) for _ in pieces]
    in_threads([partial(session.pack, *work) for work in zip(range(len(pieces)), pieces, wires, strict=True)])
    out = [Wire() for _ in pieces]
    pumps = [session.unpacker(number) for number in range(len(pieces))]
    in_threads([partial(pump, wire, end, ignore) for pump, wire, end in zip(pumps, wires, out, strict=True)])
    assert all(wire.ended for wire in out)
    return [bytes(wire.data) for wire in out]


channels = st.lists(streams.map(b"".join), min_size=1, max_size=3)
cut_lists = st.lists(st.integers(min_value=0), max_size=6)


@settings(deadline=None, max_examples=60)
@given(channels, cut_lists, st.integers())
def test_what_channels_carry_comes_back(contents: list[bytes], cuts: list[int], seed: int) -> None:
    session = Session(there=residents(page(1), page(2)) if seed % 2 else None)
    assert through(session, [cut(content, cuts) for content in contents], seed) == contents
    assert session.sent.report() == session.received.report()


@settings(deadline=None, max_examples=60)
@given(channels, cut_lists, st.integers())
def test_pages_that_pass_unseen_come_back_among_those_that_do_not(
    contents: list[bytes], cuts: list[int], seed: int
) -> None:
    session = Session(tuner=Fickle(seed))
    assert through(session, [cut(content, cuts) for content in contents], seed) == contents
    assert session.sent.report() == session.received.report()


@settings(deadline=None, max_examples=30)
@given(channels, st.integers(min_value=0), st.binary(max_size=40), st.integers())
def test_damaged_and_truncated_streams_come_back_too(
    contents: list[bytes], place: int, noise: bytes, seed: int
) -> None:
    damaged = [content[: place % len(content)] + noise for content in contents]
    assert through(Session(), [[content] for content in damaged], seed) == damaged


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=5))
def test_any_other_stream_comes_back(pieces: list[bytes]) -> None:
    assert through(Session(), [pieces], 0) == [b"".join(pieces)]


def rounds(count: int, pages: int) -> list[bytes]:
    """The same pages again and again, a word of each changed every time."""
    offsets = [number * 4096 for number in range(pages)]
    noise = [random.Random(number).randbytes(4088) for number in range(pages)]  # noqa: S311
    packets = [packet(offsets, [turn.to_bytes(8, "big") + part for part in noise]) for turn in range(count)]
    return [INITIAL, *packets]


def test_a_page_that_comes_again_is_a_difference() -> None:
    session = Session()
    stream = b"".join(rounds(10, 100))
    assert through(session, [[stream]], 0) == [stream]
    report = session.sent.report()
    assert report
    assert (report["pages"], report["delta_pages"]) == (1000, 900)
    assert report["wire_bytes"] < 100 * 4096 * 1.2


def test_pages_that_are_resident_are_left_out_and_come_back() -> None:
    noise = [random.Random(number).randbytes(4096) for number in range(100)]  # noqa: S311
    session = Session(there=residents(*noise[:80]))
    offsets = [number * 4096 for number in range(100)]
    again = [b"changed!" + data[8:] for data in noise]
    stream = INITIAL + packet(offsets, noise) + packet(offsets, again)
    assert through(session, [[stream]], 0) == [stream]
    for report in (session.sent.report(), session.received.report()):
        assert report
        assert (report["pages"], report["resident_pages"], report["delta_pages"]) == (200, 80, 100)
        assert report["wire_bytes"] < 20 * 4096 * 1.3


def test_what_is_not_compressed_passes_unseen() -> None:
    session, wire, out = Session(tuner=OFF), Wire(), Wire()
    stream = b"".join(rounds(3, 100))
    session.pack(0, [stream], wire)
    assert wire.data.count(stream[-100 * 4096 :]) == 1
    session.unpacker(0)(wire, out, ignore)
    assert out.data == stream
    report = session.sent.report()
    assert report == session.received.report()
    assert report
    assert (report["pages"], report["delta_pages"], report["stream_bytes"]) == (300, 0, len(stream))
    assert len(wire.data) - len(END) - 4 * report["blocks"] <= report["wire_bytes"]


def test_a_stream_that_ends_inside_pages_that_pass_is_broken_off() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.sendall((INITIAL + packet([0, 4096], [page(1), page(2)]))[:-10])
        near.shutdown(socket.SHUT_WR)
        with pytest.raises(WireError, match="inside a packet"):
            Packer(PackingChannel(0, None, Counters()), OFF).pump(PlainStream(far), Wire(), ignore)


def test_copies_are_shared_between_channels() -> None:
    session = Session()
    one, two = rounds(1, 100), rounds(1, 100)
    wires = [Wire(), Wire()]
    for number, pieces in enumerate((one, two)):
        session.pack(number, pieces, wires[number])
    first, second = session.unpacker(0), session.unpacker(1)
    out = [Wire(), Wire()]
    later = threading.Thread(target=second, args=(wires[1], out[1], ignore))
    later.start()
    later.join(0.1)
    assert later.is_alive()  # its block needs one of the other channel
    assert len(out[1].data) < 4096
    first(wires[0], out[0], ignore)
    later.join(WAIT_S)
    assert out[1].data == b"".join(two)
    report = session.sent.report()
    assert report
    assert report["delta_pages"] == 100


def test_a_block_whose_need_never_comes_fails() -> None:
    session = Session()
    wires = [Wire(), Wire()]
    for number in range(2):
        session.pack(number, rounds(1, 100), wires[number])
    pumps = [session.unpacker(number) for number in range(2)]
    with pytest.raises(WireError, match="without an end frame"):
        pumps[0](Wire(), Wire(), ignore)
    with pytest.raises(WireError, match=r"block \d of channel 0 is needed and will not come"):
        pumps[1](wires[1], Wire(), ignore)


def test_more_pages_than_slots_come_back() -> None:
    session = Session(slots=256)
    chance = random.Random(1)  # noqa: S311
    parts = [INITIAL]
    for number in range(60):
        offsets = chance.sample(range(0, 400 * 4096, 4096), 100)
        parts.append(packet(offsets, [page(number << 32 | offset) for offset in offsets]))
    stream = b"".join(parts)
    assert through(session, [[stream]], 0) == [stream]


def test_zero_pages_and_headers_shrink_to_almost_nothing() -> None:
    session = Session()
    stream = INITIAL + b"".join(packet([turn << 19 | page << 12 for page in range(128)]) for turn in range(1000))
    assert through(session, [[stream]], 0) == [stream]
    report = session.sent.report()
    assert report
    assert report["zero_pages"] == 128_000
    assert report["wire_bytes"] < len(stream) / 50


def test_packets_are_gathered_until_a_round_ends_or_the_block_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "GATHER_MS", 20_000)
    near, far = socket.socketpair()
    wire, zero, full = Wire(), packet([0, 4096]), packet(range(0, 128 << 12, 4096), [page(n) for n in range(128)])
    packer = Packer(PackingChannel(0, None, Counters()), LZ4)
    with near, far:
        thread = threading.Thread(target=packer.pump, args=(PlainStream(far), wire, ignore))
        thread.start()
        near.sendall(INITIAL)
        wait_for(lambda: len(wire.frames()) == 1)
        for number in range(20):
            near.sendall(zero)
            time.sleep(0.001 * (number % 3))
        near.sendall(packet(flags=SYNC))
        wait_for(lambda: len(wire.frames()) == 2)
        for _ in range(3):
            near.sendall(full)
        wait_for(lambda: len(wire.frames()) == 3)
        near.sendall(packet(flags=SYNC))
        wait_for(lambda: len(wire.frames()) == 4)
        near.shutdown(socket.SHUT_WR)
        thread.join(WAIT_S)


FULL = packet(range(0, 128 << 12, 4096), [page(n) for n in range(128)])


@pytest.mark.parametrize(
    ("stream", "tuner", "allowed", "most"),
    [
        (INITIAL + 8 * FULL, LZ4, BLOCK_BYTES, 2 * PACKET_BYTES),
        (INITIAL + 8 * FULL, LZ4, BLOCK_BYTES - 8192, PACKET_BYTES),
        (INITIAL + 8 * FULL, LZ4, 20_000, PACKET_BYTES),
        (8 * FULL, LZ4, 20_000, 20_000),
        (INITIAL + 8 * FULL, OFF, 20_000, 20_000),
    ],
    ids=["two packets", "one packet", "a packet at least", "a plain stream", "passed unseen"],
)
def test_no_more_is_held_than_is_allowed(stream: bytes, tuner: Tuner, allowed: int, most: int) -> None:
    """What is passed on or encoded at once, from a stream that never idles."""
    held: list[int] = []

    class Watching(Wire):
        def send(self, data: memoryview | bytes) -> None:
            super().send(data)
            if tuner is OFF:
                held.append(len(data))

    class Seeing(FixedTuner):
        def observe(self, sample: Sample) -> None:
            if tuner is not OFF:
                held.append(sample.content_bytes)

    packer = Packer(PackingChannel(0, None, Counters()), Seeing(tuner.choice), (), lambda: Allowance(0, allowed))
    near, far = socket.socketpair()
    with near, far:
        thread = threading.Thread(target=packer.pump, args=(PlainStream(far), Watching(), ignore))
        thread.start()
        near.sendall(stream)
        near.shutdown(socket.SHUT_WR)
        thread.join(WAIT_S)
    assert most - 20_000 <= max(held) <= most + 5_000


@pytest.mark.parametrize("damage", ["flip", "drop", "repeat", "swap", "cut"])
def test_damaged_and_reordered_blocks_fail(damage: str) -> None:
    session = Session()
    sent, wire = Wire(), Wire()
    session.pack(0, [random.Random(7).randbytes(3 * BLOCK_BYTES)], sent)  # noqa: S311
    frames = sent.frames()
    assert len(frames) > 2
    if damage == "flip":
        frames[1] = frames[1][:-100] + bytes([frames[1][-100] ^ 1]) + frames[1][-99:]
    elif damage == "drop":
        del frames[0]
    elif damage == "repeat":
        frames.insert(1, frames[0])
    elif damage == "swap":
        frames[0], frames[1] = frames[1], frames[0]
    else:
        frames[1] = frames[1][:-10]
    wire.data = bytearray(b"".join(FRAME.pack(len(frame)) + frame for frame in frames) + END)
    with pytest.raises(WireError):
        session.unpacker(0)(wire, Wire(), ignore)


@pytest.mark.parametrize(
    "begun", [b"Q", b"QEVM and more", INITIAL[:10], INITIAL, INITIAL + packet([0], [page(1)])[:2000]]
)
def test_nothing_is_held_back_while_the_input_idles(begun: bytes) -> None:
    session, wire = Session(), Wire()
    packer = Packer(PackingChannel(0, None, session.sent), LZ4)
    near, far = socket.socketpair()
    with near, far:
        thread = threading.Thread(target=packer.pump, args=(PlainStream(far), wire, ignore))
        thread.start()
        near.sendall(begun)
        start = time.monotonic()
        wait_for(lambda: wire.data)
        assert time.monotonic() - start < HOLD_MS / 1000 + 0.5
        near.close()
        thread.join(WAIT_S)
    out = Wire()
    session.unpacker(0)(wire, out, ignore)
    assert out.data == begun


@settings(deadline=None, max_examples=150)
@given(streams.map(b"".join), st.integers(min_value=0), st.integers(1, 255))
@example(INITIAL, 3, 71)  # the length of its only block
def test_damage_on_the_way_is_an_error_or_none(content: bytes, place: int, change: int) -> None:
    session, sent = Session(), Wire()
    session.pack(0, [content], sent)
    sent.data[place % len(sent.data)] ^= change
    out = Wire()
    with suppress(WireError):
        session.unpacker(0)(sent, out, ignore)
        assert out.data == content  # zeros copied from another place are zeros


@settings(deadline=None, max_examples=150)
@given(
    st.binary(min_size=1, max_size=3000),
    st.lists(st.integers(0, 2**32 - 1), max_size=3),
    st.binary(max_size=4),
    st.lists(st.integers(0, 2**32 - 1), max_size=4),
    st.binary(max_size=200),
    st.integers(0, 3),
    st.lists(st.integers(0, 2**32 - 1), max_size=2),
)
def test_a_peer_that_lies_in_a_table_is_an_error(
    stream: bytes,
    starts: list[int],
    fates: bytes,
    slots: list[int],
    differences: bytes,
    left_out: int,
    numbers: list[int],
) -> None:
    table = pack_table(Table(starts, fates, slots, numbers))
    size = len(stream) + left_out * PAGE_BYTES
    header = BlockHeader(0, 0, size, len(table), crc32(stream), (), 0, left_out, len(differences))
    block = pack_block_header(header) + stream + table + differences
    wire = Wire()
    wire.data = bytearray(FRAME.pack(len(block)) + block + END)
    out = Wire()
    with suppress(WireError):
        Session().unpacker(0)(wire, out, ignore)
        assert out.data == stream


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=5),
    st.lists(st.integers(0, 2**32 - 1), max_size=5),
    st.binary(max_size=200),
    st.lists(st.integers(0, 3), max_size=5),
)
def test_fates_and_slots_that_do_not_fit_are_errors(
    fates: list[int], slots: list[int], differences: bytes, numbers: list[int]
) -> None:
    pages, there = np.zeros((4, 512), np.uint64), residents(page(1), page(2))
    table = Table([0, 1], bytes(fates), slots, numbers)
    with suppress(WireError):
        ReceiverCopies(256, there).restore([pages[:1], pages[1:]], table, memoryview(differences))
        assert len(fates) == 4
        assert max(fates) <= 3
        assert len(numbers) == fates.count(3)


def by_round(wire: Wire, restored: bytes) -> list[tuple[int, BlockHeader]]:
    """The blocks of a channel, each with the number of SYNCs in what came before it."""
    splitter, found, ended = Splitter(), [], 0
    for frame in wire.frames():
        header, _ = unpack_block(memoryview(frame))
        size = header.stream_bytes + header.passed_bytes
        packets = splitter.feed(memoryview(restored)[:size])
        assert not any(packet.header.sync for packet in packets[:-1])
        found.append((ended, header))
        ended += sum(packet.header.sync for packet in packets)
        restored = restored[size:]
    return found


@settings(deadline=None)
@given(channels)
@example([INITIAL + packet([0], [page(1)], flags=SYNC) + packet([0], [page(2)]), INITIAL + packet([0], [page(3)])])
def test_no_block_needs_one_behind_a_sync_that_is_still_to_come(contents: list[bytes]) -> None:
    session = Session()
    wires = [Wire() for _ in contents]
    for number, content in enumerate(contents):  # one after the other, so the second one is as late as can be
        session.pack(number, [content], wires[number])
    blocks = [by_round(wire, content) for wire, content in zip(wires, contents, strict=True)]
    for of_channel in blocks:
        for mine, header in of_channel:
            assert all(blocks[need.channel][need.sequence][0] <= mine for need in header.needs)
