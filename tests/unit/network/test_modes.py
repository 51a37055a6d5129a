"""Which steps each mode has, in which order, and what takes each back."""

from typing import Any

import pytest
from msgspec import structs

from fakes.samples import CASES, DESTINATION, GUEST, LOGICAL_PORT, MAC, SOURCE, Case, make_fleet, make_plan
from vferry.host.api import (
    Announce,
    ClaimResources,
    ExpectGuest,
    HideMac,
    JoinRelay,
    LeaveRelay,
    MoveFilter,
    Operation,
    PlugVf,
    ReleaseClaim,
    RunInGuest,
    SetBinding,
    SetForwarding,
    SetVf,
    TeachBridge,
    Unpark,
    Unplug,
)
from vferry.model.host import NO_MAC, Attachment, AttachmentKind, VfSettings
from vferry.model.ovn import LogicalPort
from vferry.model.relay import SwitchPlace
from vferry.model.report import Phase
from vferry.network import modes
from vferry.network.step import CloseGateways, Copy, OpenGateways, Stages, Step, TakeConnections, TakePortConnections
from vferry.plan.plan import GuestSide, NetworkMode, Plan, Standby

SWITCH = NetworkMode.SWITCH
ADDRESSES = Case(SWITCH, GuestSide.ADDRESSES)
HOTPLUG = Case(SWITCH, GuestSide.HOTPLUG)
BOND = Case(SWITCH, GuestSide.BOND, own_standby=True)
DETACH = Case(NetworkMode.DETACH, GuestSide.ADDRESSES)
DETACH_BOND = Case(NetworkMode.DETACH, GuestSide.BOND, own_standby=True)
TEMPORARY_BOND = Case(NetworkMode.DETACH, GuestSide.TEMPORARY_BOND)
FAILOVER = Case(NetworkMode.FAILOVER, GuestSide.FAILOVER, own_standby=True)
MACVTAP = Case(NetworkMode.MACVTAP, GuestSide.NOBODY, nics=0, macvtaps=1)
RELAY = Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, relayed=1)
ON_SWITCH = Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, switched=1)
BOUND = Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, switched=1, bound=True)
VIRTIO = Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES)
VFIO = Case(NetworkMode.VFIO, GuestSide.NOBODY)
RECLAIMS = Case(SWITCH, GuestSide.ADDRESSES, reclaims=True)
MEDIATED = Case(NetworkMode.VFIO, GuestSide.NOBODY, mediated=True)

CLAIMS = ["prepare: claim @host1", "prepare: claim @host2"]
SWITCH_PREPARE = [
    *CLAIMS,
    "prepare: configure-vf @host2",
    "prepare: expect-on-bridge @host2",
    "prepare: expect-guest @host2",
    "prepare: open-gateways @host1",
]
COPY = ["copy: copy-memory @host1"]
ANNOUNCE = ["switchover: announce @host2"]
CLOSE = [*ANNOUNCE, "switchover: open-bridge @host2", "switchover: close-bridge @host1"]
HAND_OVER = [
    "restore: close-gateways @host1",
    "restore: define @host2",
    "restore: undefine @host1",
    "restore: release @host1",
    "restore: release @host2",
]
WIPE = ["restore: wipe-vf @host1"]

