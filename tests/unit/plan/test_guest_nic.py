"""A NIC of a guest that is off goes from anything to anything: each way has its way back, or a reason."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from fakes.codes import codes_of
from fakes.relay import HOST, on_ground, with_pf
from vferry.host.api import Define, JoinRelay, LeaveRelay, Operation, SetForwarding, SetVf
from vferry.model.guest import Guest, GuestState, Nic, VfRef
from vferry.model.host import NO_MAC, Bridge, Inventory, Network, VfSettings
from vferry.model.relay import Relay, RelayKind, RelayPort, RelayState, RelayVf
from vferry.plan.guest_nic import assess
from vferry.plan.nic_definition import on_bridge, on_relay, on_vf
from vferry.plan.nic_plan import NicAssessment, NicTarget

MAC = "52:54:00:12:34:56"
VF = HOST.pfs[0].vfs[1]
REF = VfRef(pf=VF.pf, index=VF.index, address=VF.address)
OPERATION = "nic-525400123456-1"
SOCKET = "/run/vferry-relay/525400123456.sock"
OWN = RelayVf(pf=VF.pf, index=VF.index, address=VF.address, driver="vfio-pci")
PORT = RelayPort(guest="web", mac=MAC, socket=SOCKET, vf=OWN)
RELAY = Relay(
    operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.DIRECT, uplinks=("pf0",), cores=(7,), ports=()
)
ON = VfSettings(mac=MAC, vlan=42, trust=True, spoof_check=False)
BRIDGED = (
    f"<domain><name>web</name><devices><interface type='bridge'><mac address='{MAC}'/></interface></devices></domain>"
)
BASE = replace(
    HOST,
    networks={"a": Network(pf="pf0", bridge="br0", more_pfs=("pf1",)), "b": Network(pf="pf2")},
    bridges=(Bridge(name="br0", ports=("pf0",)),),
    relay=RELAY,
)


def used(host: Inventory, settings: VfSettings = ON) -> Inventory:
    vfs = tuple(replace(vf, guest="web", settings=settings) if vf == VF else vf for vf in host.pfs[0].vfs)
    return with_pf(host, "pf0", vfs=vfs)


def guest(nic: Nic, **more: object) -> Guest:
    return Guest(name="web", uuid="u", host="host1", nics=(nic,), **{"state": GuestState.OFF, **more})  # type: ignore[arg-type]


NICS = {
    NicTarget.VF: Nic(mac=MAC, model="hostdev", alias="", vf=REF),
    NicTarget.RELAY: Nic(mac=MAC, model="virtio", alias="", vf=REF, socket=SOCKET),
    NicTarget.VIRTIO: Nic(mac=MAC, model="virtio", alias="", bridge="br0"),
}
XML = {
    NicTarget.VF: on_vf(BRIDGED, MAC, VF.address, 42),
    NicTarget.RELAY: on_relay(BRIDGED, MAC, SOCKET),
    NicTarget.VIRTIO: BRIDGED,
}
HOSTS = {
    NicTarget.VF: used(BASE),
    NicTarget.RELAY: replace(used(BASE), relay=replace(RELAY, ports=(PORT,))),
    NicTarget.VIRTIO: BASE,
}


def found(of: NicTarget, to: NicTarget, change: Callable[[Inventory], Inventory] = lambda host: host) -> NicAssessment:
    return assess(change(HOSTS[of]), guest(NICS[of]), XML[of], MAC, to, OPERATION)


def asked(of: NicTarget, to: NicTarget) -> list[Operation[object]]:
    plan = found(of, to).plan
    assert plan is not None, found(of, to).errors
    return [operation for step in plan.steps for operation in step.apply]


@pytest.mark.parametrize("of", NicTarget)
def test_what_is_so_already_needs_no_step(of: NicTarget) -> None:
    assessed = found(of, of)
    assert assessed.plan is not None
    assert assessed.plan.steps == ()
    assert [each.code for each in assessed.findings] == ["nic-there"]


WIPE = SetVf(pf="pf0", index=1, settings=VfSettings(mac=NO_MAC, vlan=0, trust=False, spoof_check=True))
"""What makes the VF that the guest had as its driver makes one, in what this one's says."""


@pytest.mark.parametrize("of", [NicTarget.VF, NicTarget.VIRTIO])
def test_to_the_relay_by_a_free_vf_with_the_settings_of_the_one_before(of: NicTarget) -> None:
    fresh = VfSettings(mac=MAC, vlan=0, trust=False, spoof_check=True)
    settings = ON if of is NicTarget.VF else fresh
    vf = HOST.pfs[0].vfs[0]
    join, setting, define, *left = asked(of, NicTarget.RELAY)
    assert setting == SetVf(pf="pf0", index=0, settings=settings)
    assert isinstance(join, JoinRelay)
    assert join.port.vf is not None
    assert (join.port.guest, join.port.socket, join.port.vf.address) == ("web", SOCKET, vf.address)
    assert join.settings == settings
    assert define == Define(xml=on_relay(XML[of], MAC, SOCKET))
    assert left == ([WIPE] if of is NicTarget.VF else [])


