"""What stands in the way of moving a running guest's NIC, each with what to do about it; and what is planned."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from fakes.clock import run_virtually
from fakes.codes import codes_of
from fakes.nic_moves import ALIAS, BASE, CASES, SOCKET, NicCase, make_fleet, make_plan
from fakes.samples import GUEST, MAC, SOURCE
from fakes.world import NETWORK
from vferry.controller.guest_nic import read_facts
from vferry.host.api import Announce, Definition, PlugRelayed, PlugStandby, ReadDefinition, ShowGuest, TakeInventory
from vferry.model.guest import GuestAddress, GuestLink, GuestState, Nic, VfRef
from vferry.model.host import Bridge, Claim, Inventory
from vferry.model.relay import RelayPort, RelayVf, SwitchPlace
from vferry.network.nic import stages
from vferry.plan.facts import Facts, Severity
from vferry.plan.nic_plan import NicAssessment, NicLeg, NicTarget
from vferry.plan.plan import GuestSide
from vferry.plan.running_nic import assess

VF, RELAY, VIRTIO = NicTarget.VF, NicTarget.RELAY, NicTarget.VIRTIO
Change = Callable[[Facts], Facts]


def facts_of(case: NicCase) -> Facts:
    async def read() -> Facts:
        host = make_fleet(case).host(SOURCE, "nobody")
        inventory = await host.call(TakeInventory())
        guest = await host.call(ShowGuest(guest=GUEST))
        return await read_facts(host, inventory, guest, await host.call(ReadDefinition(guest=GUEST)))

    return run_virtually(read())


def found(of: NicTarget, to: NicTarget, change: Change = lambda facts: facts) -> NicAssessment:
    return assess(change(facts_of(NicCase(of, to))), MAC, to, "nic-525400123456-1")


def guest(**values: object) -> Change:
    return lambda facts: replace(facts, guest=replace(facts.guest, **values))


def nic(**values: object) -> Change:
    return lambda facts: guest(nics=(replace(facts.guest.nics[0], **values),))(facts)


def host(**values: object) -> Change:
    return lambda facts: replace(facts, source=replace(facts.source, **values))


def pf(**values: object) -> Change:
    return lambda facts: host(pfs=(replace(facts.source.pfs[0], **values),))(facts)


def xml(old: str, new: str, *, live: bool = True, persistent: bool = True) -> Change:
    def change(facts: Facts) -> Facts:
        said = facts.definition
        assert said.live is not None
        assert old in said.live
        return replace(
            facts,
            definition=Definition(
                live=said.live.replace(old, new) if live else said.live,
                persistent=said.persistent.replace(old, new) if persistent else said.persistent,
            ),
        )

    return change


def links(*found: GuestLink, **values: object) -> Change:
    """The guest shows these beside its own, which is changed."""

    def change(facts: Facts) -> Facts:
        assert facts.guest_network is not None
        (own,) = facts.guest_network.links
        return replace(facts, guest_network=replace(facts.guest_network, links=(replace(own, **values), *found)))

    return change


def silent(facts: Facts) -> Facts:
    return replace(facts, guest_network=None, guest_silence="its agent does not answer")


def joined(*ports: RelayPort) -> Change:
    """What the relay joins."""

    def change(facts: Facts) -> Facts:
        assert facts.source.relay is not None
        return host(relay=replace(facts.source.relay, ports=ports))(facts)

    return change


def at_ovns_port(facts: Facts) -> Facts:
    """It is a port of OVN's on a switched relay."""
    place = SwitchPlace(bridge="br-int", logical_port="web-0", network=NETWORK)
    changed = joined(RelayPort(guest=GUEST, mac=MAC, socket=SOCKET, switch=place))(facts)
    return nic(vf=None, relay_bridge="br-int")(changed)


BEGUN = RelayPort(
    guest=GUEST,
    mac=MAC,
    socket="/run/vferry-relay/x.sock",
    vf=RelayVf(pf="pf0", index=2, address="0000:01:10.4"),
)
"""While the guest was off."""


def no_free_vf(facts: Facts) -> Facts:
    return pf(vfs=tuple(replace(vf, guest=vf.guest or "other") for vf in facts.source.pfs[0].vfs))(facts)


def one_free_vf(facts: Facts) -> Facts:
    """For the relay, and none to go by."""
    first, *rest = no_free_vf(facts).source.pfs[0].vfs
    return pf(vfs=(replace(first, guest=None), *rest))(facts)


