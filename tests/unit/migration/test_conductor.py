"""Migrations that go well, and those that end for a reason of their own."""

import pytest
from msgspec import structs

from fakes import faults
from fakes.contract import Snapshot, healed, is_uncertain, moved, unkept
from fakes.fleet import Call
from fakes.samples import CASES, DESTINATION, GUEST, MAC, SOURCE, Case, Drive, make_fleet, make_plan
from fakes.world import STANDBY, VF
from vferry.host.api import (
    AbortMigration,
    ClaimResources,
    Define,
    DirectMemory,
    JoinRelay,
    PlugVf,
    ReadMigration,
    Resume,
    RunInGuest,
    SetForwarding,
    ShowGuest,
    StartMigration,
    StartReceiving,
    StartSending,
    StretchPause,
    Undefine,
    Unplug,
)
from vferry.migration.conductor import Conductor
from vferry.migration.record import Outcome
from vferry.migration.report import Measured, make_report
from vferry.model.compression import Codec, CodecShare
from vferry.model.guest import GuestState
from vferry.model.problem import Exit
from vferry.model.report import Phase
from vferry.network import modes
from vferry.plan.plan import GuestSide, NetworkMode, TransferPlan
from vferry.plan.schedule import Abort, Pause
from vferry.plan.transfer import choose

SWITCH = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES)
OWN_STANDBY = Case(NetworkMode.SWITCH, GuestSide.BOND, own_standby=True)
DETACH = Case(NetworkMode.DETACH, GuestSide.ADDRESSES)
VIRTIO = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)
MACVTAP = Case(NetworkMode.MACVTAP, GuestSide.NOBODY, nics=0, macvtaps=1)
MEDIATED = Case(NetworkMode.VFIO, GuestSide.NOBODY, mediated=True)
RELAY = Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, relayed=1)
TWO_RELAYED = Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, relayed=2)
TWO = Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, nics=2)
ORDER = list(Phase)


