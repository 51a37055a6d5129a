"""Migrations as an operator asks for them, in the lab."""

import time
from pathlib import Path
from typing import Any

import pytest

from lab.download import Download
from lab.operator import ANSWER_S, PF, Scene, asked, certified_qemu, migrate, other, there_and_back, vferry
from vferry.lab import guests
from vferry.lab.lab import Lab
from vferry.lab.topology import host_named
from vferry.model.host import NO_MAC

SLICE = "/sys/fs/cgroup/system.slice/system-vferry.slice"
WRITER = """dd if=/dev/urandom of=/tmp/source bs=1M count=16
while :; do dd if=/tmp/source of=/tmp/written bs=1M conv=notrunc; done"""
"""Has 16 MiB written again and again."""

pytestmark = pytest.mark.lab


def test_a_guest_on_a_lone_vf_goes_and_comes_back(scene: Scene) -> None:
    before = next(nic for nic in asked("guest", "show", "guest1")["nics"] if nic["vf"])
    for report in there_and_back(scene):
        after = next(nic for nic in asked("guest", "show", "guest1")["nics"] if nic["vf"])
        assert after["mac"] == before["mac"]
        assert report["network"] is not None, report["network_note"]
        assert report["vf"]["after"]["host"] == report["destination"]


@pytest.mark.matrix
def test_a_guest_that_stops_leaves_its_vf_as_the_kernel_makes_it(scene: Scene) -> None:
    host = other(scene.host)
    migrate(scene, "--no-probe")
    vf = next(nic["vf"] for nic in asked("guest", "show", scene.guest)["nics"] if nic["vf"])
    scene.run(host, f"virsh destroy {scene.guest}")
    until = time.monotonic() + ANSWER_S
    while settings_of(host, vf)["mac"] != NO_MAC:
        assert time.monotonic() < until, settings_of(host, vf)
        time.sleep(1)
    scene.assert_boots_anew()


def settings_of(host: str, vf: dict[str, Any]) -> dict[str, Any]:
    pf = next(pf for pf in asked("host", "show", host)["pfs"] if pf["name"] == vf["pf"])
    return dict(next(each["settings"] for each in pf["vfs"] if each["index"] == vf["index"]))


@pytest.mark.guest("guest2")
def test_a_guest_without_a_vf_goes_as_virtio(scene: Scene) -> None:
    host = other(scene.host)
    assert migrate(scene, "--no-probe")["network_mode"] == "virtio"
    scene.assert_whole(host)


@pytest.mark.matrix
def test_a_connection_that_was_open_before_survives(scene: Scene) -> None:
    host = other(scene.host)
    report: Any = migrate(scene, "--network", "switch", "--probe-tcp", "7")
    scene.assert_whole(host)
    assert report["network"] is not None, report["network_note"]
    tcp = report["network"]["tcp"]
    assert tcp is not None, report["notes"]
    assert (tcp["ended"], tcp["wrong_bytes"]) == (None, 0), tcp
    assert tcp["echoed"] == tcp["sent"] > 10 * report["total_s"], tcp
    assert report["pause_ms"] - 50 < tcp["stall_ms"] < 20_000, tcp


@pytest.mark.matrix
def test_a_download_goes_on_through_a_migration(scene: Scene, tmp_path: Path) -> None:
    scene.await_agent()
    host = other(scene.host)
    download = Download(scene, tmp_path / "received")
    with download.running():
        migrate(scene, "--network", "switch", "--no-probe")
        before = download.received
        scene.assert_whole(host)
    assert before > 1 << 20, before
    assert download.received > before, "it ended before the migration did"
    download.assert_whole()


@pytest.mark.matrix
@pytest.mark.guest("guest2")
def test_a_guest_that_says_nothing_is_reachable_at_once(scene: Scene) -> None:
    """It was not after 2 of about 10 migrations, before the destination announced its NICs."""
    for _ in range(4):
        host = other(scene.host)
        report = migrate(scene, "--no-probe")
        reached = scene.lab.peer(["busybox", "ping", "-q", "-c", "1", "-W", "1", scene.address]).returncode
        (announced,) = [step for step in report["steps"] if step["name"] == "announce"]
        assert "7 times in 5 s" in announced["detail"]
        assert reached == 0
        scene.assert_whole(host)


@pytest.mark.guest("bond1")
def test_a_guest_with_its_own_bond_keeps_it(scene: Scene) -> None:
    host = other(scene.host)
    migrate(scene)
    scene.assert_whole(host)


