"""Mode `vfio`: the VF stays plugged, and QEMU migrates its state; and the other devices of which that is true.

What QEMU loads at the destination is the state of a device that is there, so all that the hosts keep outside of it
comes first: the VF's settings, its MAC among them, and the mediated devices themselves.
"""

from vferry.host.api import SetMdev
from vferry.model.report import Phase
from vferry.network.step import Step
from vferry.network.vf import prepared
from vferry.plan.plan import DeviceMove, Plan, VfMove


def configure(plan: Plan, move: VfMove) -> list[Step]:
    """The destination's VF gets all settings of the source's, so that it fits the state that comes."""
    vf = move.destination
    summary = f"give VF {vf.index} of {vf.pf} ({vf.address}) the settings of the source's, with {move.mac}"
    return prepared(plan, move, move.source_settings, summary)


def make_devices(plan: Plan) -> list[Step]:
    """The destination's mediated devices, but for those that are there already."""
    return [
        Step(
            phase=Phase.PREPARE,
            name="make-device",
            host=plan.destination,
            summary=f"make the mediated device {move.uuid}, a {move.type} of {move.destination_parent}",
            apply=(_set(plan, move, move.destination_parent, present=True),),
            undo=(_set(plan, move, move.destination_parent, present=False),),
        )
        for move in plan.devices
        if not move.exists
    ]


def remove_devices(plan: Plan) -> list[Step]:
    """The source's mediated devices, which the guest has left."""
    return [
        Step(
            phase=Phase.RESTORE,
            name="remove-device",
            host=plan.source,
            summary=f"remove the mediated device {move.uuid} of {move.source_parent}",
            apply=(_set(plan, move, move.source_parent, present=False),),
        )
        for move in plan.devices
    ]


def _set(plan: Plan, move: DeviceMove, parent: str, *, present: bool) -> SetMdev:
    return SetMdev(guest=plan.guest, uuid=move.uuid, kind=move.type, parent=parent, present=present)
