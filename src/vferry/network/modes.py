"""From a plan to its steps: what all migrations share, with each network mode's own steps in their places."""

from collections.abc import Callable

from vferry.host.api import (
    Announce,
    ClaimResources,
    Define,
    ExpectGuest,
    ReclaimFree,
    ReleaseClaim,
    ReturnFree,
    SetForwarding,
    TeachBridge,
    Undefine,
)
from vferry.model.compression import Codec
from vferry.model.report import Phase
from vferry.network import detach, failover, relay, switch, vf, vfio
from vferry.network.step import (
    CloseGateways,
    Copy,
    OpenGateways,
    Stages,
    Step,
    TakeConnections,
    TakePortConnections,
)
from vferry.plan.plan import NetworkMode, Plan, VfMove

Part = Callable[[Plan, VfMove], list[Step]]


def stages(plan: Plan) -> Stages:
    """All steps of a plan, in order. Pure: a controller that takes over builds the same ones."""
    return Stages(
        before=(
            *_claims(plan),
            *vfio.make_devices(plan),
            *_each(plan, "prepare"),
            *relay.share_ports(plan),
            *(relay.join_switch(plan, port) for port in plan.ports),
            *_forwarding(plan, arriving=True),
            *_expect_announcing(plan),
            _gateways(plan),
            *_each(plan, "leave"),
            *_reclaim(plan),
            _copy(plan),
        ),
        landing=(
            *_connections(plan),
            *_announcements(plan),
            *_port_connections(plan),
            *relay.settle_ports(plan),
            *_forwarding(plan, arriving=False),
            *_each(plan, "landing"),
            *(relay.leave_switch(plan, port) for port in plan.ports),
            *relay.free_ports(plan),
            *_leave_source(plan),
        ),
        arrival=tuple(_each(plan, "arrive")),
        after=(*_each(plan, "restore"), *vfio.remove_devices(plan), *_hand_over(plan)),
    )


_PARTS: dict[NetworkMode, dict[str, tuple[Part, ...]]] = {
    NetworkMode.VFIO: {
        "prepare": (vfio.configure,),
        "leave": (),
        "landing": (),
        "arrive": (),
        "restore": (vf.wipe,),
    },
    NetworkMode.SWITCH: {
        "prepare": (vf.configure,),
        "leave": (switch.to_standby,),
        "landing": (),
        "arrive": (switch.to_vf,),
        "restore": (switch.settle, vf.wipe),
    },
    NetworkMode.FAILOVER: {
        "prepare": (vf.configure,),
        "leave": (failover.to_standby,),
        "landing": (),
        "arrive": (failover.to_vf,),
        "restore": (vf.wipe,),
    },
    NetworkMode.DETACH: {
        "prepare": (vf.configure,),
        "leave": (detach.detach,),
        "landing": (),
        "arrive": (detach.attach,),
        "restore": (switch.settle, vf.wipe),
    },
    NetworkMode.MACVTAP: {
        "prepare": (vf.configure, vf.hide),
        "leave": (),
        "landing": (vf.settle,),
        "arrive": (),
        "restore": (vf.wipe,),
    },
    NetworkMode.RELAY: {
        "prepare": (vf.configure, relay.join),
        "leave": (),
        "landing": (relay.settle,),
        "arrive": (),
        "restore": (relay.leave, vf.wipe),
    },
}


def _each(plan: Plan, place: str) -> list[Step]:
    """The steps of all NICs in one place, each by its own mode."""
    return [step for move in plan.moves for part in _PARTS[move.mode][place] for step in part(plan, move)]


def _claims(plan: Plan) -> list[Step]:
    """One claim a host, of all that it holds of this migration: all of it, or nothing."""
    return [
        Step(
            phase=Phase.PREPARE,
            name="claim",
            host=host,
            summary=f"claim {', '.join((plan.guest, *(f'VF {vf}' for vf in vfs)))} and a migration slot",
            apply=(ClaimResources(guest=plan.guest, vfs=vfs),),
            undo=(ReleaseClaim(),),
        )
        for host, vfs in ((plan.source, plan.source_vfs), (plan.destination, plan.destination_vfs))
    ]


def _forwarding(plan: Plan, *, arriving: bool) -> list[Step]:
    """The destination's PFs take the guest's MACs once it runs there: by the agent itself, which hears of it first."""
    passed = [(each.destination_uplink, each.mac) for each in plan.forwarded if each.destination_uplink]
    if not passed:
        return []
    guest = plan.guest if arriving else ""
    waiting = f", once {plan.guest} runs here" if arriving else ""
    removed = tuple(SetForwarding(pf=uplink, mac=mac, present=False) for uplink, mac in passed)
    return [
        Step(
            phase=Phase.PREPARE if arriving else Phase.SWITCHOVER,
            name="expect-on-bridge" if arriving else "open-bridge",
            host=plan.destination,
            summary=f"let {_listed(passed)} pass to the bridge{waiting}",
            apply=tuple(SetForwarding(pf=uplink, mac=mac, present=True, arriving=guest) for uplink, mac in passed),
            undo=removed if arriving else (),
        )
    ]


