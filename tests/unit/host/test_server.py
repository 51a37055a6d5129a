"""The agent's server towards callers that err, dawdle or are not its controller, and what it logs."""

import asyncio
import io
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from vferry.controller.authority import Authority
from vferry.host import server as server_module
from vferry.host.api import (
    Define,
    Done,
    InstallCertificate,
    PutConnections,
    PutOutcome,
    Receiving,
    RequestCertificate,
    Session,
    StartMigration,
    StartReceiving,
    StartSending,
    TakeInventory,
    Undefine,
)
from vferry.host.certificates_tls import TlsFiles, client_context, host_files
from vferry.host.client import connect
from vferry.host.service_fake import FakeAgent, empty_inventory, fake_agent
from vferry.host.wire import MAX_BODY, operations, reply_type
from vferry.model.connections import Connection, Way
from vferry.model.problem import Problem


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[FakeAgent]:
    async with fake_agent(tmp_path / "host1", empty_inventory("host1")) as agent:
        yield agent


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


async def certify(agent: FakeAgent, authority: Authority) -> None:
    async with connect("host1", agent.uri) as host:
        request = await host.call(RequestCertificate())
        certificate = authority.sign(request.pem, "host1", "127.0.0.1")
        await host.call(InstallCertificate(certificate=certificate, ca=authority.ca_pem))


async def post(
    agent: FakeAgent, path: str, body: bytes = b"{}", headers: dict[str, str] | None = None, method: str = "POST"
) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(agent.socket))) as http,
        http.request(method, f"http://agent{path}", data=io.BytesIO(body), headers=headers) as answer,
    ):
        return answer.status, await answer.json()


def test_every_operation_has_a_tag_and_an_answer() -> None:
    assert len(operations()) > 20
    for kind in operations().values():
        assert reply_type(kind) is not None


async def test_the_socket_is_for_root_alone(agent: FakeAgent) -> None:
    assert agent.socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("path", "method"), [("/v1/nothing", "POST"), ("/", "POST"), ("/v1/inventory", "GET"), ("/v1/../x", "POST")]
)
async def test_an_unknown_call(agent: FakeAgent, path: str, method: str) -> None:
    status, answer = await post(agent, path, method=method)
    assert status == 404
    assert answer["code"] == "call-unknown"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"guest": 3}', "Expected `str`, got `int` - at `$.guest`"),
        (b"{}", "missing required field `guest`"),
        (b"", "missing required field `guest`"),
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"guest": "\xff"}', "utf-8"),
        (b'{"type": "unplug", "guest": "g1"}', "Invalid value 'unplug' - at `$.type`"),
    ],
)
async def test_a_bad_body_is_told_what_and_where(agent: FakeAgent, body: bytes, says: str) -> None:
    status, answer = await post(agent, "/v1/guest", body)
    assert status == 400
    assert answer["code"] == "request-invalid"
    assert says in answer["message"]


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ('"codec": "gzip"', "Invalid enum value 'gzip' - at `$.codec`"),
        ('"streams": 0', ">= 1 - at `$.streams`"),
        ('"streams": 17', "<= 16 - at `$.streams`"),
        ('"delta_memory": -1', ">= 0 - at `$.delta_memory`"),
        ('"delta_memory": 1048577', "<= 1048576 - at `$.delta_memory`"),
    ],
)
async def test_what_no_gateway_could_do_is_refused(agent: FakeAgent, field: str, says: str) -> None:
    body = f'{{"peer": "host2", "address": "10.8.0.2", "port": 1, "token": "t", {field}}}'
    status, answer = await post(agent, "/v1/start-sending", body.encode())
    assert (status, answer["code"]) == (400, "request-invalid")
    assert says in answer["message"]


async def test_a_nested_error_has_its_path(agent: FakeAgent) -> None:
    _, answer = await post(agent, "/v1/set-vf", b'{"pf": "p", "index": 0, "settings": {"vlan": "x"}}')
    assert "at `$.settings.vlan`" in answer["message"]


async def test_a_body_that_is_too_large(agent: FakeAgent) -> None:
    status, answer = await post(agent, "/v1/define", b'{"xml": "' + b"x" * MAX_BODY + b'"}')
    assert status == 413
    assert answer["code"] == "request-too-large"
    with pytest.raises(Problem) as caught:
        async with connect("host1", agent.uri) as host:
            await host.call(Define(xml="x" * MAX_BODY))
    assert caught.value.code == "request-too-large"
    assert agent.handlers.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Vferry-Operation": "../x"},
        {"Vferry-Operation": "op1", "Vferry-Epoch": "0"},
        {"Vferry-Operation": "op1", "Vferry-Epoch": "-1"},
        {"Vferry-Operation": "op1", "Vferry-Epoch": "one"},
    ],
)
async def test_a_bad_session(agent: FakeAgent, headers: dict[str, str]) -> None:
    status, answer = await post(agent, "/v1/inventory", headers=headers)
    assert status == 400
    assert answer["code"] == "session-invalid"


async def test_a_claim_without_a_session(agent: FakeAgent) -> None:
    _, answer = await post(agent, "/v1/claim", b'{"guest": "g1"}')
    assert answer["code"] == "session-missing"


