"""From facts to a plan: which mode, which VFs, who chooses in the guest."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fakes import facts as f
from fakes.samples import GUEST, MAC
from vferry.model.guest import GuestLink, Nic, VfRef
from vferry.model.host import NO_MAC, Attachment, AttachmentKind, Bond, Bridge, Network, VfSettings
from vferry.model.report import Phase
from vferry.network.modes import stages
from vferry.plan import attachments
from vferry.plan.facts import Facts
from vferry.plan.plan import Forwarded, GuestSide, NetworkMode, Standby, TransferPlan

BR0 = Standby(on=Attachment(device="br0"), uplink="pf0")


def test_the_plan_of_a_guest_with_a_vf() -> None:
    plan = f.planned()
    (move,) = plan.moves
    assert (plan.operation, plan.guest, plan.uuid, plan.source, plan.destination) == (
        "op-1",
        GUEST,
        "u-1",
        "host1",
        "host2",
    )
    assert plan.network_mode == "switch"
    assert plan.reason == "its agent moves addresses and routes"
    assert plan.plain_macs == ("52:54:00:00:aa:01",)
    assert (move.mac, move.network, move.guest_side, move.mtu) == (MAC, "lan", GuestSide.ADDRESSES, 9000)
    assert (move.source, move.source_alias) == (VfRef(pf="pf0", index=1, address=f.VF), "hostdev0")
    assert move.destination == VfRef(pf="pf0", index=0, address="0000:01:10.0")
    assert (move.source_standby, move.destination_standby) == (BR0, BR0)
    assert (move.standby_alias, move.standby_stays) == ("ua-vferry-standby-525400123456", False)
    assert "function='0x0'" in plan.persistent_xml.replace('"', "'")


def test_what_is_carried_is_all_but_the_mac() -> None:
    move = f.planned().moves[0]
    assert move.carried == structs.replace(f.SETTINGS, mac=None)
    assert structs.replace(move.carried, mac=move.mac) == move.source_settings


def test_a_guest_without_vfs_migrates_as_virtio() -> None:
    def without(facts: Facts) -> Facts:
        return f.guest(nics=facts.guest.nics[1:])(facts)

    plan = f.planned(without)
    assert (plan.network_mode, plan.moves, plan.reason) == ("virtio", (), "the guest has no VF")
    assert plan.plain_macs == ("52:54:00:00:aa:01",)
    assert plan.persistent_xml


def test_a_guest_with_a_bond_is_told_through_it() -> None:
    links = (
        GuestLink(name="bond0", mac=MAC, kind="bond"),
        GuestLink(name="ens1", mac=MAC, driver="virtio_net", master="bond0"),
        GuestLink(name="enp7s0", mac=MAC, driver="igbvf", master="bond0", mtu=1400),
    )
    own = Nic(mac=MAC, model="virtio", alias="net0", bridge="br0")

    def bonded(facts: Facts) -> Facts:
        return f.inside(links=links)(f.guest(nics=(*facts.guest.nics, own))(facts))

    move = f.planned(bonded).moves[0]
    assert (move.guest_side, move.mtu) == (GuestSide.BOND, 1400)


def test_a_standby_nic_of_the_guests_own_stays() -> None:
    def with_standby(facts: Facts) -> Facts:
        own = Nic(mac=MAC, model="virtio", alias="net0", bridge="br0")
        return f.guest(nics=(*facts.guest.nics, own))(facts)

    plan = f.planned(with_standby)
    assert (plan.moves[0].standby_alias, plan.moves[0].standby_stays) == ("net0", True)
    assert MAC not in plan.plain_macs


def test_the_filter_entry_of_a_nic_on_a_bridge_goes_along() -> None:
    mac = "52:54:00:00:00:77"
    plain = f.guest(nics=(Nic(mac=mac, model="virtio", alias="net0", bridge="br0"),))
    assert f.planned(plain).forwarded == ()

    def held_by_pf(facts: Facts) -> Facts:
        return f.pf("source", forwarding=(mac, "52:54:00:00:00:78"))(plain(facts))

    held = f.planned(held_by_pf).forwarded
    assert [(each.mac, each.source_uplink, each.destination_uplink) for each in held] == [(mac, "pf0", "pf0")]


def test_a_nic_that_stands_by_is_passed_and_one_in_the_dark_is_not() -> None:
    assert [each.mac for each in f.planned().forwarded] == [MAC]
    assert f.planned(mode=NetworkMode.DETACH).forwarded == ()


def test_wishes_are_followed() -> None:
    transfer = TransferPlan(policy="multifd", parallel=4, deadline_s=30)
    plan = f.planned(mode=NetworkMode.DETACH, transfer=transfer, unplug_timeout_s=5.0)
    assert (plan.network_mode, plan.reason) == ("detach", "detach was asked for")
    assert (plan.transfer, plan.unplug_timeout_s) == (transfer, 5.0)


def test_a_guest_that_does_not_answer_is_left_to_itself_when_that_is_accepted() -> None:
    move = f.planned(f.silent, accept_interruption=True).moves[0]
    assert (move.guest_side, move.mtu) == (GuestSide.HOTPLUG, 1500)


def test_the_networks_names_decide_not_those_of_their_pfs() -> None:
    def renamed(facts: Facts) -> Facts:
        inventory = facts.destination
        pf = structs.replace(
            inventory.pfs[0], name="enp9", vfs=tuple(structs.replace(vf, pf="enp9") for vf in inventory.pfs[0].vfs)
        )
        bridge = structs.replace(inventory.bridges[0], ports=("enp9",))
        networks = {"lan": Network(pf="enp9", bridge="br0")}
        return f.host("destination", pfs=(inventory.pfs[0], pf), bridges=(bridge,), networks=networks)(facts)

    move = f.planned(renamed).moves[0]
    assert (move.destination.pf, move.destination_standby) == ("enp9", structs.replace(BR0, uplink="enp9"))


def test_what_the_destinations_vf_had_is_kept_for_the_undo() -> None:
    settings = structs.replace(f.FRESH, mac="00:00:00:00:00:00", vlan=7)
    assert f.planned(f.vf("destination", 0, settings=settings)).moves[0].destination_before == settings


OTHER = structs.replace(f.FRESH, spoof_check=False)
UNSAID = VfSettings(mac=MAC, vlan=42, trust=True)


@pytest.mark.parametrize(
    ("settings", "others", "wiped"),
    [
        (f.SETTINGS, [{}, {}], f.FRESH),
        (f.SETTINGS, [{"settings": OTHER}, {"settings": OTHER}], OTHER),
        (f.SETTINGS, [{"settings": OTHER}, {}], f.FRESH),
        (f.SETTINGS, [], f.FRESH),
        (f.SETTINGS, [{"settings": structs.replace(OTHER, trust=True)}], f.FRESH),
        (f.SETTINGS, [{"settings": OTHER, "claim": "op-9"}], f.FRESH),
        (f.SETTINGS, [{"settings": OTHER, "guest": "guest9"}], f.FRESH),
        (
            structs.replace(f.SETTINGS, spoof_check=None),
            [{"settings": OTHER}],
            structs.replace(OTHER, spoof_check=None),
        ),
        (UNSAID, [{}], VfSettings(mac=NO_MAC, vlan=0, trust=False)),
        (VfSettings(), [], VfSettings(mac=NO_MAC)),
    ],
)
def test_a_vf_is_given_back_as_its_driver_makes_it(
    settings: VfSettings, others: list[dict[str, object]], wiped: VfSettings
) -> None:
    """In what its driver says, with the spoof check of those VFs that nobody has touched."""
    facts = f.sample()
    used, free = facts.source.pfs[0].vfs[1], facts.source.pfs[0].vfs[2]
    vfs = [structs.replace(free, index=2 + at, **changes) for at, changes in enumerate(others)]
    pf = f.pf("source", vfs=(structs.replace(used, settings=settings), *vfs))(facts).source.pfs[0]
    assert pf.wiped(pf.vfs[0]) == wiped
    planned = f.planned(f.pf("source", vfs=pf.vfs), mode=NetworkMode.DETACH)
    assert planned.moves[0].source_wiped == wiped


@given(
    taken=st.lists(st.sampled_from(["free", "used", "claimed"]), min_size=0, max_size=8),
    wanted=st.integers(1, 4),
)
def test_a_vf_is_never_taken_twice(taken: list[str], wanted: int) -> None:
    """Not from another guest, not from another operation, and not by two NICs of this one."""

    def change(facts: Facts) -> Facts:
        base = f.inventory("host2", vfs=8).pfs[0].vfs[: len(taken)]
        marks = {"free": {}, "used": {"guest": "other"}, "claimed": {"claim": "op-9"}}
        vfs = tuple(structs.replace(vf, **marks[state]) for vf, state in zip(base, taken, strict=True))
        nics = tuple(
            Nic(
                mac=f"52:54:00:00:00:{at:02x}",
                model="hostdev",
                alias=f"hostdev{at}",
                vf=VfRef(pf="pf0", index=at, address=f.address(at)),
            )
            for at in range(wanted)
        )
        return f.both(f.pf("destination", vfs=vfs), f.guest(nics=nics), f.silent)(facts)

    assessment = f.found(change, accept_interruption=True)
    free = {f.address(at) for at, state in enumerate(taken) if state == "free"}
    if assessment.plan is None:
        assert {finding.code for finding in assessment.errors} == {"no-free-vf"}
        assert len(free) < wanted
    else:
        chosen = [move.destination.address for move in assessment.plan.moves]
        assert len(chosen) == len(set(chosen)) == wanted
        assert set(chosen) <= free


@pytest.mark.parametrize("mode", list(NetworkMode))
def test_planning_changes_no_facts(mode: NetworkMode) -> None:
    facts = f.sample()
    before = repr(facts)
    f.found(lambda _facts: facts, mode=mode)
    assert repr(facts) == before


SECOND = "52:54:00:12:34:99"
SECOND_VF = "0000:01:10.4"


def with_a_teamed_second(facts: Facts) -> Facts:
    """The guest has another VF, in a teaming pair."""
    nics = (
        Nic(mac=SECOND, model="hostdev", alias="vf2", vf=VfRef(pf="pf0", index=2, address=SECOND_VF), teamed_with="up"),
        Nic(mac=SECOND, model="virtio", alias="up", bridge="br0", teaming="persistent"),
    )
    links = (
        GuestLink(name="eth1", mac=SECOND, driver="virtio_net"),
        GuestLink(name="enp8s0", mac=SECOND, driver="igbvf", master="eth1"),
    )
    inside = facts.guest_network.links if facts.guest_network else ()
    both = f.both(f.guest(nics=(*facts.guest.nics, *nics)), f.inside(links=(*inside, *links)))
    return f.vf("source", 2, settings=structs.replace(f.SETTINGS, vlan=0))(both(facts))


def with_a_plain_second(facts: Facts) -> Facts:
    """The guest has another VF, by itself."""
    nic = Nic(mac=SECOND, model="hostdev", alias="vf2", vf=VfRef(pf="pf0", index=2, address=SECOND_VF))
    inside = facts.guest_network.links if facts.guest_network else ()
    links = (*inside, GuestLink(name="enp8s0", mac=SECOND, driver="igbvf"))
    both = f.both(f.guest(nics=(*facts.guest.nics, nic)), f.inside(links=links))
    return f.vf("source", 2, settings=structs.replace(f.SETTINGS, mac=SECOND))(both(facts))


def test_each_nic_has_a_mode_of_its_own_and_why() -> None:
    plan = f.planned(with_a_teamed_second)
    assert [move.mode for move in plan.moves] == [NetworkMode.SWITCH, NetworkMode.FAILOVER]
    assert plan.network_mode == "switch+failover"
    assert plan.reason == (
        f"{MAC}: switch, its agent moves addresses and routes; "
        f"{SECOND}: failover, its net_failover driver chooses the NIC"
    )


def test_a_mode_that_is_asked_for_is_that_of_every_nic() -> None:
    plan = f.planned(with_a_plain_second, mode=NetworkMode.DETACH)
    assert [move.mode for move in plan.moves] == [NetworkMode.DETACH, NetworkMode.DETACH]
    assert (plan.network_mode, plan.reason) == ("detach", "detach was asked for")


@pytest.mark.parametrize("mode", [NetworkMode.DETACH, NetworkMode.SWITCH])
def test_a_mode_that_is_asked_for_is_refused_for_the_teaming_pair_among_the_nics(mode: NetworkMode) -> None:
    (refused,) = f.found(with_a_teamed_second, mode=mode).errors
    assert (refused.code, refused.remedy) == ("teaming", "Use --network failover")
    assert SECOND in refused.message


def test_each_nic_has_the_steps_of_its_mode() -> None:
    plan = f.planned(with_a_teamed_second)
    names = [step.name for step in stages(plan).all if step.phase in (Phase.TO_STANDBY, Phase.TO_VF)]
    switch, failover = ["plug-standby", "guest-to-standby", "filter-to-bridge", "unplug-vf"], ["unplug-vf"]
    assert names[:7] == [*switch, "pair-to-standby", "filter-also-to-bridge", *failover]
    assert names[7:] == [
        *("plug-vf", "guest-to-vf", "filter-to-vf", "unplug-standby"),
        *("filter-also-to-vf", "plug-vf", "filter-to-vf"),
    ]


INTERFACES = f.vf("destination", 2, interface="ens2v2")
MOVED = {MAC: Attachment(kind=AttachmentKind.MACVTAP, device="ens2v2")}


def with_a_macvtap_beside(facts: Facts) -> Facts:
    """The guest has a VF passed through, and a virtio NIC on another one's interface."""
    nic = Nic(
        mac=SECOND,
        model="virtio",
        alias="net2",
        vf=VfRef(pf="pf0", index=2, address=SECOND_VF),
        interface="pf0v2",
    )
    changed = f.both(INTERFACES, f.guest(nics=(*facts.guest.nics, nic)))(facts)
    return f.vf("source", 2, settings=f.SETTINGS, interface="pf0v2")(changed)


