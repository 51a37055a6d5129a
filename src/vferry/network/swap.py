"""A guest's traffic moves between a VF and a virtio NIC with its MAC on one host, either way.

Making before breaking, on the three places that must agree: the guest's choice of NIC, the embedded switch's MAC
filters, the bridge. The new path is complete before the old one is taken away; the guest receives on both during
the change; only then does the filter move; only then is a device unplugged.
"""

from collections.abc import Mapping
from typing import Any

from vferry.host.api import (
    Announce,
    MoveFilter,
    Operation,
    PlugRelayed,
    PlugVf,
    RunInGuest,
    SetVf,
    TeachBridge,
    Unpark,
    Unplug,
)
from vferry.model.report import Phase
from vferry.network import guest_script
from vferry.network.step import Step
from vferry.plan.plan import GuestSide
from vferry.plan.swap import Swap

Operations = tuple[Operation[Any], ...]


def leave_vf(swap: Swap) -> list[Step]:
    """Leaves the VF for the virtio NIC, and unplugs it as the last thing."""
    vf = swap.vf
    plug = Step(
        phase=Phase.TO_STANDBY,
        name="plug-standby",
        host=swap.host,
        summary=f"plug a virtio NIC with {swap.mac} {_where(swap)}",
        apply=(swap.virtio,),
        undo=_unplugged(swap, swap.virtio_aliases),
    )
    choose = Step(
        phase=Phase.TO_STANDBY,
        name="guest-to-standby",
        host=swap.host,
        summary=_CHOICE[swap.side].format(nic="the standby NIC"),
        apply=_in_guest(swap, _TO_STANDBY),
        undo=_guest_back(swap),
    )
    filters = Step(
        phase=Phase.TO_STANDBY,
        name="filter-to-relay" if isinstance(swap.virtio, PlugRelayed) else "filter-to-bridge",
        host=swap.host,
        summary=f"move {swap.mac} from the filter of VF {vf.index} to {_other(swap)}",
        apply=(*_at_port(swap), _filter(swap, to_vf=False), *_told(swap, swap.uplink)),
        undo=(*_guest_back(swap), _filter(swap, to_vf=True), *_at_uplink(swap), *_told(swap, vf.pf)),
    )
    unplug = Step(
        phase=Phase.TO_STANDBY,
        name="unplug-vf",
        host=swap.host,
        summary=f"unplug VF {vf.index} of {vf.pf} ({vf.address})",
        apply=(*_unplugged(swap, swap.vf_aliases), _unpark(swap)),
        undo=(
            _unpark(swap),
            SetVf(pf=vf.pf, index=vf.index, settings=swap.settings),
            # Without help from within, the guest must find the VF with its MAC when the driver first looks.
            *([_filter(swap, to_vf=True)] if swap.side is GuestSide.HOTPLUG else []),
            _plugged(swap),
        ),
    )
    return [
        *([quiet(swap)] if swap.contested else []),
        *([] if swap.virtio_stays else [plug]),
        *([choose] if choose.apply else []),
        filters,
        unplug,
    ]


def take_vf(swap: Swap) -> list[Step]:
    """Leaves the virtio NIC for the VF: `leave_vf`, mirrored."""
    vf = swap.vf
    plug = Step(
        phase=Phase.TO_VF,
        name="plug-vf",
        host=swap.host,
        summary=f"plug VF {vf.index} of {vf.pf} ({vf.address})",
        apply=(_plugged(swap),),
        undo=(*_unplugged(swap, swap.vf_aliases[-1:]), _unpark(swap)),
    )
    choose = Step(
        phase=Phase.TO_VF,
        name="guest-to-vf",
        host=swap.host,
        summary=_CHOICE[swap.side].format(nic="the VF"),
        apply=(*_at_port(swap), *_in_guest(swap, _TO_VF)),
        undo=(*_in_guest(swap, _TO_STANDBY), *_at_port(swap)),
    )
    filters = Step(
        phase=Phase.TO_VF,
        name="filter-to-vf",
        host=swap.host,
        summary=f"move {swap.mac} from {_other(swap)} to the filter of VF {vf.index}",
        apply=(_filter(swap, to_vf=True), *_at_uplink(swap), *_told(swap, vf.pf)),
        undo=(
            *_in_guest(swap, _TO_STANDBY),
            *_at_port(swap),
            _filter(swap, to_vf=False),
            *_told(swap, swap.uplink),
        ),
    )
    unplug = Step(
        phase=Phase.TO_VF,
        name="unplug-standby",
        host=swap.host,
        summary=f"unplug the virtio NIC with {swap.mac}",
        apply=_unplugged(swap, swap.virtio_aliases),
        undo=(swap.virtio,),
    )
    # As above: the MAC first, where the guest is left to itself.
    arrival = [filters, plug] if swap.side is GuestSide.HOTPLUG else [plug, choose, filters]
    return [*arrival, *([] if swap.virtio_stays else [unplug])]


