"""A guest's NIC on a direct relay: which mode it gets, and what joins it to a VF of the destination."""

from xml.etree.ElementTree import canonicalize

import pytest
from msgspec import structs

from fakes import facts as f
from fakes.samples import MAC, definition
from vferry.host.api import Definition
from vferry.model.guest import Nic, VfRef
from vferry.model.host import AttachmentKind, Bridge, Network
from vferry.model.relay import RelayGround, RelayPort, RelayVf, SwitchAbilities
from vferry.plan import nics
from vferry.plan.facts import Facts
from vferry.plan.plan import GuestSide, NetworkMode

SECOND, SECOND_VF, THIRD = "52:54:00:12:34:57", f.address(2), f.address(3)
RELAY = NetworkMode.RELAY
THERE = structs.replace(
    f.PORT, vf=RelayVf(pf="pf0", index=0, address=f.address(0), trust=f.FRESH.trust, spoof_check=f.FRESH.spoof_check)
)


def with_second(nic: Nic) -> f.Change:
    """The guest has another NIC on a VF beside that on the relay, of whose VFs the source's relay has both."""

    def change(facts: Facts) -> Facts:
        vf = RelayVf(pf="pf0", index=2, address=SECOND_VF)
        ports = (f.PORT, RelayPort(guest=f.PORT.guest, mac=SECOND, socket="/run/second.sock", vf=vf))
        xml = definition(f.SOCKET, nic.socket or nic.interface or SECOND_VF, standby=False)
        changed = f.both(
            f.guest(nics=(*facts.guest.nics, nic)),
            f.host("source", relay=structs.replace(f.RELAY, ports=ports)),
            f.vf("source", 2, settings=structs.replace(f.SETTINGS, mac=SECOND), interface=nic.interface),
            f.vf("destination", 3, interface="ens2v3"),
        )(facts)
        return structs.replace(changed, definition=Definition(live=xml, persistent=xml))

    return f.both(f.on_relay, change)


ON_VF = Nic(mac=SECOND, model="virtio", alias="net2", vf=VfRef(pf="pf0", index=2, address=SECOND_VF))
TWO = with_second(structs.replace(ON_VF, socket="/run/second.sock"))
BESIDE_MACVTAP = with_second(structs.replace(ON_VF, interface="pf0v2"))
BESIDE_VF = with_second(structs.replace(ON_VF, model="hostdev"))


@pytest.mark.parametrize("mode", [None, RELAY])
def test_a_nic_on_a_relay_is_joined_to_a_vf_of_the_destination(mode: NetworkMode | None) -> None:
    assessment = f.found(f.on_relay, mode=mode)
    assert assessment.findings == ()
    plan = assessment.plan
    assert plan is not None
    (move,) = plan.moves
    assert (plan.network_mode, move.mode, move.guest_side) == ("relay", RELAY, GuestSide.NOBODY)
    assert move.relay_port == THERE
    assert (plan.source_vfs, plan.destination_vfs) == ((f.VF,), (f.address(0),))
    assert (move.plugged, move.stands_by, move.dark, move.plugs_standby) == (False, False, False, False)
    assert [(each.mac, each.interface, each.uplink) for each in plan.announced if each.mac == MAC] == [
        (MAC, "pf0", None)
    ]
    assert plan.reason == (
        "relay was asked for" if mode else "it keeps its virtio NIC, which the relay there joins to another VF"
    )


def test_its_definition_is_left_as_it_is() -> None:
    facts = f.on_relay(f.sample())
    plan = f.planned(f.on_relay)
    assert canonicalize(plan.persistent_xml) == canonicalize(facts.definition.persistent)
    assert (plan.attached, plan.migrated_vfs) == ({}, {})


def test_it_does_not_matter_whether_its_guest_answers() -> None:
    assert f.planned(f.both(f.on_relay, f.silent)).network_mode == "relay"


def test_its_mtu_is_the_port_s() -> None:
    (move,) = f.planned(f.both(f.on_relay, f.silent)).moves
    assert move.relay_port is not None
    assert move.relay_port.mtu == f.PORT.mtu