@pytest.mark.parametrize("mode", [None, NetworkMode.MACVTAP])
def test_a_nic_on_a_macvtap_gets_a_vf_that_has_an_interface(mode: NetworkMode | None) -> None:
    plan = f.planned(f.both(INTERFACES, f.on_macvtap), mode=mode)
    (move,) = plan.moves
    assert (plan.network_mode, plan.attached) == ("macvtap", MOVED)
    assert (move.destination.index, move.guest_side) == (2, GuestSide.NOBODY)
    assert (plan.source_vfs, plan.destination_vfs) == ((f.VF,), (f.address(2),))
    assert 'dev="ens2v2" mode="passthrough"' in plan.persistent_xml
    assert [each.interface for each in plan.announced if each.mac == MAC] == ["pf0"]


@pytest.mark.parametrize(("driver", "hidden"), [("igb", True), ("i40e", False)])
def test_its_mac_is_kept_from_the_vf_where_the_driver_is_known_to_take_that(driver: str, *, hidden: bool) -> None:
    (move,) = f.planned(f.both(INTERFACES, f.on_macvtap, f.pf("destination", driver=driver))).moves
    assert move.hidden == hidden
    assert not f.planned(f.pf("destination", driver=driver)).moves[0].hidden


def test_it_does_not_matter_whether_its_guest_answers() -> None:
    assert f.planned(f.both(INTERFACES, f.on_macvtap, f.silent)).network_mode == "macvtap"


