"""The NIC of a guest that runs, put on something else on its host: as mode `switch` does it, and then for good.

The new NIC's way is complete before the guest is moved to it, the definition names it before the old one is unplugged,
and what the old one was on is given back last. All that can be undone is in one phase: where one step cannot be taken
back, the guest keeps what it has then, with the path to it.
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
from vferry.plan.nic_plan import NicMove, NicTarget
from vferry.plan.plan import GuestSide

Operations = tuple[Operation[Any], ...]


def stages(move: NicMove) -> Stages:
    """All steps, in order. Pure: a controller that takes over builds the same ones."""
    if move.to is NicTarget.VF:
        *steps, unplug = swap.take_vf(move.swap)
        quiet = [_quiet_on_standby(move)] if move.swap.contested else []
        before = (_configure(move), *_open(move), *quiet, *steps, _define(move), unplug)
        return Stages(before=before, after=(*_settle(move), *_leave_relay(move)))
    *steps, unplug = swap.leave_vf(move.swap)
    before = (*_join(move), *steps, *_close(move), _define(move), unplug)
    return Stages(before=before, after=(*_settle(move), _wipe(move, move.swap.vf, move.vf_wiped)))


def _configure(move: NicMove) -> Step:
    """All settings but the MAC, not even one that an earlier guest has left."""
    vf = move.swap.vf
    return _step(
        move,
        "configure-vf",
        f"give VF {vf.index} of {vf.pf} the settings of {move.swap.mac}, without the MAC",
        apply=(_set(vf, replace(move.settings, mac=NO_MAC)),),
        undo=(_set(vf, move.vf_before),),
    )


def _join(move: NicMove) -> list[Step]:
    """The relay's VF, which lets the guest's frames out before it has the guest's MAC, and its port."""
    port, vf = move.port, move.joined
    if port is None or vf is None:
        return []
    configure = _step(
        move,
        "configure-vf",
        f"give {_named(vf)} the settings of {port.mac}, without the MAC, and have it send with any",
        apply=(_set(vf, replace(move.settings, mac=NO_MAC, spoof_check=_unchecked(move))),),
        undo=(_set(vf, move.relay_before),),
    )
    join = _step(
        move,
        "join-relay",
        f"join {port.mac} to {_named(vf)} by the relay",
        apply=(JoinRelay(port=port, settings=move.settings),),
        undo=(LeaveRelay(guest=port.guest, mac=port.mac),),
    )
    return [configure, join]


def _close(move: NicMove) -> list[Step]:
    """The relay's VF has the MAC by now: it is checked as before, and kept with it for the next boot of the host."""
    port, vf = move.port, move.joined
    if port is None or vf is None:
        return []
    settings = replace(move.settings, mac=port.mac)
    settle = _step(
        move,
        "settle-vf",
        f"make sure that {_named(vf)} has {port.mac} and its settings, also after a boot",
        apply=(_set(vf, settings), JoinRelay(port=port, settings=settings)),
        undo=(_set(vf, VfSettings(spoof_check=_unchecked(move))),),
    )
    return [settle]


def _open(move: NicMove) -> list[Step]:
    """The relay's VF lets the guest's frames out also where it has lost the MAC, and the way is gone back."""
    port, vf = move.port, move.joined
    if port is None or vf is None or not move.relay_before.spoof_check:
        return []
    opened = _step(
        move,
        "open-vf",
        f"have {_named(vf)} send with any MAC",
        apply=(_set(vf, VfSettings(spoof_check=False)),),
        undo=(_set(vf, VfSettings(spoof_check=True)),),
    )
    return [opened]


def _unchecked(move: NicMove) -> bool | None:
    """Off, where the driver knows of it."""
    return None if move.settings.spoof_check is None else False


def _quiet_on_standby(move: NicMove) -> Step:
    return _step(
        move,
        "quiet-guest",
        "keep the guest's own network configuration from the VF",
        apply=(_run(move, guest_script.quiet_on_standby),),
        undo=(_run(move, guest_script.settle_on_standby),),
    )


def _define(move: NicMove) -> Step:
    return _step(
        move,
        "define",
        f"define {move.swap.guest} with {move.swap.mac} on {move.to.described}, for the next cold boot",
        apply=(Define(xml=move.xml),),
        undo=(Define(xml=move.xml_before),),
    )


def _settle(move: NicMove) -> list[Step]:
    """The guest is told that it has one NIC again."""
    stays = move.to is NicTarget.VF
    settle = [guest_script.settle if stays else guest_script.settle_on_standby] if move.swap.contested else []
    patience = [guest_script.settle_bond] if move.swap.side is GuestSide.BOND and not stays else []
    scripts = (*settle, *patience)
    if not scripts:
        return []
    what = "give the guest's NIC back to its own network configuration"
    return [_step(move, "settle-guest", what, apply=tuple(_run(move, script) for script in scripts))]


def _leave_relay(move: NicMove) -> list[Step]:
    port, vf = move.port, move.joined
    if port is None or vf is None:
        return []
    what = f"take {port.mac} off the relay, and give {_named(vf)} back"
    leave = _step(move, "leave-relay", what, apply=(LeaveRelay(guest=port.guest, mac=port.mac),))
    return [leave, _wipe(move, vf, move.relay_wiped)]


def _wipe(move: NicMove, vf: VfRef | RelayVf, wiped: VfSettings) -> Step:
    return _step(move, "wipe-vf", f"wipe VF {vf.index} of {vf.pf}", apply=(_set(vf, wiped),))


def _step(move: NicMove, name: str, summary: str, *, apply: Operations, undo: Operations = ()) -> Step:
    """What cannot be undone puts things in order."""
    phase = Phase.TO_VF if move.to is NicTarget.VF else Phase.TO_STANDBY
    phase = phase if undo else Phase.RESTORE
    return Step(phase=phase, name=name, host=move.swap.host, summary=summary, apply=apply, undo=undo)


def _named(vf: RelayVf) -> str:
    return f"VF {vf.index} of {vf.pf}"


def _set(vf: VfRef | RelayVf, settings: VfSettings) -> SetVf:
    return SetVf(pf=vf.pf, index=vf.index, settings=settings)


def _run(move: NicMove, script: guest_script.Script) -> RunInGuest:
    return guest_script.run(move.swap.guest, script(move.swap.mac))
