import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_libvirt import PAUSED, SHUTOFF, FakeAgents, FakeDomain, FakeError, FakeLibvirt
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from xml_samples import MAC, MACVTAP, STANDBY, VF, domain

from vferry.host import gateways_process, migration_statistics
from vferry.host.api import DirectMemory, Done, Migration, StartMigration
from vferry.host.domain_xml import read_domain
from vferry.host.hypervisor import Hypervisor
from vferry.host.migration import Migrations
from vferry.host.migration_bandwidth import shares
from vferry.host.migration_record import Record, answer, figures, load, save, update
from vferry.model.host import Attachment, AttachmentKind
from vferry.model.problem import Problem

OPERATION = "op-1"
WANTED = StartMigration(guest="guest1", persistent_xml=domain(name="guest1"), downtime_ms=250)


class Source:
    """A host whose guest migrates when the test says so: `finish` lets the call to libvirt return."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.guest = FakeDomain(live=domain(), persistent=domain())
        self.guest.migrate = self._migrate
        self.library = FakeLibvirt(self.guest)
        self.asked: list[tuple[str, dict[str, Any], int]] = []
        self.error: FakeError | None = None
        self.most: int | None = None
        self._begun, self._may_end = threading.Event(), threading.Event()
        self.migrations = self.agent()

    def agent(self) -> Migrations:
        """As after a restart: nothing but the files and libvirt are left."""
        self.qemu = FakeAgents()
        self.hypervisor = Hypervisor(library=self.library, agent_library=self.qemu)
        self.hypervisor.connection()
        return Migrations(self.hypervisor, self.runtime, lambda: self.most)

    def start(self, wanted: StartMigration = WANTED) -> None:
        self._begun.clear()
        assert self.migrations.start(OPERATION, wanted).changed
        assert self._begun.wait(5)

    def switch_over(self) -> None:
        self.guest.state_ = (PAUSED, 2)
        self.library.emit(0, self.guest, 3, 1)

    def leave(self) -> None:
        """The guest is off here, since it was migrated."""
        self.guest.live_xml, self.guest.state_, self.guest.job = None, (SHUTOFF, 4), None

    def finish(self, error: FakeError | None = None) -> None:
        self.error = error
        self._may_end.set()

    def ended(self) -> Migration:
        for _ in range(200):
            found = self.read()
            if found.state != "active":
                return found
            time.sleep(0.01)
        raise AssertionError("it is still active")

    def read(self) -> Migration:
        return self.migrations.read(OPERATION, "guest1")

    def _migrate(self, uri: str, parameters: dict[str, Any], flags: int) -> None:
        self.asked.append((uri, parameters, flags))
        self.guest.job = {"memory_total": 1000, "memory_remaining": 400, "memory_iteration": 1, "downtime": 120}
        self._begun.set()
        assert self._may_end.wait(5)
        if self.error:
            raise self.error


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    source = Source(tmp_path)
    yield source
    if source.guest.live_xml:
        source.guest.job = None
    source.finish(FakeError(1, "the test is over"))
    for thread in threading.enumerate():
        if thread.name.startswith("migration-"):
            thread.join(5)


def test_what_is_asked_of_libvirt(source: Source, tmp_path: Path) -> None:
    source.start()
    ((uri, parameters, flags),) = source.asked
    assert uri == f"qemu+unix:///system?socket={tmp_path}/op-1/control/libvirt.sock"
    assert parameters == {
        "migrate_uri": f"unix://{tmp_path}/op-1/memory/qemu.sock",
        "persistent_xml": WANTED.persistent_xml,
        "bandwidth": 2**43 - 1,
    }
    assert flags == 1 | 2 | 8, "live, peer to peer, persistent at the destination, and the source stays defined"
    assert ("max-downtime", 250) in source.guest.calls


def test_a_macvtap_is_put_on_the_destination_s_interface_as_the_guest_is_now(source: Source) -> None:
    source.guest.live_xml = domain(MACVTAP + STANDBY)
    source.start(
        StartMigration(
            guest="guest1",
            persistent_xml="<domain/>",
            attached={MAC: Attachment(kind=AttachmentKind.MACVTAP, device="ens9v3")},
        )
    )
    ((_, parameters, _),) = source.asked
    live = read_domain(parameters["destination_xml"])
    assert [(nic.source, nic.target) for nic in live.nics] == [("ens9v3", None), ("br0", "vnet0")]
    assert parameters["persistent_xml"] == "<domain/>", "the planner's"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "sixteen-letters-", "ens1\n"])
def test_what_is_no_interface_is_not_taken(name: str) -> None:
    sent = {"guest": "guest1", "persistent_xml": "", "attached": {MAC: {"kind": "macvtap", "device": name}}}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(sent, StartMigration)


def test_channels_and_bandwidth(source: Source) -> None:
    source.start(StartMigration(guest="guest1", persistent_xml="<domain/>", parallel=4, bandwidth=125_000_000))
    ((_, parameters, flags),) = source.asked
    assert parameters["parallel.connections"] == 4
    assert parameters["bandwidth"] == 119, "in MiB/s"
    assert flags & FakeLibvirt.VIR_MIGRATE_PARALLEL


@pytest.mark.parametrize(
    ("address", "uri"), [("192.0.2.2", "tcp://192.0.2.2:49201"), ("fd00::2", "tcp://[fd00::2]:49201")]
)
def test_qemu_sends_by_itself_where_the_gateway_was_told_so(source: Source, address: str, uri: str) -> None:
    direct = DirectMemory(port=49201, name="host2.example")
    (source.runtime / OPERATION).mkdir(exist_ok=True)
    gateways_process.save(
        source.runtime / OPERATION,
        gateways_process.GatewayRecord(
            role="send", peer="host2", address=address, port=49200, token="t", direct=direct
        ),
    )
    source.start()
    ((_, parameters, flags),) = source.asked
    assert flags & FakeLibvirt.VIR_MIGRATE_TLS
    assert parameters["migrate_uri"] == uri
    assert (parameters["listen_address"], parameters["tls.destination"]) == (address, "host2.example")


def test_else_through_the_gateways_socket(source: Source) -> None:
    source.start()
    ((_, parameters, flags),) = source.asked
    assert not flags & FakeLibvirt.VIR_MIGRATE_TLS
    assert parameters["migrate_uri"] == f"unix://{source.runtime / OPERATION}/memory/qemu.sock"
    assert not {"listen_address", "tls.destination"} & parameters.keys()


@pytest.mark.parametrize(("bandwidth", "mib"), [(0, 2**43 - 1), (1, 1), (125_000_000, 119), (2**63, 2**43 - 1)])
def test_the_bandwidth_is_changed_while_it_runs(source: Source, bandwidth: int, mib: int) -> None:
    assert source.migrations.limit(OPERATION, "guest1", bandwidth) == Done(changed=False), "nothing runs"
    source.start()
    assert source.migrations.limit(OPERATION, "guest1", bandwidth) == Done()
    assert ("max-speed", mib) in source.guest.calls


def test_migrations_share_the_host_s_bandwidth(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.most = 100 << 20
    source.migrations = source.agent()
    other = Record(operation="op-2", guest="guest2", uuid="u", started=0.0, bandwidth=30 << 20)
    source.library.domains["guest2"] = second = FakeDomain(live=domain(name="guest2"), persistent=domain())
    save(tmp_path / "op-2", other)
    source.start()
    ((_, parameters, _),) = source.asked
    assert parameters["bandwidth"] == 70
    assert second.calls == [("max-speed", 30)]
    source.guest.calls.clear()
    assert source.read().rounds == 1
    source.read()
    assert source.guest.calls == [("max-speed", 70)], "once more when it copies: libvirt sets it late"
    source.migrations.limit(OPERATION, "guest1", 80 << 20)
    assert source.guest.calls[-1] == ("max-speed", 70)
    save(tmp_path / "op-2", replace(other, bandwidth=0))
    source.migrations.limit(OPERATION, "guest1", 20 << 20)
    assert (source.guest.calls[-1], second.calls[-1]) == (("max-speed", 20), ("max-speed", 80))
    source.leave()
    source.finish()
    assert source.ended().state == "completed"
    deadline = time.monotonic() + 10
    while second.calls[-1] != ("max-speed", 100):
        assert time.monotonic() < deadline, second.calls
        time.sleep(0.01)


def test_the_host_s_bandwidth_is_changed_while_migrations_run(source: Source, tmp_path: Path) -> None:
    other = Record(operation="op-2", guest="guest2", uuid="u", started=0.0, bandwidth=30 << 20)
    source.library.domains["guest2"] = second = FakeDomain(live=domain(name="guest2"), persistent=domain())
    save(tmp_path / "op-2", other)
    source.start()
    source.read()
    assert (source.guest.calls, second.calls) == ([("max-downtime", 250)], []), "there is nothing to divide"
    source.most = 100 << 20
    source.migrations.divide()
    assert (source.guest.calls[-1], second.calls[-1]) == (("max-speed", 70), ("max-speed", 30))
    source.most = None
    source.migrations.divide()
    assert (source.guest.calls[-1], second.calls[-1]) == (("max-speed", 2**43 - 1), ("max-speed", 30))
    source.guest.calls.clear()
    save(tmp_path / "op-2", replace(other, state="completed"))
    source.migrations.limit(OPERATION, "guest1", 0)
    assert source.guest.calls[-1] == ("max-speed", 2**43 - 1), "nor is what was lifted in force again"


def test_a_copy_that_begins_as_the_limit_is_lifted_has_none(source: Source) -> None:
    """libvirt sets what a copy was started with only as it begins."""
    source.most = 100 << 20
    source.migrations = source.agent()
    source.start()
    source.most = None
    source.migrations.divide()
    source.guest.calls.clear()
    assert source.read().rounds == 1
    assert source.guest.calls == [("max-speed", 2**43 - 1)]


def test_a_limit_that_comes_when_it_has_ended_brings_nothing_back(source: Source) -> None:
    source.start()
    source.leave()
    source.finish()
    assert source.ended().state == "completed"
    assert not source.migrations.limit(OPERATION, "guest1", 1 << 20).changed
    assert source.read().state == "completed"


@given(st.none() | st.integers(1 << 20, 1 << 40), st.lists(st.integers(0, 1 << 40), max_size=20))
def test_shares_are_fair(most: int | None, wishes: list[int]) -> None:
    found = shares(most, wishes)
    assert len(found) == len(wishes)
    if most is None:
        assert found == wishes
        return
    assert sum(found) <= most
    assert all(share > 0 and (not wish or share <= wish) for share, wish in zip(found, wishes, strict=True))
    # Who got less than it asked for got as much as anybody, but for a byte.
    greatest = max(found, default=0)
    assert all(share + len(wishes) >= greatest or share == wish for share, wish in zip(found, wishes, strict=True))


def test_the_pause_is_stretched_while_it_runs(source: Source) -> None:
    assert source.migrations.stretch(OPERATION, "guest1", 800) == Done(changed=False), "nothing runs"
    source.start()
    assert source.read().downtime_ms == 250
    assert source.migrations.stretch(OPERATION, "guest1", 800) == Done()
    assert source.guest.calls[-1] == ("max-downtime", 800)
    assert source.read().downtime_ms == 800
    assert source.migrations.stretch(OPERATION, "guest1", 450) == Done(changed=False), "never shorter"
    source.switch_over()
    assert source.migrations.stretch(OPERATION, "guest1", 900) == Done(changed=False), "QEMU answers nobody"
    assert source.guest.calls[-1] == ("max-downtime", 800)


@pytest.mark.parametrize(
    ("method", "cache", "more"),
    [("zstd", 0, {}), ("xbzrle", 1 << 26, {"compression.xbzrle.cache": 1 << 26})],
)
def test_qemu_compresses_where_it_is_told_to(source: Source, method: str, cache: int, more: dict[str, int]) -> None:
    source.start(StartMigration(guest="guest1", persistent_xml="<domain/>", compression=method, cache=cache))
    ((_, parameters, flags),) = source.asked
    assert flags & FakeLibvirt.VIR_MIGRATE_COMPRESSED
    assert {k: v for k, v in parameters.items() if k.startswith("compression")} == {"compression": method, **more}


def test_the_guest_is_slowed_down_only_where_that_is_allowed(source: Source) -> None:
    source.start(StartMigration(guest="guest1", persistent_xml="<domain/>", throttle=True))
    ((_, _, flags),) = source.asked
    assert flags & FakeLibvirt.VIR_MIGRATE_AUTO_CONVERGE
    assert source.guest.job is not None
    source.guest.job["auto_converge_throttle"] = 30
    assert source.read().throttle == 30


def test_it_is_followed_to_its_end(source: Source) -> None:
    assert source.read() == Migration()
    source.start()
    running = source.read()
    assert (running.state, running.total_bytes, running.remaining_bytes, running.rounds) == ("active", 1000, 400, 1)
    assert running.expected_pause_ms == 120
    assert running.paused_age_s is None
    assert running.started_age_s is not None
    source.switch_over()
    paused = source.read()
    assert paused.paused_age_s is not None
    assert paused.total_bytes == 0, "QEMU is left in peace during the switchover"
    source.library.emit(22, source.guest, {"downtime": 99_000, "downtime_net": 101, "memory_total": 1000})
    source.leave()
    source.finish()
    done = source.ended()
    assert (done.state, done.error, done.pause_ms, done.total_bytes) == ("completed", None, 101, 1000)
    assert done.ended_age_s is not None
    assert done.paused_age_s is not None
    assert done.paused_age_s >= done.ended_age_s


def test_starting_again_changes_nothing_while_it_runs_or_when_it_is_done(source: Source) -> None:
    source.start()
    assert not source.migrations.start(OPERATION, WANTED).changed
    source.leave()
    source.finish()
    source.ended()
    assert not source.migrations.start(OPERATION, WANTED).changed
    assert len(source.asked) == 1


def test_a_failure_is_told_and_may_be_tried_again(source: Source) -> None:
    source.start()
    source.guest.job = None
    source.finish(FakeError(1, "operation failed: migration job: unexpectedly failed"))
    failed = source.ended()
    assert failed.state == "failed"
    assert "unexpectedly failed" in (failed.error or "")
    source.start()
    assert len(source.asked) == 2


def test_an_error_of_the_connection_is_no_failure_of_the_migration(source: Source) -> None:
    source.start()
    source.leave()
    source.finish(FakeError(39, "internal error: client socket is closed"))
    assert source.ended().state == "completed"


def test_a_guest_that_went_off_by_itself_was_not_migrated(source: Source) -> None:
    source.start()
    source.leave()
    source.guest.state_ = (SHUTOFF, 1)
    source.finish(FakeError(1, "domain is not running"))
    assert source.ended().state == "failed"


def test_a_transient_guest_that_is_gone_was_migrated(source: Source) -> None:
    source.start()
    source.leave()
    del source.library.domains["guest1"]
    source.finish()
    assert source.ended().state == "completed"


@pytest.mark.parametrize(
    ("job", "state", "expected"),
    [
        ({"memory_total": 5}, (1, 1), "active"),
        (None, (SHUTOFF, 4), "completed"),
        (None, (1, 6), "failed"),
        (None, (SHUTOFF, 2), "failed"),
    ],
)
def test_after_a_restart_of_the_agent_libvirt_is_asked(
    source: Source, tmp_path: Path, job: dict[str, Any] | None, state: tuple[int, int], expected: str
) -> None:
    started = time.monotonic() - 60
    save(tmp_path / OPERATION, Record(operation=OPERATION, guest="guest1", uuid="u", started=started))
    source.guest.job, source.guest.state_ = job, state
    if state[0] == SHUTOFF:
        source.guest.live_xml = None
    source.guest.completed_job = {"downtime": 80}
    found = source.agent().read(OPERATION, "guest1")
    assert found.state == expected
    assert found.pause_ms == (80 if expected == "completed" else None)
    record = load(tmp_path / OPERATION)
    assert record is not None
    assert record.state == expected, "and remembered"


def test_right_after_its_start_a_migration_may_be_without_a_job(source: Source, tmp_path: Path) -> None:
    save(tmp_path / OPERATION, Record(operation=OPERATION, guest="guest1", uuid="u", started=time.monotonic()))
    assert source.agent().read(OPERATION, "guest1").state == "active"


def test_aborting(source: Source) -> None:
    assert not source.migrations.abort(OPERATION, "guest1").changed
    source.start()
    assert source.migrations.abort(OPERATION, "guest1").changed
    assert not source.migrations.abort(OPERATION, "guest1").changed


def test_it_may_be_too_late_to_abort(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.start()

    def refuse() -> None:
        raise FakeError(55, "cannot abort migration in its last phase")

    monkeypatch.setattr(source.guest, "abortJob", refuse)
    with pytest.raises(Problem) as caught:
        source.migrations.abort(OPERATION, "guest1")
    assert caught.value.code == "migration-ending"


def busy(*_nothing: object) -> None:
    raise FakeError(FakeLibvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock (held by monitor=query)")


def test_it_is_aborted_although_libvirt_cannot_tell_of_its_job(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.start()
    monkeypatch.setattr(source.guest, "jobInfo", busy)
    assert source.migrations.abort(OPERATION, "guest1").changed
    assert source.guest.job is None


def test_an_abort_that_libvirt_does_not_get_at_is_not_done_and_not_too_late(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.start()
    monkeypatch.setattr(source.guest, "abortJob", busy)
    assert source.migrations.abort(OPERATION, "guest1") == Done(changed=False)
    assert source.read().state == "active"


def test_a_job_of_which_libvirt_cannot_tell_has_not_ended(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller has died, and QEMU is slow."""
    started = time.monotonic() - 60
    save(tmp_path / OPERATION, Record(operation=OPERATION, guest="guest1", uuid="u", started=started))
    source.guest.job = {"memory_total": 5}
    monkeypatch.setattr(source.guest, "jobInfo", busy)
    assert source.agent().read(OPERATION, "guest1").state == "active"


