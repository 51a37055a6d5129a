"""Asking the hosts and the guest what planning needs to know."""

import asyncio
from collections.abc import Iterable
from importlib.metadata import version

from msgspec import Struct
from msgspec.structs import replace

from vferry.controller import northbound
from vferry.controller.hosts import HostRecord, find_host, list_hosts, open_host
from vferry.controller.state import State
from vferry.host.api import (
    AskDriver,
    AskQemu,
    CheckFit,
    Host,
    MeasureMemory,
    QemuAbilities,
    ReadBlockers,
    ReadDefinition,
    ReadGuestNetwork,
    TakeInventory,
)
from vferry.model.guest import Guest, GuestNetwork, GuestState
from vferry.model.host import Inventory
from vferry.model.memory import MemoryUse
from vferry.model.problem import Problem
from vferry.plan import attachments, carried
from vferry.plan.facts import Assessment, Facts, Wishes
from vferry.plan.preflight import assess

ASKING_S = 60.0


class Survey(Struct, frozen=True, kw_only=True):
    """The facts, what follows from them, and where the guest can be probed."""

    facts: Facts
    assessment: Assessment
    probe_address: str | None
    probe_from: str | None


async def survey(state: State, guest: str, destination: str, wishes: Wishes, *, measured: bool = False) -> Survey:
    """Looks at everything and changes nothing; `measured`: for some seconds also at what the guest does to its memory.

    Problems: ``host-unknown``, ``guest-unknown``, ``same-host``, ``host-unreachable``, and the agents' own.
    """
    target = find_host(destination, state)
    source_record, inventories = await _locate(state, guest, target)
    source_inventory, inventory = inventories[source_record.name], inventories[destination]
    found = source_inventory.guest(guest)
    if found is None:
        raise Problem("guest-unknown", f"{source_record.name} has no guest {guest} any more")
    async with open_host(source_record.name, state=state) as source, open_host(destination, state=state) as host:
        facts = await with_lacks(host, await _facts(source, host, source_inventory, inventory, found))
        facts = await _with_northbound(state, facts)
        if wishes.transfer.policy != "plain":
            facts = await _with_abilities(source, host, facts)
        if measured and found.state is GuestState.RUNNING:
            facts = replace(facts, memory=await _memory(source, guest))
    return Survey(
        facts=facts,
        assessment=assess(facts, wishes),
        probe_address=found.address or _inner_address(facts.guest_network, found),
        probe_from=source_record.probe_from,
    )


async def _facts(
    source: Host, destination: Host, source_inventory: Inventory, inventory: Inventory, guest: Guest
) -> Facts:
    definition = await source.call(ReadDefinition(guest=guest.name))
    now = definition.live or definition.persistent
    rewired = attachments.rewired(guest, source_inventory, inventory)
    fit = await destination.call(CheckFit(live_xml=now, persistent_xml=definition.persistent, rewired=rewired))
    network, silence = None, None
    if guest.state is GuestState.RUNNING:
        try:
            network = await source.call(ReadGuestNetwork(guest=guest.name), timeout_s=40)
        except Problem as problem:
            silence = problem.message
    guest, silent = await with_blockers(source, guest)
    return Facts(
        source=source_inventory,
        destination=inventory,
        guest=guest,
        qemu_silence=silent.message if silent else None,
        definition=definition,
        fit=fit,
        guest_network=network,
        guest_silence=silence,
        controller=version("vferry"),
    )


async def with_blockers(source: Host, guest: Guest) -> tuple[Guest, Problem | None]:
    """The guest with what QEMU says against migrating it, and how much state its devices have; or why it is not known.

    Asked only where it matters.
    """
    if not guest.uses_vfio:
        return guest, None
    try:
        answer = await source.call(ReadBlockers(guest=guest.name))
    except Problem as problem:
        return guest, problem
    return replace(guest, blockers=answer.reasons, device_state=answer.state), None


