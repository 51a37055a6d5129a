"""Mode `failover`: the guest's net_failover driver uses the VF while it is there, and else the virtio NIC of the pair.

The driver pairs by the MAC that the VF has when it appears, drops what the virtio NIC receives while there is a VF, and
changes over the moment that the VF comes or goes. So the MAC must be in the VF's filter before the VF is plugged, and
until after it is unplugged: to make before breaking, the PF has it as well meanwhile. Which of the two then gets the
frames is the NIC's to say (docs/decisions/0011-failover-both-filters.md). The bridge is told where the guest is, since
it may have learnt from what the guest has sent by the other NIC, and the virtio NIC stays.

QEMU would unplug and plug the VF itself, without a bound of time, and plug it while the guest stands still. It finds
none: the VF is unplugged before the copy, and plugged after the guest has resumed.
"""

from vferry.host.api import RunInGuest, SetForwarding, SetVf, TeachBridge, Unplug
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.report import Phase
from vferry.network import guest_script, switch
from vferry.network.step import Step
from vferry.network.vf import plugged
from vferry.plan.plan import GuestSide, Plan, VfMove


def to_standby(plan: Plan, move: VfMove) -> list[Step]:
    """Takes the source's VF away; the guest goes on on its virtio NIC."""
    host, vf, standby = plan.source, move.source, move.source_standby
    choose = Step(
        phase=Phase.TO_STANDBY,
        name="pair-to-standby",
        host=host,
        summary="have the guest send by its virtio NIC, and take what this receives, while it has a VF",
        apply=(guest_script.run(plan.guest, guest_script.pair_to_standby(move.mac)),),
        undo=(guest_script.run(plan.guest, guest_script.settle_pair(move.mac)),),
    )
    unplug = Step(
        phase=Phase.TO_STANDBY,
        name="unplug-vf",
        host=host,
        summary=f"unplug VF {vf.index} of {vf.pf} ({vf.address}), and clear its filter",
        apply=(
            Unplug(guest=plan.guest, alias=move.source_alias, timeout_s=plan.unplug_timeout_s),
            TeachBridge(guest=plan.guest, mac=move.mac),
            SetVf(pf=vf.pf, index=vf.index, settings=VfSettings(mac=NO_MAC)),
            *switch.told(plan, move, vf, standby, standby.uplink),
        ),
        undo=(
            SetVf(pf=vf.pf, index=vf.index, settings=move.source_settings),
            plugged(plan, move, vf.address, move.source_alias, move.standby_alias),
            *_await_vf(plan, move),
            *switch.told(plan, move, vf, standby, vf.pf),
        ),
    )
    chooses = [choose] if move.guest_side is GuestSide.FAILOVER else []
    return [*chooses, *_also_to_bridge(plan, move), unplug]


def _also_to_bridge(plan: Plan, move: VfMove) -> list[Step]:
    vf, standby = move.source, move.source_standby
    if standby.filtered is None:
        return []
    return [
        Step(
            phase=Phase.TO_STANDBY,
            name="filter-also-to-bridge",
            host=plan.source,
            summary=f"let {standby.uplink} pass {move.mac} to the bridge {standby.on.device}, "
            f"as VF {vf.index} does to the guest",
            apply=switch.also_to_bridge(plan, move),
            undo=(
                TeachBridge(guest=plan.guest, mac=move.mac, uplink=standby.uplink),
                SetForwarding(pf=standby.filtered, mac=move.mac, present=False),
            ),
        )
    ]


def to_vf(plan: Plan, move: VfMove) -> list[Step]:
    """Gives the guest a VF of the destination: `to_standby`, mirrored."""
    host, vf, standby = plan.destination, move.destination, move.destination_standby
    both = Step(
        phase=Phase.TO_VF,
        name="filter-also-to-vf",
        host=host,
        summary=f"put {move.mac} into the filter of VF {vf.index} as well",
        apply=(SetVf(pf=vf.pf, index=vf.index, settings=VfSettings(mac=move.mac)),),
        undo=(SetVf(pf=vf.pf, index=vf.index, settings=VfSettings(mac=NO_MAC)),),
    )
    plug = Step(
        phase=Phase.TO_VF,
        name="plug-vf",
        host=host,
        summary=f"plug VF {vf.index} of {vf.pf} ({vf.address}), which the guest's driver then uses",
        apply=(
            plugged(plan, move, vf.address, move.vf_alias, move.standby_alias),
            *_await_vf(plan, move),
            *switch.told(plan, move, vf, standby, vf.pf),
        ),
        undo=(
            Unplug(guest=plan.guest, alias=move.vf_alias, timeout_s=plan.unplug_timeout_s),
            *switch.told(plan, move, vf, standby, standby.uplink),
        ),
    )
    return [both, plug, *_only_to_vf(plan, move)]


def _only_to_vf(plan: Plan, move: VfMove) -> list[Step]:
    standby = move.destination_standby
    if standby.filtered is None:
        return []
    return [
        Step(
            phase=Phase.TO_VF,
            name="filter-to-vf",
            host=plan.destination,
            summary=f"stop {standby.uplink} from taking frames for {move.mac}",
            apply=(
                TeachBridge(guest=plan.guest, mac=move.mac, uplink=standby.uplink),
                SetForwarding(pf=standby.filtered, mac=move.mac, present=False),
            ),
            undo=(
                SetForwarding(pf=standby.filtered, mac=move.mac, present=True),
                TeachBridge(guest=plan.guest, mac=move.mac),
            ),
        )
    ]


def _await_vf(plan: Plan, move: VfMove) -> tuple[RunInGuest, ...]:
    """Only a guest whose agent answers can be asked whether its driver uses the VF."""
    if move.guest_side is not GuestSide.FAILOVER:
        return ()
    return (guest_script.run(plan.guest, guest_script.failover_to_vf(move.mac)),)