def test_another_operations_migration_is_not_this_ones(source: Source) -> None:
    source.start()
    assert source.migrations.read("op-2", "guest1").state == "none"
    assert source.migrations.read(OPERATION, "guest2").state == "none"
    assert not source.migrations.abort("op-2", "guest1").changed
    with pytest.raises(Problem) as caught:
        source.migrations.start("op-2", WANTED)
    assert caught.value.code == "guest-migrating"
    assert source.migrations.leaves_here(OPERATION, "guest1")
    assert not source.migrations.leaves_here("op-2", "guest1")


def test_a_guest_that_is_off_is_not_migrated(tmp_path: Path) -> None:
    host = Hypervisor(library=FakeLibvirt(FakeDomain(persistent=domain())))
    with pytest.raises(Problem) as caught:
        Migrations(host, tmp_path, lambda: None).start(OPERATION, WANTED)
    assert caught.value.code == "guest-off"


@pytest.mark.parametrize("operation", ["", "../x", "A", "a" * 41])
def test_an_id_that_could_be_another_path_is_refused(source: Source, operation: str) -> None:
    with pytest.raises(Problem) as caught:
        source.migrations.read(operation, "guest1")
    assert caught.value.code == "operation-invalid"


def test_figures_leave_out_what_is_not_said() -> None:
    assert figures({}) == {}
    assert figures({"data_total": 5, "downtime": 7, "errmsg": "x"}) == {"total_bytes": 5, "expected_pause_ms": 7}
    assert figures({"downtime": 7}, completed=True) == {"pause_ms": 7}


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "migration.json").write_text("{")
    assert load(tmp_path) is None