async def test_a_client_that_says_nothing_is_dropped(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SLOW_CLIENT_S", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(agent.socket))
    writer.write(b"POST /v1/inventory HTTP/1.1\r\nHost: a\r\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_client_that_does_not_finish_its_body_is_told(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SLOW_CLIENT_S", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(agent.socket))
    writer.write(b"POST /v1/inventory HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    assert b"408" in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


# --- mutual TLS ------------------------------------------------------------------------------------------


async def refusal(agent: FakeAgent, files: TlsFiles | None, name: str = "host1") -> Problem:
    with pytest.raises(Problem) as caught:
        async with connect(name, agent.tls_uri, files) as host:
            await host.call(TakeInventory(), timeout_s=5)
    return caught.value


async def test_nothing_listens_before_there_is_a_certificate(agent: FakeAgent, authority: Authority) -> None:
    assert agent.port is None
    await certify(agent, authority)
    async with connect("host1", agent.tls_uri, authority.files) as host:
        assert (await host.call(TakeInventory())).name == "host1"


async def test_installing_the_same_again_changes_nothing(agent: FakeAgent, authority: Authority) -> None:
    await certify(agent, authority)
    files = host_files(agent.directory)
    certificate = InstallCertificate(certificate=files.certificate.read_text(), ca=authority.ca_pem)
    async with connect("host1", agent.uri) as host:
        assert await host.call(certificate) == Done(changed=False)


async def test_a_renewed_certificate_is_shown_at_once(agent: FakeAgent, authority: Authority) -> None:
    await certify(agent, authority)
    port = agent.port
    async with connect("host1", agent.tls_uri, authority.files) as host:
        before = await host.call(RequestCertificate())
        renewed = authority.sign(before.pem, "host1", "127.0.0.1")
        assert (await host.call(InstallCertificate(certificate=renewed, ca=authority.ca_pem))).changed
    assert agent.port == port
    shown = await asyncio.to_thread(_shown_certificate, agent, authority)
    assert shown == ssl.PEM_cert_to_DER_cert(renewed)


def _shown_certificate(agent: FakeAgent, authority: Authority) -> bytes | None:
    with (
        socket.create_connection(("127.0.0.1", agent.port or 0)) as plain,
        client_context(authority.files).wrap_socket(plain, server_hostname="host1") as secured,
    ):
        assert secured.version() == "TLSv1.3"
        return secured.getpeercert(binary_form=True)


async def test_a_host_may_not_call_a_host(agent: FakeAgent, authority: Authority) -> None:
    await certify(agent, authority)
    problem = await refusal(agent, host_files(agent.directory))
    assert problem.code == "not-the-controller"
    assert agent.handlers.asked == []


async def test_another_ca_is_refused_by_both_sides(agent: FakeAgent, authority: Authority, tmp_path: Path) -> None:
    await certify(agent, authority)
    other = Authority(tmp_path / "other").files
    problem = await refusal(agent, other)
    assert problem.code == "host-unreachable"
    assert "is not that of host1" in problem.message
    mixed = TlsFiles(ca=authority.files.ca, certificate=other.certificate, key=other.key)
    problem = await refusal(agent, mixed)
    assert problem.code == "host-unreachable"
    assert "whose certificate it rejects" in problem.message
    assert agent.handlers.asked == []


async def test_no_certificate_is_refused(agent: FakeAgent, authority: Authority) -> None:
    await certify(agent, authority)
    context = ssl.create_default_context(cafile=str(authority.files.ca))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"{agent.tls_uri}/v1/inventory", data=b"{}", server_hostname="host1")
    assert agent.handlers.asked == []


async def test_an_agent_under_another_name_is_refused(agent: FakeAgent, authority: Authority) -> None:
    await certify(agent, authority)
    problem = await refusal(agent, authority.files, name="host2")
    assert problem.code == "host-unreachable"
    assert "is not that of host2" in problem.message
    assert "vferry host add host2 ssh://" in problem.remedy


async def test_older_tls_is_refused(agent: FakeAgent, authority: Authority) -> None:
    await certify(agent, authority)
    context = client_context(authority.files)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"{agent.tls_uri}/v1/inventory", data=b"{}", server_hostname="host1")


# --- the log ---------------------------------------------------------------------------------------------


async def test_what_changes_something_is_logged_without_secrets(
    agent: FakeAgent, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    agent.handlers.answers[StartReceiving] = lambda _: Receiving(address="10.8.0.1", port=1, token="S3CRET")
    agent.handlers.answers[PutConnections] = lambda _: PutOutcome(taken=2)
    way = Way(source="192.0.2.1", destination="192.0.2.2")
    await certify(agent, authority)
    async with connect("host1", agent.uri, session=Session(operation="op7", epoch=2)) as host:
        await host.call(PutConnections(guest="g1", connections=(Connection(protocol=6, original=way, reply=way),) * 2))
        await host.call(StartReceiving(peer="host2"))
        await host.call(StartSending(peer="host2", address="10.8.0.2", port=49200, token="S3CRET"))
        await host.call(StartMigration(guest="g1", persistent_xml="<domain>S3CRET</domain>"))
        await host.call(Undefine(guest="g1\nERROR forged"))
    assert "S3CRET" not in caplog.text
    assert "BEGIN" not in caplog.text
    lines = [record.getMessage() for record in caplog.records if record.name == "vferry.agent"]
    sending = next(line for line in lines if line.startswith("start-sending"))
    assert (
        "peer=host2 address=10.8.0.2 port=49200 codec=none streams=1 delta_memory=0: done, operation op7/2, " in sending
    )
    assert sending.endswith(" ms, by root")
    assert any("put-connections guest=g1 connections=(2): done" in line for line in lines)
    assert any("persistent_xml=(23 characters)" in line for line in lines)
    assert all("\n" not in line for line in lines)


async def test_looking_is_not_logged_and_a_fault_is_with_its_traceback(
    agent: FakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def fail(_: object) -> Done:
        raise KeyError("inside")

    agent.handlers.answers[Undefine] = fail
    async with connect("host1", agent.uri) as host:
        await host.call(TakeInventory())
        assert "inventory" not in caplog.text
        with pytest.raises(Problem):
            await host.call(Undefine(guest="g1"))
    assert "KeyError: 'inside'" in caplog.text
    assert "undefine guest=g1: failed" in caplog.text