def drive_of(case: Case) -> Drive:
    fleet = make_fleet(case)
    return Drive(fleet, make_plan(fleet, case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_guest_moves_and_nothing_is_left(case: Case) -> None:
    drive = drive_of(case)
    ending = drive.run()
    assert (ending.exit, ending.at_destination, ending.degraded, ending.notes) == (Exit.DONE, True, None, ())
    assert moved(drive.fleet, drive.plan) == []
    steps = modes.stages(drive.plan).all
    assert [(record.phase, record.name, record.host) for record in ending.records] == [
        (step.phase, step.name, step.host) for step in steps
    ]
    assert all(record.outcome is Outcome.DONE for record in ending.records)
    assert [(record.start, record.end) for record in ending.records] == sorted(
        (record.start, record.end) for record in ending.records
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_guest_moves_there_and_back_and_there_again(case: Case) -> None:
    fleet = make_fleet(case)
    before = Snapshot.of(fleet)
    for turn, (here, there) in enumerate([(SOURCE, DESTINATION), (DESTINATION, SOURCE)] * 2):
        drive = Drive(fleet, make_plan(fleet, case, here, there, f"op-{turn}"))
        assert drive.run().exit is Exit.DONE
        assert moved(fleet, drive.plan) == []
    assert GUEST in before.hosts[SOURCE]["guests"]
    assert fleet.running(GUEST) == [SOURCE]


def test_the_observer_is_told_of_phases_in_their_order_and_of_each_step() -> None:
    drive = drive_of(SWITCH)
    ending = drive.run()
    assert drive.witness.phases == sorted(set(drive.witness.phases), key=ORDER.index)
    assert drive.witness.records == list(ending.records)
    assert drive.witness.begun == [(record.phase, record.name, record.host) for record in ending.records]
    assert [sample.state for sample in drive.witness.samples][-1] == "completed"


def test_the_copy_keeps_what_the_report_needs() -> None:
    drive = drive_of(SWITCH)
    records = {record.name: record for record in drive.run().records}
    assert records["copy-memory"].data["pause_ms"] == 98.7
    assert records["copy-memory"].start < records["copy-memory"].data["paused_at"] < records["copy-memory"].end
    assert records["close-gateways"].data == {
        "wire_bytes": 1000,
        "compressed": None,
        "cpu_s": 1.0,
        "cpu_peak": 0.8,
    }


def test_the_gateways_are_told_how_to_compress_and_say_what_that_brought() -> None:
    fleet = make_fleet(SWITCH)
    transfer = choose("auto", Codec.ZSTD, 4, 64, resident=True)
    drive = Drive(fleet, make_plan(fleet, SWITCH, transfer=transfer))
    assert any("compressing with zstd" in step.summary for step in modes.stages(drive.plan).all)
    ending = drive.run()
    asked = [call.operation for call in fleet.calls]
    (receive,) = [each for each in asked if isinstance(each, StartReceiving)]
    (send,) = [each for each in asked if isinstance(each, StartSending)]
    (start,) = [each for each in asked if isinstance(each, StartMigration)]
    assert (receive.delta_memory, send.delta_memory, receive.resident) == (64, 64, True)
    assert (send.codec, send.streams, start.parallel) == (Codec.ZSTD, 1, 4)
    found = make_report(drive.plan, ending, Measured(began=0.0, started="", ended=1.0)).transfer
    assert found is not None
    assert (found.policy, found.codec, found.stream_bytes, found.ratio) == ("multifd", "zstd", 2500, 2.5)
    assert (found.pages, found.zero_pages, found.delta_pages) == (80, 20, 30)
    assert found.codecs == {"zstd": CodecShare(blocks=4, stream_bytes=2500, wire_bytes=1000)}


def test_memory_that_qemu_sends_by_itself_is_counted_with_what_the_gateways_carried() -> None:
    fleet = make_fleet(SWITCH)
    drive = Drive(fleet, make_plan(fleet, SWITCH, transfer=choose("auto", Codec.NONE, None, 0, direct=True)))
    assert any("QEMU sends the memory" in step.summary for step in modes.stages(drive.plan).all)
    ending = drive.run()
    asked = [call.operation for call in fleet.calls]
    (receive,) = [each for each in asked if isinstance(each, StartReceiving)]
    (send,) = [each for each in asked if isinstance(each, StartSending)]
    assert (receive.direct, send.direct) == (True, DirectMemory(port=49201, name=DESTINATION))
    (opened,) = [record for record in ending.records if record.name == "open-gateways"]
    assert opened.detail == "192.0.2.1:49200, memory to port 49201"
    found = make_report(drive.plan, ending, Measured(began=0.0, started="", ended=1.0)).transfer
    assert found is not None
    assert found.direct
    assert found.wire_bytes == 1000 + (1 << 19)


def test_what_was_not_compressed_has_no_ratio() -> None:
    drive = drive_of(SWITCH)
    found = make_report(drive.plan, drive.run(), Measured(began=0.0, started="", ended=1.0)).transfer
    assert found is not None
    assert (found.codec, found.wire_bytes, found.ratio, found.pages) == ("none", 1000, None, None)
    assert found.codecs == {}


@pytest.mark.parametrize("case", [case for case in CASES if case.unplugs], ids=str)
def test_a_guest_that_keeps_its_vf_stays_as_it_was(case: Case) -> None:
    drive = drive_of(case)
    before = Snapshot.of(drive.fleet)
    drive.fleet.held.add("ua-vf")
    ending = drive.run()
    assert (ending.exit, ending.notes) == (Exit.UNDONE, ())
    assert "refuses to give" in ending.reason
    assert before.differences(drive.fleet) == []


def test_a_standby_nic_that_stays_is_reported_and_taken_away_later() -> None:
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.held.add(drive.plan.moves[0].standby_alias)
    ending = drive.run()
    assert (ending.exit, ending.at_destination, ending.degraded) == (Exit.OPERATOR, True, "standby")
    assert unkept(drive, SWITCH, before, ending) == []
    assert healed(drive, before, ending) == []


@pytest.mark.parametrize("case", [case for case in CASES if case.unplugs], ids=str)
def test_without_a_vf_to_be_had_the_guest_stays_at_the_destination_and_gets_one_later(case: Case) -> None:
    drive = drive_of(case)
    before = Snapshot.of(drive.fleet)
    drive.fleet.faults.append(faults.refusal(faults.at_operation(PlugVf, DESTINATION), times=99))
    ending = drive.run()
    assert (ending.exit, ending.at_destination) == (Exit.OPERATOR, True)
    dark = any(move.dark for move in drive.plan.moves)
    assert ending.degraded == ("no-vf" if dark else "standby")
    assert drive.plan.operation in " ".join(ending.notes)
    assert unkept(drive, case, before, ending) == []
    assert not any(host.claims.all() for host in drive.fleet.hosts.values())
    assert healed(drive, before, ending) == []


def test_a_degraded_guest_has_its_network_on_the_standby_nic() -> None:
    drive = drive_of(SWITCH)
    drive.fleet.faults.append(faults.failing_script(lambda call: call.host == DESTINATION, times=1))
    ending = drive.run()
    assert ending.degraded == "standby"
    host, machine = drive.fleet.machine(GUEST)
    assert (host.name, machine.nic(MAC, VF), machine.inside.chosen[MAC]) == (DESTINATION, None, "standby")


@pytest.mark.parametrize("case", [SWITCH, OWN_STANDBY], ids=str)
def test_a_way_back_that_cannot_be_undone_is_told(case: Case) -> None:
    drive = drive_of(case)
    drive.fleet.faults.append(faults.failing_script(lambda call: call.host == DESTINATION, times=99))
    ending = drive.run()
    assert ending.degraded == "standby"
    assert any("guest-to-vf on host2 failed" in note for note in ending.notes), ending.notes


def test_a_guest_that_does_not_get_its_vf_back_keeps_its_standby_nic() -> None:
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.fails_with = "out of memory"
    drive.fleet.faults.append(faults.refusal(faults.at_operation(PlugVf, SOURCE)))
    ending = drive.run()
    assert (ending.exit, ending.at_destination) == (Exit.OPERATOR, False)
    host, machine = drive.fleet.machine(GUEST)
    assert (host.name, machine.inside.chosen[MAC], MAC in host.forwarding) == (SOURCE, "standby", True)
    assert any("plug-standby on host1" in note and "left as it is" in note for note in ending.notes)
    assert not drive.fleet.hosts[DESTINATION].claims.all()
    assert healed(drive, before, ending) == []


def test_a_script_that_fails_in_the_guest_is_undone_with_its_last_words() -> None:
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.faults.append(faults.failing_script())
    ending = drive.run()
    assert (ending.exit, ending.at_destination) == (Exit.UNDONE, False)
    assert "enp7s0 has no carrier" in ending.reason
    assert before.differences(drive.fleet) == []


def test_its_last_words_are_bounded() -> None:
    drive = drive_of(SWITCH)
    drive.fleet.faults.append(faults.failing_script(says="\x1b[2J" + "x" * 60_000))
    reason = drive.run().reason
    assert reason.isprintable()
    assert len(reason) < 500


@pytest.mark.parametrize("host", [SOURCE, DESTINATION])
def test_a_claim_that_is_refused_leaves_the_other_operation_alone(host: str) -> None:
    drive = drive_of(SWITCH)
    other = drive.fleet.hosts[host].claims
    other.claim(drive.fleet.session("other"), guest=GUEST)
    before = Snapshot.of(drive.fleet)
    ending = drive.run()
    assert ending.exit is Exit.UNDONE
    assert "other" in ending.reason
    assert before.differences(drive.fleet) == []


def test_a_claim_by_a_newer_controller_fences_the_older_one_off() -> None:
    drive = drive_of(SWITCH)

    def take_over() -> None:
        for host in drive.fleet.hosts.values():
            host.claims.check(drive.fleet.session(drive.plan.operation, epoch=7))

    drive.fleet.faults.append(faults.doing(faults.at_operation(StartReceiving), take_over))
    ending = drive.run()
    assert ending.exit is Exit.OPERATOR
    assert {record.code for record in ending.records if not record.ok} == {"stale-controller"}
    assert not any(isinstance(call.operation, StartMigration) for call in drive.fleet.calls)


def test_a_migration_that_fails_by_itself_is_undone_with_its_reason() -> None:
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.fails_with = "out of memory"
    ending = drive.run()
    assert (ending.exit, ending.reason) == (Exit.UNDONE, "out of memory")
    assert before.differences(drive.fleet) == []


def test_a_copy_beyond_its_deadline_is_aborted_and_undone() -> None:
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.copy_s = 100_000
    ending = drive.run()
    assert ending.exit is Exit.UNDONE
    assert "not copied within 600 s" in ending.reason
    assert before.differences(drive.fleet) == []


def test_an_abort_in_the_middle_of_the_copy_ends_it() -> None:
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.copy_s = 100_000
    looks = faults.at_operation(ReadMigration)
    drive.fleet.faults.append(faults.doing(looks, lambda: setattr(drive, "abort", True), after=True))
    ending = drive.run()
    assert (ending.exit, ending.reason) == (Exit.ABORTED, "The migration was aborted on request")
    assert before.differences(drive.fleet) == []


def done_about_it(drive: Drive) -> list[tuple[str, int | None]]:
    return [(stall.action, stall.pause_ms) for stall in drive.witness.stalls]


def stretching(drive: Drive) -> list[int]:
    return [call.operation.downtime_ms for call in drive.fleet.calls if isinstance(call.operation, StretchPause)]


def test_a_copy_that_stalls_gets_a_longer_pause_as_far_as_that_is_allowed() -> None:
    drive = drive_of(SWITCH)
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(when_stalled=(Pause(1000),)))
    drive.fleet.pace.needs_ms = 600
    drive.fleet.faults.append(faults.refusal(faults.at_operation(StretchPause), times=2))
    ending = drive.run()
    assert ending.exit is Exit.DONE
    assert stretching(drive) == [450, 450, 450, 675], "tried again when it is refused"
    assert [record.data["pause_limit_ms"] for record in ending.records if "pause_limit_ms" in record.data] == [675]
    assert done_about_it(drive) == [("pause", 450), ("pause", 675)], "and told once it is done"
    assert all(stall.round >= 3 and stall.after_s >= 5 for stall in drive.witness.stalls)


def test_a_copy_that_goes_on_stalling_is_undone_before_its_deadline_where_the_schedule_says_so() -> None:
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(when_stalled=(Pause(400), Abort())))
    drive.fleet.pace.needs_ms = 600
    ending = drive.run()
    assert (ending.exit, stretching(drive)) == (Exit.UNDONE, [400])
    assert "The copy stalled: in pass " in ending.reason
    assert done_about_it(drive) == [("pause", 400), ("abort", None)]
    assert drive.witness.stalls[-1].after_s < 60
    assert before.differences(drive.fleet) == []


def test_what_an_earlier_controller_has_allowed_is_not_done_again() -> None:
    drive = drive_of(SWITCH)
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(when_stalled=(Pause(400), Pause(500))))
    drive.fleet.pace.needs_ms = 500
    drive.fleet.faults.append(faults.crash(faults.at_operation(StretchPause), after=True))
    with pytest.raises(faults.Crash):
        drive.run()
    assert drive.run().exit is Exit.DONE
    assert stretching(drive) == [400, 500]