def test_what_is_passed_through_leaves_the_vfs_with_an_interface_if_it_can() -> None:
    first = f.vf("destination", 0, interface="ens2v0")
    assert f.planned(first).moves[0].destination.index == 1
    rest = [f.vf("destination", at, guest="other") for at in (1, 2, 3)]
    assert f.planned(f.both(first, *rest)).moves[0].destination.index == 0


@pytest.mark.parametrize(
    ("mode", "modes"),
    [
        (None, "switch+macvtap"),
        (NetworkMode.MACVTAP, "switch+macvtap"),
        (NetworkMode.DETACH, "detach+macvtap"),
    ],
)
def test_a_macvtap_beside_a_vf_is_moved_in_its_own_way(mode: NetworkMode | None, modes: str) -> None:
    plan = f.planned(with_a_macvtap_beside, mode=mode)
    assert (plan.network_mode, plan.attached) == (modes, {SECOND: MOVED[MAC]})
    assert [move.destination.index for move in plan.moves] == [0, 2]


def test_modes_are_named_in_the_same_order_whatever_that_of_the_nics_is() -> None:
    def reversed_(facts: Facts) -> Facts:
        with_both = with_a_macvtap_beside(facts)
        return f.guest(nics=tuple(reversed(with_both.guest.nics)))(with_both)

    plan = f.planned(reversed_)
    assert [move.mode for move in plan.moves] == [NetworkMode.MACVTAP, NetworkMode.SWITCH]
    assert plan.network_mode == "switch+macvtap"