GOLDEN = {
    VFIO: [
        *CLAIMS,
        "prepare: configure-vf @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        *COPY,
        *ANNOUNCE,
        *WIPE,
        *HAND_OVER,
    ],
    MEDIATED: [
        *CLAIMS,
        "prepare: make-device @host2",
        "prepare: configure-vf @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        *COPY,
        *ANNOUNCE,
        *WIPE,
        "restore: remove-device @host1",
        *HAND_OVER,
    ],
    ADDRESSES: [
        *SWITCH_PREPARE,
        "to-standby: plug-standby @host1",
        "to-standby: guest-to-standby @host1",
        "to-standby: filter-to-bridge @host1",
        "to-standby: unplug-vf @host1",
        *COPY,
        *CLOSE,
        "to-vf: plug-vf @host2",
        "to-vf: guest-to-vf @host2",
        "to-vf: filter-to-vf @host2",
        "to-vf: unplug-standby @host2",
        *WIPE,
        *HAND_OVER,
    ],
    RECLAIMS: [
        *SWITCH_PREPARE,
        "to-standby: plug-standby @host1",
        "to-standby: guest-to-standby @host1",
        "to-standby: filter-to-bridge @host1",
        "to-standby: unplug-vf @host1",
        "copy: reclaim-free @host1",
        *COPY,
        *CLOSE,
        "to-vf: plug-vf @host2",
        "to-vf: guest-to-vf @host2",
        "to-vf: filter-to-vf @host2",
        "to-vf: unplug-standby @host2",
        *WIPE,
        *HAND_OVER,
    ],
    BOND: [
        *SWITCH_PREPARE,
        "to-standby: guest-to-standby @host1",
        "to-standby: filter-to-bridge @host1",
        "to-standby: unplug-vf @host1",
        *COPY,
        *CLOSE,
        "to-vf: plug-vf @host2",
        "to-vf: guest-to-vf @host2",
        "to-vf: filter-to-vf @host2",
        *WIPE,
        *HAND_OVER,
    ],
    HOTPLUG: [
        *SWITCH_PREPARE,
        "to-standby: plug-standby @host1",
        "to-standby: filter-to-bridge @host1",
        "to-standby: unplug-vf @host1",
        *COPY,
        *CLOSE,
        "to-vf: filter-to-vf @host2",
        "to-vf: plug-vf @host2",
        "to-vf: unplug-standby @host2",
        *WIPE,
        *HAND_OVER,
    ],
    FAILOVER: [
        *SWITCH_PREPARE,
        "to-standby: pair-to-standby @host1",
        "to-standby: filter-also-to-bridge @host1",
        "to-standby: unplug-vf @host1",
        *COPY,
        *CLOSE,
        "to-vf: filter-also-to-vf @host2",
        "to-vf: plug-vf @host2",
        "to-vf: filter-to-vf @host2",
        *WIPE,
        *HAND_OVER,
    ],
    DETACH_BOND: [
        *SWITCH_PREPARE,
        "to-standby: unplug-vf @host1",
        *COPY,
        *CLOSE,
        "to-vf: plug-vf @host2",
        "to-vf: guest-to-vf @host2",
        "to-vf: filter-to-vf @host2",
        *WIPE,
        *HAND_OVER,
    ],
    TEMPORARY_BOND: [
        *SWITCH_PREPARE,
        "to-standby: plug-standby @host1",
        "to-standby: guest-to-standby @host1",
        "to-standby: filter-to-bridge @host1",
        "to-standby: unplug-vf @host1",
        *COPY,
        *CLOSE,
        "to-vf: plug-vf @host2",
        "to-vf: guest-to-vf @host2",
        "to-vf: filter-to-vf @host2",
        "to-vf: dissolve-bond @host2",
        "to-vf: unplug-standby @host2",
        *WIPE,
        *HAND_OVER,
    ],
    DETACH: [
        *CLAIMS,
        "prepare: configure-vf @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        "to-standby: unplug-vf @host1",
        *COPY,
        *ANNOUNCE,
        "to-vf: plug-vf @host2",
        *WIPE,
        *HAND_OVER,
    ],
    MACVTAP: [
        *CLAIMS,
        "prepare: configure-vf @host2",
        "prepare: hide-mac @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        *COPY,
        *ANNOUNCE,
        "switchover: settle-vf @host2",
        *WIPE,
        *HAND_OVER,
    ],
    RELAY: [
        *CLAIMS,
        "prepare: configure-vf @host2",
        "prepare: join-relay @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        *COPY,
        *ANNOUNCE,
        "switchover: settle-vf @host2",
        "switchover: close-vf @host1",
        "restore: leave-relay @host1",
        *WIPE,
        *HAND_OVER,
    ],
    ON_SWITCH: [
        *CLAIMS,
        "prepare: join-relay @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        *COPY,
        *ANNOUNCE,
        "switchover: leave-relay @host1",
        *HAND_OVER,
    ],
    BOUND: [
        *CLAIMS,
        "prepare: share-port @OVN northbound",
        "prepare: join-relay @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        *COPY,
        *ANNOUNCE,
        "switchover: take-port-connections @host2",
        "switchover: settle-port @OVN northbound",
        "switchover: leave-relay @host1",
        *HAND_OVER,
    ],
    VIRTIO: [
        *CLAIMS,
        "prepare: expect-on-bridge @host2",
        "prepare: expect-guest @host2",
        "prepare: open-gateways @host1",
        *COPY,
        *CLOSE,
        *HAND_OVER,
    ],
}