async def with_lacks(destination: Host, facts: Facts) -> Facts:
    """The facts with what the destination's drivers cannot set of a VF; asked only where the guest's has it set."""
    pfs = carried.asked(facts.guest, facts.source, facts.destination)
    return replace(facts, lacks={pf: (await destination.call(AskDriver(pf=pf))).lacks for pf in pfs})


async def _with_northbound(state: State, facts: Facts) -> Facts:
    """The facts with what OVN says of the guest's ports; asked only where it has such."""
    ports = facts.source.relay.ports if facts.source.relay else ()
    places = (port.switch for port in ports if port.guest == facts.guest.name)
    names = [place.logical_port for place in places if place is not None and place.logical_port is not None]
    if not names:
        return facts
    said = await northbound.ask(state, names)
    return replace(facts, northbound_silence=said) if isinstance(said, str) else replace(facts, northbound=said)


async def _with_abilities(source: Host, destination: Host, facts: Facts) -> Facts:
    ask = AskQemu(live_xml=facts.definition.live or facts.definition.persistent)

    async def of(host: Host) -> QemuAbilities | str:
        try:
            return await host.call(ask, timeout_s=ASKING_S)
        except Problem as problem:
            return problem.message

    at_source, at_destination = await asyncio.gather(of(source), of(destination))
    return replace(facts, source_qemu=at_source, destination_qemu=at_destination)


async def _memory(source: Host, guest: str) -> MemoryUse:
    """What measuring brings; that it brings nothing keeps no migration from being planned."""
    try:
        return await source.call(MeasureMemory(guest=guest), timeout_s=ASKING_S)
    except Problem as problem:
        return MemoryUse(notes=(f"the guest's memory was not measured: {problem.message}",))


async def _locate(state: State, guest: str, target: HostRecord) -> tuple[HostRecord, dict[str, Inventory]]:
    """The host on which the guest is, and the inventories; one that runs it is preferred to one that defines it."""
    records = list_hosts(state)
    answers = await asyncio.gather(*(_inventory(state, record) for record in records))
    inventories = {a.name: a for a in answers if isinstance(a, Inventory)}
    silent = {record.name: a for record, a in zip(records, answers, strict=True) if isinstance(a, Problem)}
    having = [record for record in records if record.name in inventories and inventories[record.name].guest(guest)]
    if not having:
        raise silent[target.name] if target.name in silent else _unknown(guest, inventories.values(), silent)
    having.sort(key=lambda record: _order(inventories[record.name], guest))
    if having[0].name == target.name:
        raise Problem(
            "same-host", f"{guest} is on {target.name} already", "Name another host: vferry host list lists them"
        )
    if target.name in silent:
        raise silent[target.name]
    return having[0], inventories


async def _inventory(state: State, record: HostRecord) -> Inventory | Problem:
    async with open_host(record.name, state=state) as host:
        try:
            return await host.call(TakeInventory())
        except Problem as problem:
            return problem


def _order(inventory: Inventory, name: str) -> int:
    guest = inventory.guest(name)
    states = [GuestState.RUNNING, GuestState.PAUSED, GuestState.OFF]
    return states.index(guest.state) if guest else len(states)


def _unknown(guest: str, inventories: Iterable[Inventory], silent: dict[str, Problem]) -> Problem:
    if silent:
        hosts = ", ".join(sorted(silent))
        return Problem(
            "guest-unknown",
            f"No host that answers has a guest {guest}, and {hosts} did not answer",
            "Look at vferry guest list, and check the agents of the hosts that are silent",
        )
    known = ", ".join(sorted(each.name for inventory in inventories for each in inventory.guests)) or "none"
    return Problem("guest-unknown", f"There is no guest {guest}; known: {known}", "List them: vferry guest list")


def _inner_address(network: GuestNetwork | None, guest: Guest) -> str | None:
    """The first address that the guest's agent shows on one of its NICs, or on the bond above it."""
    macs = {nic.mac for nic in guest.nics}
    links = network.links if network else ()
    return next((each.address for link in links if link.mac in macs for each in link.addresses), None)