def test_a_macvtap_on_a_pf_is_put_on_that_of_the_same_network() -> None:
    def on_pf(facts: Facts) -> Facts:
        nic = Nic(mac=MAC, model="virtio", alias="net0", interface="pf0")
        return f.both(f.guest(nics=(nic,)), f.host("destination", bridges=()))(facts)

    plan = f.planned(on_pf)
    assert (plan.network_mode, plan.moves) == ("macvtap", ())
    assert plan.attached == {MAC: structs.replace(MOVED[MAC], device="pf0")}
    assert plan.reason == "its macvtap is put on another PF"


def test_a_macvtap_is_no_standby_nic() -> None:
    def beside(facts: Facts) -> Facts:
        other = Nic(mac=MAC, model="virtio", alias="net0", interface="eno1")
        return f.guest(nics=(facts.guest.nics[0], other))(facts)

    assert not f.planned(beside).moves[0].standby_stays


@pytest.mark.parametrize(
    ("nic", "rewired"),
    [
        (Nic(mac=MAC, model="virtio", alias="a", interface="pf0v1", vf=VfRef(pf="pf0", index=1, address=f.VF)), True),
        (Nic(mac=MAC, model="virtio", alias="a", interface="pf0"), True),
        (Nic(mac=MAC, model="virtio", alias="a", interface="eno1"), False),
        (Nic(mac=MAC, model="hostdev", alias="a", vf=VfRef(pf="pf0", index=1, address=f.VF)), False),
        (Nic(mac=MAC, model="virtio", alias="a", bridge="pf0"), False),
    ],
)
def test_what_is_put_on_another_interface_is_told_to_the_destination(nic: Nic, *, rewired: bool) -> None:
    facts = f.guest(nics=(nic,))(f.sample())
    assert attachments.rewired(facts.guest, facts.source, facts.destination) == ((MAC,) if rewired else ())