BRIDGED = Nic(mac=MAC, model="virtio", alias=ALIAS, bridge="br0")
ANOTHER = Claim(operation="op-9", guest=GUEST)
VIRTIO_LINK = GuestLink(name="eth9", mac=MAC, driver="virtio_net")
REFUSED: list[tuple[str, NicTarget, NicTarget, Change]] = [
    ("nic-unknown", VF, RELAY, nic(mac="52:54:00:00:00:01")),
    ("nic-ambiguous", VF, VIRTIO, lambda facts: guest(nics=(*facts.guest.nics, BRIDGED))(facts)),
    ("guest-paused", VF, VIRTIO, guest(state=GuestState.PAUSED, pause_reason="migration")),
    ("guest-claimed", VF, VIRTIO, host(claims=(ANOTHER,))),
    ("guest-transient", VF, VIRTIO, guest(persistent=False)),
    ("nic-has-rules", VIRTIO, VF, xml("<model", "<filterref filter='clean-traffic'/><model")),
    ("nic-differs", VF, VIRTIO, xml('type="hostdev"', 'type="bridge"', live=False)),
    ("nic-differs", VIRTIO, VIRTIO, xml("type='bridge'", "type='hostdev'", live=False)),
    ("relay-left", VF, RELAY, joined(BEGUN)),
    ("teaming", VF, VIRTIO, nic(teaming="transient")),
    ("nic-not-moved", VIRTIO, VF, nic(model="e1000e")),
    ("nic-not-moved", VIRTIO, VF, nic(vf=VfRef(pf="pf0", index=3, address="0000:01:10.6"), interface="pf0v3")),
    ("nic-not-moved", RELAY, VF, at_ovns_port),
    ("memory-not-shared", VF, RELAY, xml('mode="shared"', 'mode="private"')),
    ("relay-missing", VF, RELAY, host(relay=None)),
    ("relay-unknown", RELAY, VF, joined()),
    ("relay-no-vf", VF, RELAY, no_free_vf),
    ("no-free-vf", RELAY, VF, no_free_vf),
    ("no-free-vf", VIRTIO, VF, no_free_vf),
    ("no-free-vf", RELAY, VIRTIO, no_free_vf),
    ("no-free-vf", VIRTIO, RELAY, one_free_vf),
    ("relay-no-vf", VIRTIO, RELAY, no_free_vf),
    ("network-unknown", VF, VIRTIO, host(networks={})),
    ("vf-unknown", VF, VIRTIO, lambda facts: nic(vf=VfRef(pf="pf0", index=9, address="0000:01:11.2"))(facts)),
    ("guest-not-reached", VF, VIRTIO, silent),
    ("guest-not-reached", VIRTIO, VF, links(driver="e1000e")),
    ("nic-not-alone", VF, VIRTIO, links(VIRTIO_LINK)),
    ("nic-not-alone", VIRTIO, VF, links(GuestLink(name="eth9", mac=MAC, driver="igbvf"))),
    ("not-in-a-bond", VF, VIRTIO, links(GuestLink(name="br0", mac=MAC, kind="bridge"), master="br0")),
    (
        "bond-chooses-none",
        VF,
        VIRTIO,
        links(GuestLink(name="bond0", mac=MAC, kind="bond", bond_mode="802.3ad"), master="bond0"),
    ),
    ("nic-under", VF, VIRTIO, links(GuestLink(name="eth-vf.5", mac=MAC, kind="vlan", over="eth-vf"))),
    ("no-free-port", VF, VIRTIO, xml('index="2"', 'index="1"')),
    ("nic-not-unpluggable", VF, VIRTIO, xml('bus="0x01" slot="0x00"', 'bus="0x00" slot="0x05"')),
    ("relay-mtu", VF, RELAY, links(mtu=9000)),
    ("mtu-too-small", RELAY, VF, links(mtu=9000)),
    ("standby-path-down", VF, VIRTIO, host(bridges=(Bridge(name="br0", ports=("pf0",), up=False),))),
    ("no-standby-path", VF, VIRTIO, host(bridges=())),
    ("no-standby-path", RELAY, VIRTIO, host(bridges=())),
    ("memory-not-shared", VIRTIO, RELAY, xml("mode='shared'", "mode='private'")),
]


