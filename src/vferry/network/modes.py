"""From a plan to its steps: what all migrations share, with each network mode's own steps in their places."""

from collections.abc import Callable

from vferry.host.api import Announce, ClaimResources, Define, ReleaseClaim, SetForwarding, TeachBridge, Undefine
from vferry.model.compression import Codec
from vferry.model.report import Phase
from vferry.network import detach, failover, switch, vf, vfio
from vferry.network.step import CloseGateways, Copy, OpenGateways, Stages, Step, TakeConnections
from vferry.plan.plan import NetworkMode, Plan, VfMove

Part = Callable[[Plan, VfMove], list[Step]]


def stages(plan: Plan) -> Stages:
    """All steps of a plan, in order. Pure: a controller that takes over builds the same ones."""
    return Stages(
        before=(
            *_claims(plan),
            *vfio.make_devices(plan),
            *_each(plan, "prepare"),
            *_forwarding(plan, plan.destination, present=True),
            _gateways(plan),
            *_each(plan, "leave"),
            _copy(plan),
        ),
        landing=(
            *_connections(plan),
            *_announcements(plan),
            *_each(plan, "landing"),
            *_forwarding(plan, plan.source, present=False),
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
        "prepare": (vf.configure, switch.open_path),
        "leave": (switch.to_standby,),
        "landing": (switch.leave_source,),
        "arrive": (switch.to_vf,),
        "restore": (switch.settle, vf.wipe),
    },
    NetworkMode.FAILOVER: {
        "prepare": (vf.configure, switch.open_path),
        "leave": (failover.to_standby,),
        "landing": (switch.leave_source,),
        "arrive": (failover.to_vf,),
        "restore": (vf.wipe,),
    },
    NetworkMode.DETACH: {
        "prepare": (vf.configure, detach.open_path),
        "leave": (detach.detach,),
        "landing": (detach.leave_source,),
        "arrive": (detach.attach,),
        "restore": (switch.settle, vf.wipe),
    },
    NetworkMode.MACVTAP: {
        "prepare": (vf.configure,),
        "leave": (),
        "landing": (vf.settle,),
        "arrive": (),
        "restore": (vf.wipe,),
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


def _forwarding(plan: Plan, host: str, *, present: bool) -> list[Step]:
    """The PF's filter entries of NICs that go over a bridge: made at the destination first, then removed behind."""
    return [
        Step(
            phase=Phase.PREPARE if present else Phase.SWITCHOVER,
            name="open-forwarding" if present else "close-forwarding",
            host=host,
            summary=f"{'let' if present else 'no longer let'} {uplink} pass {each.mac} to its bridge",
            apply=(SetForwarding(pf=uplink, mac=each.mac, present=present),),
            undo=(SetForwarding(pf=uplink, mac=each.mac, present=False),) if present else (),
        )
        for each in plan.forwarded
        for uplink in (each.destination_uplink if present else each.source_uplink,)
    ]


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


def _announcements(plan: Plan) -> list[Step]:
    """As soon as the guest has resumed: until switches have learnt where the guest is, its frames go to the source."""
    if not plan.announced:
        return []
    # Held: what is announced may come back to the bridge by its uplink.
    ports = (
        TeachBridge(guest=plan.guest, mac=each.mac, uplink=each.uplink)
        if each.uplink
        else TeachBridge(guest=plan.guest, mac=each.mac, hold=True)
        for each in plan.announced
    )
    frames = (
        Announce(
            guest=plan.guest,
            mac=each.mac,
            interface=each.interface,
            vlan=each.vlan,
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
    return OpenGateways(
        phase=Phase.PREPARE,
        name="open-gateways",
        host=plan.source,
        destination=plan.destination,
        summary=f"open a mutual-TLS gateway from {plan.source} to {plan.destination}{how}",
    )


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