def plan_of(case: Case) -> Plan:
    return make_plan(make_fleet(case), case)


def stages_of(case: Case) -> Stages:
    return modes.stages(plan_of(case))


def step_named(steps: tuple[Step, ...], name: str) -> Step:
    (found,) = (step for step in steps if step.name == name)
    return found


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_the_order_of_steps(case: Case) -> None:
    steps = stages_of(case).all
    assert [f"{step.phase.value}: {step.name} @{step.host}" for step in steps] == GOLDEN[case]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_phases_never_go_back(case: Case) -> None:
    order = list(Phase)
    places = [order.index(step.phase) for step in stages_of(case).all]
    assert places == sorted(places)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_stages_end_where_the_guest_resumes(case: Case) -> None:
    stages = stages_of(case)
    assert isinstance(stages.before[-1], Copy)
    assert not any(isinstance(step, Copy) for step in stages.before[:-1])
    assert {step.phase for step in stages.before} <= {Phase.PREPARE, Phase.TO_STANDBY, Phase.COPY}
    assert {step.phase for step in stages.landing} <= {Phase.SWITCHOVER}
    assert {step.phase for step in stages.arrival} <= {Phase.TO_VF}
    assert {step.phase for step in stages.after} == {Phase.RESTORE}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_that_changes_before_the_resume_can_be_taken_back(case: Case) -> None:
    for step in stages_of(case).before:
        assert step.undo or isinstance(step, OpenGateways | Copy), step.name


@pytest.mark.parametrize("case", [case for case in CASES if case.mode in (SWITCH, NetworkMode.FAILOVER)], ids=str)
def test_the_way_back_to_the_vf_can_be_taken_back(case: Case) -> None:
    assert all(step.undo for step in stages_of(case).arrival)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_step_says_what_it_does_and_asks_for_something(case: Case) -> None:
    for step in stages_of(case).all:
        assert step.summary
        assert step.host in (SOURCE, DESTINATION) or isinstance(step.apply[0], SetBinding)
        assert step.apply or isinstance(step, OpenGateways | CloseGateways | Copy | TakePortConnections), step.name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_are_the_same_when_another_controller_makes_them(case: Case) -> None:
    plan = plan_of(case)
    assert modes.stages(plan) == modes.stages(structs.replace(plan))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_token_and_no_secret_is_in_a_plan(case: Case) -> None:
    assert "token" not in repr(plan_of(case)).lower()


@pytest.mark.parametrize("case", [case for case in CASES if case.unplugs or case.relayed], ids=str)
def test_the_destinations_vf_has_not_the_mac_before_the_guest_is_there(case: Case) -> None:
    stages = stages_of(case)
    asked = [operation for step in stages.before if step.host == DESTINATION for operation in step.apply]
    settings = [operation for operation in asked if isinstance(operation, SetVf)]
    assert all(operation.settings.mac is None or operation.arriving == GUEST for operation in settings)
    assert not any(isinstance(operation, MoveFilter) for operation in asked)


def test_a_relay_has_its_port_before_the_copy_and_the_mac_comes_with_the_guest() -> None:
    (move,) = plan_of(RELAY).moves
    assert move.relay_port is not None
    stages, there, here = stages_of(RELAY), move.destination.index, move.source.index
    joined = step_named(stages.before, "join-relay")
    settled = structs.replace(move.carried, mac=MAC)
    assert joined.apply == (
        JoinRelay(port=move.relay_port, settings=move.carried),
        SetVf(pf="pf0", index=there, settings=VfSettings(mac=MAC), arriving=GUEST),
    )
    assert joined.undo == (LeaveRelay(guest=GUEST, mac=MAC),)
    landing = [step_named(stages.landing, name) for name in ("settle-vf", "close-vf")]
    assert [(step.host, step.apply) for step in landing] == [
        (
            DESTINATION,
            (SetVf(pf="pf0", index=there, settings=settled), JoinRelay(port=move.relay_port, settings=settled)),
        ),
        (SOURCE, (SetVf(pf="pf0", index=here, settings=VfSettings(mac=NO_MAC)),)),
    ]
    assert step_named(stages.after, "leave-relay").apply == (LeaveRelay(guest=GUEST, mac=MAC),)


