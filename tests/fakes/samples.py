"""A guest on the first of two hosts, and the plans that move it: every network mode with every guest side."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from msgspec import structs

from fakes.clock import run_virtually
from fakes.faults import Crash
from fakes.fleet import Fleet
from fakes.journal import MemoryJournal, Witness
from fakes.looking import RELAY_BRIDGE
from fakes.world import ON_BRIDGE, PF, STANDBY, VF, Device, Function, HostState, Inside, Machine, make_host
from vferry.host.api import (
    CheckFit,
    ClaimResources,
    Host,
    ReadBlockers,
    ReadDefinition,
    ReadGuestNetwork,
    TakeInventory,
)
from vferry.migration.conductor import Conductor
from vferry.migration.stepper import Ending
from vferry.model.host import WIPED, Attachment
from vferry.model.ovn import NORTHBOUND, KnownPort, LogicalPort
from vferry.model.problem import Problem
from vferry.model.relay import RelayPort, RelayVf, SwitchPlace
from vferry.plan.facts import Assessment, Facts, Wishes
from vferry.plan.plan import GuestSide, NetworkMode, Plan, Standby, TransferPlan
from vferry.plan.preflight import assess

GUEST = "web"
MAC = "52:54:00:12:34:56"
MDEV = "7f0e0000-0000-4000-a000-000000000001"
SOURCE, DESTINATION = "host1", "host2"
LOGICAL_PORT = "web-0"
OPERATION = "op-1"
UNCOMPRESSED = TransferPlan()

CARRIED = structs.replace(WIPED, mac=MAC, trust=True, spoof_check=False, max_tx_rate=500)


@dataclass(frozen=True)
class Case:
    """A network mode, who chooses in the guest, and whether the guest has a standby NIC of its own."""

    mode: NetworkMode
    side: GuestSide
    own_standby: bool = False
    manager: str | None = None
    """What configures the guest's network."""
    nics: int = 1
    """How many NICs it has that this mode is for, each on a VF."""
    macvtaps: int = 0
    """How many it has beside them on macvtaps, each on a VF."""
    relayed: int = 0
    """How many it has beside them on its host's relay, each joined to a VF."""
    switched: int = 0
    """How many it has beside them on its host's relay, all on one bridge of it."""
    bound: bool = False
    """Whether that bridge is OVN's, which binds them."""
    mediated: bool = False
    """Whether it has a mediated device, which QEMU migrates."""
    reclaims: bool = False
    """Whether what it has free is taken before the copy."""

    @property
    def has_vf(self) -> bool:
        return self.mode is not NetworkMode.VIRTIO

    @property
    def unplugs(self) -> bool:
        """Whether the guest's VFs are taken away for the migration."""
        return self.mode in (NetworkMode.SWITCH, NetworkMode.FAILOVER, NetworkMode.DETACH)

    @property
    def never_dark(self) -> bool:
        """Whether the guest's network may not be interrupted but by the pause."""
        dark = (NetworkMode.DETACH, NetworkMode.VIRTIO)
        return self.mode not in dark and self.side is not GuestSide.HOTPLUG

    def __str__(self) -> str:
        own, mediated = "own-standby" if self.own_standby else "", "mediated" if self.mediated else ""
        beside = f"{self.macvtaps}-macvtaps" if self.macvtaps and self.nics else ""
        relayed = f"{self.relayed}-relayed" if self.relayed and (self.nics or self.relayed > 1) else ""
        switched = f"{self.switched}-{'bound' if self.bound else 'switched'}" if self.switched else ""
        several = f"{self.nics}-nics" if self.nics > 1 else ""
        reclaims = "reclaims" if self.reclaims else ""
        more = (own, self.manager, several, mediated, beside, relayed, switched, reclaims)
        return "-".join(word for word in (self.mode.value, self.side.value, *more) if word)

    @property
    def macs(self) -> tuple[str, ...]:
        return tuple(f"{MAC[:-2]}{0x56 + at:02x}" for at in range(self.on_vfs + self.switched))

    @property
    def on_vfs(self) -> int:
        """How many NICs it has that have a VF each."""
        return self.nics + self.macvtaps + self.relayed