@pytest.mark.parametrize(("code", "of", "to", "change"), REFUSED)
def test_what_stands_in_the_way_is_said_with_what_to_do(
    code: str, of: NicTarget, to: NicTarget, change: Change
) -> None:
    assessed = found(of, to, change)
    assert assessed.plan is None
    assert code in [each.code for each in assessed.errors]
    for each in assessed.errors:
        assert each.remedy
        assert not each.message.endswith(".")
        assert "--network" not in each.remedy, "there is no such option here"
        assert "--accept-interruption" not in each.remedy


@pytest.mark.parametrize(("of", "to"), [(VF, RELAY), (VIRTIO, RELAY), (RELAY, VF)])
def test_its_representor_is_for_others_to_see_to(of: NicTarget, to: NicTarget) -> None:
    codes = [each.code for each in found(of, to, pf(eswitch="switchdev")).findings]
    assert codes.count("representor") == (to is RELAY)


def test_every_code_is_tested() -> None:
    of_others = {"relay-not-switched", "port-differs"}
    tested = {row[0] for row in REFUSED} | {"nic-there", "lease-not-renewed", "nic-in-chain"} | of_others
    assert codes_of({"running_nic", "nic_slots", "nic_place"}) <= tested


@pytest.mark.parametrize("of", NicTarget)
def test_what_is_so_already_needs_no_step(of: NicTarget) -> None:
    assessed = found(of, of)
    assert assessed.plan is not None
    assert (assessed.plan.move, assessed.plan.steps) == (None, ())
    assert [each.code for each in assessed.findings] == ["nic-there"]


def test_what_somebody_else_has_claimed_is_not_taken_and_what_is_ones_own_is() -> None:
    """A plan that was begun is made again alike."""
    case = CASES[1]
    plan = make_plan(make_fleet(case), case)

    def own(inventory: Inventory) -> Inventory:
        vfs = (replace(vf, claim=plan.operation) if vf.address in plan.vfs else vf for vf in inventory.pfs[0].vfs)
        claims = (Claim(operation=plan.operation, guest=GUEST, vfs=plan.vfs, slot=False),)
        return replace(inventory, pfs=(replace(inventory.pfs[0], vfs=tuple(vfs)),), claims=claims)

    facts = facts_of(case)
    assert assess(replace(facts, source=own(facts.source)), MAC, case.to, plan.operation).plan == plan


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plan_names_what_goes_where(case: NicCase) -> None:
    plan = make_plan(make_fleet(case), case)
    move = plan.move
    assert move is not None
    first, last = move.legs[0], move.legs[-1]
    assert [leg.to for leg in move.legs] == ([case.to] if VF in (case.of, case.to) else [VF, case.to])
    assert (first.swap.side, first.swap.contested) == (case.side, case.manager is not None)
    aliases = first.swap.vf_aliases if case.of is VF else first.swap.virtio_aliases
    assert aliases[0] == ALIAS
    assert aliases[-1].startswith("ua-vferry-")
    for leg, on in ((first, case.of), (last, case.to)):
        if on is not VF:
            assert_virtio(leg, case, on)
        assert leg.settings.mac is leg.swap.settings.mac is None
    assert plan.vfs == tuple(sorted({each.address for leg in move.legs for each in (leg.swap.vf, leg.joined) if each}))


def assert_virtio(leg: NicLeg, case: NicCase, on: NicTarget) -> None:
    """The virtio NIC, and whose filter has the MAC where it is used."""
    swap = leg.swap
    assert isinstance(swap.virtio, PlugRelayed) == (on is RELAY) == (leg.port is not None)
    assert (swap.relay_vf is not None, swap.switch) == (
        (False, "relay0") if on is RELAY and case.switched else (on is RELAY, None)
    )
    assert swap.filtered == ("pf0" if isinstance(swap.virtio, PlugStandby) and case.told else None)


@pytest.mark.parametrize("case", [case for case in CASES if VF not in (case.of, case.to)], ids=str)
def test_the_vf_that_it_only_goes_by_is_one_and_nobodys(case: NicCase) -> None:
    """It is plugged and unplugged under one name, and kept quiet about once."""
    move = make_plan(make_fleet(case), case).move
    assert move is not None
    there, on = move.legs
    assert there.swap.vf == on.swap.vf
    assert there.swap.vf_aliases == on.swap.vf_aliases
    assert not on.swap.contested
    assert on.swap.vf.address not in {leg.joined.address for leg in move.legs if leg.joined}
    assert set(there.swap.virtio_aliases).isdisjoint(on.swap.virtio_aliases)
    assert (on.vf_before, on.vf_wiped) == (there.vf_before, there.vf_wiped)


