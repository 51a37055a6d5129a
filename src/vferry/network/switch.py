"""Mode `switch`: traffic moves to a virtio NIC with the VF's MAC for the migration, and back to a VF after it.

Making before breaking, on the three places that must agree: the guest's choice of NIC, the embedded switch's MAC
filters, the bridge. The new path is complete before the old one is taken away; the guest receives on both during
the change; only then does the filter move; only then is a device unplugged.
"""

from collections.abc import Mapping

from msgspec import structs

from vferry.host.api import (
    Announce,
    MoveFilter,
    PlugStandby,
    RunInGuest,
    SetForwarding,
    SetVf,
    TeachBridge,
    Unpark,
    Unplug,
)
from vferry.model.guest import VfRef
from vferry.model.report import Phase
from vferry.network import guest_script
from vferry.network.step import Step
from vferry.network.vf import plugged
from vferry.plan.plan import GuestSide, Plan, Standby, VfMove


def to_standby(plan: Plan, move: VfMove) -> list[Step]:
    """Leaves the source's VF for the standby NIC."""
    host, vf, standby = plan.source, move.source, move.source_standby
    quiet = Step(
        phase=Phase.TO_STANDBY,
        name="quiet-guest",
        host=host,
        summary="keep the guest's own network configuration from the standby NIC",
        apply=(guest_script.run(plan.guest, guest_script.quiet(move.mac)),),
        undo=(guest_script.run(plan.guest, guest_script.settle(move.mac)),),
    )
    plug = Step(
        phase=Phase.TO_STANDBY,
        name="plug-standby",
        host=host,
        summary=f"plug a virtio NIC with {move.mac} into {standby.on.device}",
        apply=(_standby(plan, move, standby),),
        undo=(_unplug(plan, move.standby_alias),),
    )
    choose = Step(
        phase=Phase.TO_STANDBY,
        name="guest-to-standby",
        host=host,
        summary=_CHOICE[move.guest_side].format(nic="the standby NIC"),
        apply=_guest_to_standby(plan, move),
        undo=_guest_back(plan, move),
    )
    to_vf_filter = move_filter(vf, standby, move.mac, to_vf=True)
    at_port, at_uplink = _taught(plan, move, standby)
    filters = Step(
        phase=Phase.TO_STANDBY,
        name="filter-to-bridge",
        host=host,
        summary=f"move {move.mac} from the filter of VF {vf.index} to that of {standby.uplink}",
        apply=(at_port, structs.replace(to_vf_filter, to_vf=False), *told(plan, move, vf, standby, standby.uplink)),
        undo=(*_guest_back(plan, move), to_vf_filter, at_uplink, *told(plan, move, vf, standby, vf.pf)),
    )
    unplug = Step(
        phase=Phase.TO_STANDBY,
        name="unplug-vf",
        host=host,
        summary=f"unplug VF {vf.index} of {vf.pf} ({vf.address})",
        apply=(_unplug(plan, move.source_alias), _unplug(plan, move.vf_alias), _unpark(vf, move)),
        undo=(
            _unpark(vf, move),
            SetVf(pf=vf.pf, index=vf.index, settings=move.carried),
            # Without help from within, the guest must find the VF with its MAC when the driver first looks.
            *([to_vf_filter] if move.guest_side is GuestSide.HOTPLUG else []),
            plugged(plan, move, vf.address, move.vf_alias),
        ),
    )
    return [
        *([quiet] if move.contested else []),
        *([] if move.standby_stays else [plug]),
        *([choose] if choose.apply else []),
        filters,
        unplug,
    ]