def test_a_switch_has_its_port_before_the_copy_and_that_of_the_source_none_once_the_guest_is_there() -> None:
    """No claim but that of the guest is needed, and no filter of a NIC is changed."""
    plan, stages = plan_of(ON_SWITCH), stages_of(ON_SWITCH)
    (move,) = plan.ports
    assert (plan.source_vfs, plan.destination_vfs) == ((), ())
    joined = step_named(stages.before, "join-relay")
    assert (joined.apply, joined.undo) == ((JoinRelay(port=move.destination),), (LeaveRelay(guest=GUEST, mac=MAC),))
    assert step_named(stages.landing, "leave-relay").apply == (LeaveRelay(guest=GUEST, mac=MAC),)
    asked = [operation for step in stages.all for operation in step.apply]
    assert not [each for each in asked if isinstance(each, SetVf | MoveFilter | SetForwarding)]
    told = step_named(stages.landing, "announce").apply
    assert told[0] == TeachBridge(guest=GUEST, mac=MAC)
    assert told[1] == Announce(guest=GUEST, mac=MAC, interface="pf0", vlan=7)


def test_a_port_of_ovn_s_is_at_both_hosts_during_the_copy_and_then_at_the_destination() -> None:
    stages = stages_of(BOUND)
    before, there = (LogicalPort(name=LOGICAL_PORT, requested_chassis=f"host{at}-chassis") for at in (1, 2))
    both = LogicalPort(name=LOGICAL_PORT, requested_chassis="host1-chassis,host2-chassis", activation_strategy="rarp")
    shared = step_named(stages.before, "share-port")
    assert (shared.apply, shared.undo) == ((SetBinding(port=both),), (SetBinding(port=before, awaited=False),))
    assert step_named(stages.landing, "settle-port").apply == (SetBinding(port=there),)
    joined = step_named(stages.before, "join-relay").apply
    (move,) = plan_of(BOUND).ports
    assert joined == (JoinRelay(port=move.destination),)
    assert move.destination.switch == SwitchPlace(bridge="br-int", logical_port=LOGICAL_PORT)


def test_a_port_that_ovn_bound_wherever_it_was_is_bound_so_again_once_the_source_has_none() -> None:
    free = LogicalPort(name=LOGICAL_PORT)
    plan = plan_of(BOUND)
    (move,) = plan.ports
    assert move.rebinding is not None
    move = structs.replace(move, rebinding=structs.replace(move.rebinding, before=free))
    landing = modes.stages(structs.replace(plan, ports=(move,))).landing
    names = [step.name for step in landing]
    assert names.index("settle-port") < names.index("leave-relay") < names.index("free-port")
    last = step_named(landing, "free-port")
    assert (last.apply, last.requires) == ((SetBinding(port=free),), "leave-relay")


def test_ovn_hears_of_the_guest_by_its_own_port_as_it_resumes_and_before_it_knows_it_there_alone() -> None:
    """And no bridge is told: OVN's flows say where the guest is."""
    stages = stages_of(BOUND)
    by_port = Announce(guest=GUEST, mac=MAC)
    names = [step.name for step in stages.before]
    assert names.index("share-port") < names.index("join-relay") < names.index("expect-guest")
    (expected,) = step_named(stages.before, "expect-guest").apply
    assert isinstance(expected, ExpectGuest)
    assert by_port in expected.announced
    assert [step.name for step in stages.landing][:3] == ["announce", "take-port-connections", "settle-port"]
    told = step_named(stages.landing, "announce").apply
    assert by_port in told
    assert TeachBridge(guest=GUEST, mac=MAC) not in told


def test_what_is_undone_ends_the_waiting_for_the_guest() -> None:
    """The MAC would come to the VF with the guest's next arrival, when it may be another's."""
    undone = [operation for step in reversed(stages_of(RELAY).before) for operation in step.undo]
    vf = plan_of(RELAY).moves[0].destination
    after_leaving = undone[undone.index(LeaveRelay(guest=GUEST, mac=MAC)) + 1 :]
    (back,) = (each for each in after_leaving if isinstance(each, SetVf))
    assert (back.index, back.arriving, back.settings.mac) == (vf.index, "", NO_MAC)


