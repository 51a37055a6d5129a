"""A host's relay on the emulated NIC's VFs, with DPDK: made, with a guest on it, killed, and taken back."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.operator import HOSTS, PF, VFERRY, Scene, asked, migrate, other, until, vferry
from lab.relayed import GUEST, HOST, PORT, RESTART_S, Relayed, answers, on_relay, put, relays
from lab.test_nic import assert_alone, put_running, reached
from vferry.lab import guests
from vferry.lab.lab import Lab
from vferry.lab.ways import WAYS
from vferry.model.host import NO_MAC
from vferry.model.relay import RelayKind

pytestmark = pytest.mark.relay
BENCH_S = 3600.0
EACH = pytest.mark.parametrize("kind", list(RelayKind), ids=str)


@pytest.fixture
def scene(lab: Lab) -> Scene:
    """The guest that may be on the relay: no other runs, and neither does it."""
    assert lab.setup().relay, "vferry lab down; vferry lab up --relay"
    guests.stop_others(lab, [])
    return Scene(lab, GUEST)


@pytest.fixture
def relay(scene: Scene, kind: RelayKind) -> Iterator[Relayed]:
    """A relay that is to be made."""
    assert asked("relay", "show", HOST)["relay"] is None, "an earlier test has left a relay"
    found = Relayed(scene, kind)
    yield found
    found.end()


@pytest.fixture
def put_on(lab: Lab) -> Iterator[Scene]:
    """guest2 on the relay of its host, and direct relays on both hosts; as they were, afterwards."""
    with relayed(lab, RelayKind.DIRECT) as scene:
        yield scene


@pytest.fixture
def put_on_switch(lab: Lab) -> Iterator[Scene]:
    """As `put_on`, with switched relays."""
    with relayed(lab, RelayKind.SWITCHED) as scene:
        yield scene


@contextmanager
def relayed(lab: Lab, kind: RelayKind) -> Iterator[Scene]:
    """guest2 on the relay of its host, and relays on both hosts."""
    assert lab.setup().relay, "vferry lab down; vferry lab up --relay"
    scene = Scene(lab, "guest2")
    guest = guests.named(scene.guest)
    guests.stop_others(lab, [guest])
    lab.guest(scene.guest)
    with relays(scene, kind, dict.fromkeys(HOSTS, guest.mac)):
        put(scene, "relay")
        yield scene


def migrated_by(scene: Scene, *options: str) -> tuple[str, set[str]]:
    """The mode of a migration to the other host, and its steps that only the relay has; the guest answers there."""
    report = migrate(scene, *options, "--no-probe")
    assert on_relay(scene) == report["vf"]["after"]["address"]
    answers(scene)
    shared = {"claim", "configure-vf", "expect-guest", "open-gateways", "copy-memory", "announce", "wipe-vf"}
    shared |= {"close-gateways", "define", "undefine", "release"}
    return report["network_mode"], {step["name"] for step in report["steps"]} - shared


def left_nothing(scene: Scene) -> None:
    """On no host but that of the guest a VF or a port of the relay is its own, and claims are but the relays'."""
    here, mac = scene.host, guests.named(scene.guest).mac
    for host in HOSTS:
        shown = asked("host", "show", host)
        assert not [claim for claim in shown["claims"] if claim["slot"]], shown["claims"]
        vfs = [vf["address"] for pf in shown["pfs"] for vf in pf["vfs"] if vf["settings"]["mac"] == mac]
        macs = [port["mac"] for port in asked("relay", "show", host)["relay"]["ports"]]
        assert (len(vfs), macs) == ((1, [mac]) if host == here else (0, [])), (host, vfs, macs)


