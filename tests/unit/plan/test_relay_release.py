"""A port that is left on a relay comes off, as a pure function of the host; or whoever has it is named."""

from typing import Any

import pytest
from msgspec.structs import replace

from fakes.codes import codes_of
from fakes.relay import HOST, SETTINGS, with_pf
from vferry.host.api import JoinRelay, LeaveRelay, SetVf
from vferry.model.guest import Guest, GuestState, Nic, VfRef
from vferry.model.host import NO_MAC, Claim, Inventory, VfSettings
from vferry.model.relay import ChainPlace, Relay, RelayKind, RelayPort, RelayState, RelayVf, RelayView, SwitchPlace
from vferry.plan.relay import assess_disabling
from vferry.plan.relay_release import about, assess_release, left_on, operation_of

MAC, OTHER = "52:54:00:aa:00:0b", "52:54:00:aa:00:0c"
SOCKET = "/run/vferry-relay/525400aa000b.sock"
VF = HOST.pfs[0].vfs[1]
OWN = RelayVf(pf=VF.pf, index=VF.index, address=VF.address, driver="igbvf")
DIRECT = RelayPort(guest="web", mac=MAC, socket=SOCKET, vf=OWN)
PLACE = SwitchPlace(bridge="relay0", vlan=7)
SWITCHED = RelayPort(guest="web", mac=MAC, socket=SOCKET, switch=PLACE)
OVNS = replace(SWITCHED, switch=SwitchPlace(bridge="br-int", logical_port="web-0", network="a"))
CHAINED = replace(SWITCHED, switch=replace(PLACE, chain=ChainPlace(name="fw", serves=False, within=True, vlan=7)))
ON = VfSettings(mac=MAC, vlan=42, trust=True, spoof_check=False)
NIC = Nic(mac=MAC, model="virtio", alias="", vf=VfRef(pf=VF.pf, index=VF.index, address=VF.address), socket=SOCKET)
ELSEWHERE_NIC = Nic(mac=MAC, model="virtio", alias="", bridge="br0")


def xml(socket: str = SOCKET) -> str:
    return f"<domain><devices><interface type='vhostuser'><source path='{socket}'/></interface></devices></domain>"


def host(port: RelayPort | None = DIRECT, *guests: Guest, **more: Any) -> Inventory:
    vfs = tuple(replace(vf, guest="web", settings=ON) if vf == VF else vf for vf in HOST.pfs[0].vfs)
    relay = Relay(
        operation="relay-1",
        state=RelayState.ENABLED,
        kind=RelayKind.DIRECT if port and port.vf else RelayKind.SWITCHED,
        uplinks=("pf0",),
        cores=(7,),
        ports=(port,) if port else (),
    )
    return replace(with_pf(HOST, "pf0", vfs=vfs), relay=relay, guests=guests, **more)


def guest(*nics: Nic, name: str = "web", state: GuestState = GuestState.OFF, persistent: bool = True) -> Guest:
    return Guest(name=name, uuid="u", host="host1", state=state, persistent=persistent, nics=nics)


RUNS: dict[str, Any] = {"state": GuestState.RUNNING}
BY_COMMAND, BY_HAND, SHUT_DOWN = f"vferry guest nic web {MAC} --to vf", "virsh edit", "virsh shutdown web"
REFUSED: list[tuple[str, Inventory, str | None, str]] = [
    ("release-no-relay", HOST, None, "Name a host"),
    ("release-nic-there", host(DIRECT, guest(NIC)), None, BY_COMMAND),
    ("release-nic-there", host(SWITCHED, guest(replace(NIC, vf=None))), None, BY_COMMAND),
    ("release-nic-there", host(DIRECT, guest(NIC, **RUNS)), xml(), BY_COMMAND),
    # undefined, or its NIC taken out of the definition, while it runs
    ("release-nic-there", host(DIRECT, guest(NIC, persistent=False, **RUNS)), None, SHUT_DOWN),
    ("release-nic-there", host(DIRECT, guest(NIC, **RUNS)), xml("/run/other"), SHUT_DOWN),
    # given the port's VF by hand, renamed, with another MAC by hand
    ("release-nic-there", host(DIRECT, guest(replace(NIC, socket=None))), None, BY_COMMAND),
    ("release-nic-there", host(DIRECT, guest(NIC, name="www")), None, f"{BY_HAND} www"),
    ("release-nic-there", host(SWITCHED, guest(replace(NIC, vf=None, mac=OTHER))), None, f"{BY_HAND} web"),
    ("release-nic-defined", host(DIRECT, guest(ELSEWHERE_NIC, **RUNS)), xml(), f"{BY_HAND} web"),
    ("release-claimed", host(DIRECT, claims=(Claim(operation="op-1", guest="web"),)), None, "vferry operation recover"),
    ("release-in-chain", host(CHAINED), None, "vferry relay chain host1 fw --none"),
]