def test_claims_are_given_back_by_their_undo() -> None:
    for step in stages_of(ADDRESSES).before[:2]:
        assert step.undo == (ReleaseClaim(),)


def test_the_guest_chooses_before_the_filter_moves_and_the_filter_moves_before_the_vf_goes() -> None:
    before = stages_of(ADDRESSES).before
    kinds = [type(operation) for step in before for operation in step.apply]
    assert kinds.index(RunInGuest) < kinds.index(MoveFilter) < kinds.index(Unplug)


def test_the_undo_of_the_filter_lets_the_guest_choose_first() -> None:
    undo = step_named(stages_of(ADDRESSES).before, "filter-to-bridge").undo
    assert [type(operation) for operation in undo] == [RunInGuest, MoveFilter, TeachBridge]


def test_a_guest_left_to_itself_finds_its_vf_with_the_mac_on_it() -> None:
    """On its way there, and when that is undone."""
    stages = stages_of(HOTPLUG)
    undo = [type(operation) for operation in step_named(stages.before, "unplug-vf").undo]
    assert undo == [Unpark, SetVf, MoveFilter, PlugVf]
    names = [step.name for step in stages.arrival]
    assert names.index("filter-to-vf") < names.index("plug-vf")


def test_a_teamed_vf_has_its_mac_whenever_it_is_plugged() -> None:
    """On its way there, and when that is undone: the guest's driver pairs by it. The alias here is the pair's first."""
    stages = stages_of(FAILOVER)
    move = plan_of(FAILOVER).moves[0]
    undo = step_named(stages.before, "unplug-vf").undo
    assert [type(operation) for operation in undo] == [SetVf, PlugVf, RunInGuest]
    assert undo[0].settings.mac == MAC  # type: ignore[attr-defined]
    here = PlugVf(guest=GUEST, address=move.source.address, alias="ua-vf", teamed_with="ua-standby")
    assert undo[1] == here
    arrival = [operation for step in stages.arrival for operation in step.apply]
    assert [type(operation) for operation in arrival] == [SetVf, PlugVf, RunInGuest, TeachBridge, SetForwarding]
    there = PlugVf(guest=GUEST, address=move.destination.address, alias=move.vf_alias, teamed_with="ua-standby")
    assert arrival[:2] == [SetVf(pf="pf0", index=move.destination.index, settings=VfSettings(mac=MAC)), there]


@pytest.mark.parametrize("case", [ADDRESSES, HOTPLUG, BOND, DETACH, DETACH_BOND, TEMPORARY_BOND, FAILOVER], ids=str)
def test_a_vf_has_the_acpi_index_of_the_one_before_on_both_hosts(case: Case) -> None:
    plan = plan_of(case)
    plan = structs.replace(plan, moves=tuple(structs.replace(move, acpi_index=3) for move in plan.moves))
    stages = modes.stages(plan)
    steps = (*stages.before, *stages.arrival)
    plugged = [each for step in steps for each in (*step.apply, *step.undo) if isinstance(each, PlugVf)]
    assert [each.acpi_index for each in plugged] == [3, 3]


def test_the_bridge_knows_the_guest_before_the_vf_goes_and_that_it_is_gone_after_the_next_has_come() -> None:
    stages = stages_of(FAILOVER)
    leaving = [operation for step in stages.before if step.phase is Phase.TO_STANDBY for operation in step.apply]
    assert [type(each) for each in leaving] == [RunInGuest, TeachBridge, SetForwarding, Unplug, TeachBridge, SetVf]
    assert leaving[1] == leaving[4] == TeachBridge(guest=GUEST, mac=MAC)
    assert stages.arrival[-1].apply[0] == TeachBridge(guest=GUEST, mac=MAC, uplink="pf0")


def test_a_teamed_vf_is_not_waited_for_where_no_agent_answers() -> None:
    plan = plan_of(FAILOVER)
    silent = structs.replace(plan, moves=(structs.replace(plan.moves[0], guest_side=GuestSide.HOTPLUG),))
    assert not any(isinstance(each, RunInGuest) for step in modes.stages(silent).all for each in step.apply + step.undo)


