"""Mode `detach`: the VF is unplugged before the copy and one of the destination plugged after it.

The guest is without its network meanwhile, unless another NIC stands by: that of the guest's own bond, which finds
out by itself that the VF is gone, or one that is plugged for the migration, with a bond that is made for it. A lone
VF's addresses and routes, which go with it, are given back to the new one where the guest's agent answers.
"""

from typing import Any

from vferry.host.api import Operation, RunInGuest, SetVf, TeachBridge, Unplug
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.report import Phase
from vferry.network import guest_script, switch
from vferry.network.step import Step
from vferry.network.vf import plugged
from vferry.plan.plan import GuestSide, Plan, VfMove


def detach(plan: Plan, move: VfMove) -> list[Step]:
    """Takes the source's VF away from the guest."""
    if move.guest_side is GuestSide.TEMPORARY_BOND:
        return switch.to_standby(plan, move)
    vf = move.source
    meanwhile = "goes on by its other NIC" if move.stands_by else "is without this NIC from here on"
    return [
        Step(
            phase=Phase.TO_STANDBY,
            name="unplug-vf",
            host=plan.source,
            summary=f"unplug VF {vf.index} of {vf.pf} ({vf.address}); the guest {meanwhile}",
            apply=(
                *_in_guest(plan, move, guest_script.save_addresses),
                # Frames get to both NICs while the guest's bond finds out that one is gone.
                *(switch.also_to_bridge(plan, move) if move.stands_by else ()),
                *_unplug(plan, move),
                *_to_bridge(plan, move),
            ),
            undo=(SetVf(pf=vf.pf, index=vf.index, settings=move.carried), *_back(plan, move)),
        )
    ]


def attach(plan: Plan, move: VfMove) -> list[Step]:
    """Gives the guest a VF of the destination."""
    if move.stands_by:
        *steps, last = switch.to_vf(plan, move)
        return [*steps, *_dissolve(plan, move), last]
    vf = move.destination
    return [
        Step(
            phase=Phase.TO_VF,
            name="plug-vf",
            host=plan.destination,
            # With the MAC from the start: nothing else receives for it.
            summary=f"plug VF {vf.index} of {vf.pf} ({vf.address})",
            apply=_plug(plan, move, vf.pf, vf.index, vf.address),
        )
    ]


def _dissolve(plan: Plan, move: VfMove) -> list[Step]:
    if move.guest_side is not GuestSide.TEMPORARY_BOND:
        return []
    return [
        Step(
            phase=Phase.TO_VF,
            name="dissolve-bond",
            host=plan.destination,
            summary="give the VF the addresses of the temporary bond, and delete that",
            apply=(guest_script.run(plan.guest, guest_script.dissolve_bond(move.mac)),),
            undo=(guest_script.run(plan.guest, guest_script.make_bond(move.mac)),),
        )
    ]


def _unplug(plan: Plan, move: VfMove) -> tuple[Operation[Any], ...]:
    aliases = (move.source_alias, move.vf_alias)
    return tuple(Unplug(guest=plan.guest, alias=alias, timeout_s=plan.unplug_timeout_s) for alias in aliases)


def _to_bridge(plan: Plan, move: VfMove) -> tuple[Operation[Any], ...]:
    """The VF's filter is cleared, and what the bridge has learnt from the VF's last frames is put right."""
    if not move.stands_by:
        return ()
    vf, standby = move.source, move.source_standby
    taught = TeachBridge(guest=plan.guest, mac=move.mac)
    cleared = SetVf(pf=vf.pf, index=vf.index, settings=VfSettings(mac=NO_MAC))
    return (taught, cleared, *switch.told(plan, move, vf, standby, standby.uplink))


def _back(plan: Plan, move: VfMove) -> tuple[Operation[Any], ...]:
    """The source's VF as it was; where a NIC stands by, in the order of mode `switch`."""
    vf, standby = move.source, move.source_standby
    if not move.stands_by:
        return _plug(plan, move, vf.pf, vf.index, vf.address)
    plug = plugged(plan, move, vf.address, move.vf_alias)
    filters = (
        switch.move_filter(vf, standby, move.mac, to_vf=True),
        TeachBridge(guest=plan.guest, mac=move.mac, uplink=standby.uplink),
        *switch.told(plan, move, vf, standby, vf.pf),
    )
    if move.guest_side is GuestSide.HOTPLUG:
        return (*filters, plug)
    return (plug, guest_script.run(plan.guest, guest_script.bond_to_vf(move.mac)), *filters)


def _plug(plan: Plan, move: VfMove, pf: str, index: int, address: str) -> tuple[Operation[Any], ...]:
    return (
        SetVf(pf=pf, index=index, settings=VfSettings(mac=move.mac)),
        plugged(plan, move, address, move.vf_alias),
        *_in_guest(plan, move, guest_script.restore_addresses),
    )


def _in_guest(plan: Plan, move: VfMove, script: guest_script.Script) -> tuple[RunInGuest, ...]:
    if move.guest_side is not GuestSide.ADDRESSES:
        return ()
    return (guest_script.run(plan.guest, script(move.mac)),)