def quiet(swap: Swap) -> Step:
    """Keeps the guest's own network configuration from the standby NIC, while the guest has the VF."""
    return Step(
        phase=Phase.TO_STANDBY,
        name="quiet-guest",
        host=swap.host,
        summary="keep the guest's own network configuration from the standby NIC",
        apply=(_run(swap, guest_script.quiet),),
        undo=(_run(swap, guest_script.settle),),
    )


_CHOICE = {
    GuestSide.BOND: "make {nic} the active slave of the guest's bond",
    GuestSide.ADDRESSES: "move the guest's addresses and routes to {nic}",
    GuestSide.TEMPORARY_BOND: "make {nic} the active slave of a temporary bond",
    GuestSide.HOTPLUG: "leave it to the guest to use {nic}",
}
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


def _where(swap: Swap) -> str:
    return "on the relay" if isinstance(swap.virtio, PlugRelayed) else f"into {swap.virtio.on.device}"


def _other(swap: Swap) -> str:
    """Who gets what is for the MAC where the VF does not."""
    if swap.switch:
        return f"the uplinks of {swap.switch}"
    other = swap.relay_vf
    return f"the filter of VF {other.index} of {other.pf}" if other else f"the filter of {swap.uplink}"


def _filter(swap: Swap, *, to_vf: bool) -> MoveFilter:
    """Between the VF's filter and that of the virtio NIC's way out."""
    vf = swap.vf
    return MoveFilter(pf=vf.pf, index=vf.index, mac=swap.mac, to_vf=to_vf, uplink=swap.filtered, other=swap.relay_vf)


def _at_port(swap: Swap) -> Operations:
    """The bridge told that the guest is behind its virtio NIC's port; a direct relay's has nothing to learn."""
    return () if swap.relay_vf else (TeachBridge(guest=swap.guest, mac=swap.mac),)


def _at_uplink(swap: Swap) -> Operations:
    outside = swap.switch or swap.uplink
    return () if swap.relay_vf else (TeachBridge(guest=swap.guest, mac=swap.mac, uplink=outside),)


def _told(swap: Swap, interface: str) -> Operations:
    """The switches outside told that the guest is behind `interface`, where the VF is at another port of theirs."""
    if swap.uplink == swap.vf.pf:
        return ()
    return (Announce(guest=swap.guest, mac=swap.mac, interface=interface, vlan=swap.vlan),)


def _plugged(swap: Swap) -> PlugVf:
    return PlugVf(guest=swap.guest, address=swap.vf.address, alias=swap.vf_aliases[-1], acpi_index=swap.acpi_index)


def _unplugged(swap: Swap, aliases: tuple[str, ...]) -> Operations:
    return tuple(Unplug(guest=swap.guest, alias=alias, timeout_s=swap.unplug_timeout_s) for alias in aliases)


def _unpark(swap: Swap) -> Unpark:
    return Unpark(pf=swap.vf.pf, index=swap.vf.index, mac=swap.mac)


def _guest_back(swap: Swap) -> Operations:
    """To the VF, where the change is undone: nothing that was made for it is needed any more."""
    return _in_guest(swap, {**_TO_VF, GuestSide.TEMPORARY_BOND: guest_script.dissolve_bond})


def _in_guest(swap: Swap, scripts: Mapping[GuestSide, guest_script.Script]) -> Operations:
    script = scripts.get(swap.side)
    return () if script is None else (_run(swap, script),)


def _run(swap: Swap, script: guest_script.Script) -> RunInGuest:
    return guest_script.run(swap.guest, script(swap.mac))