def test_a_pf_that_does_not_take_its_frames_is_refused() -> None:
    (refused,) = f.found(f.both(f.on_relay, f.pf("destination", mtu=1500))).errors
    assert (refused.code, refused.message) == (
        "relay-mtu",
        f"No PF of the relay of host2 takes 9000 bytes, which {MAC} may send: pf0 passes 1500",
    )
    assert "ip link set dev pf0 mtu 9000" in refused.remedy


def test_one_that_takes_just_these_does() -> None:
    assert f.planned(f.both(f.on_relay, f.pf("destination", mtu=9000))).moves[0].relay_port == THERE


def test_a_pf_that_does_not_take_its_frames_is_left_out() -> None:
    def first_narrow(facts: Facts) -> Facts:
        facts = two_pfs(facts, uplinks=("pf0", "pf1"))
        first, second = facts.destination.pfs
        return f.host("destination", pfs=(structs.replace(first, mtu=1500), second))(facts)

    assert f.planned(f.both(f.on_relay, first_narrow)).moves[0].destination.pf == "pf1"


@pytest.mark.parametrize(
    ("change", "index"),
    [
        (f.vf("destination", 0, guest="other"), 1),
        (f.vf("destination", 0, claim="op-9"), 1),
        (f.vf("destination", 0, interface="ens2v0"), 1),
        (f.vf("destination", 0, iommu_group=None), 1),
        (f.both(*(f.vf("destination", at, interface=f"ens2v{at}") for at in range(4))), 0),
    ],
)
def test_it_gets_a_free_vf_one_without_an_interface_if_there_is_such(change: f.Change, index: int) -> None:
    (move,) = f.planned(f.both(f.on_relay, change)).moves
    assert move.relay_port is not None
    assert move.relay_port.vf is not None
    assert (move.destination.index, move.relay_port.vf.index) == (index, index)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (f.both(*(f.vf("destination", at, guest="other") for at in range(4))), "relay-no-vf"),
        (f.both(*(f.vf("destination", at, iommu_group=None) for at in range(4))), "relay-no-iommu-group"),
    ],
)
def test_without_a_vf_for_it_that_is_said(change: f.Change, code: str) -> None:
    (refused,) = f.found(f.both(f.on_relay, change)).errors
    assert refused.code == code
    assert refused.remedy


def two_pfs(facts: Facts, *, uplinks: tuple[str, ...], full: bool = False) -> Facts:
    """The destination's network has two PFs, each with its VFs; those of the first are taken, if `full`."""
    (first,) = facts.destination.pfs
    mine = tuple(structs.replace(vf, guest="other" if full else None) for vf in first.vfs)
    others = tuple(structs.replace(vf, pf="pf1", address=vf.address.replace("0000:01", "0000:02")) for vf in first.vfs)
    return f.host(
        "destination",
        relay=structs.replace(f.RELAY, uplinks=uplinks),
        networks={"lan": Network(pf="pf0", more_pfs=("pf1",), bridge="br0"), "wan": Network(pf="pf2")},
        pfs=(structs.replace(first, vfs=mine), structs.replace(first, name="pf1", vfs=others)),
    )(facts)


@pytest.mark.parametrize(
    ("uplinks", "full", "pf"),
    [
        (("pf0",), False, "pf0"),
        (("pf1",), False, "pf1"),
        (("pf2", "pf1"), False, "pf1"),
        (("pf0", "pf1"), False, "pf0"),
        (("pf0", "pf1"), True, "pf1"),
    ],
)
def test_the_vf_is_of_an_uplink_of_the_relay_on_the_guest_s_network(
    uplinks: tuple[str, ...], pf: str, *, full: bool
) -> None:
    (move,) = f.planned(f.both(f.on_relay, lambda facts: two_pfs(facts, uplinks=uplinks, full=full))).moves
    assert move.relay_port is not None
    assert move.relay_port.vf is not None
    assert (move.destination.pf, move.relay_port.vf.pf) == (pf, pf)


def test_a_pf_that_is_down_is_left_out() -> None:
    def first_down(facts: Facts) -> Facts:
        facts = two_pfs(facts, uplinks=("pf0", "pf1"))
        first, second = facts.destination.pfs
        return f.host("destination", pfs=(structs.replace(first, up=False), second))(facts)

    assert f.planned(f.both(f.on_relay, first_down)).moves[0].destination.pf == "pf1"