def test_a_failed_one_has_no_pause() -> None:
    record = Record(operation="a", guest="b", uuid="c", started=0, state="failed", statistics={"pause_ms": 5})
    assert answer(record).pause_ms is None


def test_a_migration_that_ends_after_its_operation_was_forgotten_leaves_nothing(tmp_path: Path) -> None:
    record = Record(operation=OPERATION, guest="guest1", uuid="u", started=0.0)
    update(tmp_path, record)
    update(tmp_path / "gone", record)
    assert list(tmp_path.iterdir()) == []
    save(tmp_path / "here", record)
    update(tmp_path / "here", replace(record, state="completed"))
    found = load(tmp_path / "here")
    assert found is not None
    assert found.state == "completed"


def test_a_vf_that_qemu_migrates_becomes_the_destination_s(source: Source) -> None:
    source.start(replace(WANTED, vfs={VF: "0000:02:00.7"}))
    ((_uri, parameters, _flags),) = source.asked
    addresses = [nic.address for nic in read_domain(parameters["destination_xml"]).nics]
    assert addresses == ["0000:02:00.7"]


def test_no_other_migration_has_a_definition_of_its_own_for_the_destination(source: Source) -> None:
    source.start()
    assert "destination_xml" not in source.asked[0][1]


def sent_all(source: Source, status: str = "completed") -> None:
    event = json.dumps({"status": status})
    source.qemu.callbacks["MIGRATION"](None, source.guest, "MIGRATION", 0, 0, event, None)