def test_a_copy_that_stalls_is_undone_in_time_where_nothing_more_is_allowed() -> None:
    drive = drive_of(SWITCH)
    drive.plan = structs.replace(drive.plan, transfer=TransferPlan(deadline_s=20.0))
    drive.fleet.pace.needs_ms = 600
    ending = drive.run()
    assert (ending.exit, stretching(drive)) == (Exit.UNDONE, [])
    assert "not copied within 20 s" in ending.reason


def test_an_abort_after_the_resume_comes_too_late() -> None:
    drive = drive_of(SWITCH)
    closes = faults.at_operation(SetForwarding, SOURCE)
    drive.fleet.faults.append(faults.doing(closes, lambda: setattr(drive, "abort", True)))
    assert drive.run().exit is Exit.DONE
    assert moved(drive.fleet, drive.plan) == []


@pytest.mark.parametrize("case", [SWITCH, DETACH, VIRTIO, RELAY], ids=str)
@pytest.mark.parametrize("torn", ["source", "both"])
def test_a_cut_in_the_pause_lets_the_guest_go_on_at_the_source(case: Case, torn: str) -> None:
    drive = drive_of(case)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.torn = torn
    ending = drive.run()
    assert ending.exit is Exit.UNDONE
    assert before.differences(drive.fleet) == []