@EACH
def test_a_dry_run_says_the_steps_and_changes_nothing(relay: Relayed) -> None:
    done = vferry("relay", "enable", *relay.words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Open vSwitch forwards with DPDK on CPU 1" in done.stdout
    assert (f"of {PF} (" in done.stdout) == (relay.kind is RelayKind.SWITCHED), done.stdout
    assert relay.ground() == relay.before


@EACH
def test_a_relay_is_made_shown_and_taken_back(relay: Relayed) -> None:
    relay.enable()
    relay.assert_made()
    made = relay.ground()
    relay.enable()  # nothing is missing of it
    assert {**relay.ground(), "claims": None} == {**made, "claims": None}
    relay.disable()
    relay.assert_given_back()


@EACH
def test_a_relay_is_there_again_after_the_host_was_restarted(relay: Relayed) -> None:
    relay.enable()
    relay.assert_made()
    relay.restart_host()
    relay.assert_made()
    relay.disable()
    relay.assert_given_back()


@EACH
def test_a_relay_that_a_guest_is_on_is_not_taken_back(relay: Relayed) -> None:
    """Nor one with a port of which vferry knows nothing, as `relay.join` makes it on a switched one."""
    relay.enable()
    relay.join()
    joined = relay.ground()
    done = vferry("relay", "disable", HOST)
    assert done.returncode == 3, done.stderr
    assert (relay.guest.mac if relay.kind is RelayKind.DIRECT else PORT) in done.stderr
    assert relay.ground() == joined
    relay.leave()
    relay.disable()
    relay.assert_given_back()


@EACH
def test_a_guest_answers_through_the_relay_also_after_it_was_killed(relay: Relayed) -> None:
    relay.enable()
    relay.join()
    relay.start_guest()
    relay.assert_answers("on the relay")
    relay.assert_passes_by_the_vf()
    relay.kill_switch()
    relay.assert_answers("after Open vSwitch was killed", RESTART_S)
    relay.assert_passes_by_the_vf()
    relay.stop_guest()
    relay.leave()
    relay.disable()
    relay.assert_given_back()


@pytest.mark.guest("guest2")
def test_a_guest_is_put_on_the_relay_migrates_there_and_back_and_is_taken_off(put_on: Scene) -> None:
    """Nothing is plugged or unplugged in it, and each VF that it leaves is as nobody had it."""
    scene = put_on
    assert migrated_by(scene) == ("relay", {"join-relay", "settle-vf", "close-vf", "leave-relay"})
    left_nothing(scene)
    scene.cold_boot(scene.host)
    assert on_relay(scene)
    assert migrated_by(scene, "--codec", "zstd")[0] == "relay"
    left_nothing(scene)


@contextlib.contextmanager
def more_vfs(scene: Scene) -> Iterator[None]:
    """The VFs of two guests that are off are nobody's meanwhile: one is needed beside the relay's."""
    host = scene.host
    kept = {name: scene.run(host, f"virsh dumpxml --inactive {name}") for name in ("plain1", "dhcp1")}
    try:
        scene.run(host, "; ".join(f"virsh undefine {name}" for name in kept))
        yield
    finally:
        for xml in filter(None, kept.values()):
            scene.lab.run(host, ["sh", "-c", "cat > /run/x.xml; virsh define /run/x.xml; rm /run/x.xml"], xml)


@pytest.mark.guest("guest2")
def test_a_running_guest_goes_to_a_vf_and_a_bridge_and_back_to_the_relay(put_on: Scene) -> None:
    """It answers all the time, and each of its homes is left as nobody had it."""
    scene = put_on
    mac = guests.named(scene.guest).mac
    with more_vfs(scene):
        scene.await_agent()
        with reached(scene):
            for to in ("vf", "relay", "vf", "virtio", "vf", "relay"):
                put_running(scene, to)
                assert_alone(scene, [mac] if to == "relay" else [])
        answers(scene)
        scene.cold_boot(scene.host)
        assert on_relay(scene)
        left_nothing(scene)


@pytest.mark.guest("guest2")
def test_between_the_relay_and_a_bridge_a_running_guest_goes_by_a_vf(put_on: Scene) -> None:
    """In one command each way, of which the VF is left as nobody had it."""
    scene = put_on
    mac = guests.named(scene.guest).mac
    with more_vfs(scene):
        scene.await_agent()
        with reached(scene):
            for to in ("virtio", "relay"):
                put_running(scene, to)
                assert_alone(scene, [mac] if to == "relay" else [])
        answers(scene)
        scene.cold_boot(scene.host)
        assert on_relay(scene)
        left_nothing(scene)


def killed(scene: Scene, to: str, said: str) -> str:
    """The operation of a command that was killed as it said something; the NIC goes nowhere else meanwhile."""
    words = ("guest", "nic", scene.guest, guests.named(scene.guest).mac, "--to")
    command = subprocess.Popen([*VFERRY, *words, to], stderr=subprocess.PIPE, text=True)
    assert command.stderr is not None
    assert any(said in line for line in command.stderr), "it ended before that"
    command.kill()
    command.communicate()
    other_way = vferry(*words, "relay")
    assert (other_way.returncode, f"--to {to}" in other_way.stderr) == (3, True), other_way.stderr
    (row,) = [row for row in asked("operation", "list") if row["status"] == "interrupted"]
    assert (row["kind"], row["guest"], row["to"]) == ("nic", scene.guest, to), row
    return str(row["operation"])


@pytest.mark.guest("guest2")
@pytest.mark.parametrize("asked_again", [True, False], ids=["asked-again", "recovered"])
@pytest.mark.parametrize(("to", "said"), [("vf", "routes to the VF"), ("virtio", "routes to the standby NIC")])
def test_a_command_that_was_killed_goes_on(put_on: Scene, to: str, said: str, *, asked_again: bool) -> None:
    """To a bridge, it has come to the VF by then, and to no NIC that its definition names."""
    scene = put_on
    with more_vfs(scene):
        scene.await_agent()
        with reached(scene):
            operation = killed(scene, to, said)
            if asked_again:
                put_running(scene, to)
            else:
                recovered = vferry("operation", "recover", operation)
                assert recovered.returncode == 0, recovered.stderr
                assert not on_relay(scene)
            assert asked("operation", "show", operation)["status"] == "completed"
            assert_alone(scene, [])
            put_running(scene, "relay")
        answers(scene)
        left_nothing(scene)


@pytest.mark.guest("guest2")
def test_a_running_guest_goes_from_a_switch_to_a_vf_and_back(put_on_switch: Scene) -> None:
    """The uplink has its MAC by hand beside its VF, and no bridge would get what is for it.

    That of the other host's relay is without it meanwhile: else that host's own frames for the guest went there.
    """
    scene = put_on_switch
    mac = guests.named(scene.guest).mac
    (uplink,) = asked("relay", "show", scene.host)["relay"]["vfs"]
    (outside,) = asked("relay", "show", other(scene.host))["relay"]["vfs"]
    scene.run(other(scene.host), f"ip link set {PF} vf {outside['index']} mac {NO_MAC}")
    with more_vfs(scene):
        scene.await_agent()
        with reached(scene):
            for to in ("vf", "relay"):
                put_running(scene, to)
                assert_alone(scene, [mac] if to == "relay" else [], given=uplink["index"])
        answers(scene)
        held = scene.run(scene.host, "ovs-appctl fdb/show relay0")
        assert re.search(rf"{mac}\s+static", held), held
        scene.cold_boot(scene.host)
        assert on_relay(scene) == "relay0"
        answers(scene)


@pytest.mark.guest("guest2")
def test_a_guest_is_put_on_a_switch_migrates_there_and_back_and_is_taken_off(put_on_switch: Scene) -> None:
    """No VF is its own, and each switch that it leaves has no port for it any more."""
    scene = put_on_switch
    mac = guests.named(scene.guest).mac
    for codec in ("none", "zstd"):
        here = scene.host
        report = migrate(scene, "--codec", codec, "--no-probe")
        steps = {step["name"] for step in report["steps"]}
        assert (report["network_mode"], report["vf"]["before"], {"join-relay", "leave-relay"} <= steps) == (
            "relay",
            None,
            True,
        )
        answers(scene)
        for host in HOSTS:
            view = asked("relay", "show", host)
            whose = [port["guest"] for port in view["ports"] if port["mac"] == mac]
            assert whose == ([scene.guest] if host != here else []), view
            assert not [claim for claim in asked("host", "show", host)["claims"] if claim["slot"]]
        held = scene.run(scene.host, "ovs-appctl fdb/show relay0")
        assert re.search(rf"{mac}\s+static", held), held
        refused = vferry("relay", "disable", scene.host)
        assert (refused.returncode, mac in refused.stderr) == (3, True), refused.stderr
    scene.cold_boot(scene.host)
    assert on_relay(scene) == "relay0"
    answers(scene)


@pytest.mark.guest("guest2")
def test_a_guest_is_on_the_switch_again_after_its_host_was_restarted(put_on_switch: Scene) -> None:
    """The MAC that its uplink was given by hand is gone with the boot."""
    scene = put_on_switch
    boot(scene)
    (uplink,) = asked("relay", "show", scene.host)["relay"]["vfs"]
    scene.run(scene.host, f"ip link set {PF} vf {uplink['index']} mac {guests.named(scene.guest).mac}")
    scene.cold_boot(scene.host)
    assert on_relay(scene) == "relay0"


@pytest.mark.guest("guest2")
def test_without_a_relay_there_a_guest_stays(put_on: Scene) -> None:
    here = put_on.host
    assert vferry("relay", "disable", other(here)).returncode == 0
    refused = vferry("migrate", put_on.guest, other(here))
    assert refused.returncode == 3
    assert f"vferry relay enable {other(here)}" in refused.stderr
    assert on_relay(put_on)
    answers(put_on)


@pytest.mark.guest("guest2")
def test_a_guest_is_on_the_relay_again_after_its_host_was_restarted(put_on: Scene) -> None:
    vf = on_relay(put_on)
    boot(put_on)
    put_on.cold_boot(put_on.host)
    assert on_relay(put_on) == vf


def boot(scene: Scene) -> None:
    """Boots the guest's host anew, and waits until the relay is there with the guest's port."""
    here = scene.host
    scene.run(here, "sync")
    scene.lab.reboot(here)

    def back() -> bool:
        shown = asked("relay", "show", here)
        return shown["dpdk_started"] and scene.guest in str(shown)

    until(back, RESTART_S, "the relay is not there again")


@EACH
def test_a_guest_finds_its_neighbours_through_the_relay(relay: Relayed) -> None:
    relay.enable()
    relay.join()
    relay.start_guest()
    relay.assert_asks()
    relay.assert_answers("after it has asked")


def test_the_ways_to_a_guest_are_measured_and_all_is_as_it_was(lab: Lab, tmp_path: Path) -> None:
    assert lab.setup().relay, "vferry lab down; vferry lab up --relay"
    ran = lab.status()["guests"]
    words = ("--runs", "1", "--seconds", "1", "--sizes", "64", "--results", str(tmp_path / "relay-lab.json"))
    done = vferry("lab", "bench", *words, "--json", timeout=BENCH_S)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["path"] for row in rows] == list(WAYS)
    assert all(row["pps"] > 0 for row in rows), rows
    assert lab.status()["guests"] == ran
    for host in HOSTS:
        shown = asked("host", "show", host)
        assert (asked("relay", "show", host)["relay"], shown["claims"]) == (None, [])
        macs = [vf["settings"]["mac"] for pf in shown["pfs"] for vf in pf["vfs"]]
        assert guests.named("guest2").mac not in macs