def test_the_destination_takes_frames_once_the_guest_runs_there_and_then_the_source_stops() -> None:
    stages = stages_of(ADDRESSES)
    before = [each for step in stages.before if step.host == DESTINATION for each in step.apply]
    assert SetForwarding(pf="pf0", mac=MAC, present=True, arriving=GUEST) in before
    assert SetForwarding(pf="pf0", mac=MAC, present=True) not in before
    _, opened, closed = stages.landing
    assert (opened.host, opened.apply) == (DESTINATION, (SetForwarding(pf="pf0", mac=MAC, present=True),))
    assert (closed.host, closed.apply) == (SOURCE, (SetForwarding(pf="pf0", mac=MAC, present=False),))


def test_all_nics_are_announced_first_of_all_after_the_resume() -> None:
    case = Case(SWITCH, GuestSide.ADDRESSES, nics=2)
    first = modes.stages(structs.replace(plan_of(case), routes_ipv6=True)).landing[0]
    assert (first.name, first.host) == ("announce", DESTINATION)
    assert first.apply == (
        *(TeachBridge(guest=GUEST, mac=mac) for mac in case.macs),
        *(Announce(guest=GUEST, mac=mac, interface="pf0", addresses=("192.0.2.7",), router=True) for mac in case.macs),
    )


def test_a_filter_knows_the_guest_s_connections_before_switches_learn_where_it_is() -> None:
    tracked = structs.replace(plan_of(VIRTIO), tracked=("192.0.2.7", "2001:db8::7"))
    first, second, *_ = modes.stages(tracked).landing
    assert isinstance(first, TakeConnections)
    assert (first.name, first.source, first.host) == ("take-connections", SOURCE, DESTINATION)
    assert "192.0.2.7, 2001:db8::7" in first.summary
    assert second.name == "announce"


def test_both_aliases_of_the_vf_are_taken_away() -> None:
    """The definition's own, and vferry's, which it has after a migration that was undone."""
    for case in (ADDRESSES, DETACH):
        plan = plan_of(case)
        step = step_named(stages_of(case).before, "unplug-vf")
        aliases = [operation.alias for operation in step.apply if isinstance(operation, Unplug)]
        assert aliases == ["ua-vf", plan.moves[0].vf_alias]


def test_two_nics_each_have_their_steps_and_one_copy() -> None:
    names = [step.name for step in stages_of(Case(SWITCH, GuestSide.ADDRESSES, nics=2)).all]
    assert {names.count(name) for name in ("plug-standby", "unplug-vf", "plug-vf", "wipe-vf")} == {2}
    assert {names.count(name) for name in ("expect-on-bridge", "open-bridge", "close-bridge")} == {1}
    assert {names.count(name) for name in ("open-gateways", "copy-memory", "define", "undefine")} == {1}


def test_all_vfs_are_claimed_in_one_step_on_each_host() -> None:
    plan = plan_of(Case(SWITCH, GuestSide.ADDRESSES, nics=2))
    claims = [step for step in modes.stages(plan).before if step.name == "claim"]
    assert [(step.host, step.apply) for step in claims] == [
        (SOURCE, (ClaimResources(guest=GUEST, vfs=("0000:01:10.2", "0000:01:10.4")),)),
        (DESTINATION, (ClaimResources(guest=GUEST, vfs=("0000:01:10.2", "0000:01:10.4")),)),
    ]
    assert claims[0].summary == f"claim {GUEST}, VF 0000:01:10.2, VF 0000:01:10.4 and a migration slot"


def test_the_definition_there_is_there_before_the_one_here_goes() -> None:
    names = [step.name for step in stages_of(VIRTIO).after]
    assert names.index("define") < names.index("undefine") < names.index("release")
    assert plan_of(VIRTIO).guest == GUEST


@pytest.mark.parametrize(("left", "cleared"), [(None, None), (NO_MAC, None), ("52:54:00:99:99:98", NO_MAC)])
def test_a_mac_that_an_earlier_guest_has_left_on_the_destination_s_vf_is_cleared(
    left: str | None, cleared: str | None
) -> None:
    fleet = make_fleet(ADDRESSES)
    plan = make_plan(fleet, ADDRESSES)
    (move,) = plan.moves
    before = structs.replace(move.destination_before, mac=left)
    plan = structs.replace(plan, moves=(structs.replace(move, destination_before=before),))
    step = step_named(modes.stages(plan).before, "configure-vf")
    (configured, restored) = step.apply[0], step.undo[0]
    assert isinstance(configured, SetVf)
    assert isinstance(restored, SetVf)
    assert (configured.settings.mac, restored.settings.mac) == (cleared, left)