def test_the_vlan_of_a_vf_is_that_of_the_definition() -> None:
    """libvirt takes it from the VF as the guest is shut down."""
    host = used(BASE, VfSettings(mac=NO_MAC, vlan=0))
    plan = assess(host, guest(NICS[NicTarget.VF]), XML[NicTarget.VF], MAC, NicTarget.RELAY, OPERATION).plan
    assert plan is not None
    (setting,) = (each for step in plan.steps for each in step.apply if isinstance(each, SetVf) and each.index == 0)
    assert setting.settings.vlan == 42


def test_from_the_relay_to_its_vf_which_keeps_its_settings() -> None:
    define, wipe, leave = asked(NicTarget.RELAY, NicTarget.VF)
    assert define == Define(xml=on_vf(XML[NicTarget.RELAY], MAC, VF.address, 42))
    assert leave == LeaveRelay(guest="web", mac=MAC)
    assert wipe == SetVf(pf="pf0", index=1, settings=VfSettings(mac=NO_MAC))


def test_from_the_relay_to_a_bridge_in_the_same_vlan() -> None:
    define, wipe, leave = asked(NicTarget.RELAY, NicTarget.VIRTIO)
    assert define == Define(xml=on_bridge(XML[NicTarget.RELAY], MAC, BASE.attachment("a"), 42))
    assert leave == LeaveRelay(guest="web", mac=MAC)
    assert wipe == WIPE


def test_from_a_vf_to_a_bridge_and_the_vf_is_wiped() -> None:
    define, wipe = asked(NicTarget.VF, NicTarget.VIRTIO)
    assert define == Define(xml=on_bridge(XML[NicTarget.VF], MAC, BASE.attachment("a"), 42))
    assert wipe == WIPE


def test_from_a_bridge_to_a_free_vf() -> None:
    (define,) = asked(NicTarget.VIRTIO, NicTarget.VF)
    assert define == Define(xml=on_vf(XML[NicTarget.VIRTIO], MAC, HOST.pfs[0].vfs[0].address))


@pytest.mark.parametrize("of", NicTarget)
@pytest.mark.parametrize("to", NicTarget)
def test_every_step_has_its_way_back(of: NicTarget, to: NicTarget) -> None:
    plan = found(of, to).plan
    assert plan is not None
    assert all(step.undo for step in plan.steps)
    assert plan.operation == "nic-525400123456-1"
    ports = (each.port for step in plan.steps for each in step.apply if isinstance(each, JoinRelay))
    assert {port.vf.address for port in ports if port.vf} <= {*plan.vfs}


@pytest.mark.parametrize("to", [NicTarget.VF, NicTarget.RELAY])
def test_the_pf_forgets_a_nic_that_leaves_its_bridge(to: NicTarget) -> None:
    """As it was told of it when that came there while the guest ran, or from another host."""
    host = with_pf(HOSTS[NicTarget.VIRTIO], "pf0", forwarding=(MAC,))
    plan = assess(host, guest(NICS[NicTarget.VIRTIO]), BRIDGED, MAC, to, OPERATION).plan
    assert plan is not None
    last = plan.steps[-1]
    assert (last.apply, last.undo) == (
        (SetForwarding(pf="pf0", mac=MAC, present=False),),
        (SetForwarding(pf="pf0", mac=MAC, present=True),),
    )


FULL = "<filterref filter='clean-traffic'/>"
TRUNK = "<vlan trunk='yes'><tag id='10'/><tag id='20'/></vlan>"
REFUSED: list[tuple[str, NicTarget, NicTarget, Callable[[Inventory], Inventory]]] = [
    ("relay-missing", NicTarget.VF, NicTarget.RELAY, lambda host: replace(host, relay=None)),
    (
        "relay-missing",
        NicTarget.VF,
        NicTarget.RELAY,
        lambda host: replace(host, relay=replace(RELAY, uplinks=("pf2",))),
    ),
    ("relay-no-vf", NicTarget.VF, NicTarget.RELAY, lambda host: with_pf(host, "pf0", vfs=host.pfs[0].vfs[1:])),
    ("no-free-vf", NicTarget.VIRTIO, NicTarget.VF, lambda host: with_pf(with_pf(host, "pf0", vfs=()), "pf1", vfs=())),
    ("network-unknown", NicTarget.VF, NicTarget.VIRTIO, lambda host: replace(host, networks={})),
    ("relay-unknown", NicTarget.RELAY, NicTarget.VF, lambda host: replace(host, relay=RELAY)),
]