@pytest.mark.parametrize("case", [SWITCH, DETACH, VIRTIO, RELAY], ids=str)
def test_a_cut_after_the_source_has_let_go_lets_the_guest_go_on_at_the_destination(case: Case) -> None:
    drive = drive_of(case)
    drive.fleet.pace.torn = "destination"
    drive.fleet.hosts[DESTINATION].definitions[GUEST] = drive.plan.persistent_xml
    assert drive.run().exit is Exit.DONE
    assert moved(drive.fleet, drive.plan) == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("torn", "host"), [("source", SOURCE), ("both", SOURCE), ("destination", DESTINATION)])
def test_an_answer_to_the_resume_that_is_lost_changes_nothing(torn: str, host: str, *, after: bool) -> None:
    drive = drive_of(SWITCH)
    drive.fleet.pace.torn = torn
    drive.fleet.faults.append(faults.lost_answer(faults.at_operation(Resume), after=after, times=5))
    ending = drive.run()
    assert drive.fleet.running(GUEST) == [host]
    assert ending.exit is (Exit.UNDONE if host == SOURCE else Exit.DONE)


@pytest.mark.parametrize("torn", ["source", "both", "destination"])
@pytest.mark.parametrize("silent", [SOURCE, DESTINATION])
def test_nothing_is_resumed_on_a_guess(torn: str, silent: str) -> None:
    """The guest is paused, and a host does not say what it has: only the operator can look."""
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.torn = torn
    looks = faults.at_operation(ReadMigration)
    drive.fleet.faults.append(faults.outage(looks, host=silent, seconds=1000))
    ending = drive.run()
    assert ending.exit is Exit.OPERATOR
    assert is_uncertain(ending)
    assert unkept(drive, SWITCH, before, ending) == []
    assert not any(isinstance(call.operation, Resume) for call in drive.fleet.calls)
    assert drive.fleet.running(GUEST) == []
    assert healed(drive, before, ending) == []


