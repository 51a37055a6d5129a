"""Whether a host can have a relay, and which: from what it has to what is to be done, or what stands in the way."""

from collections.abc import Iterator

from msgspec import Struct

from vferry.model.host import Inventory, Pf
from vferry.model.relay import PortCounters, Relay, RelayKind, RelayState, RelayView
from vferry.model.switch import RESTART
from vferry.plan import relay_cpus
from vferry.plan.facts import Finding, Found, Refusal, error, info, warning
from vferry.plan.host_step import HostStep
from vferry.plan.relay_choice import bridges, choose_memory, choose_vf, page_changes, settings
from vferry.plan.relay_cpus import choose_cores, cores_of, straying
from vferry.plan.relay_needs import platform, silent, switch, uplinks
from vferry.plan.relay_release import left_on
from vferry.plan.relay_steps import disabling, enabling, repairing


class RelayWishes(Struct, frozen=True, kw_only=True):
    """What the operator asks for. `operation` is a new one's id."""

    operation: str
    uplinks: tuple[str, ...]
    switched: bool = False

    @property
    def kind(self) -> RelayKind:
        return RelayKind.SWITCHED if self.switched else RelayKind.DIRECT


class RelayPlan(Struct, frozen=True, kw_only=True):
    """What the relay will be, or was, and the steps to there."""

    relay: Relay
    steps: tuple[HostStep, ...]


class RelayAssessment(Found, frozen=True, kw_only=True):
    """What was found, and the plan if nothing stands in the way."""

    plan: RelayPlan | None = None


def assess_enabling(host: Inventory, wishes: RelayWishes) -> RelayAssessment:
    """The way to a relay. Where there is one already, or half of it, the way to all of it."""
    if host.relay is not None:
        return _again(host, host.relay, wishes)
    found = [*uplinks(host, wishes.uplinks), *platform(host, wishes.uplinks), *switch(host)]
    if found:
        return RelayAssessment(findings=tuple(found))
    try:
        relay = _choose(host, wishes)
    except Refusal as refusal:
        return RelayAssessment(findings=(refusal.finding,))
    return RelayAssessment(findings=tuple(_notes(host, relay)), plan=RelayPlan(relay=relay, steps=enabling(relay)))


def assess_disabling(host: Inventory, view: RelayView) -> RelayAssessment:
    """The way back. `view`: the relay as its switch has it."""
    relay = host.relay
    if relay is None:
        return RelayAssessment(findings=(info("relay-none", f"{host.name} has no relay"),))
    if relay.ports:
        return RelayAssessment(findings=(_in_use(host, relay),))
    if foreign := _foreign(relay, view):
        problem = error(
            "relay-port-anothers",
            f"Ports that vferry has not made are on the relay of {host.name}: "
            f"{', '.join(f'{port.name} on {port.bridge}' for port in foreign)}",
            _without(foreign[0]),
        )
        return RelayAssessment(findings=(problem,))
    note = info(
        "relay-memory-stays",
        f"Open vSwitch keeps DPDK and its huge pages until it is started anew ({RESTART})",
    )
    return RelayAssessment(findings=(note,), plan=RelayPlan(relay=relay, steps=disabling(relay)))


def _in_use(host: Inventory, relay: Relay) -> Finding:
    macs = ", ".join(port.mac for port in relay.ports)
    remedy = "Move these guests to another host, or take their NICs off the relay: vferry guest nic"
    if left := left_on(host):
        nobodys = ", ".join(port.mac for port in left)
        remedy += f"; and what no guest has any more ({nobodys}): vferry relay release {host.name} {left[0].mac}"
    return error("relay-in-use", f"Guests' NICs are on the relay of {host.name}: {macs}", remedy)


def _foreign(relay: Relay, view: RelayView) -> list[PortCounters]:
    """The ports of a switched relay's bridges that are neither its own nor its guests'."""
    bridges = {bridge.name for bridge in relay.bridges}
    own = {uplink.name for bridge in relay.bridges for uplink in bridge.uplinks}
    own |= {gateway.port for gateway in relay.gateways}
    return [port for port in view.ports if port.bridge in bridges and not port.guest and port.name not in own]


