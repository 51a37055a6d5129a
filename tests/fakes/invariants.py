"""What must hold in the fleet after every call, whatever fails."""

from collections.abc import Iterable, Iterator, Sequence

from fakes.world import STANDBY, Device, HostState, Machine
from vferry.model.guest import GuestState
from vferry.model.host import NO_MAC


def broken(hosts: Iterable[HostState], never_dark: frozenset[str]) -> list[str]:
    """The invariants that do not hold, in words. `never_dark`: MACs whose path must always be complete."""
    hosts = [host for host in hosts if not host.dead]
    return [*_two_places(hosts), *_doubles(hosts), *_dark(hosts, never_dark), *_misled(hosts)]


def path(host: HostState, machine: Machine, mac: str) -> str | None:
    """What is missing on a NIC's path, in words; None when frames get in and out."""
    chosen = machine.inside.chosen.get(mac)
    if chosen is None:
        return "the guest uses neither NIC"
    used = machine.nic(mac, chosen)
    if used is None:
        return f"the guest uses its {chosen} NIC, which is gone"
    if used.socket is not None and used.address is not None:
        sends = host.functions[used.address].settings
        if sends.spoof_check and sends.mac != mac:
            return "what it sends by the relay is dropped as spoofed"
    owner = host.owner_of(mac)
    # What both filters have, both get.
    if owner is not None and not (chosen == STANDBY and host.passes(mac)):
        vf = next((nic for nic in machine.devices.values() if (nic.mac, nic.address) == (mac, owner.address)), None)
        if vf is None:
            return f"the filter of VF {owner.index} takes its frames, and it is not the guest's"
        if vf.socket is not None and not _joined(host, vf):
            return f"the relay does not join its socket to VF {owner.index}"
        return None if vf.knows_mac else "its VF receives frames for a MAC that the guest has not given it"
    port = host.ports.get(mac)
    sockets = {nic.socket for nic in machine.devices.values() if nic.mac == mac and nic.address is None}
    if port is not None and port.switch is not None and port.socket in sockets:
        return None  # the relay's uplinks get what is in no filter, and the guest listens there whatever it has chosen
    if used.socket is not None and used.address is None:
        return "the relay's switch has no port for its socket"
    if not host.passes(mac):
        return f"no filter of {host.name} lets its frames in"
    standby = machine.nic(mac, STANDBY)
    if standby is None:
        return "its frames go to the bridge, where it has no NIC"
    on = host.standby.on.device
    return None if standby.bridge == on else f"its standby NIC is on {standby.bridge}, and {host.name} has {on}"


def _misled(hosts: list[HostState]) -> Iterator[str]:
    """What is held at a port ends with that; until then, other guests' frames go to nobody if the NIC is gone."""
    for host in hosts:
        for machine in host.machines.values():
            for mac in host.held & set(machine.inside.chosen):
                if not any(nic.mac == mac and nic.socket for nic in machine.devices.values()):
                    yield f"the switch of {host.name} has {mac} at a port whose NIC is gone"


def _joined(host: HostState, device: Device) -> bool:
    port = host.ports.get(device.mac)
    if port is None or port.vf is None:
        return False
    bound = host.functions[port.vf.address].driver == port.vf.bound
    return bound and (port.socket, port.vf.address) == (device.socket, device.address)


def _two_places(hosts: list[HostState]) -> Iterator[str]:
    machines = [machine for host in hosts for machine in host.machines.values()]
    running = [machine.guest for machine in machines if machine.state is GuestState.RUNNING]
    yield from (f"{guest} runs on two hosts" for guest in _repeated(running))


def _doubles(hosts: list[HostState]) -> Iterator[str]:
    for host in hosts:
        macs = [mac for one in host.functions.values() if (mac := one.settings.mac) not in (None, NO_MAC)]
        yield from (f"{mac} is in two VFs' filters of {host.name}" for mac in _repeated(macs))
        used = [
            device.address
            for machine in host.machines.values()
            for device in machine.devices.values()
            if device.address is not None and device.socket is None
        ]
        used += [port.vf.address for port in host.ports.values() if port.vf]
        yield from (f"VF {vf} of {host.name} is plugged twice" for vf in _repeated(used))


def _repeated(found: Sequence[str | None]) -> set[str | None]:
    """Asked after every call, so quick where there are none."""
    once = set(found)
    return set() if len(once) == len(found) else {each for each in once if found.count(each) > 1}


def _dark(hosts: list[HostState], never_dark: frozenset[str]) -> Iterator[str]:
    for host in hosts:
        for machine in host.machines.values():
            if machine.state is GuestState.RUNNING:
                for mac in never_dark & set(machine.inside.chosen):
                    missing = path(host, machine, mac)
                    if missing:
                        yield f"{machine.guest} on {host.name} has no path for {mac}: {missing}"
