"""Preflight: everything that can be known before, decided from facts alone, each with its reason and its remedy."""

from collections.abc import Iterator

from msgspec.structs import replace

from vferry.plan import connections, devices, direct, estimate, estimate_words, free_memory, nics, transfer, vfio
from vferry.plan.facts import Assessment, Facts, Finding, Wishes, error, warning
from vferry.plan.plan import Plan, TransferPlan
from vferry.plan.planner import draft
from vferry.plan.relay_cpus import forwards_on, held_on, strays_to

_MEMORY_MARGIN = 256 * 2**20
"""What QEMU itself needs beyond the guest's memory, in bytes, roughly."""


def assess(facts: Facts, wishes: Wishes) -> Assessment:
    """All findings, and the plan where none is an error."""
    asked, wishes = wishes.transfer, replace(wishes, transfer=direct.settled(facts, wishes.transfer))
    drafted = draft(facts, wishes)
    state = drafted.plan.device_state if drafted.plan else None
    counted = free_memory.counted(facts, drafted.plan, wishes.transfer)
    expected = estimate.estimate(facts, counted, state)
    findings = (
        *_guest(facts),
        *_platform(facts),
        *_cores(facts),
        *_keepalive(facts),
        *_memory(facts, transfer.fitted(wishes.transfer, facts.guest.memory)),
        *_slots(facts),
        *transfer.missing_methods(facts, wishes.transfer.policy),
        *transfer.missing_codecs(facts, wishes.transfer.codec),
        *transfer.about_stalling(wishes.transfer),
        *direct.about(facts, asked),
        *_nics(facts, wishes),
        *_devices(facts, drafted.plan),
        *connections.about(facts, drafted.plan),
        *drafted.findings,
        *(estimate_words.about(facts, counted, expected) if expected else ()),
        *free_memory.about(facts, drafted.plan),
    )
    found = Assessment(findings=findings, estimate=expected)
    return found if found.errors else replace(found, plan=drafted.plan)


def _guest(facts: Facts) -> Iterator[Finding]:
    guest, source, destination = facts.guest, facts.source, facts.destination
    if guest.state != "running":
        yield error(
            "guest-not-running",
            f"{guest.name} is {guest.state.value} on {source.name}",
            f"Start it first (virsh start {guest.name}); a guest that is off can simply be defined elsewhere",
        )
    if not guest.persistent:
        yield error(
            "guest-transient",
            f"{guest.name} has no persistent definition",
            "Define it (virsh define), so that it can be started again at the destination",
        )
    namesake = destination.guest(guest.name)
    if namesake is not None:
        yield error(
            "guest-exists",
            f"{destination.name} has a guest {guest.name} already ({namesake.state.value})",
            f"Remove it there if it is a leftover: virsh undefine {guest.name}",
        )
    for inventory in (source, destination):
        for claim in inventory.claims:
            if claim.guest == guest.name:
                yield error(
                    "guest-claimed",
                    f"{guest.name} is claimed on {inventory.name} by operation {claim.operation}",
                    f"Wait for it (vferry operation follow {claim.operation}) "
                    f"or clear it up (vferry operation recover {claim.operation})",
                )


def _platform(facts: Facts) -> Iterator[Finding]:
    source, destination = facts.source, facts.destination
    for reason in facts.fit.reasons:
        yield error("does-not-fit", f"{destination.name} cannot take the guest: {reason}", "Choose another host")
    if destination.versions.qemu < source.versions.qemu:
        yield warning(
            "older-qemu",
            f"QEMU is {_dotted(source.versions.qemu)} on {source.name} and {_dotted(destination.versions.qemu)} on "
            f"{destination.name}",
            "Migrations to an older QEMU are not what its authors test",
        )
    for inventory in (source, destination):
        if facts.controller not in (None, inventory.versions.vferry):
            yield warning(
                "other-vferry",
                f"The agent of {inventory.name} is vferry {inventory.versions.vferry}, this one is {facts.controller}",
                "Upgrade the older one: a migration that asks an agent for what it does not know is undone",
            )
    if source.versions.cpu_model != destination.versions.cpu_model:
        yield warning(
            "other-cpu",
            f"The CPUs differ: {source.versions.cpu_model} and {destination.versions.cpu_model}",
            "A guest with cpu mode host-passthrough may stop at an instruction that is missing",
        )
    if source.versions.microcode != destination.versions.microcode:
        yield warning(
            "other-microcode", f"The microcode differs: {source.versions.microcode}, {destination.versions.microcode}"
        )