def test_a_guest_that_is_on_both_hosts_is_left_to_the_operator() -> None:
    drive = drive_of(VIRTIO)
    drive.fleet.pace.fails_with = "a fault of libvirt's"
    split = Split(drive)
    drive.fleet.faults.append(faults.doing(faults.at_operation(ShowGuest), split.twins))
    drive.fleet.check = lambda: None  # type: ignore[method-assign]
    ending = drive.run()
    assert (ending.exit, is_uncertain(ending)) == (Exit.OPERATOR, True)
    assert "runs on host1 and on host2" in ending.reason


class Split:
    """What must never be: the guest on two hosts."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive

    def twins(self) -> None:
        hosts = self.drive.fleet.hosts
        hosts[DESTINATION].machines[GUEST] = hosts[SOURCE].machines[GUEST]


@pytest.mark.parametrize("case", [SWITCH, DETACH, VIRTIO, RELAY], ids=str)
def test_a_destination_that_dies_during_the_copy_leaves_the_guest_at_the_source(case: Case) -> None:
    drive = drive_of(case)
    drive.fleet.faults.append(faults.death(faults.at_operation(ReadMigration), host=DESTINATION))
    ending = drive.run()
    assert ending.exit is Exit.OPERATOR
    assert not ending.at_destination
    assert drive.fleet.running(GUEST) == [SOURCE]
    assert all("host2" in note or "recover" in note for note in ending.notes), ending.notes
    if case.has_vf:
        kept = STANDBY if case is RELAY else VF  # a NIC on the relay is on virtio
        assert drive.fleet.machine(GUEST)[1].inside.chosen[MAC] == kept


def test_a_source_that_dies_after_the_resume_does_not_keep_the_guest_from_its_vf() -> None:
    drive = drive_of(SWITCH)
    drive.fleet.faults.append(faults.death(faults.at_operation(SetForwarding, SOURCE), host=SOURCE))
    ending = drive.run()
    assert (ending.exit, ending.at_destination, ending.degraded) == (Exit.OPERATOR, True, "leftovers")
    assert drive.fleet.machine(GUEST)[1].inside.chosen[MAC] == VF
    assert not drive.fleet.hosts[DESTINATION].claims.all()


def test_a_source_that_dies_with_its_guest_is_for_the_operator() -> None:
    drive = drive_of(SWITCH)
    drive.fleet.faults.append(faults.death(faults.at_operation(ReadMigration), host=SOURCE))
    ending = drive.run()
    assert (ending.exit, is_uncertain(ending)) == (Exit.OPERATOR, True)


def test_a_migration_that_is_still_going_on_is_not_undone_under_it() -> None:
    """The source is silent for longer than anybody waits, then says that the guest runs there, which is so still."""
    drive = drive_of(SWITCH)
    before = Snapshot.of(drive.fleet)
    drive.fleet.pace.copy_s = 500
    looks = faults.at_operation(ReadMigration)
    drive.fleet.faults.append(faults.outage(looks, host=SOURCE, seconds=140))
    ending = drive.run()
    assert unkept(drive, SWITCH, before, ending) == []
    assert ending.exit is Exit.UNDONE
    undone = next(at for at, call in enumerate(drive.fleet.calls) if isinstance(call.operation, PlugVf))
    assert any(isinstance(call.operation, ReadMigration) for call in drive.fleet.calls[undone - 40 : undone]), (
        "asked whether it is over"
    )


def test_a_definition_goes_only_after_the_other_is_there() -> None:
    drive = drive_of(SWITCH)
    drive.run()
    kinds = [(type(call.operation), call.host) for call in drive.fleet.calls]
    assert kinds.index((Define, DESTINATION)) < kinds.index((Undefine, SOURCE))


def test_claims_come_first_and_go_last() -> None:
    drive = drive_of(SWITCH)
    drive.run()
    assert [call.host for call in drive.fleet.calls[:2]] == [SOURCE, DESTINATION]
    assert all(isinstance(call.operation, ClaimResources) for call in drive.fleet.calls[:2])
    assert not drive.fleet.hosts[SOURCE].claims.all()


def test_finishing_twice_changes_nothing() -> None:
    drive = drive_of(SWITCH)
    drive.run()
    before = Snapshot.of(drive.fleet)
    ending = drive.repair(Conductor.finish)
    assert (ending.exit, ending.notes) == (Exit.DONE, ())
    assert before.differences(drive.fleet) == []


def test_the_guest_runs_on_through_it_all() -> None:
    drive = drive_of(SWITCH)
    drive.run()
    assert drive.fleet.machine(GUEST)[1].state is GuestState.RUNNING
    scripts = [call for call in drive.fleet.calls if isinstance(call.operation, RunInGuest)]
    unplugs = [call for call in drive.fleet.calls if isinstance(call.operation, Unplug)]
    assert [call.host for call in scripts] == [SOURCE, DESTINATION]
    assert scripts[0].number < unplugs[0].number


def test_what_fails_for_the_second_nic_is_undone_for_both() -> None:
    fleet = make_fleet(TWO)
    drive = Drive(fleet, make_plan(fleet, TWO))
    before = Snapshot.of(fleet)
    aliases = [move.source_alias for move in drive.plan.moves]
    fleet.held.add(aliases[1])
    ending = drive.run()
    assert ending.exit is Exit.UNDONE, ending.notes
    assert aliases[1] in ending.reason
    assert before.differences(fleet) == []


def test_a_second_nic_that_gets_no_vf_leaves_both_on_their_standby_nics() -> None:
    fleet = make_fleet(TWO)
    drive = Drive(fleet, make_plan(fleet, TWO))
    address = drive.plan.moves[1].destination.address
    refused = faults.refusal(
        lambda call: isinstance(call.operation, PlugVf) and call.operation.address == address, times=1
    )
    fleet.faults.append(refused)
    before = Snapshot.of(fleet)
    ending = drive.run()
    assert (ending.exit, ending.degraded) == (Exit.OPERATOR, "standby")
    assert set(fleet.machine(GUEST)[1].inside.chosen.values()) == {"standby"}
    assert healed(drive, before, ending) == []


def test_the_deadline_is_for_the_memory_and_not_for_what_devices_send_in_the_pause() -> None:
    fleet = make_fleet(MEDIATED)
    fleet.pace.copy_s, fleet.pace.pause_s = 1.0, 20.0
    drive = Drive(fleet, make_plan(fleet, MEDIATED, transfer=TransferPlan(deadline_s=5.0)))
    assert drive.run().exit is Exit.DONE
    assert not any(isinstance(call.operation, AbortMigration) for call in fleet.calls)


@pytest.mark.parametrize("case", [RELAY, MACVTAP], ids=str)
def test_a_mac_that_the_agent_has_forgotten_comes_after_the_resume(case: Case) -> None:
    """Until then the guest is without network: the agent was started anew in the copy."""
    drive = drive_of(case)
    drive.fleet.never_dark = frozenset()
    destination = drive.fleet.hosts[DESTINATION]

    def forget() -> None:
        destination.arriving.clear()
        destination.hidden.clear()

    drive.fleet.faults.append(faults.doing(faults.at_operation(ReadMigration, SOURCE), forget))
    assert drive.run().exit is Exit.DONE
    assert moved(drive.fleet, drive.plan) == []


@pytest.mark.parametrize(
    ("case", "leaving"), [(RELAY, [(True, True, True)]), (MACVTAP, [])], ids=["by-vferry", "by-libvirt"]
)
def test_a_vf_takes_the_mac_with_the_guest_and_the_other_loses_it_after(
    case: Case, leaving: list[tuple[bool, bool, bool]]
) -> None:
    drive = drive_of(case)
    (move,) = drive.plan.moves
    here = drive.fleet.hosts[SOURCE].functions[move.source.address]
    there = drive.fleet.hosts[DESTINATION].functions[move.destination.address]
    seen: dict[tuple[bool, bool, bool], None] = {}

    def look() -> None:
        arrived = drive.fleet.running(GUEST) == [DESTINATION]
        seen[arrived, here.settings.mac == MAC, there.settings.mac == MAC] = None

    every = faults.doing(lambda call: True, look, after=True)
    every.times = 1000
    drive.fleet.faults.append(every)
    assert drive.run().exit is Exit.DONE
    assert list(seen) == [(False, True, False), *leaving, (True, False, True)]


@pytest.mark.parametrize(("case", "nic"), [(RELAY, 0), (TWO_RELAYED, 0), (TWO_RELAYED, 1)])
@pytest.mark.parametrize("after", [False, True], ids=["not-made", "half-made"])
def test_a_port_that_cannot_be_made_is_undone_with_all_others(case: Case, nic: int, *, after: bool) -> None:
    drive = drive_of(case)
    before = Snapshot.of(drive.fleet)

    def joins(call: Call) -> bool:
        return isinstance(call.operation, JoinRelay) and call.operation.port.mac == case.macs[nic]

    drive.fleet.faults.append(faults.refusal(joins, code="port-refused", after=after))
    ending = drive.run()
    assert (ending.exit, ending.notes) == (Exit.UNDONE, ())
    assert before.differences(drive.fleet) == []