CASES = (
    Case(NetworkMode.SWITCH, GuestSide.BOND, own_standby=True),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, manager="networkd"),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, manager="NetworkManager"),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, own_standby=True),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, nics=2),
    Case(NetworkMode.SWITCH, GuestSide.HOTPLUG),
    Case(NetworkMode.SWITCH, GuestSide.HOTPLUG, own_standby=True),
    Case(NetworkMode.FAILOVER, GuestSide.FAILOVER, own_standby=True),
    Case(NetworkMode.DETACH, GuestSide.ADDRESSES),
    Case(NetworkMode.DETACH, GuestSide.HOTPLUG),
    Case(NetworkMode.DETACH, GuestSide.BOND, own_standby=True),
    Case(NetworkMode.DETACH, GuestSide.HOTPLUG, own_standby=True),
    Case(NetworkMode.DETACH, GuestSide.TEMPORARY_BOND),
    Case(NetworkMode.DETACH, GuestSide.TEMPORARY_BOND, manager="networkd"),
    Case(NetworkMode.MACVTAP, GuestSide.NOBODY, nics=0, macvtaps=1),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, macvtaps=1),
    Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, relayed=1),
    Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, relayed=2),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, relayed=1),
    Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, switched=1),
    Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, switched=2),
    Case(NetworkMode.RELAY, GuestSide.NOBODY, nics=0, switched=1, bound=True),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, switched=1),
    Case(NetworkMode.VIRTIO, GuestSide.ADDRESSES),
    Case(NetworkMode.VFIO, GuestSide.NOBODY),
    Case(NetworkMode.VFIO, GuestSide.NOBODY, own_standby=True, nics=2, mediated=True),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, mediated=True),
    Case(NetworkMode.SWITCH, GuestSide.ADDRESSES, reclaims=True),
)


def definition(*vfs: str, standby: bool, on: Attachment = ON_BRIDGE.on) -> str:
    """A guest's libvirt definition, with its VFs' addresses, the interfaces of its macvtaps, or its sockets."""
    hostdevs = "".join(_interface(vf, at) for at, vf in enumerate(vfs))
    source = f"bridge='{on.device}'" if on.bridged else f"dev='{on.device}' mode='bridge'"
    virtio = f"""
    <interface type='{"bridge" if on.bridged else "direct"}'><source {source}/>
      <mac address='{MAC}'/><model type='virtio'/><alias name='ua-standby'/>
    </interface>"""
    nics = hostdevs + (virtio if standby else "")
    return f"<domain type='kvm'><name>{GUEST}</name><devices>{nics}</devices></domain>"


def _interface(vf: str, at: int) -> str:
    if vf.startswith("/"):
        return _vhostuser(vf, at)
    return _hostdev(vf, at) if ":" in vf else _macvtap(vf, at)


def _hostdev(vf: str, at: int) -> str:
    slot, function = vf.rsplit(":", 1)[1].split(".")
    return f"""
    <interface type='hostdev' managed='yes'>
      <mac address='{MAC[:-2]}{0x56 + at:02x}'/>
      <source><address type='pci' domain='0x0000' bus='0x01' slot='0x{slot}' function='0x{function}'/></source>
      <alias name='{alias_of(at)}'/>
    </interface>"""


def _macvtap(interface: str, at: int) -> str:
    return f"""
    <interface type='direct'>
      <mac address='{MAC[:-2]}{0x56 + at:02x}'/>
      <source dev='{interface}' mode='passthrough'/><model type='virtio'/><alias name='{alias_of(at)}'/>
    </interface>"""


def _vhostuser(socket: str, at: int) -> str:
    return f"""
    <interface type='vhostuser'>
      <mac address='{MAC[:-2]}{0x56 + at:02x}'/>
      <source type='unix' path='{socket}' mode='server'/><model type='virtio'/><alias name='{alias_of(at)}'/>
    </interface>"""


def alias_of(at: int) -> str:
    """The alias of a guest's VF in its definition."""
    return f"ua-vf{at or ''}"