@pytest.mark.parametrize(
    ("codec", "policy", "options"),
    [
        ("zstd", "multifd", ("--reclaim-free", "--resident")),
        pytest.param("auto", "multifd", ("--streams", "1"), marks=pytest.mark.matrix),
        pytest.param("lz4", "plain", ("--transfer", "plain", "--streams", "2"), marks=pytest.mark.matrix),
        pytest.param("qatzip", "multifd", (), marks=pytest.mark.matrix),
        pytest.param("deflate", "multifd", (), marks=pytest.mark.matrix),
    ],
)
def test_a_guest_goes_compressed(scene: Scene, codec: str, policy: str, options: tuple[str, ...]) -> None:
    host = other(scene.host)
    report = migrate(scene, "--no-probe", "--codec", codec, *options)
    scene.assert_whole(host)
    transfer: Any = report["transfer"]
    assert (transfer["codec"], transfer["policy"]) == (codec, policy)
    assert ("--reclaim-free" in options) == any(step["name"] == "reclaim-free" for step in report["steps"])
    assert transfer["ratio"] > 1, transfer
    used = transfer["codecs"].values()
    for name in ("stream_bytes", "wire_bytes"):
        assert 0 < sum(share[name] for share in used) <= transfer[name], transfer
    if policy == "multifd":
        found = sum(transfer[f"{kind}_pages"] for kind in ("zero", "delta", "resident"))
        assert transfer["pages"] >= found, transfer
    else:
        assert transfer["pages"] is None, transfer
    if codec != "auto":  # what does not get smaller goes as it is
        assert {codec} <= set(transfer["codecs"]) <= {codec, "none"}, transfer
    if codec == "qatzip":  # there is no such device
        assert transfer["codecs"][codec]["software_blocks"] == transfer["codecs"][codec]["blocks"], transfer
    timeline: Any = report["timeline"]
    assert any(rate > 0 for _, rate in timeline["rate"]), timeline


@pytest.mark.matrix
@pytest.mark.parametrize("policy", ["multifd-zlib", "multifd-zstd", "xbzrle"])
@pytest.mark.guest("guest2")
def test_qemu_s_own_compression(scene: Scene, policy: str) -> None:
    host = other(scene.host)
    transfer: Any = migrate(scene, "--no-probe", "--transfer", policy)["transfer"]
    assert (transfer["policy"], transfer["codec"], transfer["ratio"]) == (policy, "none", None)
    if policy != "xbzrle":  # which only finds what is sent again
        assert transfer["wire_bytes"] < transfer["guest_bytes"] / 3, transfer
    scene.assert_whole(host)


@pytest.mark.matrix
@pytest.mark.guest("guest2")
def test_what_a_guest_at_the_destination_has_is_not_sent(scene: Scene, lab: Lab) -> None:
    home = guests.where(lab, "plain1").host
    if scene.host == home:
        migrate(scene, "--no-probe")
    lab.guest("plain1")
    try:
        report = migrate(scene, "--no-probe", "--codec", "zstd", "--resident")
        transfer: Any = report["transfer"]
    finally:
        guests.stop_others(lab, [guests.named(scene.guest)])
    scene.assert_whole(home)
    assert transfer["resident_pages"] > 0.5 * (transfer["pages"] - transfer["zero_pages"]), transfer


@pytest.mark.guest("guest2")
def test_qemu_sends_by_itself_with_certificates_of_its_own(scene: Scene) -> None:
    through = migrate(scene, "--no-probe", "--direct")
    assert not through["transfer"]["direct"], "there are no certificates yet"
    here = scene.host
    with certified_qemu(scene):
        report = migrate(scene, "--no-probe", "--direct")
    scene.assert_whole(other(here))
    transfer: Any = report["transfer"]
    assert (transfer["direct"], transfer["policy"], transfer["codec"]) == (True, "multifd", "none")
    assert transfer["wire_bytes"] > 0.9 * through["transfer"]["wire_bytes"], transfer
    timeline: Any = report["timeline"]
    assert any(rate > 0 for _, rate in timeline["rate"]), timeline


def test_a_codec_that_the_hosts_lack_is_refused(scene: Scene) -> None:
    here = scene.host
    with scene.without_library(other(here), "libqatzip.so.3"):
        refused = vferry("migrate", scene.guest, other(here), "--codec", "qatzip")
    assert refused.returncode == 3
    assert f"{other(here)} cannot compress with qatzip" in refused.stderr
    scene.assert_whole(here)


