"""The register of hosts, with real agents behind it, and the commands over it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from msgspec.structs import replace

from vferry.cli import host_show
from vferry.cli.host import command
from vferry.controller.hosts import HostRecord, add_host, certify_qemu, limit_host, list_hosts, open_host, remove_host
from vferry.controller.state import State
from vferry.host.api import (
    CertificateRequest,
    ClaimResources,
    InstallQemuCertificate,
    LimitHost,
    RequestQemuCertificate,
    Session,
    TakeInventory,
)
from vferry.host.certificates_tls import complete, host_files
from vferry.host.qemu_certificates import QemuCertificates
from vferry.host.qemu_tls import read_qemu_tls
from vferry.host.service_fake import FakeAgent, empty_inventory, fake_agent
from vferry.host.wire import operations
from vferry.model.guest import Guest, GuestState, Nic, VfRef
from vferry.model.host import Bridge, Inventory, LinkState, Network, Pf, QemuTls, Vf, VfSettings
from vferry.model.problem import Exit, Problem
from vferry.model.relay import NumaNode, PagePool, Relay, RelayGround, RelayKind, RelayState, SwitchAbilities


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[FakeAgent]:
    async with fake_agent(tmp_path / "host1", full_inventory()) as agent:
        yield agent


def full_inventory() -> Inventory:
    vf = Vf(
        pf="enp1s0",
        index=0,
        address="0000:01:10.0",
        driver="vfio-pci",
        settings=VfSettings(
            mac="52:54:00:00:00:01",
            vlan=7,
            qos=3,
            trust=True,
            spoof_check=False,
            link_state=LinkState.AUTO,
            min_tx_rate=0,
            max_tx_rate=1000,
        ),
        guest="g1",
        claim="op1",
    )
    bare = Vf(pf="enp1s0", index=1, address="0000:01:10.2")
    nic = Nic(
        mac="52:54:00:00:00:01",
        model="hostdev",
        alias="ua-net0",
        vf=VfRef(pf="enp1s0", index=0, address="0000:01:10.0"),
    )
    guest = Guest(
        name="g1", uuid="u", host="host1", state=GuestState.RUNNING, memory=1 << 30, nics=(nic,), pins=((0,), (1,))
    )
    pf = Pf(name="enp1s0", address="0000:01:00.0", driver="igb", mac="52:54:00:00:01:00", vfs=(vf, bare))
    empty = empty_inventory("host1")
    return Inventory(
        name="host1",
        versions=empty.versions,
        migration=empty.migration,
        networks={"physnet1": Network(pf="enp1s0", bridge="br0")},
        pfs=(pf,),
        bridges=(Bridge(name="br0", ports=("enp1s0", "vnet0")),),
        guests=(guest,),
        memory_total=8 << 30,
        memory_free=4 << 30,
        relay=Relay(
            operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.DIRECT, uplinks=("enp1s0",), cores=(1,)
        ),
        relay_ground=RelayGround(
            nodes=(NumaNode(number=0, pools=(PagePool(size_kib=2048, total=5, free=3),)),),
            switch=SwitchAbilities(
                version="3.5.0",
                dpdk_version="DPDK 24.11.1",
                dpdk_started=True,
                settings={"hw-offload": "true"},
            ),
        ),
    )


async def test_add_certifies_and_registers(state: State, agent: FakeAgent) -> None:
    inventory = await add_host("host1", agent.uri, "netns:outside")
    assert inventory.name == "host1"
    assert complete(host_files(agent.directory))
    assert list_hosts() == (HostRecord(name="host1", uri=agent.uri, probe_from="netns:outside"),)
    async with open_host("host1", Session(operation="op1")) as host:
        assert (await host.call(ClaimResources(guest="g1"))).guest == "g1"


async def test_a_host_moves_to_https_when_it_is_added_again(state: State, agent: FakeAgent) -> None:
    await add_host("host1", agent.uri)
    await add_host("host1", agent.tls_uri)
    assert [record.uri for record in list_hosts()] == [agent.tls_uri]
    async with open_host("host1") as host:
        assert (await host.call(TakeInventory())).name == "host1"


async def test_another_name_than_the_agents_own(state: State, agent: FakeAgent) -> None:
    with pytest.raises(Problem, match="is that of host host1, not host2") as caught:
        await add_host("host2", agent.uri)
    assert caught.value.code == "host-name-differs"
    assert list_hosts() == ()
    assert not complete(host_files(agent.directory))


@pytest.mark.parametrize("name", ["", "Host1", "-a", "a b", "../x", "a" * 64, "host1\n"])
async def test_names_that_are_refused(state: State, name: str) -> None:
    with pytest.raises(Problem) as caught:
        await add_host(name, "unix:///nowhere")
    assert caught.value.code == "host-name-invalid"


async def test_a_probe_source_that_is_none(state: State) -> None:
    with pytest.raises(Problem) as caught:
        await add_host("host1", "unix:///nowhere", "netns:../x")
    assert caught.value.code == "probe-from-invalid"


async def test_an_unreachable_host_is_not_registered(state: State) -> None:
    with pytest.raises(Problem) as caught:
        await add_host("host1", f"unix://{state.root}/no.sock")
    assert caught.value.code == "host-unreachable"
    assert list_hosts() == ()


async def test_an_unknown_host_lists_the_known_ones(state: State, agent: FakeAgent) -> None:
    with pytest.raises(Problem, match="There is no host host9, nor any other") as caught:
        open_host("host9")
    assert "vferry host add host9" in caught.value.remedy
    await add_host("host1", agent.uri)
    with pytest.raises(Problem, match="There is no host host9; known: host1") as caught:
        await remove_host("host9")
    assert caught.value.code == "host-unknown"
    assert caught.value.exit == Exit.USAGE
    assert (await remove_host("host1")).name == "host1"
    assert list_hosts() == ()


def test_a_damaged_register(state: State) -> None:
    state.hosts.write_text("[{}]")
    with pytest.raises(Problem) as caught:
        list_hosts()
    assert caught.value.code == "hosts-unreadable"


# --- the commands ----------------------------------------------------------------------------------------


async def run(*arguments: str) -> Result:
    """A command in a thread: it has an event loop of its own, as in its own process."""
    return await asyncio.to_thread(CliRunner().invoke, command, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("switch", "said"),
    [
        (None, "none"),
        (SwitchAbilities(), "version unknown, without DPDK, hw-offload off"),
        (
            SwitchAbilities(version="3.5.0", dpdk_version="DPDK 24.11.1", dpdk_started=True, answers=False),
            "3.5.0, DPDK 24.11.1, but ovs-vswitchd does not answer, hw-offload off",
        ),
    ],
)
def test_how_an_open_vswitch_is_told(switch: SwitchAbilities | None, said: str) -> None:
    assert host_show._switch(switch) == said


async def test_the_commands(state: State, agent: FakeAgent) -> None:
    added = await run("add", "host1", agent.uri)
    assert added.exit_code == 0
    assert added.output == "Added host1: 1 PFs with 2 VFs, 1 guests\n"

    listed = await run("list")
    assert ["host1", agent.uri, "-"] in [line.split() for line in listed.output.splitlines()]
    assert json.loads((await run("list", "--json")).output) == [{"name": "host1", "uri": agent.uri, "probe_from": None}]

    shown = (await run("show", "host1")).output
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "0 0000:01:10.0 - 52:54:00:00:00:01 7 3 yes no 0-1000 auto g1 op1" in lines
    assert "1 0000:01:10.2 - - - - - - - - - -" in lines
    assert "physnet1 enp1s0 enp1s0 br0 (bridge) up enp1s0 vnet0" in lines
    assert "g1 running 1.0 GiB 1 52:54:00:00:00:01 (VF 0 of enp1s0)" in lines
    assert "Memory 4.0 GiB free of 8.0 GiB" in lines
    assert "Slots 2 free of 2" in lines
    assert "Bandwidth no limit (configured)" in lines
    assert "Huge pages 3 free of 5 (2 MiB, NUMA node 0)" in lines
    assert "Open vSwitch 3.5.0, DPDK 24.11.1, which runs, hw-offload on" in lines
    assert "Relay direct on enp1s0, enabled" in lines
    assert "The guests g1 are pinned to where the relay of host1 forwards (CPU 1)" in shown
    inventory = json.loads((await run("show", "host1", "--json")).output)
    assert inventory["pfs"][0]["vfs"][0]["settings"]["vlan"] == 7
    assert inventory["relay_ground"]["switch"]["settings"] == {"hw-offload": "true"}

    assert (await run("remove", "host1")).output == "Removed host1\n"
    assert json.loads((await run("list", "--json")).output) == []


@pytest.mark.parametrize(
    ("written", "sent", "said"),
    [
        ("1G", 10**9, "1,000,000,000 bytes per second"),
        ("none", 0, "no limit"),
        ("configured", None, "as configured"),
    ],
)
async def test_a_host_is_limited(state: State, agent: FakeAgent, written: str, sent: int | None, said: str) -> None:
    await add_host("host1", agent.uri)
    done = await run("set", "host1", "--bandwidth", written)
    assert done.output == f"host1: {said} for all migrations that leave it\n"
    assert agent.handlers.asked[-1] == (LimitHost(bandwidth=sent), None)
    assert (await run("set", "host1")).exit_code == Exit.USAGE
    refused = await run("set", "host1", "--bandwidth", "much")
    assert refused.exit_code == Exit.USAGE
    assert "for example 50M" in refused.output


async def test_a_hosts_qemu_is_certified_by_an_authority_of_its_own(state: State, agent: FakeAgent) -> None:
    await add_host("host1", agent.uri)
    files = QemuCertificates(agent.directory, "host1")
    answers = agent.handlers.answers
    answers[RequestQemuCertificate] = lambda asked: CertificateRequest(pem=files.request(asked.ca))
    answers[InstallQemuCertificate] = lambda asked: files.install(asked.certificate, asked.ca)
    done = await run("certify-qemu", "host1")
    assert (done.exit_code, done.output) == (0, "host1: QEMU has a new certificate\n")
    found = read_qemu_tls(agent.directory)
    assert (found.lacks, found.names) == (None, ("host1",))
    folder = agent.directory / "etc/pki/qemu"
    trusted = x509.load_pem_x509_certificate((folder / "ca-cert.pem").read_bytes())
    shown = x509.load_pem_x509_certificate((folder / "server-cert.pem").read_bytes())
    shown.verify_directly_issued_by(trusted)
    usages = {extension.oid for extension in shown.extensions}
    assert x509.KeyUsage.oid not in usages, "QEMU wants key encipherment in it, or none"
    own = x509.load_pem_x509_certificate(host_files(agent.directory).ca.read_bytes())
    assert own.public_key() != trusted.public_key()


async def test_an_agent_of_before_host_set(state: State, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_host("host1", agent.uri)
    older = {tag: kind for tag, kind in operations().items() if kind is not LimitHost}
    monkeypatch.setattr("vferry.host.server.operations", lambda: older)
    with pytest.raises(Problem, match="by its configuration only") as caught:
        await limit_host("host1", 0)
    assert (caught.value.code, caught.value.exit) == ("host-too-old", Exit.REFUSED)


async def test_an_agent_of_before_qemus_certificates(
    state: State, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_host("host1", agent.uri)
    older = {tag: kind for tag, kind in operations().items() if kind is not RequestQemuCertificate}
    monkeypatch.setattr("vferry.host.server.operations", lambda: older)
    with pytest.raises(Problem, match="knows of no certificates for QEMU") as caught:
        await certify_qemu("host1")
    assert (caught.value.code, caught.value.exit) == ("host-too-old", Exit.REFUSED)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({}, "no limit (configured)"),
        ({"bandwidth": 10**9}, "1,000,000,000 bytes per second (configured)"),
        ({"bandwidth": 10**9, "bandwidth_set": True}, "1,000,000,000 bytes per second (set; configured: no limit)"),
        (
            {"bandwidth_set": True, "bandwidth_configured": 10**9},
            "no limit (set; configured: 1,000,000,000 bytes per second)",
        ),
    ],
)
def test_how_the_limit_of_a_host_is_told(endpoint: dict[str, Any], said: str) -> None:
    assert host_show._bandwidth(replace(empty_inventory("host1").migration, **endpoint)) == said


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        (None, "not known to this agent"),
        (QemuTls(names=("host1", "host1.example"), authority="a"), "as host1, host1.example"),
        (QemuTls(lacks="there is no file"), "no: there is no file"),
    ],
)
def test_whether_qemu_has_certificates_is_shown(tls: QemuTls | None, said: str) -> None:
    (summary, *_) = host_show.tables(replace(empty_inventory("host1"), qemu_tls=tls))
    keys, values = (list(column.cells) for column in summary.columns)
    assert values[keys.index("QEMU's own TLS")] == said


@pytest.mark.parametrize("name", ["add", "list", "show", "set", "certify-qemu", "remove"])
def test_every_help_has_an_example(name: str) -> None:
    assert f"Example: vferry host {name}" in CliRunner().invoke(command, [name, "--help"]).output