def test_the_state_that_devices_have_sent_is_asked_for_when_all_is_sent(source: Source) -> None:
    source.start()
    sent_all(source, "active")
    assert source.read().device_bytes is None
    source.guest.query_migrate = {"status": "completed", "vfio": {"transferred": 60}}
    sent_all(source)
    source.leave()
    source.finish()
    assert source.ended().device_bytes == 60


def test_a_guest_that_is_gone_too_soon_leaves_it_unknown(source: Source) -> None:
    source.start()
    source.leave()
    sent_all(source)
    source.finish()
    assert source.ended().device_bytes is None


def test_a_guest_without_devices_is_not_asked_for_their_state(source: Source) -> None:
    source.guest.live_xml = domain("")
    source.start()
    assert source.qemu.callbacks == {}


def test_qemu_s_silence_is_no_failure(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the pause already, and libvirt has not said so yet."""
    monkeypatch.setattr(migration_statistics, "ANSWER_S", 0.01)
    source.start()
    before = source.read()
    assert before.total_bytes == 1000
    speaks, asked = threading.Event(), []

    def silent(_flags: int = 0) -> dict[str, Any]:
        asked.append(1)
        assert speaks.wait(5)
        return {"memory_total": 2000}

    monkeypatch.setattr(source.guest, "jobStats", silent)
    assert [source.read().total_bytes for _ in range(3)] == [0] * 3, "as in the pause"
    assert len(asked) == 1, "who asks again would wait as well"
    speaks.set()
    for _ in range(200):
        if source.read().total_bytes == 2000:
            break
        time.sleep(0.01)
    assert source.read().total_bytes == 2000


def test_two_that_wait_for_the_same_answer_both_get_it(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a migration whose call has returned, and who asks how it stands."""
    asked, both_wait = threading.Event(), threading.Barrier(3)

    def answer_both(_flags: int = 0) -> dict[str, Any]:
        asked.set()
        both_wait.wait(5)
        return {"memory_total": 2000}

    class Waited(migration_statistics._Asking):
        def join(self, timeout: float | None = None) -> None:
            both_wait.wait(5)
            super().join(timeout)

    monkeypatch.setattr(migration_statistics, "_Asking", Waited)
    monkeypatch.setattr(source.guest, "jobStats", answer_both)
    statistics = migration_statistics.Statistics(source.hypervisor)
    record = Record(operation=OPERATION, guest="guest1", uuid="u", started=0.0)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(statistics.running, record, source.guest)
        assert asked.wait(5)
        second = pool.submit(statistics.running, record, source.guest)
        assert [first.result(5), second.result(5)] == [{"total_bytes": 2000}] * 2