def _cores(facts: Facts) -> Iterator[Finding]:
    guest, destination = facts.guest, facts.destination
    forwards = forwards_on(destination)
    if held := held_on(guest, forwards):
        cpus = ", ".join(map(str, held))
        yield error(
            "relay-core-used",
            f"{guest.name} is pinned to CPUs of {destination.name} on which the relay there forwards ({cpus})",
            "Pin it to others (virsh vcpupin, emulatorpin; <vcpu cpuset> in its definition), or have the relay "
            "forward on others (ovs-vsctl set Open_vSwitch . other_config:pmd-cpu-mask=MASK), or choose another host",
        )
    elif shared := strays_to(guest, forwards):
        cpus = ", ".join(map(str, shared))
        yield warning(
            "relay-cores-shared",
            f"{guest.name} is pinned to CPUs of {destination.name} that include some of the relay's there, and may run "
            f"on these ({cpus})",
            "Pin it to others alone (virsh vcpupin, emulatorpin; <vcpu cpuset> in its definition)",
        )


def _keepalive(facts: Facts) -> Iterator[Finding]:
    if facts.source.keepalive_off is False:
        yield warning(
            "keepalive-on",
            f"libvirt on {facts.source.name} ends a migration's connection by its own keepalive, and then lets the "
            f"guest go on there although it may run on {facts.destination.name}",
            "Write keepalive_interval = -1 into /etc/libvirt/qemu.conf there and restart libvirtd",
        )


def _nics(facts: Facts, wishes: Wishes) -> Iterator[Finding]:
    if facts.definition.live is not None:
        relayed = {nic.mac for nic in facts.guest.nics if nic.relayed}
        live, destination = facts.definition.live, facts.destination.name
        yield from nics.about(live, destination, relayed, accepted=wishes.accept_interruption)


def _devices(facts: Facts, plan: Plan | None) -> Iterator[Finding]:
    if facts.definition.live is None or plan is None:
        return
    yield from vfio.about(facts, plan)
    going = {*plan.source_vfs} | {move.uuid for move in plan.devices}
    yield from devices.about(facts.definition.live, going, plan.moves)


def _memory(facts: Facts, wanted: TransferPlan) -> Iterator[Finding]:
    destination = facts.destination
    needed = facts.guest.memory + _MEMORY_MARGIN
    if destination.memory_free < needed:
        yield error(
            "no-memory",
            f"{destination.name} has {destination.memory_free >> 20} MiB free, {facts.guest.name} needs {needed >> 20}",
            "Free memory there or choose another host",
        )
    else:
        times = 2 if wanted.resident else 1
        yield from transfer.missing_room(destination, destination.memory_free - needed, wanted, times=times)
    at_source = replace(wanted, delta_memory=wanted.delta_memory + wanted.cache)
    yield from transfer.missing_room(facts.source, facts.source.memory_free, at_source)


def _slots(facts: Facts) -> Iterator[Finding]:
    for inventory in (facts.source, facts.destination):
        busy = {claim.operation for claim in inventory.claims if claim.slot}
        if len(busy) >= inventory.migration.slots:
            yield error(
                "no-slot",
                f"{inventory.name} carries {len(busy)} migrations already, as many as it may",
                "Wait for one to end (vferry operation list), or allow more slots in its agent's configuration",
            )


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