@pytest.mark.parametrize(("code", "where", "persistent", "remedy"), REFUSED)
def test_what_somebody_has_stays(code: str, where: Inventory, persistent: str | None, remedy: str) -> None:
    found = assess_release(where, MAC, persistent)
    assert ([each.code for each in found.errors], found.steps, found.port) == ([code], (), None)
    assert found.errors[0].message
    assert remedy in found.errors[0].remedy


def test_every_code_is_tested() -> None:
    refused = {code for code, *_ in REFUSED}
    assert codes_of({"relay_release"}) == refused | {"release-none", "release-ovns", "release-left"}


def test_what_is_not_there_is_no_error() -> None:
    found = assess_release(host(None), MAC)
    assert ([each.code for each in found.findings], found.errors, found.steps) == (["release-none"], (), ())


LEAVE = LeaveRelay(guest="web", mac=MAC)
FREE = (
    host(),
    host(DIRECT, guest()),
    host(DIRECT, guest(ELSEWHERE_NIC), guest(name="db", **RUNS)),
    host(DIRECT, claims=(Claim(operation=operation_of(DIRECT), guest="web"), Claim(operation="op-1", guest="db"))),
)


@pytest.mark.parametrize("where", FREE)
def test_a_direct_port_gives_its_vf_back_as_its_driver_makes_one(where: Inventory) -> None:
    wipe, leave = assess_release(where, MAC, xml("/run/other")).steps
    wiped = VfSettings(mac=NO_MAC, vlan=0, trust=False, spoof_check=SETTINGS.spoof_check)
    assert wipe.apply == (SetVf(pf="pf0", index=1, settings=wiped),)
    assert wipe.undo == (SetVf(pf="pf0", index=1, settings=ON),)
    assert (leave.apply, leave.undo) == ((LEAVE,), (JoinRelay(port=DIRECT, settings=ON),))


@pytest.mark.parametrize(("port", "codes"), [(SWITCHED, []), (OVNS, ["release-ovns"])])
def test_a_switch_s_port_just_goes(port: RelayPort, codes: list[str]) -> None:
    found = assess_release(host(port), MAC)
    (leave,) = found.steps
    assert (leave.apply, leave.undo) == ((LEAVE,), (JoinRelay(port=port),))
    assert [each.code for each in found.findings] == codes


def test_a_vf_that_is_gone_is_not_wiped() -> None:
    assert [step.name for step in assess_release(with_pf(host(), "pf0", vfs=()), MAC).steps] == ["leave-relay"]


def test_each_guest_s_port_is_an_operation_of_its_own() -> None:
    """A claim that was left of one guest's does not stand in the way of another's with its MAC."""
    assert operation_of(DIRECT) == operation_of(SWITCHED) != operation_of(replace(DIRECT, guest="db"))


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (host(), (DIRECT,)),
        (host(DIRECT, guest(NIC)), ()),
        (host(DIRECT, claims=(Claim(operation="op-1", guest="web"),)), ()),
        (HOST, ()),
    ],
    ids=["left", "a guest's", "on its way", "no relay"],
)
def test_what_is_left_is_named_with_what_takes_it_off(where: Inventory, left: tuple[RelayPort, ...]) -> None:
    command = f"vferry relay release host1 {MAC}"
    assert left_on(where) == left
    assert [command in each.remedy for each in about(where)] == [True for _ in left]
    in_use = assess_disabling(where, RelayView()).errors
    assert [command in each.remedy for each in in_use] == [bool(left) for _ in in_use]
