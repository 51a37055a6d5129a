"""The way to a relay and back, as a pure function of what a host has."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import decode, encode
from msgspec.structs import replace

from fakes.codes import codes_of, modules
from fakes.relay import GIB, HOST, make_guest, make_node, make_pf, make_vf, on_ground, pinned_to, with_pf, with_switch
from vferry.host.api import BindVf, ForgetRelay, KeepRelay, RejoinGuests, SetHugePages, SetRelayBridge, SetSwitch, SetVf
from vferry.model.host import Bridge, Inventory, VfSettings
from vferry.model.relay import (
    HugePages,
    NumaNode,
    PortCounters,
    Relay,
    RelayPort,
    RelayState,
    RelayVf,
    RelayView,
    SwitchPlace,
)
from vferry.plan.facts import Severity
from vferry.plan.relay import RelayAssessment, RelayPlan, RelayWishes, assess_disabling, assess_enabling
from vferry.plan.relay_cpus import cores_of, held_on, strays_to
from vferry.plan.relay_steps import repairing


def assess(host: Inventory, *uplinks: str, switched: bool = False) -> RelayAssessment:
    return assess_enabling(host, RelayWishes(operation="relay-1", uplinks=uplinks or ("pf0",), switched=switched))


def plan(host: Inventory, *uplinks: str, switched: bool = False) -> RelayPlan:
    found = assess(host, *uplinks, switched=switched)
    assert found.plan is not None, found.errors
    return found.plan


def all_taken(host: Inventory, name: str) -> Inventory:
    vfs = tuple(make_vf(name, at, **{("guest", "claim")[at % 2]: "x"}) for at in range(2))
    return with_pf(host, name, vfs=vfs)


NOT_STARTED: dict[str, Any] = {"dpdk_started": False}

REFUSED: dict[str, tuple[Inventory, tuple[str, ...]]] = {
    "pf-unknown": (HOST, ("pf9",)),
    "relay-uplink-twice": (HOST, ("pf0", "pf0")),
    "pf-down": (with_pf(HOST, "pf0", up=False), ("pf0",)),
    "relay-no-iommu": (replace(HOST, iommu=False), ("pf0",)),
    "relay-no-vfio": (on_ground(vfio=False), ("pf0",)),
    "relay-no-library": (on_ground(library=False), ("pf0",)),
    "relay-no-switch": (on_ground(switch=None), ("pf0",)),
    "relay-switch-silent": (with_switch(answers=False), ("pf0",)),
    "relay-switch-old": (with_switch(version="2.15.0"), ("pf0",)),
    "relay-no-dpdk": (with_switch(dpdk_version=None), ("pf0",)),
    "relay-dpdk-failed": (with_switch(settings={"dpdk-init": "true"}), ("pf0",)),
    "relay-dpdk-off": (with_switch(settings={"dpdk-init": "false"}), ("pf0",)),
    "relay-no-vf": (all_taken(HOST, "pf0"), ("pf0",)),
    "relay-no-iommu-group": (with_pf(HOST, "pf0", vfs=(make_vf("pf0", 0, iommu_group=None),)), ("pf0",)),
    "relay-no-core": (on_ground(nodes=(make_node(0, (0,)),)), ("pf0",)),
    "relay-core-used": (replace(HOST, guests=(make_guest("a", *range(1, 5)), make_guest("b", 5, 6, 7))), ("pf0",)),
    "relay-no-node": (on_ground(nodes=(NumaNode(number=0),)), ("pf0",)),
    "relay-no-huge-pages": (on_ground(nodes=(make_node(0, (0, 1), GIB // 4, 60, 60),)), ("pf0",)),
}


@pytest.mark.parametrize("code", REFUSED)
@pytest.mark.parametrize("switched", [False, True])
def test_what_is_missing_is_said_with_what_to_do(code: str, *, switched: bool) -> None:
    host, uplinks = REFUSED[code]
    found = assess(host, *uplinks, switched=switched)
    assert found.plan is None
    assert [finding.code for finding in found.errors] == [code]
    assert found.errors[0].message
    assert found.errors[0].remedy


ELSEWHERE = {
    *("relay-no-uplink", "relay-differs", "relay-half-gone", "relay-in-use", "relay-none", "relay-there"),
    *("relay-memory-stays", "relay-cores-shared", "relay-cores-kept", "relay-port-anothers"),
    *("relay-representors", "relay-offload"),
}
"""Findings that have a test of their own below."""
OF_OTHERS = {"relayed", "relay_gateway", "relay_chain", "relay_release"}
"""Modules with tests of their own."""


def test_every_code_is_tested() -> None:
    names = {name for name in modules() if name.startswith("relay") and name not in OF_OTHERS}
    assert codes_of(names) == REFUSED.keys() | ELSEWHERE


def test_everything_that_is_missing_is_said_at_once() -> None:
    host = replace(on_ground(vfio=False, library=False, switch=None), iommu=False)
    assert {finding.code for finding in assess(host, "pf0", "pf9").errors} == {
        "pf-unknown",
        "relay-no-iommu",
        "relay-no-vfio",
        "relay-no-library",
        "relay-no-switch",
    }


def test_no_uplink_is_none() -> None:
    found = assess_enabling(HOST, RelayWishes(operation="relay-1", uplinks=()))
    assert [finding.code for finding in found.errors] == ["relay-no-uplink"]


@pytest.mark.parametrize("code", ["relay-no-dpdk", "relay-dpdk-failed"])
def test_open_vswitch_is_started_anew_by_a_unit_that_each_distribution_has(code: str) -> None:
    host, uplinks = REFUSED[code]
    assert "systemctl restart ovs-vswitchd" in assess(host, *uplinks).errors[0].remedy


def test_why_dpdk_has_failed_is_in_the_log() -> None:
    host, uplinks = REFUSED["relay-dpdk-failed"]
    assert "/var/log/openvswitch/ovs-vswitchd.log" in assess(host, *uplinks).errors[0].remedy


def test_more_vfs_are_made_by_way_of_none() -> None:
    (taken,) = assess(all_taken(HOST, "pf0")).errors
    assert "/sys/class/net/pf0/device/sriov_numvfs; it takes 0 first" in taken.remedy
    (none,) = assess(with_pf(HOST, "pf0", vfs=())).errors
    assert none.remedy.endswith("/sys/class/net/pf0/device/sriov_numvfs")


def test_a_direct_relay_takes_its_vfs_as_guests_come() -> None:
    made = plan(HOST)
    assert (made.relay.vfs, made.relay.bridges) == ((), ())
    assert [step.name for step in made.steps] == ["keep", "huge-pages", "switch", "done"]
    one_is_enough = all_taken(HOST, "pf0")
    assert plan(one_is_enough, "pf0", "pf1").relay.uplinks == ("pf0", "pf1")


def test_a_switched_relay_takes_a_vf_of_each_uplink() -> None:
    made = plan(HOST, "pf0", "pf2", switched=True)
    assert made.relay.addresses == ("0000:01:10.0", "0000:03:10.0")
    assert [(bridge.name, [up.address for up in bridge.uplinks]) for bridge in made.relay.bridges] == [
        ("relay0", ["0000:01:10.0"]),
        ("relay1", ["0000:03:10.0"]),
    ]
    assert [step.name for step in made.steps] == [
        "keep",
        *["huge-pages"] * 2,
        *["bind-vf"] * 2,
        *["open-vf"] * 2,
        "switch",
        *["bridge"] * 2,
        "done",
    ]


def test_two_uplinks_of_one_network_are_a_bond() -> None:
    host = with_pf(HOST, "pf1", mtu=9000)
    (bridge,) = plan(host, "pf0", "pf1", switched=True).relay.bridges
    assert [up.name for up in bridge.uplinks] == ["relay0-up0", "relay0-up1"]
    assert bridge.mtu == 1500


def test_a_pf_that_is_on_no_network_has_a_bridge_of_its_own() -> None:
    host = replace(HOST, networks={})
    assert len(plan(host, "pf0", "pf1", switched=True).relay.bridges) == 2


def test_a_name_that_is_taken_is_left() -> None:
    host = replace(HOST, bridges=(Bridge(name="relay0"),))
    assert [bridge.name for bridge in plan(host, switched=True).relay.bridges] == ["relay1"]


@pytest.mark.parametrize(
    ("vfs", "address"),
    [
        ({0: {"guest": "x"}}, "0000:01:10.1"),
        ({0: {"claim": "x"}}, "0000:01:10.1"),
        ({0: {"interface": "v0"}}, "0000:01:10.1"),
        ({0: {"iommu_group": None}}, "0000:01:10.1"),
        ({0: {"interface": "v0"}, 1: {"interface": "v1"}}, "0000:01:10.0"),
    ],
)
def test_which_vf(vfs: dict[int, dict[str, Any]], address: str) -> None:
    host = with_pf(HOST, "pf0", vfs=tuple(make_vf("pf0", at, **vfs.get(at, {})) for at in range(2)))
    assert plan(host, switched=True).relay.addresses == (address,)


def test_what_a_vf_was_it_becomes_again() -> None:
    host = with_pf(HOST, "pf0", vfs=(make_vf("pf0", 0, driver="igbvf", interface="v0"),))
    steps = {step.name: step for step in plan(host, switched=True).steps}
    assert steps["bind-vf"].apply == (BindVf(address="0000:01:10.0", driver="vfio-pci"),)
    assert steps["bind-vf"].undo == (BindVf(address="0000:01:10.0", driver="igbvf", if_there=True),)
    opened, shut = VfSettings(trust=True, spoof_check=False), VfSettings(trust=False, spoof_check=True)
    assert steps["open-vf"].apply == (SetVf(pf="pf0", index=0, settings=opened),)
    assert steps["open-vf"].undo == (SetVf(pf="pf0", index=0, settings=shut, only_at="0000:01:10.0"),)


def test_what_a_driver_does_not_say_is_not_asked_of_it() -> None:
    host = with_pf(HOST, "pf0", vfs=(make_vf("pf0", 0, settings=VfSettings()),))
    steps = {step.name: step for step in plan(host, switched=True).steps}
    assert steps["open-vf"].apply == (SetVf(pf="pf0", index=0, settings=VfSettings()),)


def test_a_driver_that_shares_its_device_keeps_it() -> None:
    host = replace(on_ground(with_pf(HOST, "pf0", driver="mlx5_core"), vfio=False), iommu=False)
    (vf,) = plan(host, switched=True).relay.vfs
    assert vf.bound == "mlx5_core"


@pytest.mark.parametrize(
    ("uplinks", "guests", "isolated", "cores"),
    [
        (("pf0",), (), (), (7,)),
        (("pf0", "pf1"), (), (), (6, 7)),
        (("pf2",), (), (), (15,)),
        (("pf0", "pf2"), (), (), (7, 15)),
        (("pf0",), (make_guest("a", 7, 5),), (), (6,)),
        (("pf0",), (make_guest("a", 7),), (3, 7), (3,)),
        (("pf0", "pf1"), (make_guest("a", *range(2, 8)),), (), (1,)),
        (("pf0",), (), (0, 1), (1,)),
    ],
)
def test_which_cpus(
    uplinks: tuple[str, ...], guests: tuple[Any, ...], isolated: tuple[int, ...], cores: tuple[int, ...]
) -> None:
    host = on_ground(replace(HOST, guests=guests), isolated=isolated)
    made = plan(host, *uplinks)
    assert made.relay.cores == cores
    assert cores_of(with_switch(settings=made.relay.settings).relay_ground) == cores


HALVES = tuple((cpu, cpu + 4) for cpu in range(4))
"""CPUs 0 and 4 are threads of one core, and so on."""


@pytest.mark.parametrize(
    ("uplinks", "pinned", "isolated", "cores"),
    [
        (("pf0",), (), (), (7,)),
        (("pf0",), (3,), (), (6,)),
        (("pf0",), (1, 2, 3), (), (7,)),
        (("pf0",), (1, 5, 2, 6, 3, 7), (), (4,)),
        (("pf0",), (3,), (7,), (7,)),
        (("pf0", "pf1"), (), (), (6, 7)),
        (("pf0", "pf1"), (6, 2, 5), (), (4, 7)),
        (("pf0", "pf1"), (), (3, 7, 2), (2, 7)),
    ],
)
def test_a_core_is_not_shared_if_that_can_be(
    uplinks: tuple[str, ...], pinned: tuple[int, ...], isolated: tuple[int, ...], cores: tuple[int, ...]
) -> None:
    host = on_ground(replace(HOST, guests=(make_guest("a", *pinned),)), siblings=HALVES, isolated=isolated)
    assert plan(host, *uplinks).relay.cores == cores


def test_at_most_a_quarter_of_a_node_s_cpus_forward() -> None:
    host = replace(HOST, pfs=tuple(make_pf(f"pf{at}") for at in range(4)))
    assert plan(host, "pf0", "pf1", "pf2", "pf3").relay.cores == (6, 7, 15)


def test_cpus_that_the_operator_has_given_are_kept() -> None:
    host = with_switch(settings={"pmd-cpu-mask": "0x14"})
    found = assess(host)
    assert found.plan is not None
    assert found.plan.relay.cores == (2, 4)
    assert "pmd-cpu-mask" not in found.plan.relay.settings
    assert "relay-cores-kept" in [finding.code for finding in found.findings]
    used = assess(replace(host, guests=(make_guest("a", 4),)))
    assert [finding.code for finding in used.errors] == ["relay-core-used"]
    assert "a" in used.errors[0].message


@pytest.mark.parametrize(("mask", "cores"), [("", ()), ("0", ()), ("-2", ()), ("odd", ()), ("6", (1, 2))])
def test_a_mask(mask: str, cores: tuple[int, ...]) -> None:
    assert cores_of(with_switch(settings={"pmd-cpu-mask": mask}).relay_ground) == cores


def test_guests_that_may_run_anywhere_are_named() -> None:
    host = replace(HOST, guests=(make_guest("a"), make_guest("b", 2)))
    (note,) = assess(host).findings
    assert (note.code, "a" in note.message) == ("relay-cores-shared", True)
    assert assess(on_ground(host, isolated=(7,))).findings == ()


@pytest.mark.parametrize("switched", [False, True])
def test_representors_are_left_to_who_has_them(*, switched: bool) -> None:
    host = with_pf(HOST, "pf1", eswitch="switchdev")
    notes = assess(host, "pf0", "pf1", switched=switched).findings
    (said,) = [note for note in notes if note.code == "relay-representors"]
    assert (said.severity, said.message.split()[0]) == (Severity.WARNING, "pf1")
    assert "devlink dev eswitch set pci/0000:02:00.0 mode legacy" in said.remedy
    assert "relay-representors" not in [note.code for note in assess(host, "pf0", switched=switched).findings]


@pytest.mark.parametrize(
    ("settings", "does"), [({}, "offloads nothing"), ({"hw-offload": "true"}, "offloads to NICs what they take")]
)
def test_a_switched_relay_leaves_offload_as_it_is(settings: dict[str, str], does: str) -> None:
    host = with_switch(settings=settings)
    found = assess(host, switched=True)
    (note,) = found.findings
    assert (note.code, does in note.message) == ("relay-offload", True)
    assert found.plan is not None
    assert "hw-offload" not in found.plan.relay.settings
    assert assess(host).findings == ()


@pytest.mark.parametrize(
    ("free", "total", "unused", "memory", "pages"),
    [
        (8 * GIB, 0, 0, 1024, HugePages(node=0, size_kib=2048, count=512)),
        (8 * GIB, 100, 100, 1024, HugePages(node=0, size_kib=2048, count=612, before=100)),
        (GIB, 0, 0, 512, HugePages(node=0, size_kib=2048, count=256)),
        (GIB // 2, 0, 0, 256, HugePages(node=0, size_kib=2048, count=128)),
        (GIB // 4, 700, 512, 1024, None),
        (GIB // 4, 100, 100, 256, HugePages(node=0, size_kib=2048, count=128, before=100)),
    ],
)
def test_how_much_memory(free: int, total: int, unused: int, memory: int, pages: HugePages | None) -> None:
    host = on_ground(nodes=(make_node(0, (0, 1), free, total, unused),))
    relay = plan(host).relay
    assert relay.pages == ((pages,) if pages else ())
    assert relay.settings["dpdk-socket-mem"] == relay.settings["dpdk-socket-limit"] == str(memory)


def test_memory_is_near_the_uplinks() -> None:
    relay = plan(HOST, "pf2").relay
    assert relay.settings["dpdk-socket-mem"] == "0,1024"
    assert [pages.node for pages in relay.pages] == [1]
    assert relay.pages[0].added_mib == 1024


@pytest.mark.parametrize(
    ("version", "sleep"),
    [("2.17.9", None), ("3.1.0", "pmd-maxsleep"), ("3.2.0", "pmd-sleep-max")],
)
def test_cores_sleep_where_they_can(version: str, sleep: str | None) -> None:
    found = plan(with_switch(version=version)).relay.settings
    assert [name for name in found if "sleep" in name] == ([sleep] if sleep else [])


def test_dpdk_that_runs_already_is_left_as_it_is() -> None:
    relay = plan(with_switch(dpdk_started=True, settings={"dpdk-init": "true", "dpdk-extra": "x"})).relay
    assert relay.pages == ()
    assert set(relay.settings) == {"pmd-cpu-mask", "pmd-sleep-max"}


def test_dpdk_that_is_left_from_an_earlier_relay_is_made_to_last() -> None:
    relay = plan(with_switch(dpdk_started=True)).relay
    assert relay == plan(HOST).relay


def test_faults_of_dpdk_end_nobody_else() -> None:
    settings = plan(HOST).relay.settings
    assert settings["dpdk-init"] == "try"
    assert settings["dpdk-extra"] == "-a 0000:00:00.0"


def test_what_is_there_is_made_whole() -> None:
    relay = replace(plan(HOST, "pf0", switched=True).relay, state=RelayState.ENABLED)
    found = assess(replace(HOST, relay=relay, iommu=False), "pf0", switched=True)
    assert found.plan is not None
    assert found.plan.relay == relay
    first, *others = plan(HOST, "pf0", switched=True).steps
    assert (first.name, found.plan.steps) == ("keep", tuple(others)), "its guests have it all the time"
    assert [finding.code for finding in found.findings] == ["relay-there"]
    port = RelayPort(guest="guest1", mac="52:54:00:aa:00:01", socket="/run/x", switch=SwitchPlace(bridge="relay0"))
    *making, guests, done = repairing(replace(relay, ports=(port,)))
    assert (making, guests.apply, done.name) == (others[:-1], (RejoinGuests(),), "done")


def test_nothing_is_made_whole_where_the_switch_is_dead() -> None:
    relay = replace(plan(HOST, "pf0").relay, state=RelayState.ENABLED)
    found = assess(replace(with_switch(answers=False), relay=relay), "pf0")
    assert (found.plan, [finding.code for finding in found.errors]) == (None, ["relay-switch-silent"])


@pytest.mark.parametrize(
    ("state", "uplinks", "code"),
    [
        (RelayState.ENABLED, ("pf1",), "relay-differs"),
        (RelayState.ENABLING, ("pf0", "pf1"), "relay-differs"),
        (RelayState.DISABLING, ("pf0",), "relay-half-gone"),
    ],
)
def test_another_relay_is_not_made_of_it(state: RelayState, uplinks: tuple[str, ...], code: str) -> None:
    host = replace(HOST, relay=replace(plan(HOST).relay, state=state))
    found = assess(host, *uplinks)
    assert (found.plan, [finding.code for finding in found.errors]) == (None, [code])


def test_one_with_guests_on_it_stays() -> None:
    vf = RelayVf(pf="pf0", index=0, address="0000:01:10.0")
    port = RelayPort(guest="guest1", mac="52:54:00:aa:00:01", socket="/run/x", vf=vf)
    found = assess_disabling(replace(HOST, relay=replace(plan(HOST).relay, ports=(port,))), RelayView())
    assert (found.plan, [finding.code for finding in found.errors]) == (None, ["relay-in-use"])
    assert port.mac in found.errors[0].message


@pytest.mark.parametrize(
    ("port", "stays"),
    [
        (PortCounters(name="vhu-web", bridge="relay0", type="dpdkvhostuserclient"), True),
        (PortCounters(name="tap0", bridge="relay0", type="internal"), True),
        (PortCounters(name="relay0-up0", bridge="relay0", type="dpdk"), False),
        (PortCounters(name="relay0-up1", bridge="relay0", type="dpdk"), True),
        (PortCounters(name="vfg525400aa0001", bridge="relay0", guest="web"), False),
        (PortCounters(name="vhu-web", bridge="relay7"), False),
    ],
)
def test_one_with_ports_that_are_nobodys_stays(port: PortCounters, *, stays: bool) -> None:
    """Its bridge could not be removed, and all before that would be done for nothing."""
    relay = plan(HOST, switched=True).relay
    found = assess_disabling(replace(HOST, relay=relay), RelayView(relay=relay, ports=(port,)))
    assert [finding.code for finding in found.errors] == (["relay-port-anothers"] if stays else [])
    assert (found.plan is None) == stays
    if stays:
        assert f"{port.name} on relay0" in found.errors[0].message
        assert f"ovs-vsctl del-port {port.name}" in found.errors[0].remedy


@pytest.mark.parametrize(("kind", "said"), [("patch", True), ("internal", False)])
def test_a_patch_of_ovn_s_goes_with_its_mapping(kind: str, *, said: bool) -> None:
    """ovn-controller makes it again otherwise."""
    relay = plan(HOST, switched=True).relay
    port = PortCounters(name="patch-localnet-to-br-int", bridge="relay0", type=kind)
    (found,) = assess_disabling(replace(HOST, relay=relay), RelayView(relay=relay, ports=(port,))).errors
    assert ("take relay0 out of external_ids:ovn-bridge-mappings" in found.remedy) == said


def test_where_there_is_none_there_is_nothing_to_do() -> None:
    found = assess_disabling(HOST, RelayView())
    assert (found.plan, found.errors) == (None, ())


# --- for any host ----------------------------------------------------------------------------------------

PINS = st.lists(st.sets(st.integers(0, 15), min_size=1, max_size=16).map(lambda cpus: tuple(sorted(cpus))), max_size=4)
GUESTS = st.lists(PINS, max_size=3).map(
    lambda guests: tuple(pinned_to(f"g{at}", *pins) for at, pins in enumerate(guests))
)
UPLINKS = st.lists(st.sampled_from(["pf0", "pf1", "pf2"]), min_size=1, max_size=3, unique=True).map(tuple)
NODES = st.tuples(st.integers(0, 16 * GIB), st.integers(0, 2000), st.integers(0, 2000)).map(
    lambda n: (make_node(0, tuple(range(8)), n[0], max(n[1:]), min(n[1:])), make_node(1, tuple(range(8, 16)), n[0]))
)
SAID = st.dictionaries(
    st.sampled_from(["pmd-cpu-mask", "pmd-sleep-max", "dpdk-extra", "dpdk-socket-mem"]), st.sampled_from(["0x8", "1"])
)


@st.composite
def hosts(draw: st.DrawFn) -> Inventory:
    host = on_ground(
        replace(HOST, guests=draw(GUESTS)),
        nodes=draw(NODES),
        isolated=tuple(draw(st.sets(st.integers(0, 15)))),
        siblings=draw(st.sampled_from([(), HALVES])),
    )
    return with_switch(host, settings=draw(SAID), dpdk_started=draw(st.booleans()))


@given(hosts(), UPLINKS, st.booleans())
def test_any_host_gets_a_plan_or_a_reason(host: Inventory, uplinks: tuple[str, ...], switched: bool) -> None:  # noqa: FBT001
    found = assess(host, *uplinks, switched=switched)
    assert (found.plan is None) == bool(found.errors)
    assert all(finding.remedy for finding in found.errors)


@given(hosts(), UPLINKS, st.booleans())
def test_no_plan_touches_what_is_another_s(host: Inventory, uplinks: tuple[str, ...], switched: bool) -> None:  # noqa: FBT001
    found = assess(host, *uplinks, switched=switched)
    if found.plan is None:
        return
    relay, ground = found.plan.relay, host.relay_ground
    assert ground.switch is not None
    assert relay.cores
    assert not any(held_on(guest, relay.cores) for guest in host.guests)
    shared = any(strays_to(guest, relay.cores) for guest in host.guests)
    assert shared <= ("relay-cores-shared" in [finding.code for finding in found.findings])
    assert not set(relay.settings).intersection(ground.switch.settings)
    for pages in relay.pages:
        node = ground.node(pages.node)
        assert node is not None
        assert pages.added_mib << 20 <= node.memory_free // 2
    if "dpdk-socket-mem" in relay.settings:
        for node, mib in zip(ground.nodes, map(int, relay.settings["dpdk-socket-mem"].split(",")), strict=True):
            added = sum(pages.added_mib for pages in relay.pages if pages.node == node.number)
            assert mib <= added + (node.pools[0].free * 2)


@given(hosts(), UPLINKS, st.booleans())
def test_the_way_back_is_the_way_there_turned_round(host: Inventory, uplinks: tuple[str, ...], switched: bool) -> None:  # noqa: FBT001
    found = assess(host, *uplinks, switched=switched)
    if found.plan is None:
        return
    way = assess_disabling(replace(host, relay=found.plan.relay), RelayView())
    assert [finding.code for finding in way.findings] == ["relay-memory-stays"]
    back = way.plan
    assert back is not None
    undone = [operation for step in reversed(found.plan.steps[1:-1]) for operation in step.undo]
    assert [operation for step in back.steps[1:-1] for operation in step.apply] == undone
    assert [type(step.apply[0]) for step in (back.steps[0], back.steps[-1])] == [KeepRelay, ForgetRelay]
    assert not any(step.undo for step in back.steps)


@given(hosts(), UPLINKS, st.booleans())
def test_what_is_done_first_is_what_the_rest_needs(host: Inventory, uplinks: tuple[str, ...], switched: bool) -> None:  # noqa: FBT001
    found = assess(host, *uplinks, switched=switched)
    if found.plan is None:
        return
    order = [KeepRelay, SetHugePages, BindVf, SetVf, SetSwitch, SetRelayBridge]
    done = [order.index(type(operation)) for step in found.plan.steps[:-1] for operation in step.apply]
    assert done == sorted(done)
    states = [step.apply[0].relay.state for step in found.plan.steps if isinstance(step.apply[0], KeepRelay)]
    assert states == [RelayState.ENABLING, RelayState.ENABLED]


@given(hosts(), UPLINKS, st.booleans())
def test_a_relay_survives_being_written_down(host: Inventory, uplinks: tuple[str, ...], switched: bool) -> None:  # noqa: FBT001
    found = assess(host, *uplinks, switched=switched)
    if found.plan is not None:
        assert decode(encode(found.plan.relay), type=Relay) == found.plan.relay