def to_vf(plan: Plan, move: VfMove) -> list[Step]:
    """Leaves the standby NIC for the destination's VF: `to_standby`, mirrored."""
    host, vf, standby = plan.destination, move.destination, move.destination_standby
    plug = Step(
        phase=Phase.TO_VF,
        name="plug-vf",
        host=host,
        summary=f"plug VF {vf.index} of {vf.pf} ({vf.address})",
        apply=(plugged(plan, move, vf.address, move.vf_alias),),
        undo=(_unplug(plan, move.vf_alias), _unpark(vf, move)),
    )
    at_port, at_uplink = _taught(plan, move, standby)
    to_vf_filter = move_filter(vf, standby, move.mac, to_vf=True)
    choose = Step(
        phase=Phase.TO_VF,
        name="guest-to-vf",
        host=host,
        summary=_CHOICE[move.guest_side].format(nic="the VF"),
        apply=(at_port, *_guest_to_vf(plan, move)),
        undo=(*_guest_to_standby(plan, move), at_port),
    )
    filters = Step(
        phase=Phase.TO_VF,
        name="filter-to-vf",
        host=host,
        summary=f"move {move.mac} from the filter of {standby.uplink} to that of VF {vf.index}",
        apply=(to_vf_filter, at_uplink, *told(plan, move, vf, standby, vf.pf)),
        undo=(
            *_guest_to_standby(plan, move),
            at_port,
            structs.replace(to_vf_filter, to_vf=False),
            *told(plan, move, vf, standby, standby.uplink),
        ),
    )
    unplug = Step(
        phase=Phase.TO_VF,
        name="unplug-standby",
        host=host,
        summary="unplug the virtio NIC that was plugged for the migration",
        apply=(_unplug(plan, move.standby_alias),),
        undo=(_standby(plan, move, standby),),
    )
    # As above: the MAC first, where the guest is left to itself.
    arrival = [filters, plug] if move.guest_side is GuestSide.HOTPLUG else [plug, choose, filters]
    return [*arrival, *([] if move.standby_stays else [unplug])]


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


_CHOICE = {
    GuestSide.BOND: "make {nic} the active slave of the guest's bond",
    GuestSide.ADDRESSES: "move the guest's addresses and routes to {nic}",
    GuestSide.TEMPORARY_BOND: "make {nic} the active slave of a temporary bond",
    GuestSide.HOTPLUG: "leave it to the guest to use {nic}",
}


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


def _standby(plan: Plan, move: VfMove, standby: Standby) -> PlugStandby:
    return PlugStandby(
        guest=plan.guest,
        mac=move.mac,
        on=standby.on,
        alias=move.standby_alias,
        mtu=move.standby_mtu,
        vlan=move.vlan,
        vhost=plan.standby_vhost,
    )


def _taught(plan: Plan, move: VfMove, standby: Standby) -> tuple[TeachBridge, TeachBridge]:
    """The bridge told that the guest is behind its standby NIC's port, and that it is behind the uplink."""
    at_port = TeachBridge(guest=plan.guest, mac=move.mac)
    return at_port, structs.replace(at_port, uplink=standby.uplink)


def _unplug(plan: Plan, alias: str) -> Unplug:
    return Unplug(guest=plan.guest, alias=alias, timeout_s=plan.unplug_timeout_s)


def _unpark(vf: VfRef, move: VfMove) -> Unpark:
    return Unpark(pf=vf.pf, index=vf.index, mac=move.mac)


def _guest_to_standby(plan: Plan, move: VfMove) -> tuple[RunInGuest, ...]:
    return _in_guest(plan, move, _TO_STANDBY)


def _guest_to_vf(plan: Plan, move: VfMove) -> tuple[RunInGuest, ...]:
    return _in_guest(plan, move, _TO_VF)


def _guest_back(plan: Plan, move: VfMove) -> tuple[RunInGuest, ...]:
    """To the source's VF, where the migration is undone: nothing that was made for it is needed any more."""
    return _in_guest(plan, move, {**_TO_VF, GuestSide.TEMPORARY_BOND: guest_script.dissolve_bond})


_TO_STANDBY = {
    GuestSide.BOND: guest_script.bond_to_standby,
    GuestSide.TEMPORARY_BOND: guest_script.make_bond,
    GuestSide.ADDRESSES: guest_script.addresses_to_standby,
}
_TO_VF = {
    GuestSide.BOND: guest_script.bond_to_vf,
    GuestSide.TEMPORARY_BOND: guest_script.bond_to_vf,
    GuestSide.ADDRESSES: guest_script.addresses_to_vf,
}


def _in_guest(plan: Plan, move: VfMove, scripts: Mapping[GuestSide, guest_script.Script]) -> tuple[RunInGuest, ...]:
    script = scripts.get(move.guest_side)
    return () if script is None else (guest_script.run(plan.guest, script(move.mac)),)
