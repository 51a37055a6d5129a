"""How a fake guest reacts: to the scripts that are run in it, and to NICs that come and go."""

from collections.abc import Callable

from fakes.world import STANDBY, VF, Device, HostState, Machine
from vferry.host.api import GuestRun
from vferry.network import guest_script
from vferry.plan.plan import GuestSide

Action = Callable[[Machine, str], GuestRun]


def _to_standby(machine: Machine, mac: str) -> GuestRun:
    if machine.nic(mac, STANDBY) is None:
        return GuestRun(code=3, stderr=f"no standby NIC for {mac} has appeared in the guest")
    # Addresses that went with a VF do not come back by themselves.
    if machine.inside.side is GuestSide.BOND:
        machine.inside.patient.add(mac)
    if machine.nic(mac, VF) is not None or machine.inside.side is GuestSide.BOND:
        machine.inside.chosen[mac] = STANDBY
    return GuestRun(code=0, stdout="on the standby NIC\n")


def _to_vf(machine: Machine, mac: str) -> GuestRun:
    vf = machine.nic(mac, VF)
    if vf is None:
        return GuestRun(code=3, stderr=f"no vf NIC for {mac} has appeared in the guest")
    if machine.nic(mac, STANDBY) is None and machine.inside.chosen.get(mac) == VF:
        return GuestRun(code=0, stdout="on the VF\n")
    if machine.nic(mac, STANDBY) is None:
        return GuestRun(code=5, stderr=f"the standby NIC of {mac} is gone")
    vf.knows_mac = True
    machine.inside.chosen[mac] = VF
    machine.inside.patient.discard(mac)
    return GuestRun(code=0, stdout="on the VF\n")


def _make_bond(machine: Machine, mac: str) -> GuestRun:
    if machine.nic(mac, STANDBY) is None:
        return GuestRun(code=3, stderr=f"no standby NIC for {mac} has appeared in the guest")
    machine.inside.bonds.add(mac)
    machine.inside.chosen[mac] = STANDBY
    return GuestRun(code=0)


def _dissolve_bond(machine: Machine, mac: str) -> GuestRun:
    vf = machine.nic(mac, VF)
    if vf is None:
        return GuestRun(code=3, stderr=f"no vf NIC for {mac} has appeared in the guest")
    if mac in machine.inside.bonds:
        machine.inside.bonds.discard(mac)
        vf.knows_mac = True
        machine.inside.chosen[mac] = VF
    return GuestRun(code=0)


def _is_primary(machine: Machine, mac: str) -> GuestRun:
    if machine.inside.chosen.get(mac) == VF:
        machine.inside.listening.discard(mac)
        return GuestRun(code=0, stdout="the VF is the one that net_failover uses\n")
    return GuestRun(code=8, stderr=f"net_failover does not use any VF for {mac}")


def _quiet(machine: Machine, mac: str) -> GuestRun:
    machine.inside.quiet.add(mac)
    return GuestRun(code=0)


def _settle(machine: Machine, mac: str) -> GuestRun:
    if machine.nic(mac, STANDBY) is None:
        machine.inside.quiet.discard(mac)
    return GuestRun(code=0)


def _settle_on_standby(machine: Machine, mac: str) -> GuestRun:
    if machine.nic(mac, VF) is None:
        machine.inside.quiet.discard(mac)
    return GuestRun(code=0)


def _settle_bond(machine: Machine, mac: str) -> GuestRun:
    assert machine.nic(mac, STANDBY) is not None
    machine.inside.patient.discard(mac)
    return GuestRun(code=0)


def _pair_to_standby(machine: Machine, mac: str) -> GuestRun:
    if machine.nic(mac, VF) is None:
        return GuestRun(code=9, stderr=f"no VF of {mac} is in a pair")
    machine.inside.listening.add(mac)
    return GuestRun(code=0)


def _settle_pair(machine: Machine, mac: str) -> GuestRun:
    machine.inside.listening.discard(mac)
    return GuestRun(code=0)


def _save(machine: Machine, mac: str) -> GuestRun:
    if machine.nic(mac, VF) is not None:
        machine.inside.saved.add(mac)
    return GuestRun(code=0)


def _restore(machine: Machine, mac: str) -> GuestRun:
    if mac not in machine.inside.saved:
        return GuestRun(code=0, stdout="nothing is left to restore\n")
    vf = machine.nic(mac, VF)
    if vf is None:
        return GuestRun(code=3, stderr=f"no vf NIC for {mac} has appeared in the guest")
    vf.knows_mac = True
    machine.inside.chosen[mac] = VF
    machine.inside.saved.discard(mac)
    return GuestRun(code=0)


ACTIONS: dict[guest_script.Script, Action] = {
    guest_script.addresses_to_standby: _to_standby,
    guest_script.addresses_to_vf: _to_vf,
    guest_script.bond_to_standby: _to_standby,
    guest_script.bond_to_vf: _to_vf,
    guest_script.make_bond: _make_bond,
    guest_script.dissolve_bond: _dissolve_bond,
    guest_script.failover_to_vf: _is_primary,
    guest_script.pair_to_standby: _pair_to_standby,
    guest_script.settle_pair: _settle_pair,
    guest_script.quiet: _quiet,
    guest_script.settle: _settle,
    guest_script.quiet_on_standby: _quiet,
    guest_script.settle_on_standby: _settle_on_standby,
    guest_script.settle_bond: _settle_bond,
    guest_script.save_addresses: _save,
    guest_script.restore_addresses: _restore,
}


def run_script(machine: Machine, script: str) -> GuestRun:
    """Does what a script of `guest_script` does; AssertionError for any other."""
    macs = {device.mac for device in machine.devices.values()} | set(machine.inside.chosen)
    for mac in macs:
        for make, action in ACTIONS.items():
            if make(mac) == script:
                return action(machine, mac)
    raise AssertionError(f"no script of vferry's for a NIC of {machine.guest}:\n{script}")


def plugged(machine: Machine, device: Device, host: HostState) -> None:
    """A NIC has come. A VF's driver takes the MAC that the PF has set, and else makes one up."""
    if device.kind == STANDBY or device.address is None:
        return
    device.knows_mac = host.functions[device.address].settings.mac == device.mac
    if device.knows_mac and machine.inside.side is not GuestSide.ADDRESSES:
        # A bond that prefers its VF, or a guest configured by MAC.
        machine.inside.chosen[device.mac] = VF


def unplugged(machine: Machine, device: Device) -> None:
    """A NIC has gone, and the addresses on it; a bond, or what watches for NICs, takes the other one."""
    gone, other = (VF, STANDBY) if device.kind == VF else (STANDBY, VF)
    if machine.inside.chosen.get(device.mac) != gone:
        return
    left = machine.nic(device.mac, other)
    usable = left is not None and left.knows_mac and machine.inside.side is not GuestSide.ADDRESSES
    machine.inside.chosen[device.mac] = other if usable else None
