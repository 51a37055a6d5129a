"""The NIC of a guest that runs, put on something else on its host: as mode `switch` does it, and then for good.

The new NIC's way is complete before the guest is moved to it, the definition names it before the old one is unplugged,
and what the old one was on is given back last. All that can be undone is in one phase: where one step cannot be taken
back, the guest keeps what it has then, with the path to it. From one virtio NIC to another it goes by a VF, which no
definition names: what the first was on is kept until the guest has the second.
"""

from typing import Any

from msgspec.structs import replace

from vferry.host.api import Define, JoinRelay, LeaveRelay, Operation, RunInGuest, SetVf
from vferry.model.guest import VfRef
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.relay import RelayVf
from vferry.model.report import Phase
from vferry.network import guest_script, swap
from vferry.network.step import Stages, Step
from vferry.plan.nic_plan import NicLeg, NicMove, NicTarget
from vferry.plan.plan import GuestSide

Operations = tuple[Operation[Any], ...]


def stages(move: NicMove) -> Stages:
    """All steps, in order. Pure: a controller that takes over builds the same ones."""
    *steps, unplug = (step for leg in move.legs for step in _steps(leg))
    undone_together = Phase.TO_VF if move.to is NicTarget.VF else Phase.TO_STANDBY
    before = tuple(replace(step, phase=undone_together) for step in (*steps, _define(move), unplug))
    given_back = (step for leg in move.legs for step in _given_back(leg))
    return Stages(before=before, after=(*_settle(move), *given_back))


def _steps(leg: NicLeg) -> list[Step]:
    """All that can be undone, the old NIC's unplugging last."""
    if leg.to is NicTarget.VF:
        quiet = [_quiet_on_standby(leg)] if leg.swap.contested else []
        return [_configure(leg), *_open(leg), *quiet, *swap.take_vf(leg.swap)]
    *steps, unplug = swap.leave_vf(leg.swap)
    return [*_join(leg), *steps, *_close(leg), unplug]


def _given_back(leg: NicLeg) -> list[Step]:
    if leg.to is NicTarget.VF:
        return _leave_relay(leg)
    return [_wipe(leg, "wipe-vf", leg.swap.vf, leg.vf_wiped)]


def _configure(leg: NicLeg) -> Step:
    """All settings but the MAC, not even one that an earlier guest has left.

    Its undo is the last of the way back to the virtio NIC, which a bond has then as before.
    """
    vf = leg.swap.vf
    settled = (_run(leg, guest_script.settle_bond),) if leg.swap.side is GuestSide.BOND else ()
    return _step(
        leg,
        "configure-vf",
        f"give VF {vf.index} of {vf.pf} the settings of {leg.swap.mac}, without the MAC",
        apply=(_set(vf, replace(leg.settings, mac=NO_MAC)),),
        undo=(_set(vf, leg.vf_before), *settled),
    )


def _join(leg: NicLeg) -> list[Step]:
    """A direct relay's VF, which lets the guest's frames out before it has the guest's MAC, and the port."""
    port, vf = leg.port, leg.joined
    if port is None:
        return []
    join = _step(
        leg,
        "join-relay",
        f"join {port.mac} to {port.joined_to} by the relay",
        apply=(JoinRelay(port=port, settings=leg.settings if vf else VfSettings()),),
        undo=(LeaveRelay(guest=port.guest, mac=port.mac),),
    )
    if vf is None:
        return [join]
    configure = _step(
        leg,
        "configure-relay-vf",
        f"give {_named(vf)} the settings of {port.mac}, without the MAC, and have it send with any",
        apply=(_set(vf, replace(leg.settings, mac=NO_MAC, spoof_check=_unchecked(leg))),),
        undo=(_set(vf, leg.relay_before),),
    )
    return [configure, join]


def _close(leg: NicLeg) -> list[Step]:
    """The relay's VF has the MAC by now, and is checked as before."""
    port, vf = leg.port, leg.joined
    if port is None or vf is None:
        return []
    settle = _step(
        leg,
        "settle-vf",
        f"make sure that {_named(vf)} has all settings of {port.mac}",
        apply=(_set(vf, leg.settings),),
        undo=(_set(vf, VfSettings(spoof_check=_unchecked(leg))),),
    )
    return [settle]


