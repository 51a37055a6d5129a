import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fake_libvirt import FakeLibvirt

from vferry.cli.gateway import command
from vferry.host import gateways_process
from vferry.host.api import DirectMemory, GatewayStatistics, StartReceiving, StartSending
from vferry.host.gateways import Gateways, Places, free_port, places, qemu_user, statistics
from vferry.host.hypervisor import Hypervisor
from vferry.model.compression import Codec, CodecShare, Compressed
from vferry.model.host import MigrationEndpoint
from vferry.model.problem import Problem

# Listens to nothing, but behaves as the process does: says that it is ready, what it has carried, and ends on SIGTERM.
GATEWAY = """
import json, signal, sys, time
def end(*_):
    print(json.dumps({"event": "end", "sent_bytes": 700, "received_bytes": 7, "cpu_s": 1.5, "cpu_peak": 0.5}))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(json.dumps({"event": "ready", "arguments": sys.argv[1:]}), flush=True)
while True: time.sleep(60)
"""
FAILING = "import sys; sys.exit('vferry: Another process listens there.')"
COMPRESSION = ("--codec", "--streams", "--delta-memory")
OPERATION = "op-1"
RECEIVE = StartReceiving(peer="host1")
SEND = StartSending(peer="host2", address="fd00::2", port=49200, token="secret")


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways_process, "COMMAND", (sys.executable, "-S", "-c", GATEWAY))


@pytest.fixture
def endpoint() -> MigrationEndpoint:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return MigrationEndpoint(address="127.0.0.1", ports=(port, port))


def hypervisor() -> Hypervisor:
    return Hypervisor(library=FakeLibvirt(uid=os.geteuid(), gid=os.getegid()))


@pytest.fixture
def gateways(tmp_path: Path, endpoint: MigrationEndpoint) -> Iterator[Gateways]:
    gateways = Gateways(endpoint, hypervisor(), tmp_path / "pki", tmp_path / "run")
    yield gateways
    gateways.release(OPERATION)


@pytest.mark.parametrize("words", [("env", "-u", "NOTHING"), ("false",), ("/nowhere/systemd-run", "--")])
def test_a_gateway_starts_confined_or_else_as_it_is(
    tmp_path: Path, endpoint: MigrationEndpoint, caplog: pytest.LogCaptureFixture, words: tuple[str, ...]
) -> None:
    made = Gateways(endpoint, hypervisor(), tmp_path / "pki", tmp_path / "run", words)
    try:
        made.receive(OPERATION, RECEIVE)
        record = gateways_process.load(here(tmp_path).directory)
        assert record is not None
        assert gateways_process.alive(record)
        assert ("without its limit" in caplog.text) == (words[0] != "env")
    finally:
        made.release(OPERATION)


def here(tmp_path: Path) -> Places:
    return places(tmp_path / "run", OPERATION)


def arguments(tmp_path: Path) -> list[str]:
    (ready, *_) = gateways_process.events(here(tmp_path).directory)
    found: list[str] = ready["arguments"]
    return found


def test_a_receiving_gateway(gateways: Gateways, endpoint: MigrationEndpoint, tmp_path: Path) -> None:
    receiving = gateways.receive(OPERATION, RECEIVE)
    assert (receiving.address, receiving.port) == ("127.0.0.1", endpoint.ports[0])
    files = here(tmp_path)
    assert files.token.read_text() == receiving.token
    assert len(receiving.token) > 30
    given = arguments(tmp_path)
    assert given[:3] == ["receive", "--listen", f"127.0.0.1:{endpoint.ports[0]}"]
    assert "control=unix:/run/libvirt/libvirt-sock" in given
    assert f"memory=unix:{files.memory}" in given
    assert given[given.index("--peer") + 1] == "host1"
    assert given[given.index("--ca") + 1] == str(tmp_path / "pki/ca.crt")
    assert given[given.index("--delta-memory") + 1] == "0"
    assert receiving.token not in given, "everybody may read the arguments of a process"
    assert gateways.receive(OPERATION, RECEIVE) == receiving


def test_a_sending_gateway(gateways: Gateways, tmp_path: Path) -> None:
    assert gateways.send(OPERATION, SEND).changed
    files = here(tmp_path)
    given = arguments(tmp_path)
    assert given[:3] == ["send", "--connect", "[fd00::2]:49200"]
    assert f"control=unix:{files.control}" in given
    assert f"memory=unix:{files.memory}" in given
    assert given[given.index("--memory-owner") + 1].count(":") == 1
    assert [given[given.index(name) + 1] for name in COMPRESSION] == ["none", "1", "0"]
    assert not gateways.send(OPERATION, SEND).changed
    first = gateways_process.load(files.directory)
    assert gateways.send(OPERATION, msgspec.structs.replace(SEND, port=49201)).changed, "it goes somewhere else now"
    assert first is not None
    assert not gateways_process.alive(first)