@pytest.mark.matrix
def test_a_guest_that_is_started_anew_after_a_migration_comes_up_on_its_vf(scene: Scene) -> None:
    host = other(scene.host)
    migrate(scene, "--no-probe")
    scene.cold_boot(host)
    scene.assert_whole(host)


@pytest.mark.matrix
@pytest.mark.guest("guest2")
def test_the_bandwidth_of_a_copy_is_changed_while_it_runs(scene: Scene) -> None:
    """Meanwhile its gateways are seen to be in their slice."""
    migration = scene.migrate("--bandwidth", "1M")
    migration.wait_for("copy")
    for host in (migration.source, migration.destination):
        (gateway,) = scene.run(host, f"cat {SLICE}/*.scope/cgroup.procs").split()
        assert "gateway" in scene.run(host, f"tr '\\0' ' ' < /proc/{gateway}/cmdline")
        assert scene.run(host, f"cat {SLICE}/cpu.max").strip() == "100000 100000", "one processor, at least"
    speed = f"virsh migrate-getspeed {scene.guest}"
    done = vferry("operation", "set", migration.operation, "--bandwidth", "none")
    assert done.returncode == 0, done.stderr
    migration.wait_until(lambda: int(scene.run(migration.source, speed) or 1) > 1)
    code, report = migration.end()
    assert code == 0, report
    scene.assert_whole(migration.destination)


@pytest.mark.matrix
@pytest.mark.guest("guest2")
def test_the_limit_of_a_host_is_changed_while_its_copy_runs(scene: Scene) -> None:
    speed = f"virsh migrate-getspeed {scene.guest}"
    migration = scene.migrate()
    migration.wait_for("copy")
    try:
        done = vferry("host", "set", migration.source, "--bandwidth", "4M")
        assert done.returncode == 0, done.stderr
        migration.wait_until(lambda: int(scene.run(migration.source, speed) or 0) == 4_000_000 >> 20)
    finally:
        done = vferry("host", "set", migration.source, "--bandwidth", "configured")
    assert done.returncode == 0, done.stderr
    migration.wait_until(lambda: int(scene.run(migration.source, speed) or 0) > 1000)
    code, report = migration.end()
    assert code == 0, report
    scene.assert_whole(migration.destination)


@pytest.mark.matrix
@pytest.mark.guest("guest2")
def test_a_copy_that_stalls_ends_with_a_longer_pause_where_that_is_allowed(scene: Scene) -> None:
    """Its bandwidth is too small for what the guest writes."""
    scene.await_agent()
    here, limited = scene.host, ("--no-probe", "--bandwidth", "8M")
    with scene.busy(WRITER):
        undone = vferry("migrate", scene.guest, other(here), *limited, "--deadline", "30", "--max-pause", "0.3")
        assert undone.returncode == 4, undone.stderr
        assert "not copied within 30 s" in undone.stdout + undone.stderr
        scene.assert_whole(here)
        report = migrate(scene, *limited, "--when-stalled", "pause 0.5, pause 30")
    transfer: Any = report["transfer"]
    assert 300 < transfer["pause_limit_ms"] <= 30_000, transfer
    assert transfer["stalls"][-1]["pause_ms"] == transfer["pause_limit_ms"], transfer
    assert [stall["round"] for stall in transfer["stalls"]] == sorted(stall["round"] for stall in transfer["stalls"])
    scene.assert_whole(other(here))


def test_what_a_copy_will_take_is_said_before(scene: Scene) -> None:
    here = scene.host
    checked = asked("check", scene.guest, other(here), "--codec", "zstd", "--bandwidth", "50M")
    found = checked["estimate"]
    assert checked["possible"], checked
    modes = {each["mode"]: each["possible"] for each in checked["modes"]}
    assert {mode for mode, possible in modes.items() if possible} == {"switch", "detach"}
    assert 0 < found["wire_bytes"] < found["guest_bytes"] < 256 << 20, found
    assert found["dirty_rate"] is not None, checked["findings"]
    assert found["converges"], found
    assert found["seconds"] >= 0, found
    scene.assert_whole(here)


@pytest.mark.matrix
@pytest.mark.guest("plain1")
def test_without_an_agent_the_operator_must_accept_an_interruption(scene: Scene) -> None:
    host = other(scene.host)
    refused = vferry("migrate", scene.guest, host)
    assert refused.returncode == 3
    assert "--accept-interruption" in refused.stderr
    migrate(scene, "--accept-interruption")
    scene.assert_whole(host)


