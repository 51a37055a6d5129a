"""What every mode does with the two VFs themselves: the destination's is configured, the source's given back."""

from msgspec import structs

from vferry.host.api import HideMac, PlugVf, SetVf
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.report import Phase
from vferry.network.step import Step
from vferry.plan.plan import Plan, VfMove


def configure(plan: Plan, move: VfMove) -> list[Step]:
    """The destination's VF gets all settings but the MAC, which would take traffic that is not there yet."""
    vf = move.destination
    return prepared(
        plan, move, _without_mac(move), f"give VF {vf.index} of {vf.pf} the settings of the source's, without the MAC"
    )


def prepared(plan: Plan, move: VfMove, settings: VfSettings, summary: str) -> list[Step]:
    """The destination's VF gets these settings before the copy, and what it had where that is undone."""
    vf = move.destination
    return [
        Step(
            phase=Phase.PREPARE,
            name="configure-vf",
            host=plan.destination,
            summary=summary,
            apply=(SetVf(pf=vf.pf, index=vf.index, settings=settings),),
            undo=(SetVf(pf=vf.pf, index=vf.index, settings=move.destination_before),),
        )
    ]


def hide(plan: Plan, move: VfMove) -> list[Step]:
    """Mode `macvtap`: libvirt gives the destination's VF the MAC before the copy, and the NIC keeps what is for it."""
    if not move.hidden:
        return []
    vf = move.destination
    return [
        Step(
            phase=Phase.PREPARE,
            name="hide-mac",
            host=plan.destination,
            summary=f"keep what is for {move.mac} from VF {vf.index} of {vf.pf} until {plan.guest} runs here",
            apply=(HideMac(pf=vf.pf, index=vf.index, mac=move.mac, hidden=True),),
            # Which ends it, and leaves it to libvirt what MAC the VF has.
            undo=(SetVf(pf=vf.pf, index=vf.index, settings=VfSettings()),),
        )
    ]


def settle(plan: Plan, move: VfMove) -> list[Step]:
    """Mode `macvtap`: libvirt has set MAC and VLAN of the destination's VF, the VLAN as the definition says it.

    An agent that was started anew in the copy does not know that it has hidden the MAC.
    """
    vf = move.destination
    shown = (HideMac(pf=vf.pf, index=vf.index, mac=move.mac, hidden=False),) if move.hidden else ()
    return [
        Step(
            phase=Phase.SWITCHOVER,
            name="settle-vf",
            host=plan.destination,
            summary=f"make sure that VF {vf.index} of {vf.pf}, {plan.attached[move.mac].device}, has kept the settings"
            + (f", and has {move.mac}" if shown else ""),
            apply=(*shown, SetVf(pf=vf.pf, index=vf.index, settings=move.carried)),
        )
    ]


def plugged(plan: Plan, move: VfMove, address: str, alias: str, teamed_with: str | None = None) -> PlugVf:
    """A VF as the guest's, which goes by the same `<acpi index>` there on whatever host."""
    return PlugVf(guest=plan.guest, address=address, alias=alias, teamed_with=teamed_with, acpi_index=move.acpi_index)


def _without_mac(move: VfMove) -> VfSettings:
    """Not even with one that an earlier guest has left, which its PF would not let this guest replace."""
    left = move.destination_before.mac not in (None, NO_MAC)
    return structs.replace(move.carried, mac=NO_MAC) if left else move.carried


def wipe(plan: Plan, move: VfMove) -> list[Step]:
    """Gives the source's VF back as its driver made it."""
    vf = move.source
    return [
        Step(
            phase=Phase.RESTORE,
            name="wipe-vf",
            host=plan.source,
            summary=f"wipe VF {vf.index} of {vf.pf}",
            apply=(SetVf(pf=vf.pf, index=vf.index, settings=move.source_wiped),),
        )
    ]
