"""A NIC with long frames goes by a PF that passes them, where there is one beside others, and else not at all."""

import pytest
from msgspec.structs import replace

from fakes.clock import run_virtually
from fakes.nic_moves import NicCase, make_fleet
from fakes.relay import HOST, with_pf
from fakes.samples import GUEST, MAC, SOURCE
from fakes.world import NETWORK
from vferry.controller.guest_nic import read_facts
from vferry.host.api import Define, JoinRelay, ReadDefinition, ShowGuest, TakeInventory
from vferry.model.guest import Guest, GuestState, Nic
from vferry.model.host import Bridge, Inventory, Network
from vferry.model.relay import Relay, RelayBridge, RelayKind, RelayState, RelayUplink
from vferry.plan import guest_nic, nic_definition, running_nic
from vferry.plan.facts import Facts
from vferry.plan.nic_plan import NicAssessment, NicTarget

VF, RELAY, VIRTIO = NicTarget.VF, NicTarget.RELAY, NicTarget.VIRTIO
UPLINKS = ("pf0", "pf1")
DIRECT = Relay(operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.DIRECT, uplinks=UPLINKS, cores=(7,))
NARROW = replace(
    HOST,
    networks={"a": Network(pf="pf0", bridge="br0", more_pfs=("pf1",))},
    bridges=(Bridge(name="br0", ports=("pf0",)),),
    relay=DIRECT,
)
"""Both PFs pass 1500 bytes."""
WIDE = with_pf(NARROW, "pf1", mtu=9000)
"""One of them passes more."""


def off(host: Inventory, to: NicTarget, mtu: int) -> NicAssessment:
    """A guest that is off, and whose definition tells it of an MTU."""
    told = f"<mtu size='{mtu}'/>" if mtu else ""
    xml = f"<domain><devices><interface type='bridge'><mac address='{MAC}'/>{told}</interface></devices></domain>"
    nic = Nic(mac=MAC, model="virtio", alias="", bridge="br0")
    guest = Guest(name="web", uuid="u", host="host1", nics=(nic,), state=GuestState.OFF)
    return guest_nic.assess(host, guest, xml, MAC, to, "nic-1")


@pytest.mark.parametrize(("mtu", "pf"), [(0, "pf0"), (1500, "pf0"), (9000, "pf1")])
def test_of_a_guest_that_is_off_its_definition_says_how_long(mtu: int, pf: str) -> None:
    plan = off(WIDE, RELAY, mtu).plan
    assert plan is not None
    (join,) = (each for step in plan.steps for each in step.apply if isinstance(each, JoinRelay))
    assert join.port.vf is not None
    there = WIDE.pf(pf)
    assert there is not None
    assert (join.port.vf.pf, join.port.mtu) == (pf, there.mtu)
    (defined,) = (each for step in plan.steps for each in step.apply if isinstance(each, Define))
    assert nic_definition.mtu_of(defined.xml, MAC) == mtu


@pytest.mark.parametrize("mtu", [0, 9000])
def test_a_guest_gets_a_vf_that_passes_it_too(mtu: int) -> None:
    plan = off(WIDE, VF, mtu).plan
    assert plan is not None
    (address,) = plan.vfs
    given = WIDE.vf(address)
    assert given is not None
    assert given.pf == ("pf1" if mtu else "pf0")
    assert off(NARROW, VF, mtu).plan is not None, "libvirt tells no guest of a VF's MTU"


SWITCHED = replace(
    DIRECT,
    kind=RelayKind.SWITCHED,
    bridges=(
        RelayBridge(name="relay0", uplinks=(RelayUplink(name="relay0-up0", address=HOST.pfs[0].vfs[0].address),)),
    ),
)


@pytest.mark.parametrize(
    ("host", "code"),
    [(NARROW, "relay-mtu"), (replace(NARROW, relay=SWITCHED), "mtu-too-small")],
    ids=["direct", "switch"],
)
def test_it_is_on_no_relay_that_would_lose_what_it_sends(host: Inventory, code: str) -> None:
    assessed = off(host, RELAY, 9000)
    assert [(each.code, bool(each.remedy)) for each in assessed.errors] == [(code, True)]
    assert off(host, RELAY, 1500).plan is not None


def facts_of(case: NicCase, mtu: int) -> Facts:
    """A guest that runs with an MTU, on a host whose second PF passes 9000 bytes, to its bridge, too."""

    async def read() -> Facts:
        host = make_fleet(case).host(SOURCE, "nobody")
        inventory = await host.call(TakeInventory())
        guest = await host.call(ShowGuest(guest=GUEST))
        return await read_facts(host, inventory, guest, await host.call(ReadDefinition(guest=GUEST)))

    facts = run_virtually(read())
    network = facts.guest_network
    assert network is not None
    assert facts.source.relay is not None
    (pf,) = facts.source.pfs
    wide = tuple(replace(vf, pf="pf1") for vf in pf.vfs[2:])
    source = replace(
        facts.source,
        pfs=(replace(pf, vfs=pf.vfs[:2]), replace(pf, name="pf1", mtu=9000, vfs=wide)),
        networks={NETWORK: replace(facts.source.networks[NETWORK], more_pfs=("pf1",))},
        bridges=tuple(replace(bridge, ports=("pf1",)) for bridge in facts.source.bridges),
        relay=replace(facts.source.relay, uplinks=UPLINKS),
    )
    links = tuple(replace(link, mtu=mtu) for link in network.links)
    return replace(facts, source=source, destination=source, guest_network=replace(network, links=links))


@pytest.mark.parametrize("of", [VF, VIRTIO])
@pytest.mark.parametrize(("mtu", "pf"), [(1500, "pf0"), (9000, "pf1")])
def test_of_one_that_runs_it_says_itself(of: NicTarget, mtu: int, pf: str) -> None:
    """The VF that it only goes by, too, is one that passes what it sends."""
    assessed = running_nic.assess(facts_of(NicCase(of, RELAY), mtu), MAC, RELAY, "nic-1")
    assert assessed.errors == ()
    assert assessed.plan is not None
    assert assessed.plan.move is not None
    *gone_by, last = assessed.plan.move.legs
    assert last.joined is not None
    assert last.joined.pf == pf
    assert all(leg.swap.vf.pf == "pf1" for leg in gone_by if mtu > 1500)