def test_a_macvtaps_vf_is_kept_from_the_mac_until_the_guest_runs() -> None:
    stages = stages_of(MACVTAP)
    hide, settle = step_named(stages.before, "hide-mac"), step_named(stages.landing, "settle-vf")
    (hidden,) = hide.apply
    assert isinstance(hidden, HideMac)
    assert (hidden.mac, hidden.hidden) == (MAC, True)
    assert hide.undo == (SetVf(pf="pf0", index=hidden.index, settings=VfSettings()),), "libvirt puts its MAC back"
    assert settle.apply[0] == structs.replace(hidden, hidden=False)


def test_where_it_is_not_known_what_a_driver_does_the_vf_has_what_libvirt_gives_it() -> None:
    plan = make_plan(make_fleet(MACVTAP), MACVTAP)
    plan = structs.replace(plan, moves=tuple(structs.replace(move, hidden=False) for move in plan.moves))
    steps = modes.stages(plan).all
    assert "hide-mac" not in {step.name for step in steps}
    assert not [each for step in steps for each in (*step.apply, *step.undo) if isinstance(each, HideMac)]


def test_the_bridge_keeps_the_guest_at_its_port_until_the_filter_has_moved() -> None:
    stages = stages_of(ADDRESSES)
    chosen, moved = (step_named(stages.arrival, name) for name in ("guest-to-vf", "filter-to-vf"))
    assert chosen.apply[0] == TeachBridge(guest=GUEST, mac=MAC)
    assert moved.apply[-1] == TeachBridge(guest=GUEST, mac=MAC, uplink="pf0")
    for step in (chosen, moved):
        assert TeachBridge(guest=GUEST, mac=MAC) in step.undo


STANDING_BY = (ADDRESSES, HOTPLUG, BOND, DETACH_BOND, TEMPORARY_BOND, FAILOVER)
BONDED = Standby(on=Attachment(device="br0"), uplink="bond0")
ON_MACVTAP = Standby(on=Attachment(kind=AttachmentKind.MACVTAP, device="pf0"), uplink="pf0")


def steps_over(case: Case, standby: Standby) -> tuple[Step, ...]:
    """Those of a migration with such a standby path on both hosts."""
    return modes.stages(make_plan(make_fleet(case, standby, standby), case)).all


def operations(case: Case, standby: Standby) -> list[Operation[Any]]:
    """All that is asked of both hosts, there and in undoing it."""
    return [each for step in steps_over(case, standby) for each in (*step.apply, *step.undo)]


@pytest.mark.parametrize("case", STANDING_BY, ids=str)
def test_over_a_bond_its_own_filter_is_asked_and_its_port_taught(case: Case) -> None:
    asked = operations(case, BONDED)
    assert {each.pf for each in asked if isinstance(each, SetForwarding)} == {"bond0"}
    assert {each.uplink for each in asked if isinstance(each, MoveFilter)} <= {"bond0"}
    assert {each.uplink for each in asked if isinstance(each, TeachBridge)} <= {"bond0", None}


@pytest.mark.parametrize("case", STANDING_BY, ids=str)
def test_switches_are_told_when_the_guest_moves_between_a_bond_and_its_vf(case: Case) -> None:
    steps = steps_over(case, BONDED)

    def told(phase: Phase, *, undoing: bool = False) -> list[str | None]:
        of_phase = [each for step in steps if step.phase is phase for each in (step.undo if undoing else step.apply)]
        return [each.interface for each in of_phase if isinstance(each, Announce)]

    assert (told(Phase.TO_STANDBY), told(Phase.TO_VF)) == (["bond0"], ["pf0"])
    assert (told(Phase.TO_STANDBY, undoing=True), told(Phase.TO_VF, undoing=True)) == (["pf0"], ["bond0"])


@pytest.mark.parametrize("case", STANDING_BY, ids=str)
def test_the_kernel_passes_a_macvtaps_mac_by_itself(case: Case) -> None:
    asked = operations(case, ON_MACVTAP)
    assert not [each for each in asked if isinstance(each, SetForwarding)]
    assert {each.uplink for each in asked if isinstance(each, MoveFilter)} <= {None}
    assert [each for each in asked if isinstance(each, SetVf | MoveFilter)], "the VF's own filter still changes"