@pytest.mark.parametrize(("code", "of", "to", "change"), REFUSED)
def test_what_stands_in_the_way_is_said_with_what_to_do(
    code: str, of: NicTarget, to: NicTarget, change: Callable[[Inventory], Inventory]
) -> None:
    assessed = found(of, to, change)
    assert [(each.code, bool(each.remedy)) for each in assessed.errors] == [(code, True)]
    assert assessed.plan is None


LEFT_ALONE = [
    ("nic-has-rules", guest(NICS[NicTarget.VIRTIO]), BRIDGED.replace("</interface>", f"{TRUNK}</interface>"), MAC),
    ("nic-unknown", guest(NICS[NicTarget.VF]), XML[NicTarget.VF], "52:54:00:00:00:01"),
    ("nic-ambiguous", guest(NICS[NicTarget.VF]), "<domain><devices/></domain>", MAC),
    ("guest-transient", guest(NICS[NicTarget.VF], persistent=False), XML[NicTarget.VF], MAC),
    ("nic-has-rules", guest(NICS[NicTarget.VF]), XML[NicTarget.VF].replace("<mac", f"{FULL}<mac"), MAC),
]


@pytest.mark.parametrize(("code", "who", "xml", "mac"), LEFT_ALONE)
def test_guests_that_are_left_alone(code: str, who: Guest, xml: str, mac: str) -> None:
    assessed = assess(HOSTS[NicTarget.VF], who, xml, mac, NicTarget.RELAY, OPERATION)
    assert [(each.code, bool(each.remedy)) for each in assessed.errors] == [(code, True)]


@pytest.mark.parametrize("to", [NicTarget.RELAY, NicTarget.VF])
def test_its_representor_is_for_others_to_see_to(to: NicTarget) -> None:
    findings = found(NicTarget.VIRTIO, to, lambda host: with_pf(host, "pf0", eswitch="switchdev")).findings
    assert [each.code for each in findings] == (["representor"] if to is NicTarget.RELAY else [])


def test_every_code_is_tested() -> None:
    elsewhere = {"nic-there", "relay-not-switched", "nic-in-chain", "port-differs", "mtu-too-small"}
    tested = {row[0] for row in (*REFUSED, *LEFT_ALONE)} | elsewhere
    assert codes_of({"guest_nic", "nic_place"}) <= tested


def test_a_host_without_pages_may_still_give_a_vf_back() -> None:
    """Nothing of what makes a relay is asked for on the way off it."""
    assert found(NicTarget.RELAY, NicTarget.VF, lambda host: on_ground(host, nodes=())).plan is not None


def begun(of: NicTarget, port: RelayPort, **more: object) -> Inventory:
    """What a controller has left that died in the middle of it."""
    vfs = (replace(HOST.pfs[0].vfs[0], claim="nic-525400123456-1", **more), *HOSTS[of].pfs[0].vfs[1:])
    return replace(with_pf(HOSTS[of], "pf0", vfs=vfs), relay=replace(RELAY, ports=(port,) if port else ()))


FIRST = HOST.pfs[0].vfs[0]
JOINED = replace(PORT, vf=RelayVf(pf=FIRST.pf, index=FIRST.index, address=FIRST.address))


@pytest.mark.parametrize("joined", [False, True])
def test_asked_for_again_it_goes_on_with_the_vf_that_it_had(joined: bool) -> None:  # noqa: FBT001
    host = begun(NicTarget.VIRTIO, JOINED, guest="web") if joined else begun(NicTarget.VIRTIO, JOINED)
    host = host if joined else replace(host, relay=RELAY)
    plan = assess(host, guest(NICS[NicTarget.VIRTIO]), BRIDGED, MAC, NicTarget.RELAY, OPERATION).plan
    assert plan is not None
    assert plan.vfs == (FIRST.address,)


@pytest.mark.parametrize("to", [NicTarget.VIRTIO, NicTarget.VF])
def test_asked_for_again_what_is_left_of_the_relay_is_taken_back(to: NicTarget) -> None:
    host = begun(to, JOINED, guest="web")
    plan = assess(host, guest(NICS[to]), XML[to], MAC, to, OPERATION).plan
    assert plan is not None
    assert [step.name for step in plan.steps] == ["wipe-vf", "leave-relay"]


def test_anothers_port_is_left_alone() -> None:
    host = begun(NicTarget.VIRTIO, replace(JOINED, guest="other"), guest="other")
    assessed = assess(host, guest(NICS[NicTarget.VIRTIO]), BRIDGED, MAC, NicTarget.VIRTIO, OPERATION)
    assert [each.code for each in assessed.findings] == ["nic-there"]