def _expect_announcing(plan: Plan) -> list[Step]:
    """By frames that say where a MAC is, and no addresses: a round trip sooner than all of it follows (`announce`)."""
    if not plan.announced:
        return []
    frames = (
        Announce(guest=plan.guest, mac=each.mac, interface=each.interface, vlan=each.vlan, port=each.port)
        for each in plan.announced
    )
    return [
        Step(
            phase=Phase.PREPARE,
            name="expect-guest",
            host=plan.destination,
            summary=f"announce {', '.join(each.mac for each in plan.announced)}, once {plan.guest} runs here",
            apply=(ExpectGuest(guest=plan.guest, announced=tuple(frames)),),
            undo=(ExpectGuest(guest=plan.guest),),
        )
    ]


def _leave_source(plan: Plan) -> list[Step]:
    """The source's PFs stop taking the guest's frames, once it runs elsewhere."""
    passed = [(each.source_uplink, each.mac) for each in plan.forwarded if each.source_uplink]
    if not passed:
        return []
    return [
        Step(
            phase=Phase.SWITCHOVER,
            name="close-bridge",
            host=plan.source,
            summary=f"no longer let {_listed(passed)} pass to the bridge",
            apply=tuple(SetForwarding(pf=uplink, mac=mac, present=False) for uplink, mac in passed),
        )
    ]


def _listed(passed: list[tuple[str, str]]) -> str:
    return ", ".join(f"{mac} by {uplink}" for uplink, mac in passed)


def _connections(plan: Plan) -> list[Step]:
    """First of all after the resume: what a filter does not know it may answer, and so end."""
    if not plan.tracked:
        return []
    whose = f"the connections of {', '.join(plan.tracked)} that {plan.source} tracks"
    return [
        TakeConnections(
            phase=Phase.SWITCHOVER,
            name="take-connections",
            host=plan.destination,
            source=plan.source,
            summary=f"know {whose}, as during the copy",
        )
    ]


def _port_connections(plan: Plan) -> list[Step]:
    """While OVN has the ports at the source still: once it has not, nobody knows in which zones they were tracked."""
    if not plan.bound:
        return []
    return [
        TakePortConnections(
            phase=Phase.SWITCHOVER,
            name="take-port-connections",
            host=plan.destination,
            source=plan.source,
            summary=f"track the connections of {', '.join(plan.bound)} that the switch of {plan.source} tracks",
        )
    ]


def _announcements(plan: Plan) -> list[Step]:
    """As soon as the guest has resumed: until switches have learnt where the guest is, its frames go to the source."""
    if not plan.announced:
        return []
    bridged = (each for each in plan.announced if each.interface is not None)
    ports = (TeachBridge(guest=plan.guest, mac=each.mac, uplink=each.uplink) for each in bridged)
    frames = (
        Announce(
            guest=plan.guest,
            mac=each.mac,
            interface=each.interface,
            vlan=each.vlan,
            port=each.port,
            addresses=each.addresses,
            router=plan.routes_ipv6,
        )
        for each in plan.announced
    )
    return [
        Step(
            phase=Phase.SWITCHOVER,
            name="announce",
            host=plan.destination,
            summary=f"announce {', '.join(each.mac for each in plan.announced)} to bridges and switches",
            apply=(*ports, *frames),
        )
    ]


def _gateways(plan: Plan) -> Step:
    codec = plan.transfer.codec
    how = "" if codec is Codec.NONE else f", compressing with {codec.value}"
    if plan.transfer.direct:
        how = " for libvirt alone: QEMU sends the memory by itself"
    return OpenGateways(
        phase=Phase.PREPARE,
        name="open-gateways",
        host=plan.source,
        destination=plan.destination,
        summary=f"open a mutual-TLS gateway from {plan.source} to {plan.destination}{how}",
    )


def _reclaim(plan: Plan) -> list[Step]:
    """After VFs have gone: while there is one, QEMU gives none of the guest's memory back."""
    if not plan.transfer.reclaim_free:
        return []
    return [
        Step(
            phase=Phase.COPY,
            name="reclaim-free",
            host=plan.source,
            summary=f"have the balloon of {plan.guest} take what it has free, and give it back",
            apply=(ReclaimFree(guest=plan.guest),),
            undo=(ReturnFree(guest=plan.guest),),
        )
    ]


def _copy(plan: Plan) -> Step:
    return Copy(
        phase=Phase.COPY,
        name="copy-memory",
        host=plan.source,
        summary=f"copy the memory and let the guest go on at {plan.destination}",
    )


def _hand_over(plan: Plan) -> list[Step]:
    return [
        CloseGateways(
            phase=Phase.RESTORE,
            name="close-gateways",
            host=plan.source,
            destination=plan.destination,
            summary="close both gateways and take their figures",
        ),
        Step(
            phase=Phase.RESTORE,
            name="define",
            host=plan.destination,
            summary="make the definition name the VF of this host, for the next cold boot",
            apply=(Define(xml=plan.persistent_xml),),
        ),
        Step(
            phase=Phase.RESTORE,
            name="undefine",
            host=plan.source,
            summary=f"remove the definition of {plan.guest}",
            apply=(Undefine(guest=plan.guest),),
            requires="define",
        ),
        *(
            Step(
                phase=Phase.RESTORE,
                name="release",
                host=host,
                summary="release the claims",
                apply=(ReleaseClaim(),),
            )
            for host in (plan.source, plan.destination)
        ),
    ]
