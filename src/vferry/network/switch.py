"""Mode `switch`: traffic moves to a virtio NIC with the VF's MAC for the migration, and back to a VF after it."""

from vferry.host.api import Announce, MoveFilter, PlugStandby, SetForwarding, TeachBridge
from vferry.model.guest import VfRef
from vferry.model.report import Phase
from vferry.network import guest_script, swap
from vferry.network.step import Step
from vferry.plan.plan import Plan, Standby, VfMove
from vferry.plan.swap import Swap


def to_standby(plan: Plan, move: VfMove) -> list[Step]:
    """Leaves the source's VF for the standby NIC."""
    aliases = (move.source_alias, move.vf_alias)
    return swap.leave_vf(_swap(plan, move, plan.source, move.source, move.source_standby, aliases))


def to_vf(plan: Plan, move: VfMove) -> list[Step]:
    """Leaves the standby NIC for the destination's VF."""
    return swap.take_vf(
        _swap(plan, move, plan.destination, move.destination, move.destination_standby, (move.vf_alias,))
    )


def settle(plan: Plan, move: VfMove) -> list[Step]:
    """Gives the guest's NICs back to its own network configuration."""
    if not move.contested:
        return []
    return [
        Step(
            phase=Phase.RESTORE,
            name="settle-guest",
            host=plan.destination,
            summary="give the guest's NICs back to its own network configuration",
            apply=(guest_script.run(plan.guest, guest_script.settle(move.mac)),),
        )
    ]


def move_filter(vf: VfRef, standby: Standby, mac: str, *, to_vf: bool) -> MoveFilter:
    """Between a VF's filter and that of the standby NIC's way out."""
    return MoveFilter(pf=vf.pf, index=vf.index, mac=mac, to_vf=to_vf, uplink=standby.filtered)


def also_to_bridge(plan: Plan, move: VfMove) -> tuple[TeachBridge | SetForwarding, ...]:
    """The source's bridge gets the frames for the guest, too, while its VF still does."""
    filtered = move.source_standby.filtered
    passed = (SetForwarding(pf=filtered, mac=move.mac, present=True),) if filtered else ()
    return (TeachBridge(guest=plan.guest, mac=move.mac), *passed)


def told(plan: Plan, move: VfMove, vf: VfRef, standby: Standby, interface: str) -> tuple[Announce, ...]:
    """The switches outside told that the guest is behind `interface`, where the VF is at another port of theirs."""
    if standby.uplink == vf.pf:
        return ()
    return (Announce(guest=plan.guest, mac=move.mac, interface=interface, vlan=move.vlan),)


def _swap(plan: Plan, move: VfMove, host: str, vf: VfRef, standby: Standby, vf_aliases: tuple[str, ...]) -> Swap:
    """What a migration does on one of its hosts."""
    return Swap(
        host=host,
        guest=plan.guest,
        mac=move.mac,
        side=move.guest_side,
        vf=vf,
        vf_aliases=vf_aliases,
        settings=move.carried,
        virtio=PlugStandby(
            guest=plan.guest,
            mac=move.mac,
            on=standby.on,
            alias=move.standby_alias,
            mtu=move.standby_mtu,
            vlan=move.vlan,
            vhost=plan.standby_vhost,
        ),
        virtio_aliases=(move.standby_alias,),
        virtio_stays=move.standby_stays,
        uplink=standby.uplink,
        filtered=standby.filtered,
        acpi_index=move.acpi_index,
        contested=move.contested,
        unplug_timeout_s=plan.unplug_timeout_s,
    )