def _without(port: PortCounters) -> str:
    """How a port goes. OVN's patch ports are made again for as long as OVN is told of the bridge."""
    remedy = f"See what uses them, then remove them: ovs-vsctl del-port {port.name}"
    if port.type != "patch":
        return remedy
    mappings = "external_ids:ovn-bridge-mappings"
    return f"{remedy}; where it is OVN's, take {port.bridge} out of {mappings} of Open_vSwitch, and OVN removes it"


def _again(host: Inventory, relay: Relay, wishes: RelayWishes) -> RelayAssessment:
    name = host.name
    if relay.state is RelayState.DISABLING:
        problem = error(
            "relay-half-gone",
            f"The relay of {name} is being taken back, and that has not ended",
            f"Finish that first: vferry relay disable {name}",
        )
        return RelayAssessment(findings=(problem,))
    if (relay.kind, sorted(relay.uplinks)) != (wishes.kind, sorted(wishes.uplinks)):
        problem = error(
            "relay-differs",
            f"{name} has a {relay.kind} relay on {', '.join(relay.uplinks)} already",
            f"Take it back first: vferry relay disable {name}",
        )
        return RelayAssessment(findings=(problem,))
    if dead := tuple(silent(host)):
        return RelayAssessment(findings=dead)
    note = info("relay-there", f"{name} has this relay already: what is missing of it is made")
    steps = repairing(relay) if relay.state is RelayState.ENABLED else enabling(relay)
    return RelayAssessment(findings=(note, *relay_cpus.about(host)), plan=RelayPlan(relay=relay, steps=steps))


def _choose(host: Inventory, wishes: RelayWishes) -> Relay:
    """Raises `Refusal`."""
    pfs = tuple(pf for name in wishes.uplinks if (pf := host.pf(name)) is not None)
    vfs = tuple(choose_vf(host, pf) for pf in pfs) if wishes.switched else ()
    if not wishes.switched:
        _one_free(host, pfs)
    cores = choose_cores(host, pfs)
    memory = choose_memory(host, pfs)
    return Relay(
        operation=wishes.operation,
        state=RelayState.ENABLING,
        kind=wishes.kind,
        uplinks=wishes.uplinks,
        cores=cores,
        pages=page_changes(host.relay_ground, memory),
        vfs=vfs,
        bridges=bridges(host, vfs),
        settings=settings(host.relay_ground, cores, memory),
    )


def _one_free(host: Inventory, pfs: tuple[Pf, ...]) -> None:
    """A direct relay takes VFs as guests come; without any it would be of no use."""
    refused: Refusal | None = None
    for pf in pfs:
        try:
            choose_vf(host, pf)
        except Refusal as refusal:
            refused = refusal
        else:
            return
    if refused is not None:
        raise refused


def _notes(host: Inventory, relay: Relay) -> Iterator[Finding]:
    shared = sorted(set(relay.cores).difference(host.relay_ground.isolated))
    floating = [guest.name for guest in host.guests if not guest.pinned]
    if shared and floating:
        yield warning(
            "relay-cores-shared",
            f"The guests {', '.join(floating)} are pinned to no CPUs, and may run where the relay does (CPU {shared})",
            "Pin them to others (virsh vcpupin), or leave the relay's CPUs to it (isolcpus)",
        )
    yield from straying(host, relay.cores)
    yield from _offload(host, relay)
    theirs = cores_of(host.relay_ground)
    if theirs:
        yield info("relay-cores-kept", f"Open vSwitch forwards on the CPUs that it was given before: {relay.cores}")


def _offload(host: Inventory, relay: Relay) -> Iterator[Finding]:
    """What NICs that can do more than pass frames do is the operator's, or a controller's."""
    for pf in (pf for pf in map(host.pf, relay.uplinks) if pf is not None and pf.switchdev):
        yield warning(
            "relay-representors",
            f"{pf.name} of {host.name} is in switchdev mode: its VFs' representors decide whom the relay reaches by "
            "them, and vferry puts them in no bridge and gives them no rules",
            "See to them, or have a controller do so (vferry host show names them); or, where nobody needs them: "
            f"devlink dev eswitch set pci/{pf.address} mode legacy",
        )
    switch = host.relay_ground.switch
    if relay.switched and switch is not None:
        does = "offloads to NICs what they take" if switch.offloads else "offloads nothing to NICs"
        yield info("relay-offload", f"Open vSwitch of {host.name} {does} (hw-offload), and vferry leaves that as it is")
