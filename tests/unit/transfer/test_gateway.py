"""A gateway pair in this process, over loopback: what is carried, what is refused, what breaks."""

import hashlib
import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from vferry.transfer.endpoint import TcpAddress
from vferry.transfer.gateway import Security
from vferry.transfer.sending import SendingGateway
from vferry.transfer.wire import (
    FRAME,
    HELLO,
    Hello,
    Reply,
    Status,
    hello_body_size,
    pack_hello,
    pack_reply,
    unpack_hello,
)

from .conftest import PLAIN, WAIT_S, Authority, MakePair, Pair, client_context, wait_for


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while part := sock.recv(1 << 20):
        data += part
    return bytes(data)


def write_until_broken(sock: socket.socket) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        while True:
            sock.sendall(bytes(1 << 20))


def test_both_directions_are_carried_at_once_without_waiting_for_more(pair: Pair) -> None:
    near, far = pair.open()
    with near, far:
        for message in (b"a", b"bb" * 1000, b"c"):
            near.sendall(message)
            assert far.recv(len(message), socket.MSG_WAITALL) == message
            far.sendall(b"reply")
            assert near.recv(5, socket.MSG_WAITALL) == b"reply"


def test_a_half_close_is_carried_and_the_other_direction_goes_on(pair: Pair) -> None:
    near, far = pair.open()
    with near, far:
        near.sendall(b"last words")
        near.shutdown(socket.SHUT_WR)
        assert read_all(far) == b"last words"
        far.sendall(b"answer")
        assert near.recv(6, socket.MSG_WAITALL) == b"answer"
        far.shutdown(socket.SHUT_WR)
        assert read_all(near) == b""
    wait_for(lambda: not pair.send._connections and not pair.receive._connections)
    report = pair.send.statistics.report(rates=False)
    assert report["services"]["memory"] == {
        "connections": 1,
        "failed": 0,
        "cut": 0,
        "sent_bytes": len("?last words"),
        "received_bytes": len("answer"),
    }
    assert not pair.log


def test_the_far_end_may_close_first(pair: Pair) -> None:
    near, far = pair.open()
    with near:
        far.close()
        assert near.recv(1) == b""
    wait_for(lambda: not pair.send._connections and not pair.receive._connections)
    assert not pair.log


def test_large_data_arrives_unchanged_both_ways_at_once(pair: Pair) -> None:
    blocks = {"out": os.urandom(1 << 20), "back": os.urandom(1 << 20)}
    near, far = pair.open()
    digests: dict[str, str] = {}

    def write(sock: socket.socket, name: str) -> None:
        for turn in range(24):
            sock.sendall(blocks[name][turn:])
        sock.shutdown(socket.SHUT_WR)

    def read(sock: socket.socket, name: str) -> None:
        digest = hashlib.sha256()
        while part := sock.recv(1 << 20):
            digest.update(part)
        digests[name] = digest.hexdigest()

    work = [(write, near, "out"), (read, far, "out"), (write, far, "back"), (read, near, "back")]
    threads = [threading.Thread(target=function, args=(sock, name)) for function, sock, name in work]
    with near, far:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, block in blocks.items():
        assert digests[name] == hashlib.sha256(b"".join(block[turn:] for turn in range(24))).hexdigest()


def test_many_connections_arrive_in_order_and_stay_apart(pair: Pair) -> None:
    nears = []
    for number in range(40):
        near = pair.connect()
        near.sendall(b"%d" % number)
        nears.append(near)
    for number, near in enumerate(nears):
        far, _ = pair.destination.accept()
        with near, far:
            near.shutdown(socket.SHUT_WR)
            assert read_all(far) == b"%d" % number


def test_nothing_is_taken_that_the_far_end_does_not_take(pair: Pair) -> None:
    near, far = pair.open()
    with near, far:
        near.settimeout(0.5)
        taken = 0
        with suppress(TimeoutError):
            while True:
                taken += near.send(bytes(65536))
        assert taken < 32 << 20
        near.settimeout(WAIT_S)
        near.shutdown(socket.SHUT_WR)
        assert len(read_all(far)) == taken


def test_two_services_lead_to_two_places(pair: Pair) -> None:
    control = pair.source.with_name("control.sock")
    with socket.socket(socket.AF_UNIX) as libvirt:
        libvirt.bind(str(control))
        libvirt.listen()
        pair.receive.services["control"] = control
        sender = SendingGateway(
            {"control": pair.source.with_name("c.sock")},
            pair.receive.address,
            pair.send._security,
            log=pair.log.append,
        )
        sender.start()
        with socket.socket(socket.AF_UNIX) as near:
            near.connect(str(pair.source.with_name("c.sock")))
            far, _ = libvirt.accept()
            with far:
                near.sendall(b"to libvirt")
                assert far.recv(100) == b"to libvirt"
        sender.stop()