def test_gateways_that_compress(gateways: Gateways, tmp_path: Path) -> None:
    compressing = msgspec.structs.replace(SEND, codec=Codec.ZSTD, streams=3, delta_memory=64)
    gateways.send(OPERATION, compressing)
    given = arguments(tmp_path)
    assert [given[given.index(name) + 1] for name in COMPRESSION] == ["zstd", "3", "64"]
    assert not gateways.send(OPERATION, compressing).changed
    assert gateways.send(OPERATION, SEND).changed, "it passes bytes on as they are now"
    gateways.receive(OPERATION, msgspec.structs.replace(RECEIVE, delta_memory=64))
    given = arguments(tmp_path)
    assert given[given.index("--delta-memory") + 1] == "64"


def test_a_receiving_gateway_is_told_where_other_guests_memory_is(
    tmp_path: Path, endpoint: MigrationEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vferry.host.gateways.resident_places", lambda *_: ("17:1000-2000", "18:1000-2000"))
    made = Gateways(endpoint, hypervisor(), tmp_path / "pki", tmp_path / "run")
    try:
        made.receive(OPERATION, RECEIVE)
        assert "--resident" not in arguments(tmp_path)
        made.stop(OPERATION)
        made.receive(OPERATION, msgspec.structs.replace(RECEIVE, resident=True))
        given = arguments(tmp_path)
    finally:
        made.release(OPERATION)
    assert given.count("--resident") == 2
    assert given[given.index("--resident") + 1] == "17:1000-2000"
    assert "--resident" in {name for option in command.commands["receive"].params for name in option.opts}


def test_qemu_takes_the_memory_in_on_a_port_that_nobody_else_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vferry.host.gateways.name_shown", lambda _root: "host2.example")
    monkeypatch.setattr("vferry.host.gateways.free_port", lambda _, promised: min({5, 6, 7, 8, 9} - promised))
    endpoint = MigrationEndpoint(address="127.0.0.1", ports=(5, 9))
    made = Gateways(endpoint, hypervisor(), tmp_path / "pki", tmp_path / "run")
    wanted = msgspec.structs.replace(RECEIVE, direct=True)
    try:
        first, second = made.receive("op-1", wanted), made.receive("op-2", wanted)
        # Their gateways only say that they listen: both would get the port that is free.
        assert (first.direct, first.port) == (DirectMemory(port=5, name="host2.example"), 6)
        assert (second.direct, second.port) == (DirectMemory(port=6, name="host2.example"), 7)
        assert made.receive("op-1", wanted) == first, "again"
        assert made.receive("op-3", RECEIVE).direct is None
    finally:
        for operation in ("op-1", "op-2", "op-3"):
            made.release(operation)


def test_without_certificates_qemu_takes_nothing_in(gateways: Gateways, tmp_path: Path) -> None:
    lacking = Gateways(gateways._endpoint, hypervisor(), tmp_path / "pki", tmp_path / "run", root=tmp_path)
    with pytest.raises(Problem) as caught:
        lacking.receive(OPERATION, msgspec.structs.replace(RECEIVE, direct=True))
    assert caught.value.code == "no-qemu-tls"
    assert not here(tmp_path).directory.exists()


def test_the_words_for_a_gateway_are_those_that_it_takes(gateways: Gateways, tmp_path: Path) -> None:
    gateways.send(OPERATION, msgspec.structs.replace(SEND, codec=Codec.AUTO))
    for role, given in (("send", arguments(tmp_path)[1:]), ("receive", ["--delta-memory", "64"])):
        known = {name for option in command.commands[role].params for name in option.opts}
        assert {word for word in given if word.startswith("--")} <= known


def test_who_may_open_what(gateways: Gateways, tmp_path: Path) -> None:
    gateways.receive(OPERATION, RECEIVE)
    files = here(tmp_path)

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(files.directory) == 0o711
    assert mode(files.control.parent) == 0o700
    assert mode(files.memory.parent) == 0o700
    assert mode(files.token) == 0o600
    assert mode(files.directory / "gateway.json") == 0o600


def test_another_agent_finds_it_again_and_stops_it(
    gateways: Gateways, endpoint: MigrationEndpoint, tmp_path: Path
) -> None:
    receiving = gateways.receive(OPERATION, RECEIVE)
    restarted = Gateways(endpoint, hypervisor(), tmp_path / "pki", tmp_path / "run")
    assert restarted.receive(OPERATION, RECEIVE) == receiving
    expected = GatewayStatistics(wire_bytes=707, cpu_s=1.5, cpu_peak=0.5)
    assert restarted.stop(OPERATION) == expected
    assert restarted.stop(OPERATION) == expected, "the first answer may have been lost"
    restarted.release(OPERATION)
    assert restarted.stop(OPERATION) == GatewayStatistics()
    assert not here(tmp_path).directory.exists()


def test_a_process_that_only_has_the_same_id_is_left_alone(gateways: Gateways, tmp_path: Path) -> None:
    gateways.receive(OPERATION, RECEIVE)
    directory = here(tmp_path).directory
    record = gateways_process.load(directory)
    assert record is not None
    other = msgspec.structs.replace(record, started=record.started + 1)
    assert not gateways_process.alive(other)
    gateways_process.stop(directory, other)
    assert gateways_process.alive(record)


def test_one_that_ends_while_it_is_looked_at_is_waited_for(
    gateways: Gateways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways.send(OPERATION, SEND)
    record = gateways_process.load(here(tmp_path).directory)
    assert record is not None
    look = gateways_process._start_time

    def too_late(pid: int) -> int | None:
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 5
        while (found := look(pid)) is not None:
            assert time.monotonic() < until
        return found

    with monkeypatch.context() as patched:
        patched.setattr(gateways_process, "_start_time", too_late)
        assert not gateways_process.alive(record)
    assert not Path(f"/proc/{record.pid}").exists()


def test_one_that_does_not_start_is_a_problem(
    gateways: Gateways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways_process, "COMMAND", (sys.executable, "-S", "-c", FAILING))
    with pytest.raises(Problem, match="Another process listens there") as caught:
        gateways.receive(OPERATION, RECEIVE)
    assert caught.value.code == "gateway-failed"


def test_a_port_that_is_taken_is_passed_over(endpoint: MigrationEndpoint) -> None:
    port = endpoint.ports[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(Problem) as caught:
            free_port(endpoint)
        assert caught.value.code == "no-port"
        assert free_port(MigrationEndpoint(address="127.0.0.1", ports=(port, port + 20))) > port
    assert free_port(endpoint) == port


@pytest.mark.parametrize("operation", ["", ".", "../x", "a/b", "A", "ä", "a" * 41])
def test_ids_that_are_no_file_names_are_refused(operation: str, tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        places(tmp_path, operation)
    assert caught.value.code == "operation-invalid"


def test_paths_fit_into_a_sockets_address() -> None:
    files = places(Path("/run/vferry"), "a" * 40)
    assert max(len(str(path)) for path in (files.control, files.memory)) < 107


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", GatewayStatistics()),
        ('{"event":"ready"}\n', GatewayStatistics()),
        ('{"event":"stats","sent_bytes":5,"received_bytes":6}\n{"event":"st', GatewayStatistics(wire_bytes=11)),
        (
            '{"event":"stats","sent_bytes":9,"compression":{"stream_bytes":20,"wire_bytes":8}}',
            GatewayStatistics(wire_bytes=9),
        ),
        (
            'garbage\n[]\n{"event":"end","sent_bytes":1,"cpu_s":2,"cpu_peak":3}',
            GatewayStatistics(wire_bytes=1, cpu_s=2, cpu_peak=3),
        ),
        (
            """{"event":"end","sent_bytes":9,"compression":{"stream_bytes":20,"wire_bytes":8,"ratio":2.5,"pages":5,
            "zero_pages":1,"delta_pages":2,"codecs":{"qatzip":{"blocks":3,"stream_bytes":20,"wire_bytes":8,"ratio":2.5,
            "software_blocks":1}}}}""".replace("\n", ""),
            GatewayStatistics(
                wire_bytes=9,
                compressed=Compressed(
                    stream_bytes=20,
                    wire_bytes=8,
                    pages=5,
                    zero_pages=1,
                    delta_pages=2,
                    codecs={"qatzip": CodecShare(blocks=3, stream_bytes=20, wire_bytes=8, software_blocks=1)},
                ),
            ),
        ),
        ('{"event":"end","sent_bytes":9,"compression":{"stream_bytes":-1}}', GatewayStatistics(wire_bytes=9)),
    ],
)
def test_figures_are_the_last_that_were_said(lines: str, expected: GatewayStatistics, tmp_path: Path) -> None:
    (tmp_path / "gateway.out").write_text(lines)
    assert statistics(tmp_path) == expected


def test_qemus_user_is_the_one_that_libvirt_says() -> None:
    assert qemu_user(Hypervisor(library=FakeLibvirt(uid=64055, gid=994))) == (64055, 994)
