"""A compressing gateway pair in this process: what comes back, what is refused, what a break does."""

import random
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from vferry.model.problem import Problem
from vferry.transfer import codecs, compression, cutting
from vferry.transfer.compression import MIB, Compression
from vferry.transfer.endpoint import TcpAddress
from vferry.transfer.sending import SendingGateway
from vferry.transfer.sessions import ReceiverSessions
from vferry.transfer.statistics import Statistics
from vferry.transfer.tuner import AdaptiveTuner
from vferry.transfer.wire import Carriage, Hello, pack_hello

from .conftest import PLAIN, WAIT_S, Authority, MakePair, Pair, wait_for
from .qemu import INITIAL, packet

PAGES = 100


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet waits for its rest however late this process writes it: what is counted does not depend on the load."""
    monkeypatch.setattr(cutting, "HOLD_MS", int(WAIT_S * 1000))


def memory(seed: int) -> list[bytes]:
    """Pages that compress about two to one."""
    chance = random.Random(seed)  # noqa: S311
    return [chance.randbytes(2048) + bytes(2048) for _ in range(PAGES)]


def channel(number: int, rounds: int, places: int = 4) -> bytes:
    """Rounds of the same pages, moving from channel to channel, with a little changed each time."""
    parts = [INITIAL]
    for turn in range(rounds):
        place = (number + turn) % places * PAGES
        pages = [turn.to_bytes(8, "big") + page[8:] for page in memory(place)]
        parts.append(packet([(place + index) * 4096 for index in range(PAGES)], pages))
    return b"".join(parts)


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while part := sock.recv(1 << 20):
        data += part
    return bytes(data)


def carry(pair: Pair, streams: list[bytes]) -> list[bytes]:
    """Send each stream through a connection of its own, all at once, and return what arrives."""
    found: dict[int, bytes] = {}

    def read(number: int, far: socket.socket) -> None:
        found[number] = read_all(far)

    with ExitStack() as stack:
        ends = [
            (stack.enter_context(pair.connect()), stack.enter_context(pair.destination.accept()[0])) for _ in streams
        ]
        readers = [threading.Thread(target=read, args=(number, far)) for number, (_, far) in enumerate(ends)]
        writers = [
            threading.Thread(target=near.sendall, args=(data,)) for (near, _), data in zip(ends, streams, strict=True)
        ]
        for thread in readers + writers:
            thread.start()
        for thread in writers:
            thread.join(WAIT_S)
        for near, _ in ends:
            near.shutdown(socket.SHUT_WR)
        for thread in readers:
            thread.join(WAIT_S)
    return [found[number] for number in range(len(streams))]


def reports(pair: Pair) -> tuple[dict[str, Any], dict[str, Any]]:
    wait_for(lambda: not pair.send._connections and not pair.receive._connections)
    return pair.send.statistics.report(rates=False), pair.receive.statistics.report(rates=False)


@pytest.mark.parametrize("codec", sorted({*codecs.available(), "auto"} - {"none"}))
def test_multifd_channels_and_the_main_stream_come_back(make_pair: MakePair, authority: Authority, codec: str) -> None:
    client, server = authority.client("one", "two"), authority.server("two", "one")
    pair = make_pair(client, server, compression=Compression(codec))
    streams = [b"QEVM" + b"state" * 1000, *(channel(number, 8) for number in range(4))]
    assert carry(pair, streams) == streams
    sent, received = reports(pair)
    assert not pair.log
    found = sent["compression"]
    assert found == received["compression"]
    assert found["stream_bytes"] == sum(map(len, streams))
    assert found["wire_bytes"] == sent["sent_bytes"] == received["received_bytes"]
    assert found["pages"] == 4 * 8 * PAGES
    if codec != "auto":
        assert found["delta_pages"] > 2 * 8 * PAGES
        assert found["codecs"].keys() <= {codec, "none"}
        assert found["wire_bytes"] < found["stream_bytes"] / 5


def test_automatic_takes_a_device_only_where_both_gateways_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    here = frozenset({"none", "lz4", "zstd", "qatzip"})
    monkeypatch.setattr(compression, "available", lambda: here)
    reply = {device: ReceiverSessions(0, Statistics().blocks, range(5), [4] if device else []) for device in (0, 1)}
    for at_sender, at_receiver in ((0, 0), (0, 1), (1, 0), (1, 1)):
        monkeypatch.setattr(compression, "in_hardware", lambda _, at=at_sender: frozenset({"qatzip"} if at else ()))
        sessions = compression.sender_sessions(Compression("auto", 0), Statistics())
        assert sessions
        hello = sessions.hello("memory", b"")
        answer, _ = reply[at_receiver].join(hello)
        chosen = sessions._tuner(answer)
        assert isinstance(chosen, AdaptiveTuner)
        assert ("qatzip" in {rung.choice.codec for rung in chosen._belief.rungs}) == bool(at_sender and at_receiver)


def test_without_tls_pages_that_are_not_compressed_pass_through_the_kernel(make_pair: MakePair) -> None:
    pair = make_pair(PLAIN, PLAIN, compression=Compression("auto"))
    streams = [b"QEVM" + b"state" * 1000, *(channel(number, 8) for number in range(4))]
    assert carry(pair, streams) == streams
    sent, received = reports(pair)
    assert not pair.log
    assert sent["compression"] == received["compression"]
    assert sent["compression"]["codecs"]["none"]["stream_bytes"] > PAGES * 4096
    assert sent["compression"]["wire_bytes"] == sent["sent_bytes"] == received["received_bytes"]


@pytest.mark.parametrize("codec", ["zstd", "auto"])
@pytest.mark.parametrize("streams", [2, 5])
def test_a_connection_may_be_spread_over_streams(
    make_pair: MakePair, authority: Authority, codec: str, streams: int
) -> None:
    client, server = authority.client("one", "two"), authority.server("two", "one")
    pair = make_pair(client, server, compression=Compression(codec, streams=streams))
    plain = random.Random(3).randbytes(3 << 20) + bytes(1 << 20)  # noqa: S311
    data = [plain, channel(0, 8), channel(1, 8)]
    assert carry(pair, data) == data
    sent, received = reports(pair)
    assert sent["compression"] == received["compression"]
    assert sent["connections"] == received["connections"] == 3
    wait_for(lambda: not pair.send._opening and not pair.receive._opening)
    assert not pair.log


@pytest.mark.parametrize("victim", ["source", "destination", "gateway"])
def test_what_breaks_takes_all_streams_along(make_pair: MakePair, victim: str) -> None:
    pair = make_pair(PLAIN, PLAIN, compression=Compression("lz4", streams=3))
    near, far = pair.open()
    with near, far:
        near.sendall(random.Random(4).randbytes(1 << 20))  # noqa: S311
        far.recv(1)
        {"source": near.close, "destination": far.close, "gateway": pair.send.stop}[victim]()
        if victim == "destination":
            with suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    near.sendall(bytes(1 << 20))
        elif victim == "source":
            assert len(read_all(far)) == (1 << 20) - 1
    wait_for(lambda: not pair.send._connections and not pair.receive._connections)
    wait_for(lambda: not pair.receive._opening)
    wait_for(lambda: not [thread for thread in threading.enumerate() if "_run" in thread.name])


def test_a_stream_for_nothing_is_refused(make_pair: MakePair) -> None:
    pair = make_pair(PLAIN, PLAIN)
    for service in ("memory", "other"):
        with socket.create_connection(pair.receive.address, timeout=WAIT_S) as stranger, suppress(ConnectionResetError):
            stranger.sendall(pack_hello(Hello(service, b"", Carriage.BLOCKS, 1)))
            assert stranger.recv(1) == b""
    wait_for(lambda: len(pair.log) == 2)
    assert all("not open" in line for line in pair.log)


def test_the_return_path_is_left_alone(make_pair: MakePair) -> None:
    pair = make_pair(PLAIN, PLAIN, compression=Compression("zstd"))
    near, far = pair.open()
    with near, far:
        for _ in range(3):
            near.sendall(b"request")
            assert far.recv(7, socket.MSG_WAITALL) == b"request"
            far.sendall(b"answer")
            assert near.recv(6, socket.MSG_WAITALL) == b"answer"


@pytest.mark.parametrize(("sender", "receiver"), [(0, 512), (512, 0), (512, 1)])
def test_the_lesser_delta_memory_counts(make_pair: MakePair, sender: int, receiver: int) -> None:
    pair = make_pair(PLAIN, PLAIN, compression=Compression("lz4", sender * MIB), receiver_delta=receiver * MIB)
    streams = [channel(number, 4, places=1) for number in range(2)]  # all find room in 1 MiB, whoever is first
    assert carry(pair, streams) == streams
    sent, _ = reports(pair)
    assert (sent["compression"]["delta_pages"] > 0) is bool(sender and receiver)
    assert sent["compression"]["delta_memory_bytes"] == min(sender, receiver) * MIB


def test_a_second_migration_has_copies_of_its_own(make_pair: MakePair) -> None:
    pair = make_pair(PLAIN, PLAIN, compression=Compression("lz4"))
    for _ in range(2):
        streams = [channel(0, 2)]
        assert carry(pair, streams) == streams
        reports(pair)
    until = time.monotonic() + 10
    while pair.receive._sessions and pair.receive._sessions._sessions:  # its last channel may be on its way out
        assert time.monotonic() < until
        time.sleep(0.01)


def test_other_services_travel_as_they_are(make_pair: MakePair) -> None:
    pair = make_pair(PLAIN, PLAIN, compression=Compression("zstd"))
    sender = SendingGateway(
        {"control": pair.source.with_name("control.sock")},
        pair.receive.address,
        PLAIN,
        log=pair.log.append,
        compression=Compression("zstd"),
    )
    assert sender._hello("control").carriage == 0
    assert sender._hello("memory").carriage == 1


def test_a_channel_that_breaks_does_not_leave_the_others_waiting(make_pair: MakePair) -> None:
    pair = make_pair(PLAIN, PLAIN, compression=Compression("lz4"))
    near, far = pair.open()
    with near, far:
        near.sendall(bytes(1 << 16))
        far.recv(1)
        far.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            while True:
                near.sendall(bytes(1 << 20))
    wait_for(lambda: pair.send.statistics.report(rates=False)["failed"] == 1)
    streams = [channel(0, 2)]
    assert carry(pair, streams) == streams


def test_a_receiver_without_the_codec_is_a_refusal(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_zstd(delta_bytes: int, statistics: Statistics, _resident: object) -> ReceiverSessions:
        return ReceiverSessions(delta_bytes, statistics.blocks, [0, 1])

    monkeypatch.setattr("vferry.transfer.receiving.receiver_sessions", without_zstd)
    pair = make_pair(PLAIN, PLAIN, compression=Compression("zstd"))
    pair.refused("the receiving gateway has no codec zstd")


def test_a_receiver_without_the_libraries_is_a_refusal(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("No module named 'numpy'")

    monkeypatch.setattr("vferry.transfer.receiving.receiver_sessions", missing)
    pair = make_pair(PLAIN, PLAIN, compression=Compression("zstd"))
    pair.refused("install vferry[compression]")
    pair.refused("no blocks")


def test_a_codec_that_is_not_installed_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "available", lambda: codecs.available(["none", "lz4"]))
    with pytest.raises(Problem, match="zstd is not installed"):
        SendingGateway({"memory": Path("/a")}, TcpAddress("a", 1), PLAIN, log=print, compression=Compression("zstd"))