def test_a_relay_on_another_network_is_none() -> None:
    (refused,) = f.found(f.both(f.on_relay, lambda facts: two_pfs(facts, uplinks=("pf2",)))).errors
    assert refused.code == "relay-missing"
    assert refused.message == f"{MAC} needs a direct relay, and host2 has none on lan"
    assert "vferry relay enable host2 --uplink pf0,pf1" in refused.remedy


def test_two_nics_get_two_vfs() -> None:
    plan = f.planned(TWO)
    assert plan.network_mode == "relay"
    ports = [move.relay_port for move in plan.moves if move.relay_port]
    assert [(port.mac, port.socket, port.joined_to) for port in ports] == [
        (MAC, f.SOCKET, "VF 0 of pf0"),
        (SECOND, "/run/second.sock", "VF 1 of pf0"),
    ]


@pytest.mark.parametrize(
    ("change", "mode", "modes"),
    [
        (BESIDE_MACVTAP, None, "macvtap+relay"),
        (BESIDE_MACVTAP, NetworkMode.MACVTAP, "macvtap+relay"),
        (BESIDE_MACVTAP, RELAY, "macvtap+relay"),
        (BESIDE_VF, NetworkMode.DETACH, "detach+relay"),
        (BESIDE_VF, RELAY, "switch+relay"),
    ],
)
def test_one_beside_others_is_moved_in_its_own_way(change: f.Change, mode: NetworkMode | None, modes: str) -> None:
    assert f.planned(change, mode=mode, accept_interruption=True).network_mode == modes


@pytest.mark.parametrize(
    ("change", "instead"),
    [(f.on_relay, "relay"), (TWO, "relay"), (f.on_macvtap, "macvtap"), (BESIDE_MACVTAP, "auto"), (BESIDE_VF, "auto")],
)
def test_whose_guest_does_not_go_as_virtio_alone(change: f.Change, instead: str) -> None:
    (refused,) = f.found(change, mode=NetworkMode.VIRTIO).errors
    assert (refused.code, refused.remedy) == ("has-vf", f"Use --network {instead}")


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        (NetworkMode.SWITCH, "no-vf"),
        (NetworkMode.DETACH, "no-vf"),
        (NetworkMode.FAILOVER, "no-vf"),
        (NetworkMode.VFIO, "no-vf"),
        (NetworkMode.MACVTAP, "no-macvtap"),
        (NetworkMode.VIRTIO, "has-vf"),
    ],
)
def test_another_mode_is_none_for_it(mode: NetworkMode, code: str) -> None:
    assert [finding.code for finding in f.found(f.on_relay, mode=mode).errors] == [code]


def ground(source: str | None, destination: str | None) -> f.Change:
    said = {"source": source, "destination": destination}
    switches = {which: SwitchAbilities(dpdk_version=version) for which, version in said.items()}
    return f.both(*(f.host(which, relay_ground=RelayGround(switch=each)) for which, each in switches.items()))


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        (f.both(f.on_relay, ground("DPDK 24.11.1", "DPDK 22.11.4")), True),
        (f.both(f.on_relay, ground("DPDK 24.11.1", "DPDK 24.11.1")), False),
        (f.both(f.on_relay, ground("DPDK 24.11.1", None)), False),
        (ground("DPDK 24.11.1", "DPDK 22.11.4"), False),
        (f.on_relay, False),
    ],
)
def test_relays_of_another_dpdk_are_warned_of(change: f.Change, *, warned: bool) -> None:
    findings = f.found(change).findings
    assert [finding.code for finding in findings] == (["other-dpdk"] if warned else [])


@pytest.mark.parametrize(
    ("change", "which", "codes"),
    [
        (f.on_relay, "destination", ["relay-switch-silent"]),
        (f.on_switch, "destination", ["relay-switch-silent"]),
        (f.on_relay, "source", []),
        (f.both(), "destination", []),
    ],
)
def test_a_relay_whose_switch_is_silent_takes_no_guest(change: f.Change, which: str, codes: list[str]) -> None:
    silent = f.host(which, relay_ground=RelayGround(switch=SwitchAbilities(answers=False)))
    assert [finding.code for finding in f.found(f.both(change, silent)).errors] == codes


