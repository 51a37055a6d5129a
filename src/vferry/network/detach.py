"""Mode `detach`: the VF is unplugged before the copy and one of the destination plugged after it.

The guest is without its network meanwhile, unless it has another NIC of its own. Where its agent answers, the
addresses and routes that went with the VF are given back to the new one.
"""

from typing import Any

from vferry.host.api import Operation, PlugVf, RunInGuest, SetVf, Unplug
from vferry.model.host import VfSettings
from vferry.model.report import Phase
from vferry.network import guest_script
from vferry.network.step import Step
from vferry.plan.plan import GuestSide, Plan, VfMove


def detach(plan: Plan, move: VfMove) -> list[Step]:
    """Takes the source's VF away from the guest."""
    vf = move.source
    aliases = (move.source_alias, move.vf_alias)
    return [
        Step(
            phase=Phase.TO_STANDBY,
            name="unplug-vf",
            host=plan.source,
            summary=f"unplug VF {vf.index} of {vf.pf} ({vf.address}); the guest is without this NIC from here on",
            apply=(
                *_in_guest(plan, move, guest_script.save_addresses),
                *(Unplug(guest=plan.guest, alias=alias, timeout_s=plan.unplug_timeout_s) for alias in aliases),
            ),
            undo=(
                SetVf(pf=vf.pf, index=vf.index, settings=move.carried),
                *_plug(plan, move, vf.pf, vf.index, vf.address),
            ),
        )
    ]


def attach(plan: Plan, move: VfMove) -> list[Step]:
    """Gives the guest a VF of the destination, with the MAC from the start: nothing else receives for it."""
    vf = move.destination
    return [
        Step(
            phase=Phase.TO_VF,
            name="plug-vf",
            host=plan.destination,
            summary=f"plug VF {vf.index} of {vf.pf} ({vf.address})",
            apply=_plug(plan, move, vf.pf, vf.index, vf.address),
        )
    ]


def _plug(plan: Plan, move: VfMove, pf: str, index: int, address: str) -> tuple[Operation[Any], ...]:
    operations: list[Operation[Any]] = [
        SetVf(pf=pf, index=index, settings=VfSettings(mac=move.mac)),
        PlugVf(guest=plan.guest, address=address, alias=move.vf_alias),
        *_in_guest(plan, move, guest_script.restore_addresses),
    ]
    return tuple(operations)


def _in_guest(plan: Plan, move: VfMove, script: guest_script.Script) -> tuple[RunInGuest, ...]:
    if move.guest_side is not GuestSide.ADDRESSES:
        return ()
    return (guest_script.run(plan.guest, script(move.mac)),)