def make_fleet(case: Case, here: Standby = ON_BRIDGE, there: Standby = ON_BRIDGE) -> Fleet:
    """Two hosts with these standby paths, the guest running on the first one, on its VF if it has one."""
    own = tuple(range(1 + case.nics, 1 + case.nics + case.macvtaps))
    count = 5 if case.switched else 4
    source = make_host(SOURCE, vfs=count, with_interface=own, standby=here)
    destination = make_host(DESTINATION, vfs=count, with_interface=(3,), standby=there)
    for host in (source, destination) if case.switched else ():
        host.relay_uplink = host.function(4).address
    devices: dict[str, Device] = {}
    vfs, on_virtio = [], [] if case.has_vf else [*case.macs]
    on_virtio += case.macs[case.on_vfs :]
    for at, mac in enumerate(case.macs[: case.on_vfs] if case.has_vf else ()):
        function = source.function(1 + at)
        function.settings = structs.replace(CARRIED, mac=mac)
        macvtap, relayed = case.nics <= at < case.nics + case.macvtaps, at >= case.nics + case.macvtaps
        device = Device(alias_of(at), mac, address=function.address, macvtap=macvtap)
        if relayed:
            device.socket = f"/run/vferry/{GUEST}-{at}.sock"
            on_virtio.append(mac)
            join(source, function, mac, device.socket)
        device.managed = device.passed_through
        devices[device.alias] = device
        vfs.append(device.socket or function.interface or function.address)
    for at, mac in enumerate(case.macs[case.on_vfs :], start=case.on_vfs):
        device = Device(alias_of(at), mac, socket=f"/run/vferry/{GUEST}-{at}.sock")
        devices[device.alias] = device
        place = SwitchPlace(bridge=RELAY_BRIDGE, vlan=7)
        if case.bound:
            place = SwitchPlace(bridge="br-int", logical_port=LOGICAL_PORT)
        source.ports[mac] = RelayPort(guest=GUEST, mac=mac, socket=str(device.socket), switch=place)
        vfs.append(str(device.socket))
    if case.own_standby or not case.has_vf:
        devices["ua-standby"] = Device("ua-standby", MAC, bridge=here.on.device)
    if not case.has_vf and here.filtered:
        source.forwarding.add(MAC)
    # Before vferry makes it, there is no bond.
    side = GuestSide.ADDRESSES if case.side is GuestSide.TEMPORARY_BOND else case.side
    chosen: dict[str, str | None] = {mac: STANDBY if mac in on_virtio else VF for mac in case.macs}
    inside = Inside(side, chosen, manager=case.manager)
    if case.mediated:
        source.mdevs.add(MDEV)
    source.machines[GUEST] = Machine(GUEST, inside, devices, frozenset(source.mdevs))
    source.definitions[GUEST] = definition(*vfs, standby="ua-standby" in devices, on=here.on)
    # A neighbour, so that the first VF of the destination is not free.
    destination.function(0).settings = structs.replace(destination.function(0).settings, mac="52:54:00:99:99:99")
    destination.definitions["neighbour"] = definition(destination.function(0).address, standby=False).replace(
        f"<name>{GUEST}<", "<name>neighbour<"
    )
    fleet = Fleet((source, destination), never_dark=case.macs if case.never_dark else ())
    if case.bound:
        fleet.northbound.bindings[LOGICAL_PORT] = LogicalPort(name=LOGICAL_PORT, requested_chassis="host1-chassis")
    fleet.check()
    return fleet


def join(host: HostState, function: Function, mac: str, socket: str) -> None:
    """The host's relay has the guest already."""
    vf = RelayVf(pf=PF, index=function.index, address=function.address, driver=function.driver)
    host.ports[mac] = RelayPort(guest=GUEST, mac=mac, socket=socket, vf=vf)
    function.driver = vf.bound


