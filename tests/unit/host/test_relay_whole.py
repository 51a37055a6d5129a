"""A relay, from its plan through the agent's handlers: the kernel's files and Open vSwitch's database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from ovs_database import transact
from relay_host import MINE, PAGES, VFS, Host, refused, running

from vferry.host import api
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import SOCKET
from vferry.model.problem import Problem
from vferry.model.relay import RelayState, RelayUplink
from vferry.report.relay_metrics import exposition


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    with running(tmp_path) as host:
        yield host


@pytest.mark.parametrize("switched", [False, True])
async def test_there_and_back(host: Host, *, switched: bool) -> None:
    before = host.state()
    await host.enable(switched=switched)
    made = host.state()
    assert made["pages"] == "522"
    assert made["settings"] == {
        "mine": "1",
        "dpdk-extra": "-a 0000:00:00.0",
        "dpdk-init": "try",
        "dpdk-socket-mem": "1024",
        "dpdk-socket-limit": "1024",
        "pmd-cpu-mask": "0x8",
        "pmd-sleep-max": "200",
    }
    assert made["boot"]
    assert made["bridges"] == (["relay0"] if switched else [])
    assert made["drivers"] == ["vfio-pci" if switched else "igbvf"]
    assert made["vfs"][0]["IFLA_VF_TRUST"] == {"trust": int(switched)}
    inventory = await host.inventory()
    assert inventory.relay is not None
    assert inventory.relay.state is RelayState.ENABLED
    assert [vf.claim for vf in inventory.pfs[0].vfs] == ["relay-1" if switched else None, None]
    await host.disable()
    assert host.state() == before


async def test_whatever_fails_all_is_as_before(host: Host) -> None:
    before = host.state()
    operations = [operation for step in (await host.plan()).steps for operation in step.apply]
    host.claims.release(MINE)
    for number in range(len(operations)):
        for answered in (False, True):
            await _fail(host, number, answered=answered)
            assert host.state() == before, (operations[number], answered)


async def _fail(host: Host, number: int, *, answered: bool) -> None:
    """One operation is not carried out, or its answer is lost; then all steps so far are undone."""
    begun = []
    plan = await host.plan()
    left = number
    for step in plan.steps:
        begun.append(step)
        for operation in step.apply:
            if left > 0 or answered:
                await host.ask(operation)
            left -= 1
        if left < 0:
            break
    for step in reversed(begun):
        for operation in step.undo:
            await host.ask(operation)
    host.claims.release(MINE)


@pytest.mark.parametrize("another", [False, True], ids=["gone", "another in its place"])
async def test_it_is_taken_back_without_its_vf(host: Host, *, another: bool) -> None:
    """The PF has fewer VFs by now, or it is another NIC."""
    before = host.state()
    plan = await host.enable()
    take_away(host, VFS[0])
    if another:
        (host.root / "sys/class/net/pf0/device/virtfn0").symlink_to(host.pci / "devices" / VFS[1])
    set_before = dict(host.nic.vfs[0])
    forward = [step.apply[0] for step in plan.steps if step.name in ("bind-vf", "open-vf")]
    codes = [await refused(host, operation, MINE) for operation in forward]
    assert codes == ["vf-unknown", "not-claimed" if another else "vf-unknown"]
    await host.disable()
    after = host.state()
    assert host.nic.vfs[0] == set_before, "nobody's VF is set"
    assert {**after, "drivers": before["drivers"], "vfs": before["vfs"]} == before


def take_away(host: Host, address: str) -> None:
    device = host.pci / "devices" / address
    for link in (host.root / "sys/class/net/pf0/device").glob("virtfn*"):
        if link.resolve() == device.resolve():
            link.unlink()
    device.rename(host.root / "gone")


async def test_a_vf_that_is_not_claimed_is_no_uplink(host: Host) -> None:
    wanted = (await host.plan()).relay.bridges[0]
    with_other = replace(wanted, uplinks=(*wanted.uplinks, RelayUplink(name="other", address=VFS[1])))
    with pytest.raises(Problem) as caught:
        await host.ask(api.SetRelayBridge(bridge=with_other, present=True))
    assert caught.value.code == "not-claimed"
    assert host.state()["bridges"] == []


async def test_an_agent_that_is_started_anew_knows_it(host: Host) -> None:
    before = host.state()
    plan = await host.enable()
    host.restart()
    assert (await host.inventory()).relay == replace(plan.relay, state=RelayState.ENABLED)
    await host.disable()
    assert host.state() == before


async def test_a_host_that_is_booted_has_it_again(host: Host) -> None:
    plan = await host.enable()
    made = host.state()
    host.boot()
    assert host.state() != made
    host.restart()
    await host.handlers.started()
    assert host.state() == made
    assert (await host.inventory()).relay == replace(plan.relay, state=RelayState.ENABLED)


async def test_what_the_operator_has_set_since_stays_where_it_is_made_whole(host: Host) -> None:
    await host.enable()
    theirs = (
        ["other_config", "delete", ["set", ["pmd-cpu-mask", "dpdk-extra"]]],
        ["other_config", "insert", ["map", [["pmd-cpu-mask", "0x2"]]]],
    )
    transact(host.root / SOCKET, {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": theirs})
    await host.enable()
    settings = host.state()["settings"]
    assert settings["pmd-cpu-mask"] == "0x2"
    assert settings["dpdk-extra"] == "-a 0000:00:00.0"


@pytest.mark.parametrize("state", [RelayState.ENABLING, RelayState.DISABLING])
async def test_one_that_is_half_made_is_left_to_whoever_made_it(host: Host, state: RelayState) -> None:
    plan = await host.enable()
    await host.ask(api.KeepRelay(relay=replace(plan.relay, state=state)))
    host.boot()
    booted = host.state()
    await host.handlers.started()
    assert host.state() == booted


async def test_what_cannot_be_had_again_keeps_nothing_else(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    await host.enable()
    host.boot()
    (host.root / PAGES).unlink()
    await host.handlers.started()
    assert "memory on NUMA node 0 is not as it was" in caplog.text
    assert (host.pci / "devices" / VFS[0] / "driver").readlink().name == "vfio-pci"


async def test_the_view_of_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVSwitch, "ask_switch", lambda *_: "ovs-vswitchd (Open vSwitch) 3.5.0\nDPDK 24.11.1\n")
    plan = await host.enable()
    view = await host.ask(api.ReadRelay(), None)
    assert view.relay == replace(plan.relay, state=RelayState.ENABLED)
    assert [port.name for port in view.ports] == ["relay0-up0"]
    assert (view.dpdk_started, view.ports[0].up, view.silence) == (True, True, "")
    (host.root / SOCKET).rename(host.root / "away")
    monkeypatch.setattr("vferry.host.ovsdb.TIMEOUT_S", 0.1)
    silent = await host.ask(api.ReadRelay(), None)
    (host.root / "away").rename(host.root / SOCKET)
    assert (silent.relay, silent.ports) == (view.relay, ())
    assert "Open vSwitch does not do its work" in silent.silence


async def test_the_view_of_one_whose_switch_has_died(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database goes on saying what it wrote there: no control socket answers."""
    await host.enable()
    monkeypatch.setattr(OpenVSwitch, "_version", lambda _: None)
    view = await host.ask(api.ReadRelay(), None)
    assert [(port.name, port.up, port.count("rx_packets")) for port in view.ports] == [("relay0-up0", None, 7)]
    assert not view.dpdk_started
    assert "ovs-vswitchd does not answer" in view.silence
    shown = exposition("host1", view)
    assert 'vferry_relay_dpdk{host="host1"} 0.0' in shown
    assert "vferry_relay_port_up{" not in shown