def test_what_a_switch_does_not_do_is_said() -> None:
    case = NicCase(VF, RELAY, switched=True)
    assessed = assess(facts_of(case), MAC, RELAY, "nic-1")
    assert [(each.code, each.severity) for each in assessed.findings] == [("relay-unchecked", Severity.WARNING)]
    tall = assess(links(mtu=9000)(facts_of(case)), MAC, RELAY, "nic-1")
    assert [each.code for each in tall.errors] == ["mtu-too-small"]


def test_who_goes_to_another_pf_by_a_switch_is_announced() -> None:
    """The switches outside had it at the PF of its VF."""
    case = NicCase(VF, RELAY, switched=True)
    facts = facts_of(case)
    own, uplink = facts.source.pfs[0].vfs[1], facts.source.pfs[0].vfs[3]
    first = replace(facts.source.pfs[0], vfs=(own,))
    second = replace(facts.source.pfs[0], name="pf1", vfs=(replace(uplink, pf="pf1"),))
    networks = {NETWORK: replace(facts.source.networks[NETWORK], more_pfs=("pf1",))}
    plan = assess(host(pfs=(first, second), networks=networks)(facts), MAC, RELAY, "nic-1").plan
    assert plan is not None
    assert plan.move is not None
    assert plan.move.swap.uplink == "pf1"
    (filters,) = (step for step in stages(plan.move).before if step.name == "filter-to-relay")
    assert [each.interface for each in filters.apply if isinstance(each, Announce)] == ["pf1"]
    assert [each.interface for each in filters.undo if isinstance(each, Announce)] == ["pf0"]


def test_a_nic_of_a_number_of_its_own_gives_it_to_no_other_while_it_is_there() -> None:
    """QEMU takes an acpi-index once."""
    for of, expected in ((VF, 7), (VIRTIO, None)):
        plan = found(of, VIRTIO if of is VF else VF, nic(acpi_index=7)).plan
        assert plan is not None
        assert plan.move is not None
        assert plan.move.swap.acpi_index == expected


def test_what_configures_the_guest_is_told_of() -> None:
    assert [each.code for each in found(VF, VIRTIO).findings] == []
    leased = GuestAddress(address="192.0.2.7", prefix=24, family="inet", dynamic=True)
    for of, to in ((VF, VIRTIO), (VIRTIO, VF)):

        def managed(facts: Facts) -> Facts:
            facts = links(addresses=(leased,))(facts)
            assert facts.guest_network is not None
            return replace(facts, guest_network=replace(facts.guest_network, configured_by="NetworkManager"))

        assessed = found(of, to, managed)
        assert [(each.code, each.severity) for each in assessed.findings] == [
            ("configured-by", Severity.INFO),
            ("lease-not-renewed", Severity.WARNING),
        ]
        assert assessed.plan is not None


def test_a_lease_of_a_client_that_keeps_to_the_old_nic_is_warned_of() -> None:
    leased = GuestAddress(address="192.0.2.7", prefix=24, family="inet", dynamic=True)
    for of, to in ((VF, VIRTIO), (VIRTIO, VF)):
        assessed = found(of, to, links(addresses=(leased,)))
        assert [(each.code, each.severity) for each in assessed.findings] == [("lease-not-renewed", Severity.WARNING)]


def test_a_lone_virtio_nic_in_a_bond_goes_by_that() -> None:
    in_bond = links(GuestLink(name="bond0", mac=MAC, kind="bond", bond_mode="active-backup"), master="bond0")
    plan = found(VIRTIO, VF, in_bond).plan
    assert plan is not None
    assert plan.move is not None
    assert plan.move.swap.side is GuestSide.BOND


def test_slots_of_a_conventional_bus_all_take_and_give() -> None:
    facts = facts_of(CASES[0])
    assert "pc-q35" in BASE
    conventional = xml("pc-q35-9.2", "pc-i440fx-9.2")
    full = xml('index="2"', 'index="1"')
    assert assess(full(conventional(facts)), MAC, VIRTIO, "nic-1").plan is not None