OVS = Attachment(kind=AttachmentKind.OPENVSWITCH, device="ovsbr0")
ON_OVS = f.host(
    "destination",
    networks={"lan": Network(pf="pf0", bridge="ovsbr0")},
    bridges=(Bridge(name="ovsbr0", kind=AttachmentKind.OPENVSWITCH, ports=("pf0",)),),
)


def test_a_standby_nic_is_on_what_each_host_has() -> None:
    plan = f.planned(ON_OVS)
    (move,) = plan.moves
    assert (move.source_standby.on, move.destination_standby.on) == (BR0.on, OVS)
    assert (plan.attached, move.standby_mtu) == ({MAC: OVS}, 9000)
    assert "ovsbr0" not in plan.persistent_xml, "the guest itself has no such NIC"


@pytest.mark.parametrize("change", [f.sample, lambda: ON_OVS(f.sample())], ids=["same", "other"])
def test_the_guests_own_nics_are_on_what_the_destination_has(change: Callable[[], Facts]) -> None:
    """Also where the bridge of the same name is another kind."""
    own = (("52:54:00:00:aa:02", "br0"), ("52:54:00:00:aa:01", "br9"))
    nics = tuple(Nic(mac=mac, model="virtio", alias=f"net{mac[-1]}", bridge=bridge) for mac, bridge in own)
    facts = f.guest(nics=nics)(change())
    br9 = Bridge(name="br9", kind=AttachmentKind.OPENVSWITCH)
    facts = f.host("destination", bridges=(*facts.destination.bridges, br9))(facts)
    there = {own[0][0]: OVS} if facts.destination.networks["lan"].bridge == "ovsbr0" else {}
    assert f.planned(lambda _: facts).attached == {**there, own[1][0]: structs.replace(OVS, device="br9")}