@pytest.mark.matrix
@pytest.mark.guest("dhcp1")
def test_an_address_from_dhcp_goes_along(scene: Scene) -> None:
    host = other(scene.host)
    migrate(scene)
    scene.assert_whole(host)


@pytest.mark.matrix
@pytest.mark.guest("cloud1")
def test_a_cloud_s_guest_keeps_its_addresses_there_and_back(scene: Scene) -> None:
    scene.await_agent()
    home = scene.host
    for host in (other(home), home):
        migrate(scene, "--no-probe")  # 1,000 probes a second leave its emulated CPU nothing for anything else
        scene.assert_whole(host)
        assert scene.lab.peer(["busybox", "ping", "-c", "3", "-W", "2", scene.address6]).returncode == 0
        assert scene.tell("ls /sys/class/net").split() == ["eth0", "lo"]
        assert scene.tell("networkctl --no-legend list eth0").split()[4] in ("configuring", "configured")


@pytest.mark.matrix
@pytest.mark.guest("vlan1")
def test_a_vf_in_a_vlan_stays_in_it(scene: Scene) -> None:
    host = other(scene.host)
    migrate(scene)
    scene.assert_whole(host)
    scene.assert_boots_anew()
    nic = next(nic for nic in asked("guest", "show", scene.guest)["nics"] if nic["vf"])
    shown = scene.run(host, f"ip link show {PF} | grep {nic['mac']}")
    assert "vlan 7" in shown


@pytest.mark.matrix
@pytest.mark.guest("two1")
def test_a_guest_with_two_vfs_keeps_both_nics_there_and_back(scene: Scene) -> None:
    scene.assert_whole(scene.host)
    for report in there_and_back(scene):
        assert report["network_mode"] == "switch"
    scene.assert_boots_anew()


@pytest.mark.matrix
@pytest.mark.guest("failover1")
def test_a_teaming_pair_goes_and_comes_back_by_the_guest_s_own_driver(scene: Scene) -> None:
    scene.await_agent()
    refused = vferry("migrate", scene.guest, other(scene.host), "--network", "switch")
    assert refused.returncode == 3
    assert "--network failover" in refused.stderr
    for report in there_and_back(scene):
        assert report["network_mode"] == "failover"
        pair = asked("guest", "show", scene.guest)["nics"]
        assert sorted(nic["teaming"] for nic in pair) == ["persistent", "transient"]
    scene.assert_boots_anew()


@pytest.mark.matrix
@pytest.mark.guest("macvtap1")
def test_a_guest_on_a_macvtap_goes_and_comes_back_on_another_vf(scene: Scene) -> None:
    refused = vferry("migrate", scene.guest, other(scene.host), "--network", "switch")
    assert refused.returncode == 3
    assert "no VF passed through" in refused.stderr
    for report in there_and_back(scene, "--no-probe"):  # see docs/lab.md: they are too many for a VF's interface
        assert report["network_mode"] == "macvtap"
        assert {step["phase"] for step in report["steps"]}.isdisjoint({"to-standby", "to-vf"})
        (nic,) = asked("guest", "show", scene.guest)["nics"]
        assert nic["interface"] == f"{PF}v{host_named(report['destination']).own_vf}"  # type: ignore[union-attr]
        assert report["vf"]["after"]["index"] == nic["vf"]["index"] != report["vf"]["before"]["index"]
    scene.assert_boots_anew()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("migrate", "nobody", "host2"), 2, "There is no guest nobody"),
        (("migrate", "guest1", "host9"), 2, "There is no host host9"),
        (("migrate", "guest1"), 2, "Missing argument"),
        (("operation", "show", "op-none"), 2, "There is no operation op-none"),
        (("guest", "show", "nobody"), 2, "nobody"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    scene: Scene, words: tuple[str, ...], code: int, says: str
) -> None:
    done = vferry(*words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_host_that_it_is_on_is_refused(scene: Scene) -> None:
    done = vferry("migrate", scene.guest, scene.host)
    assert done.returncode == 2
    assert "already" in done.stderr


def test_a_dry_run_names_the_steps_and_changes_nothing(scene: Scene) -> None:
    here = scene.host
    done = vferry("migrate", scene.guest, other(here), "--dry-run")
    assert done.returncode == 0, done.stderr
    for phase in ("prepare", "to-standby", "copy", "to-vf", "restore"):
        assert phase in done.stdout
    scene.assert_whole(here)