IN_SWITCHDEV = {"eswitch": "switchdev"}


@pytest.mark.parametrize(
    ("which", "codes"),
    [
        ((), []),
        (("source",), ["representor-left"]),
        (("destination",), ["representor"]),
        (("source", "destination"), ["representor"]),
    ],
)
def test_what_representors_do_is_for_others_to_see_to(which: tuple[str, ...], codes: list[str]) -> None:
    assessment = f.found(f.both(f.on_relay, *(f.pf(each, **IN_SWITCHDEV) for each in which)))
    assert assessment.plan is not None
    assert [finding.code for finding in assessment.findings] == codes
    assert all(MAC in finding.message and "VF" in finding.message and finding.remedy for finding in assessment.findings)


def test_the_representor_is_that_of_the_vf_that_it_gets() -> None:
    (note,) = f.found(
        f.both(f.on_relay, f.pf("destination", **IN_SWITCHDEV), f.vf("destination", 0, guest="b"))
    ).findings
    assert "pf0 of host2" in note.message
    assert "VF 1" in note.message


@pytest.mark.parametrize(("ports", "place"), [(("uplink0",), "in no bridge"), (("uplink0", "eth7"), "in br-ex")])
def test_the_representor_is_named_and_the_bridge_that_it_is_in(ports: tuple[str, ...], place: str) -> None:
    bridge = Bridge(name="br-ex", kind=AttachmentKind.OPENVSWITCH, ports=ports)
    there = f.both(f.vf("destination", 0, representor="eth7"), f.host("destination", bridges=(bridge,)))
    (note,) = f.found(f.both(f.on_relay, f.pf("destination", **IN_SWITCHDEV), there)).findings
    assert f"the representor of VF 0, eth7 {place}, decides" in note.message
    assert "dev eth7 " in note.remedy


def test_no_representor_is_spoken_of_where_its_nic_is_on_no_direct_relay() -> None:
    switchdev = f.both(f.pf("source", **IN_SWITCHDEV), f.pf("destination", **IN_SWITCHDEV))
    assert f.found(switchdev).findings == ()
    assert f.found(f.both(f.on_switch, switchdev)).findings == ()


def offloading(source: str, destination: str) -> f.Change:
    said = {"source": source, "destination": destination}
    switches = {which: SwitchAbilities(settings={"hw-offload": value}) for which, value in said.items()}
    return f.both(*(f.host(which, relay_ground=RelayGround(switch=each)) for which, each in switches.items()))


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (f.both(f.on_relay, offloading("true", "false")), ["no-offload"]),
        (f.both(f.on_switch, offloading("true", "false")), ["no-offload"]),
        (f.both(f.on_relay, offloading("true", "true")), []),
        (f.both(f.on_relay, offloading("false", "true")), []),
        (offloading("true", "false"), []),
    ],
)
def test_where_nothing_is_offloaded_any_more_that_is_said(change: f.Change, codes: list[str]) -> None:
    assert [finding.code for finding in f.found(change).findings] == codes


def test_what_vhost_net_lacks_is_nothing_to_it() -> None:
    offers = f.both(f.host("source", vhost_features=1 << 40), f.host("destination", vhost_features=0))
    with_one = f.found(f.both(f.on_relay, offers)).findings
    assert [finding.code for finding in with_one] == ["vhost-lacks"], "of its other NIC"
    assert MAC not in with_one[0].message
    alone = f.both(f.on_relay, offers, lambda facts: f.guest(nics=facts.guest.nics[:1])(facts))
    assert f.found(alone).findings == ()


@pytest.mark.parametrize("relayed", [(), (MAC,), (MAC, SECOND)])
def test_sockets_of_no_relay_stay_behind(relayed: tuple[str, ...]) -> None:
    live = definition(f.SOCKET, "/run/second.sock", standby=False).replace(MAC, MAC.upper())
    found = list(nics.about(live, "host2", relayed, accepted=True))
    assert [finding.message.split()[0] for finding in found] == [mac for mac in (MAC, SECOND) if mac not in relayed]
