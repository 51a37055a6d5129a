"""What a migration owes, whatever went wrong: the endings that design allows, checked against the fleet's truth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fakes import invariants
from fakes.fleet import Fleet
from fakes.samples import GUEST, Case, Drive
from fakes.world import DRIVER, STANDBY, VF, HostState, fresh_settings
from vferry.migration.conductor import Conductor
from vferry.migration.stepper import Ending
from vferry.model.problem import Exit, Problem
from vferry.model.report import Phase
from vferry.plan.plan import Plan, VfMove


@dataclass(frozen=True)
class Snapshot:
    """All that a migration that is undone must have put back, by host."""

    hosts: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, fleet: Fleet) -> "Snapshot":
        northbound = {fleet.northbound.name: {"bindings": dict(fleet.northbound.bindings)}}
        return cls(northbound | {host.name: _host(host) for host in fleet.hosts.values()})

    def differences(self, fleet: Fleet) -> list[str]:
        now = Snapshot.of(fleet)
        return [
            f"{name}: {what} was {was}, is {now.hosts[name][what]}"
            for name, host in self.hosts.items()
            for what, was in host.items()
            if now.hosts[name][what] != was
        ]


def _host(host: HostState) -> dict[str, Any]:
    return {
        "functions": {address: (one.settings, one.driver) for address, one in host.functions.items()},
        "ports": dict(host.ports),
        "arriving": dict(host.arriving),
        "hidden": dict(host.hidden),
        "forwarding": set(host.forwarding),
        "definitions": dict(host.definitions),
        "mdevs": set(host.mdevs),
        "claims": host.claims.all(),
        "gateways": dict(host.gateways),
        "guests": {
            name: (
                machine.state,
                {(device.mac, device.address, device.bridge, device.queues) for device in machine.devices.values()},
                dict(machine.inside.chosen),
                set(machine.inside.quiet | machine.inside.listening),
                set(machine.inside.patient),
                set(machine.inside.bonds),
                machine.squeezed,
            )
            for name, machine in host.machines.items()
        },
    }


def moved(fleet: Fleet, plan: Plan) -> list[str]:
    """What is not as it should be once a guest has moved for good."""
    if fleet.running(GUEST) != [plan.destination]:
        return [f"the guest runs on {fleet.running(GUEST)}"]
    source, (destination, machine) = fleet.hosts[plan.source], fleet.machine(GUEST)
    wrong = [f"{host.name}: {host.claims.all()} is left" for host in (source, destination) if host.claims.all()]
    wrong += [f"{host.name}: a gateway is left" for host in (source, destination) if host.gateways]
    if GUEST in source.definitions or GUEST in source.machines:
        wrong.append("the source has the guest still")
    if destination.definitions.get(GUEST) != plan.persistent_xml:
        wrong.append("the destination's definition is another one")
    if unannounced := set(machine.inside.chosen) - destination.announced:
        wrong.append(f"{unannounced} was not announced")
    if source.mdevs or machine.mdevs != destination.mdevs:
        wrong.append(f"mediated devices: {source.mdevs} at the source, {destination.mdevs} at the destination")
    if machine.squeezed:
        wrong.append("the guest has less memory than it had")
    if machine.inside.bonds:
        wrong.append("the temporary bond is left")
    if machine.inside.listening:
        wrong.append("the guest's pair still takes what its virtio NIC receives")
    if machine.inside.quiet:
        wrong.append("the guest's own network configuration is still kept quiet")
    if source.hidden or destination.hidden:
        wrong.append("a VF is kept from a MAC still")
    if source.ports or source.arriving or destination.arriving:
        wrong.append(f"the relay's {source.ports} are left at the source, and MACs that wait for their guests")
    ports = {mac: port.vf.address if port.vf else "" for mac, port in destination.ports.items()}
    joined = {move.mac: move.destination.address for move in plan.moves if move.relay_port}
    if ports != joined | {move.mac: "" for move in plan.ports}:
        wrong.append(f"the destination's relay joins {ports}")
    nics = {(device.mac, device.address, device.bridge) for device in machine.devices.values()}
    on_switch: set[tuple[str, str | None, str | None]] = {(move.mac, None, None) for move in plan.ports}
    if plan.moves and nics != {nic for move in plan.moves for nic in _nics_of(move)} | on_switch:
        wrong.append(f"the guest has {nics}")
    for port in plan.ports:
        if missing := invariants.path(destination, machine, port.mac):
            wrong.append(f"the guest's port: {missing}")
        after = port.rebinding.after if port.rebinding else None
        if after and fleet.northbound.bindings != {after.name: after}:
            wrong.append(f"OVN has {fleet.northbound.bindings}")
        if destination.ports[port.mac] != port.destination:
            wrong.append(f"the guest's port is {destination.ports[port.mac]}")
    for move in plan.moves:
        mac = move.mac
        missing = invariants.path(destination, machine, mac)
        if machine.inside.chosen[mac] != (STANDBY if move.relay_port else VF) or missing:
            wrong.append(f"the guest is not on its VF: {machine.inside.chosen[mac]}, {missing}")
        if destination.functions[move.destination.address].settings != move.source_settings:
            wrong.append(f"the VF has {destination.functions[move.destination.address].settings}")
        old = source.functions[move.source.address]
        if (old.settings, old.driver) != (fresh_settings(), DRIVER):
            wrong.append(f"the old VF has {old.settings} and {old.driver}")
        wrong += [f"{host.name}: {mac} is forwarded" for host in (source, destination) if mac in host.forwarding]
    return wrong


def _nics_of(move: VfMove) -> set[tuple[str, str | None, str | None]]:
    own = {(move.mac, None, move.destination_standby.on.device)} if move.standby_stays else set()
    return {(move.mac, move.destination.address, None), *own}


def unkept(drive: Drive, case: Case, before: Snapshot, ending: Ending) -> list[str]:
    """What an ending says that is not true, or leaves undone that it must not; empty when the contract is kept."""
    fleet, plan = drive.fleet, drive.plan
    where = fleet.running(GUEST)
    wrong: list[str] = []
    if ending.exit in (Exit.UNDONE, Exit.ABORTED):
        wrong += before.differences(fleet)
        if ending.at_destination or ending.notes or ending.degraded:
            wrong.append(f"undone, but it says {ending}")
    elif ending.exit is Exit.DONE:
        wrong += moved(fleet, plan)
        if not ending.at_destination or ending.notes or ending.degraded:
            wrong.append(f"done, but it says {ending}")
    elif ending.exit is Exit.OPERATOR:
        if not ending.notes:
            wrong.append("the operator is needed, and not told for what")
        if ending.at_destination and where != [plan.destination]:
            wrong.append(f"said to be at the destination, runs on {where}")
        if not ending.at_destination and where == [plan.destination] and not is_uncertain(ending):
            wrong.append("said to be at the source, runs at the destination")
        if is_uncertain(ending):
            commands = [f"vferry operation recover {plan.operation} --guest-is-at {name}" for name in fleet.hosts]
            wrong += [f"{command} is not said" for command in commands if command not in " ".join(ending.notes)]
        if ending.degraded == "standby" and any(move.dark for move in plan.moves):
            wrong.append("there is no standby NIC in this mode")
    else:
        wrong.append(f"exit {ending.exit!r} is no ending of a migration")
    return wrong


def is_uncertain(ending: Ending) -> bool:
    return any(record.code == "guest-uncertain" for record in ending.records)


def healed(drive: Drive, before: Snapshot, ending: Ending) -> list[str]:
    """Ends all faults, lets the operation recover as an operator would, and says what is then not as it should be."""
    fleet, plan = drive.fleet, drive.plan
    fleet.faults.clear()
    fleet.held.clear()
    drive.abort = False
    for host in (*fleet.hosts.values(), fleet.northbound):
        host.down_until = 0.0
    if ending.exit is not Exit.OPERATOR:
        return []
    _settle_by_hand(fleet)
    if fleet.running(GUEST) == [plan.source]:
        return _healed_at_source(drive, before)
    again = drive.repair(Conductor.finish)
    wrong = moved(fleet, plan)
    return [f"after the repair ({again.exit!r}, {again.notes}): {each}" for each in wrong]


def _healed_at_source(drive: Drive, before: Snapshot) -> list[str]:
    why = Problem("recovered", "it was undone", exit=Exit.UNDONE)
    act: Callable[[Conductor], Any] = lambda conductor: conductor.take_back(why)  # noqa: E731
    again = drive.repair(act)
    wrong = before.differences(drive.fleet)
    if again.exit is not Exit.UNDONE:
        wrong.append(f"exit {again.exit!r}")
    return [f"after taking it back ({again.notes}): {each}" for each in wrong]


def _settle_by_hand(fleet: Fleet) -> None:
    """An operator who finds the guest paused somewhere, and running nowhere, lets it go on there."""
    if fleet.running(GUEST):
        return
    paused = [host for host in fleet.hosts.values() if GUEST in host.machines]
    assert paused, "the guest is gone"
    for other in paused[1:]:
        other.end(GUEST)
    paused[0].go_on(GUEST)


def phases(ending: Ending) -> list[Phase]:
    return [record.phase for record in ending.records]