async def survey(
    fleet: Fleet, source: str, destination: str, case: Case, operation: str, transfer: TransferPlan
) -> Assessment:
    """Asks both hosts what planning needs to know, and plans."""
    here, there = fleet.host(source, operation), fleet.host(destination, operation)
    inventory = await here.call(TakeInventory())
    guest = inventory.guest(GUEST)
    assert guest is not None
    network = silence = None
    try:
        network = await here.call(ReadGuestNetwork(guest=GUEST))
    except Problem as problem:
        silence = problem.message
    described = await here.call(ReadDefinition(guest=GUEST))
    told = await here.call(ReadBlockers(guest=GUEST))
    facts = Facts(
        source=inventory,
        destination=await there.call(TakeInventory()),
        guest=structs.replace(guest, blockers=told.reasons, device_state=told.state),
        definition=described,
        fit=await there.call(CheckFit(live_xml=described.persistent)),
        guest_network=network,
        guest_silence=silence,
        northbound={name: KnownPort(binding=port) for name, port in fleet.northbound.bindings.items()},
    )
    wishes = Wishes(
        operation=operation,
        mode=case.mode,
        accept_interruption=True,
        temporary_bond=case.side is GuestSide.TEMPORARY_BOND,
        transfer=transfer,
    )
    return assess(facts, wishes)


def make_plan(
    fleet: Fleet,
    case: Case,
    source: str = SOURCE,
    destination: str = DESTINATION,
    operation: str = OPERATION,
    transfer: TransferPlan = UNCOMPRESSED,
) -> Plan:
    """The plan for moving the guest between two hosts of the fleet; faults are kept out of the survey."""
    faults, fleet.faults = fleet.faults, []
    if case.reclaims:
        transfer = structs.replace(transfer, reclaim_free=True)
    assessment = run_virtually(survey(fleet, source, destination, case, operation, transfer))
    fleet.faults = faults
    fleet.calls.clear()
    assert assessment.plan is not None, assessment.errors
    return assessment.plan


@dataclass
class Drive:
    """One operation with its journal, through the deaths of controllers."""

    fleet: Fleet
    plan: Plan
    patience_s: float = 60.0
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    witness: Witness = field(default_factory=Witness)
    abort: bool = False
    bandwidth: int | None = None
    epoch: int = 0

    def abort_asked(self) -> bool:
        return self.abort

    def bandwidth_asked(self) -> int | None:
        return self.bandwidth

    def conductor(self, *, fresh: bool = False) -> tuple[Conductor, dict[str, Host]]:
        """The next controller's; with `fresh` its journal is a new one, as for a repair."""
        self.epoch += 1
        self.witness = Witness()
        if fresh:
            self.journal = MemoryJournal()
        names = (self.plan.source, self.plan.destination, *((NORTHBOUND,) if self.plan.rebinds else ()))
        hosts = {name: self.fleet.host(name, self.plan.operation, self.epoch) for name in names}
        return (
            Conductor(self.plan, hosts, self.journal, self.witness, self, self.patience_s),
            hosts,
        )

    def run(self) -> Ending:
        """Carries the plan out, or goes on with it where the last controller died; one that cannot, dies as well."""

        async def work() -> Ending:
            conductor, hosts = self.conductor()
            if self.epoch > 1:
                try:
                    await self._take_over(hosts, anew=False)
                except Problem as problem:
                    raise Crash from problem
            return await conductor.run()

        return run_virtually(work())

    def repair(self, act: Callable[[Conductor], Awaitable[Ending]]) -> Ending:
        """What `operation recover` does for an operation that has ended, and needs the operator."""

        async def work() -> Ending:
            conductor, hosts = self.conductor(fresh=True)
            await self._take_over(hosts, anew=True)
            return await act(conductor)

        return run_virtually(work())

    async def _take_over(self, hosts: dict[str, Host], *, anew: bool) -> None:
        """As the controller does it."""
        for host, vfs in zip(hosts.values(), (self.plan.source_vfs, self.plan.destination_vfs), strict=False):
            try:
                claims = (await host.call(TakeInventory())).claims
                if anew or any(claim.operation == self.plan.operation for claim in claims):
                    await host.call(ClaimResources(guest=self.plan.guest, vfs=vfs))
            except Problem as problem:
                if problem.code != "host-unreachable":
                    raise


__all__ = [
    "CASES",
    "DESTINATION",
    "GUEST",
    "MAC",
    "OPERATION",
    "PF",
    "SOURCE",
    "Case",
    "Drive",
    "make_fleet",
    "make_plan",
]
