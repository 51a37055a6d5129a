"""Mode `relay`: a virtio NIC that a user-space switch joins to a VF, or to others; the guest sees nothing of it.

The destination's port is there before QEMU is, which waits for it at its start. A VF of its own takes the guest's MAC
the moment that the guest runs there, by the agent itself; the source's lets go of it after that. A switch, which all
guests share, learns then where the guest is; that of the source has no port for it any more.
"""

from msgspec import structs

from vferry.host.api import JoinRelay, LeaveRelay, SetBinding, SetVf
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.ovn import NORTHBOUND
from vferry.model.relay import RelayPort
from vferry.model.report import Phase
from vferry.network.step import Step
from vferry.plan.plan import Plan, PortMove, VfMove


def join(plan: Plan, move: VfMove) -> list[Step]:
    """Joins the NIC to the destination's VF, which gets no MAC yet."""
    port, vf = _port(move), move.destination
    own = VfSettings(mac=move.mac)
    return [
        Step(
            phase=Phase.PREPARE,
            name="join-relay",
            host=plan.destination,
            summary=f"join {move.mac} to VF {vf.index} of {vf.pf} by the relay",
            apply=(
                JoinRelay(port=port, settings=move.carried),
                SetVf(pf=vf.pf, index=vf.index, settings=own, arriving=plan.guest),
            ),
            undo=(LeaveRelay(guest=plan.guest, mac=move.mac),),
        )
    ]


def settle(plan: Plan, move: VfMove) -> list[Step]:
    """Makes sure of the destination's VF, then has the source's take none of the guest's frames any more."""
    here, there, port = move.source, move.destination, _port(move)
    settings = structs.replace(move.carried, mac=move.mac)
    return [
        Step(
            phase=Phase.SWITCHOVER,
            name="settle-vf",
            host=plan.destination,
            summary=f"make sure that VF {there.index} of {there.pf} has {move.mac} and its settings, also after a boot",
            apply=(
                SetVf(pf=there.pf, index=there.index, settings=settings),
                JoinRelay(port=port, settings=settings),
            ),
        ),
        Step(
            phase=Phase.SWITCHOVER,
            name="close-vf",
            host=plan.source,
            summary=f"take {move.mac} from VF {here.index} of {here.pf}",
            apply=(SetVf(pf=here.pf, index=here.index, settings=VfSettings(mac=NO_MAC)),),
        ),
    ]


def leave(plan: Plan, move: VfMove) -> list[Step]:
    """Takes the NIC off the source's relay."""
    vf = move.source
    return [
        Step(
            phase=Phase.RESTORE,
            name="leave-relay",
            host=plan.source,
            summary=f"take {move.mac} off the relay, and give VF {vf.index} of {vf.pf} back",
            apply=(LeaveRelay(guest=plan.guest, mac=move.mac),),
        )
    ]


def share_ports(plan: Plan) -> list[Step]:
    """Lets OVN bind its ports at the destination, too, which pass nothing there before the guest runs."""
    return [
        Step(
            phase=Phase.PREPARE,
            name="share-port",
            host=NORTHBOUND,
            summary=f"let {each.both.name} be bound at {each.both.requested_chassis}",
            apply=(SetBinding(port=each.both),),
            # Who undoes because OVN does nothing has it say what was there, for when it does again.
            undo=(SetBinding(port=each.before, awaited=False),),
        )
        for each in plan.rebindings
    ]


def settle_ports(plan: Plan) -> list[Step]:
    """Has OVN know its ports at the destination alone."""
    return [
        Step(
            phase=Phase.SWITCHOVER,
            name="settle-port",
            host=NORTHBOUND,
            summary=f"have {each.after.name} bound at {each.after.requested_chassis} alone",
            apply=(SetBinding(port=each.after),),
        )
        for each in plan.rebindings
    ]


def free_ports(plan: Plan) -> list[Step]:
    """Has OVN bind those wherever they are which it bound so before, once the source has none of them any more."""
    return [
        Step(
            phase=Phase.SWITCHOVER,
            name="free-port",
            host=NORTHBOUND,
            summary=f"let {each.before.name} be bound wherever its guest is, as before",
            apply=(SetBinding(port=each.before),),
            requires="leave-relay",
        )
        for each in plan.rebindings
        if each.before.requested_chassis is None
    ]


def join_switch(plan: Plan, move: PortMove) -> Step:
    """Makes the NIC's port on the destination's bridge, which has not seen the guest's MAC there yet."""
    return Step(
        phase=Phase.PREPARE,
        name="join-relay",
        host=plan.destination,
        summary=f"join {move.mac} to {move.destination.joined_to} by the relay",
        apply=(JoinRelay(port=move.destination),),
        undo=(LeaveRelay(guest=plan.guest, mac=move.mac),),
    )


def leave_switch(plan: Plan, move: PortMove) -> Step:
    """Takes the NIC's port off the source's bridge, which else gives its other guests' frames to nobody there."""
    return Step(
        phase=Phase.SWITCHOVER,
        name="leave-relay",
        host=plan.source,
        summary=f"take {move.mac} off {move.source.joined_to}",
        apply=(LeaveRelay(guest=plan.guest, mac=move.mac),),
    )


def _port(move: VfMove) -> RelayPort:
    assert move.relay_port is not None, "a NIC on a relay has a port"  # noqa: S101 - planned so
    return move.relay_port