def _open(leg: NicLeg) -> list[Step]:
    """The relay's VF lets the guest's frames out also where it has lost the MAC, and the way is gone back."""
    port, vf = leg.port, leg.joined
    if port is None or vf is None or not leg.relay_before.spoof_check:
        return []
    opened = _step(
        leg,
        "open-vf",
        f"have {_named(vf)} send with any MAC",
        apply=(_set(vf, VfSettings(spoof_check=False)),),
        undo=(_set(vf, VfSettings(spoof_check=True)),),
    )
    return [opened]


def _unchecked(leg: NicLeg) -> bool | None:
    """Off, where the driver knows of it."""
    return None if leg.settings.spoof_check is None else False


def _quiet_on_standby(leg: NicLeg) -> Step:
    return _step(
        leg,
        "quiet-guest",
        "keep the guest's own network configuration from the VF",
        apply=(_run(leg, guest_script.quiet_on_standby),),
        undo=(_run(leg, guest_script.settle_on_standby),),
    )


def _define(move: NicMove) -> Step:
    """For the next boot, also the host's: a relay's VF then gets the MAC of a guest that is defined on it."""
    return _step(
        move.legs[-1],
        "define",
        f"define {move.swap.guest} with {move.swap.mac} on {move.to.described}, for the next cold boot",
        apply=(Define(xml=move.xml), *_kept(move, arrived=True)),
        undo=(*_kept(move, arrived=False), Define(xml=move.xml_before)),
    )


def _kept(move: NicMove, *, arrived: bool) -> Operations:
    """The VFs of direct relays that it leaves or comes to, kept with the MAC or without."""
    kept: list[JoinRelay] = []
    for leg in move.legs:
        if leg.port is not None and leg.joined is not None:
            leaves = leg.to is NicTarget.VF
            settings = leg.relay_before if leaves else leg.settings
            mac = leg.port.mac if arrived is not leaves else None
            kept.append(JoinRelay(port=leg.port, settings=replace(settings, mac=mac)))
    return tuple(kept)


def _settle(move: NicMove) -> list[Step]:
    """The guest is told that it has one NIC again."""
    leg, stays = move.legs[-1], move.to is NicTarget.VF
    contested = any(leg.swap.contested for leg in move.legs)
    settle = [guest_script.settle if stays else guest_script.settle_on_standby] if contested else []
    patience = [guest_script.settle_bond] if leg.swap.side is GuestSide.BOND and not stays else []
    scripts = (*settle, *patience)
    if not scripts:
        return []
    what = "give the guest's NIC back to its own network configuration"
    return [_step(leg, "settle-guest", what, apply=tuple(_run(leg, script) for script in scripts))]


def _leave_relay(leg: NicLeg) -> list[Step]:
    port, vf = leg.port, leg.joined
    if port is None:
        return []
    what = (
        f"take {port.mac} off the relay, and give {_named(vf)} back" if vf else f"take {port.mac} off {port.joined_to}"
    )
    leave = _step(leg, "leave-relay", what, apply=(LeaveRelay(guest=port.guest, mac=port.mac),))
    return [leave, *([_wipe(leg, "wipe-relay-vf", vf, leg.relay_wiped)] if vf else [])]


def _wipe(leg: NicLeg, name: str, vf: VfRef | RelayVf, wiped: VfSettings) -> Step:
    return _step(leg, name, f"wipe VF {vf.index} of {vf.pf}", apply=(_set(vf, wiped),))


def _step(leg: NicLeg, name: str, summary: str, *, apply: Operations, undo: Operations = ()) -> Step:
    return Step(phase=Phase.RESTORE, name=name, host=leg.swap.host, summary=summary, apply=apply, undo=undo)


def _named(vf: RelayVf) -> str:
    return f"VF {vf.index} of {vf.pf}"


def _set(vf: VfRef | RelayVf, settings: VfSettings) -> SetVf:
    return SetVf(pf=vf.pf, index=vf.index, settings=settings)


def _run(leg: NicLeg, script: guest_script.Script) -> RunInGuest:
    return guest_script.run(leg.swap.guest, script(leg.swap.mac))