def test_a_destination_that_comes_late_is_waited_for(pair: Pair) -> None:
    late = pair.source.with_name("late.sock")
    pair.receive.services["memory"] = late
    with pair.connect() as near, socket.socket(socket.AF_UNIX) as destination:
        time.sleep(0.1)
        destination.bind(str(late))
        destination.listen()
        far, _ = destination.accept()
        with far:
            near.sendall(b"x")
            assert far.recv(1) == b"x"


def test_a_destination_that_never_comes_is_a_refusal(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vferry.transfer.endpoint.CONNECT_S", 0.1)
    pair.receive.services["memory"] = pair.source.with_name("never.sock")
    pair.refused("unreachable")
    pair.receive.services["memory"] = pair.source.with_name("destination.sock")
    near, far = pair.open()  # and the pair serves others
    near.close()
    far.close()


def test_no_receiver_is_a_refusal(pair: Pair) -> None:
    pair.receive.stop()
    pair.refused("Connection refused")
    assert pair.send.statistics.report(rates=False)["refused"] == 1


@pytest.mark.parametrize("host", ["a" * 70, "..", "nowhere.invalid"])
def test_a_receiver_that_cannot_be_found_is_a_refusal(pair: Pair, host: str) -> None:
    pair.send.address = TcpAddress(host, 1)
    pair.refused(f"no way through {host}:1")
    pair.send.address = pair.receive.address
    near, far = pair.open()
    near.close()
    far.close()


def test_an_unknown_service_is_refused(make_pair: MakePair) -> None:
    make_pair(PLAIN, PLAIN, service="other").refused("unknown service")


@pytest.mark.parametrize("token", [b"", b"other", b"secret!"])
def test_a_wrong_token_is_refused_and_not_logged(make_pair: MakePair, token: bytes) -> None:
    pair = make_pair(Security(None, "", token), Security(None, "", b"secret"))
    pair.refused("wrong token")
    assert not any("secret" in line for line in pair.log)


def test_the_right_token_is_accepted(make_pair: MakePair, authority: Authority) -> None:
    pair = make_pair(authority.client("one", "two", b"secret"), authority.server("two", "one", b"secret"))
    near, far = pair.open()
    near.close()
    far.close()


def test_a_sender_of_another_name_is_refused(make_pair: MakePair, authority: Authority) -> None:
    pair = make_pair(authority.client("mallory", "two"), authority.server("two", "one"))
    pair.refused("names ['mallory'], not 'one'")


def test_a_receiver_of_another_name_is_refused(make_pair: MakePair, authority: Authority) -> None:
    pair = make_pair(authority.client("one", "two"), authority.server("mallory", "one"))
    pair.refused("certificate verify failed")


def test_a_wildcard_is_no_identity(make_pair: MakePair, authority: Authority) -> None:
    pair = make_pair(authority.client("one", "two.example.org"), authority.server("*.example.org", "one"))
    pair.refused("not 'two.example.org'")


def test_an_address_is_an_identity(make_pair: MakePair, authority: Authority) -> None:
    pair = make_pair(authority.client("2001:db8::1", "127.0.0.1"), authority.server("127.0.0.1", "2001:db8:0::1"))
    near, far = pair.open()
    near.close()
    far.close()


def test_another_authority_is_refused(
    make_pair: MakePair, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Authority(tmp_path_factory.mktemp("other"))
    pair = make_pair(other.client("one", "two"), authority.server("two", "one"))
    pair.refused("certificate verify failed")


def test_no_certificate_is_refused(make_pair: MakePair, authority: Authority) -> None:
    pair = make_pair(authority.client("one", "two"), authority.server("two", "one"))
    bare = socket.create_connection(pair.receive.address)
    stranger = client_context(authority).wrap_socket(bare, server_hostname="two")
    with stranger, suppress(ssl.SSLError, ConnectionError):
        stranger.sendall(pack_hello(Hello("memory", b"")))
        assert stranger.recv(1) == b""
    wait_for(lambda: pair.log)
    assert "peer did not return a certificate" in pair.log[0]


def test_plaintext_to_a_tls_port_is_refused(make_pair: MakePair, authority: Authority) -> None:
    make_pair(PLAIN, authority.server("two", "one")).refused("SSL")


def test_tls_1_2_is_refused(make_pair: MakePair, authority: Authority) -> None:
    client = authority.client("one", "two")
    assert client.context is not None
    client.context.minimum_version = ssl.TLSVersion.TLSv1_2
    client.context.maximum_version = ssl.TLSVersion.TLSv1_2
    make_pair(client, authority.server("two", "one")).refused("PROTOCOL")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(8),
        b"VFRY\x05\x06\x00\x00memory",
        b"VFRY\x06\xff\xff\xff",
        b"VFRY\x06\x06\x00\x00",
    ],
)
def test_garbage_is_dropped_and_others_are_served(pair: Pair, garbage: bytes) -> None:
    with socket.create_connection(pair.receive.address, timeout=WAIT_S) as stranger, suppress(OSError):
        stranger.sendall(garbage)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(100):
            pass
    wait_for(lambda: pair.receive.statistics.report(rates=False)["refused"] == 1)
    assert len(pair.log) == 1
    near, far = pair.open()
    near.close()
    far.close()