WITHOUT_BRIDGE = f.host("destination", networks={"lan": Network(pf="pf0")}, bridges=())


def test_a_network_without_a_bridge_has_macvtaps() -> None:
    plan = f.planned(WITHOUT_BRIDGE)
    (move,) = plan.moves
    assert move.destination_standby == Standby(on=structs.replace(MOVED[MAC], device="pf0"), uplink="pf0")
    assert (plan.attached, plan.network_mode) == ({MAC: move.destination_standby.on}, "switch")
    assert move.standby_mtu is None, "a NIC keeps what it says of its MTU when it moves"
    assert move.destination_standby.filtered is None


def test_a_guests_own_standby_nic_may_be_on_a_macvtap() -> None:
    def change(facts: Facts) -> Facts:
        standby = Nic(mac=MAC, model="virtio", alias="ua-standby", interface="pf0")
        sides = [f.host(side, networks={"lan": Network(pf="pf0")}, bridges=()) for side in ("source", "destination")]
        return f.both(f.guest(nics=(facts.guest.nics[0], standby)), *sides)(facts)

    plan = f.planned(change)
    assert (plan.moves[0].standby_alias, plan.moves[0].standby_stays) == ("ua-standby", True)
    assert (plan.network_mode, plan.attached) == ("switch", {MAC: structs.replace(MOVED[MAC], device="pf0")})


def bonded(facts: Facts) -> Facts:
    """The destination has two PFs in a bond, of which the first has no VF left."""
    first = structs.replace(facts.destination.pfs[0], vfs=())
    vfs = tuple(structs.replace(vf, pf="pf1") for vf in facts.destination.pfs[0].vfs)
    return f.host(
        "destination",
        networks={"lan": Network(pf="pf0", more_pfs=("pf1",), bridge="br0")},
        pfs=(first, structs.replace(first, name="pf1", vfs=vfs)),
        bonds=(Bond(name="bond0", mode="active-backup", ports=("pf0", "pf1"), mtu=9000),),
        bridges=(Bridge(name="br0", ports=("bond0",)),),
    )(facts)


def test_a_network_of_two_pfs_has_the_vfs_of_both_and_the_bond_as_its_way_out() -> None:
    plan = f.planned(bonded)
    (move,) = plan.moves
    assert (move.destination.pf, move.destination_standby) == ("pf1", structs.replace(BR0, uplink="bond0"))
    assert [each.interface for each in plan.announced if each.mac == MAC] == ["bond0"]
    dark = f.planned(bonded, mode=NetworkMode.DETACH)
    assert [each.interface for each in dark.announced if each.mac == MAC] == ["pf1"]


def test_the_entries_of_nics_behind_a_bond_go_along() -> None:
    mac = "52:54:00:00:aa:01"
    plan = f.planned(f.both(bonded, f.pf("source", forwarding=(mac,))))
    assert plan.forwarded == tuple(
        Forwarded(mac=each, source_uplink="pf0", destination_uplink="bond0") for each in (MAC, mac)
    )


def test_a_macvtap_needs_no_entry() -> None:
    assert f.planned(WITHOUT_BRIDGE).forwarded == (Forwarded(mac=MAC, source_uplink="pf0", destination_uplink=None),)
