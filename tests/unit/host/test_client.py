"""The contract between client and agent: the same over a UNIX socket and over mutual TLS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vferry.controller.authority import Authority
from vferry.host.api import (
    ClaimResources,
    Done,
    InstallCertificate,
    ReleaseClaim,
    RequestCertificate,
    Session,
    SetVf,
    ShowGuest,
    TakeInventory,
    Unplug,
)
from vferry.host.client import RemoteHost, connect
from vferry.host.service_fake import FakeAgent, empty_inventory, fake_agent
from vferry.model.guest import Guest, GuestState
from vferry.model.host import Claim, VfSettings
from vferry.model.problem import Exit, Problem

SESSION = Session(operation="op1", epoch=3)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[FakeAgent]:
    async with fake_agent(tmp_path / "host1", empty_inventory("host1")) as agent:
        yield agent


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


async def certify(agent: FakeAgent, authority: Authority, name: str = "host1") -> None:
    async with connect(name, agent.uri) as host:
        request = await host.call(RequestCertificate())
        certificate = authority.sign(request.pem, name, "127.0.0.1")
        assert await host.call(InstallCertificate(certificate=certificate, ca=authority.ca_pem)) == Done()


@pytest.fixture(params=["unix", "https"])
async def host(request: pytest.FixtureRequest, agent: FakeAgent, authority: Authority) -> AsyncIterator[RemoteHost]:
    if request.param == "https":
        await certify(agent, authority)
    uri = agent.uri if request.param == "unix" else agent.tls_uri
    async with connect("host1", uri, authority.files) as host:
        yield host


async def test_an_inventory(host: RemoteHost) -> None:
    assert host.name == "host1"
    assert await host.call(TakeInventory()) == empty_inventory("host1")


async def test_an_answer_of_another_type(host: RemoteHost, agent: FakeAgent) -> None:
    guest = Guest(name="g1", uuid="u", host="host1", state=GuestState.RUNNING, memory=1 << 30)
    agent.handlers.answers[ShowGuest] = lambda _: guest
    assert await host.call(ShowGuest(guest="g1")) == guest


async def test_the_session_and_the_operation_arrive(host: RemoteHost, agent: FakeAgent) -> None:
    operation = SetVf(pf="enp1s0", index=1, settings=VfSettings(mac="52:54:00:00:00:01", vlan=7, trust=True))
    await host.with_session(SESSION).call(operation)
    assert agent.handlers.asked == [(operation, SESSION)]


async def test_claim_and_release(host: RemoteHost, agent: FakeAgent) -> None:
    mine = host.with_session(SESSION)
    claim = await mine.call(ClaimResources(guest="g1", vfs=("0000:01:10.0",)))
    assert claim == Claim(operation="op1", epoch=3, guest="g1", vfs=("0000:01:10.0",))
    assert (await host.call(TakeInventory())).claims == (claim,)
    with pytest.raises(Problem) as caught:
        await host.with_session(Session(operation="op2")).call(ClaimResources(guest="g1"))
    assert caught.value.code == "guest-claimed"
    assert (await mine.call(ReleaseClaim())).changed
    assert agent.handlers.ended == ["op1"]
    assert not (await mine.call(ReleaseClaim())).changed


async def test_a_vf_in_use_can_be_claimed_for_its_own_guest_only(host: RemoteHost, agent: FakeAgent) -> None:
    agent.handlers.vfs["0000:01:10.0"] = "g1"
    with pytest.raises(Problem) as caught:
        await host.with_session(SESSION).call(ClaimResources(guest="g2", vfs=("0000:01:10.0",)))
    assert caught.value.code == "vf-in-use"
    assert caught.value.attributes == {"guest": "g1"}
    assert agent.claims.all() == ()
    assert await host.with_session(SESSION).call(ClaimResources(guest="g1", vfs=("0000:01:10.0",)))


async def test_a_stale_controller_ends_nothing(host: RemoteHost, agent: FakeAgent) -> None:
    await host.with_session(SESSION).call(ClaimResources(guest="g1"))
    with pytest.raises(Problem) as caught:
        await host.with_session(Session(operation="op1", epoch=2)).call(ReleaseClaim())
    assert caught.value.code == "stale-controller"
    assert agent.handlers.ended == []


async def test_a_takeover_waits_for_what_the_older_controller_has_begun(host: RemoteHost, agent: FakeAgent) -> None:
    await host.with_session(SESSION).call(ClaimResources(guest="g1"))
    agent.handlers.wait = asyncio.Event()
    older = asyncio.create_task(host.with_session(SESSION).call(Unplug(guest="g1", alias="ua-vf")))
    while not agent.handlers.asked:
        await asyncio.sleep(0.001)
    newer = host.with_session(Session(operation="op1", epoch=4))
    takeover = asyncio.create_task(newer.call(ClaimResources()))
    async with asyncio.timeout(10):
        while agent.claims.all()[0].epoch != 4:  # the older one is fenced off before the newer one waits
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert not takeover.done()
    agent.handlers.wait.set()
    assert (await takeover).epoch == 4
    await older


async def test_a_problem_arrives_whole(host: RemoteHost, agent: FakeAgent) -> None:
    def refuse(_: object) -> Guest:
        raise Problem("guest-unknown", "There is no g1", "Look", exit=Exit.OPERATOR, guest="g1", n=[1])

    agent.handlers.answers[ShowGuest] = refuse
    with pytest.raises(Problem) as caught:
        await host.call(ShowGuest(guest="g1"))
    problem = caught.value
    assert (problem.code, problem.message, problem.remedy) == ("guest-unknown", "There is no g1", "Look")
    assert problem.exit == Exit.OPERATOR
    assert problem.attributes == {"guest": "g1", "n": [1]}


async def test_a_fault_of_the_agent_shows_no_internals(host: RemoteHost, agent: FakeAgent) -> None:
    def fail(_: object) -> Guest:
        raise KeyError("inside")

    agent.handlers.answers[ShowGuest] = fail
    with pytest.raises(Problem) as caught:
        await host.call(ShowGuest(guest="g1"))
    assert caught.value.code == "agent-fault"
    assert "inside" not in str(caught.value)
    assert "journalctl" in caught.value.remedy


async def test_an_answer_that_is_none_of_its_kind(host: RemoteHost, agent: FakeAgent) -> None:
    agent.handlers.answers[ShowGuest] = lambda _: Done()
    with pytest.raises(Problem) as caught:
        await host.call(ShowGuest(guest="g1"))
    assert caught.value.code == "answer-invalid"


async def test_no_answer_in_time(host: RemoteHost, agent: FakeAgent) -> None:
    agent.handlers.wait = asyncio.Event()
    with pytest.raises(Problem, match=r"no answer to unplug within 0\.05 s") as caught:
        await host.call(Unplug(guest="g1", alias="a"), timeout_s=0.05)
    assert caught.value.code == "host-unreachable"
    assert caught.value.exit == Exit.REFUSED
    agent.handlers.wait.set()
    assert await host.call(TakeInventory()) == empty_inventory("host1")


async def test_calls_run_side_by_side(host: RemoteHost, agent: FakeAgent) -> None:
    agent.handlers.wait = asyncio.Event()
    calls = [asyncio.create_task(host.call(TakeInventory())) for _ in range(10)]
    while len(agent.handlers.asked) < 10:
        await asyncio.sleep(0.001)
    agent.handlers.wait.set()
    assert len(await asyncio.gather(*calls)) == 10


async def test_an_agent_that_comes_back_is_found_again(tmp_path: Path) -> None:
    directory, inventory = tmp_path / "host1", empty_inventory("host1")
    async with connect("host1", f"unix://{directory}/agent.sock") as host:
        with pytest.raises(Problem, match="there is no socket"):
            await host.call(TakeInventory())
        async with fake_agent(directory, inventory):
            await host.with_session(SESSION).call(ClaimResources(guest="g1"))
        with pytest.raises(Problem, match="Host host1 cannot be reached") as caught:
            await host.call(TakeInventory())
        assert caught.value.code == "host-unreachable"
        async with fake_agent(directory, inventory):
            (claim,) = (await host.call(TakeInventory())).claims
            assert claim.guest == "g1"


async def test_an_idle_connection_that_a_restart_has_broken_is_made_anew(tmp_path: Path) -> None:
    directory, inventory = tmp_path / "host1", empty_inventory("host1")
    async with connect("host1", f"unix://{directory}/agent.sock") as host:
        async with fake_agent(directory, inventory):
            await host.call(TakeInventory())
        async with fake_agent(directory, inventory):
            await host.call(TakeInventory())
