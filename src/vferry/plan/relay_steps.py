"""What makes a relay, and what takes it back: pure functions of what it is to be."""

from collections.abc import Iterator

from msgspec.structs import replace

from vferry.host.api import (
    BindVf,
    ForgetRelay,
    KeepRelay,
    RejoinGuests,
    SetHugePages,
    SetRelayBridge,
    SetRelayGateway,
    SetSwitch,
    SetVf,
)
from vferry.model.host import VfSettings, opened
from vferry.model.relay import HugePages, Relay, RelayBridge, RelayGateway, RelayState, RelayVf
from vferry.plan.host_step import HostStep


def enabling(relay: Relay) -> tuple[HostStep, ...]:
    """Makes the relay. What it is, is kept first, so that whoever comes later can go on or take it back."""
    return (_keep(relay), *_making(relay), _kept(relay))


def repairing(relay: Relay) -> tuple[HostStep, ...]:
    """Makes again what is missing of a relay that is made, and stays so for its guests meanwhile."""
    return (*_making(relay), *_rejoining(relay), _kept(relay))


def disabling(relay: Relay) -> tuple[HostStep, ...]:
    """Takes the relay back, in the other order; it only goes forward, and may be asked for again."""
    first = HostStep(
        name="keep",
        summary="remember that the relay is being taken back",
        apply=(KeepRelay(relay=replace(relay, state=RelayState.DISABLING)),),
    )
    back = (
        HostStep(name=step.name, summary=f"take back: {step.summary}", apply=step.undo)
        for step in reversed((*_making(relay),))
    )
    last = HostStep(name="forget", summary="forget the relay", apply=(ForgetRelay(),))
    return (first, *back, last)


def leading(before: Relay, gateway: RelayGateway) -> tuple[HostStep, ...]:
    """Has a VLAN go to a gateway, in place of the one that it went to. The relay stays made for its guests."""
    old = before.gateway(gateway.bridge, gateway.vlan)
    others = tuple(each for each in before.gateways if each != old)
    made = replace(before, gateways=(*others, gateway))
    keep = HostStep(
        name="keep",
        summary="remember where the VLAN is to go",
        apply=(KeepRelay(relay=made),),
        undo=(KeepRelay(relay=before),),
    )
    step = _gateway(gateway)
    if old is not None:
        step = replace(step, undo=(SetRelayGateway(gateway=old, present=True),))
    return (keep, step)


def not_leading(before: Relay, gateway: RelayGateway) -> tuple[HostStep, ...]:
    """Has a VLAN go to its uplinks alone; what fails may be asked for again."""
    step = _gateway(gateway)
    left = replace(before, gateways=tuple(each for each in before.gateways if each != gateway))
    return (
        HostStep(name=step.name, summary=f"take back: {step.summary}", apply=step.undo, undo=step.apply),
        HostStep(name="forget", summary="forget where the VLAN went", apply=(KeepRelay(relay=left),)),
    )


def _keep(relay: Relay) -> HostStep:
    return HostStep(
        name="keep",
        summary="remember what the relay is to be",
        apply=(KeepRelay(relay=replace(relay, state=RelayState.ENABLING)),),
        undo=(ForgetRelay(),),
    )


def _kept(relay: Relay) -> HostStep:
    done = KeepRelay(relay=replace(relay, state=RelayState.ENABLED))
    return HostStep(name="done", summary="remember that the relay is made", apply=(done,))


def _making(relay: Relay) -> Iterator[HostStep]:
    yield from map(_pages, relay.pages)
    yield from map(_bind, relay.vfs)
    if relay.switched:
        yield from map(_open, relay.vfs)
    yield _switch(relay)
    yield from map(_bridge, relay.bridges)
    yield from map(_gateway, relay.gateways)


def _rejoining(relay: Relay) -> Iterator[HostStep]:
    if relay.ports:
        guests = ", ".join(sorted({port.guest for port in relay.ports}))
        yield HostStep(name="guests", summary=f"the ports of its guests: {guests}", apply=(RejoinGuests(),))


def _pages(pages: HugePages) -> HostStep:
    what = SetHugePages(node=pages.node, size_kib=pages.size_kib, count=pages.count)
    return HostStep(
        name="huge-pages",
        summary=f"{pages.added_mib} MiB more of huge pages on NUMA node {pages.node}",
        apply=(what,),
        undo=(replace(what, count=pages.before, instead_of=pages.count),),
    )


def _bind(vf: RelayVf) -> HostStep:
    return HostStep(
        name="bind-vf",
        summary=f"VF {vf.index} of {vf.pf} ({vf.address}) to {vf.bound}",
        apply=(BindVf(address=vf.address, driver=vf.bound),),
        undo=(BindVf(address=vf.address, driver=vf.driver, if_there=True),),
    )


def _open(vf: RelayVf) -> HostStep:
    was = VfSettings(trust=vf.trust, spoof_check=vf.spoof_check)
    return HostStep(
        name="open-vf",
        summary=f"VF {vf.index} of {vf.pf} passes other MACs than its own",
        apply=(SetVf(pf=vf.pf, index=vf.index, settings=opened(vf)),),
        undo=(SetVf(pf=vf.pf, index=vf.index, settings=was, only_at=vf.address),),
    )


def _switch(relay: Relay) -> HostStep:
    cores = ", ".join(map(str, relay.cores))
    none = dict.fromkeys(relay.settings)
    return HostStep(
        name="switch",
        summary=f"Open vSwitch forwards with DPDK on CPU {cores}",
        apply=(SetSwitch(settings={**relay.settings}, instead_of={**none}, start=True),),
        undo=(SetSwitch(settings={**none}, instead_of={**relay.settings}),),
    )


def _bridge(bridge: RelayBridge) -> HostStep:
    uplinks = " and ".join(uplink.address for uplink in bridge.uplinks)
    return HostStep(
        name="bridge",
        summary=f"bridge {bridge.name} in user space, with {uplinks} as its uplink",
        apply=(SetRelayBridge(bridge=bridge, present=True),),
        undo=(SetRelayBridge(bridge=bridge, present=False),),
    )


def _gateway(gateway: RelayGateway) -> HostStep:
    return HostStep(
        name="gateway",
        summary=gateway.described,
        apply=(SetRelayGateway(gateway=gateway, present=True),),
        undo=(SetRelayGateway(gateway=gateway, present=False),),
    )