def test_an_older_sender_is_told_the_version(make_pair: MakePair) -> None:
    pair = make_pair(PLAIN, PLAIN)
    with socket.create_connection(pair.receive.address, timeout=WAIT_S) as old:
        old.sendall(b"VFRY\x01\x06\x00\x00memory")
        assert old.recv(6, socket.MSG_WAITALL) == b"VFRY\x06\x04"
    wait_for(lambda: any("speaks version 1 of the protocol, not 6" in line for line in pair.log))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "its vferry is older"),
        (b"VFRY\x05\x04" + bytes(8), "speaks version 5 of the protocol, not 6: install the same vferry"),
    ],
)
def test_a_receiver_of_another_version_is_a_refusal(tmp_path: Path, answer: bytes, reason: str) -> None:
    server, address = receiver_of_ours()
    log: list[str] = []
    sender = SendingGateway({"memory": tmp_path / "near.sock"}, address, PLAIN, log=log.append)
    sender.start()
    with server, socket.socket(socket.AF_UNIX) as near:
        near.connect(str(tmp_path / "near.sock"))
        peer, _ = server.accept()
        with peer:
            peer.recv(HELLO.size)
            peer.sendall(answer)
            with suppress(OSError):  # the sender may have left already
                peer.shutdown(socket.SHUT_WR)
            wait_for(lambda: log)
    sender.stop()
    assert reason in log[0]


def test_one_who_says_nothing_is_dropped_in_time(pair: Pair) -> None:
    pair.receive.handshake_s = 0.2
    with socket.create_connection(pair.receive.address, timeout=WAIT_S) as stranger, suppress(OSError):
        assert stranger.recv(1) == b""
    wait_for(lambda: pair.log)
    assert "timed out" in pair.log[0]


def test_there_is_a_limit_of_connections(pair: Pair) -> None:
    near, far = pair.open()
    pair.send.connection_limit = 1
    pair.refused("1 connections are open already")
    near.close()
    far.close()


def test_what_nobody_expected_of_one_connection_leaves_the_next_ones_alone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Hello) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(pair.send, "_open", fail)
        pair.refused("MemoryError()")
    near, far = pair.open()
    near.close()
    far.close()


def test_a_far_end_that_breaks_is_an_error_at_the_near_end(pair: Pair) -> None:
    near, far = pair.open()
    with near:
        near.sendall(bytes(1 << 16))
        far.recv(1)
        far.close()
        write_until_broken(near)
    wait_for(lambda: any("connection broken after" in line for line in pair.log))
    wait_for(lambda: pair.send.statistics.report(rates=False)["failed"] == 1)


def test_a_gateway_that_dies_is_an_error_at_both_ends(pair: Pair) -> None:
    near, far = pair.open()
    with near, far:
        pair.receive.stop()
        write_until_broken(near)
        far.settimeout(WAIT_S)
        with suppress(ConnectionResetError):
            read_all(far)
    wait_for(lambda: pair.send.statistics.report(rates=False)["failed"] == 1)


def receiver_of_ours() -> tuple[socket.socket, TcpAddress]:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(WAIT_S)
    return server, TcpAddress(*server.getsockname())


@pytest.mark.parametrize("ending", [b"", FRAME.pack(10) + b"short", FRAME.pack(1 << 30)])
def test_a_stream_without_its_end_is_broken_though_tcp_ends_cleanly(pair: Pair, ending: bytes) -> None:
    server, address = receiver_of_ours()
    path = pair.source.with_name("second.sock")
    log: list[str] = []
    sender = SendingGateway({"memory": path}, address, PLAIN, log=log.append)
    sender.start()
    with server, socket.socket(socket.AF_UNIX) as near:
        near.connect(str(path))
        peer, _ = server.accept()
        with peer:
            header = peer.recv(HELLO.size, socket.MSG_WAITALL)
            assert unpack_hello(header, peer.recv(hello_body_size(header))) == Hello("memory", b"")
            peer.sendall(pack_reply(Reply(Status.ACCEPTED)) + ending)
            peer.shutdown(socket.SHUT_WR)
            near.settimeout(WAIT_S)
            read_all(near)
            wait_for(lambda: sender.statistics.report(rates=False)["failed"] == 1)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                near.sendall(b"x")
    sender.stop()
    assert "broken" in log[0]


def test_stopping_closes_everything_at_once(pair: Pair) -> None:
    near, far = pair.open()
    stranger = socket.create_connection(pair.receive.address)
    with near, far, stranger:
        begin = time.monotonic()
        pair.send.stop()
        pair.receive.stop()
        assert time.monotonic() - begin < 2
        assert not pair.source.exists()
        near.settimeout(WAIT_S)
        with suppress(ConnectionResetError):
            assert near.recv(1) == b""
