"""A guest that runs on one host, whose NIC is put on something else; and what each ending owes it."""

from dataclasses import dataclass, field

from msgspec import structs

from fakes.clock import run_virtually
from fakes.fleet import Fleet
from fakes.journal import MemoryJournal, Witness
from fakes.looking import RELAY_BRIDGE
from fakes.samples import CARRIED, GUEST, MAC, SOURCE, join
from fakes.world import (
    BRIDGE,
    DRIVER,
    STANDBY,
    VF,
    Device,
    HostState,
    Inside,
    Machine,
    fresh_settings,
    make_host,
    vfs_of,
)
from vferry.controller.guest_nic import read_facts
from vferry.host.api import ClaimResources, ReadDefinition, ReleaseClaim, ShowGuest, TakeInventory
from vferry.migration.nic_mover import NicMover, left_of
from vferry.migration.stepper import Ending
from vferry.model.definition import mac_of, parse
from vferry.model.problem import Exit
from vferry.model.relay import RelayPort, SwitchPlace
from vferry.plan import running_nic
from vferry.plan.nic_definition import on_relay, on_vf, queues_of
from vferry.plan.nic_plan import NicAssessment, NicPlan, NicTarget, defined_on
from vferry.plan.plan import GuestSide

OPERATION = "nic-525400123456-1"
SOCKET = f"/run/vferry-relay/{MAC.replace(':', '')}.sock"
RATE = CARRIED.max_tx_rate or 0
OWN = 1
"""The index of the VF that the guest has, or that the relay joins it to."""
ALIAS = "net7"
QUEUES = 4
"""Of the guest's NIC, while it is on virtio."""
BASE = f"""
<domain type='kvm'><name>{GUEST}</name><os><type machine='pc-q35-9.2'>hvm</type></os>
<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><devices>
<controller type='pci' index='1' model='pcie-root-port'/><controller type='pci' index='2' model='pcie-root-port'/>
<interface type='bridge'><mac address='{MAC}'/><source bridge='{BRIDGE}'/><model type='virtio'/>
<driver queues='{QUEUES}'/>
<alias name='{ALIAS}'/><address type='pci' bus='0x01' slot='0x00'/></interface></devices></domain>"""


@dataclass(frozen=True)
class NicCase:
    """From what to what a NIC goes, and who chooses inside the guest."""

    of: NicTarget
    to: NicTarget
    side: GuestSide = GuestSide.ADDRESSES
    manager: str | None = None
    told: bool = True
    """Of a NIC on a bridge: whether the PF's filter has its MAC."""
    switched: bool = False
    """Whether the relay is."""

    def __str__(self) -> str:
        more = ("switched" if self.switched else None, None if self.told else "untold")
        words = (self.of.value, self.to.value, self.side.value, self.manager, *more)
        return "-".join(word for word in words if word)

    @property
    def place(self) -> SwitchPlace:
        """Of the guest's port, where the relay is switched: it does what a port can of what its VF did."""
        return SwitchPlace(bridge=RELAY_BRIDGE, max_tx_rate=0 if self.of is NicTarget.VIRTIO else RATE)


WAYS = (
    (NicTarget.VF, NicTarget.VIRTIO),
    (NicTarget.VF, NicTarget.RELAY),
    (NicTarget.VIRTIO, NicTarget.VF),
    (NicTarget.RELAY, NicTarget.VF),
)
BETWEEN = (
    (NicTarget.RELAY, NicTarget.VIRTIO),
    (NicTarget.VIRTIO, NicTarget.RELAY),
)
"""By way of a VF."""
CASES = (
    *(NicCase(of, to) for of, to in WAYS),
    *(NicCase(of, to, GuestSide.BOND) for of, to in WAYS),
    *(NicCase(of, to, manager="networkd") for of, to in WAYS),
    NicCase(NicTarget.VIRTIO, NicTarget.VF, told=False),
    *(NicCase(of, to) for of, to in BETWEEN),
    NicCase(*BETWEEN[0], side=GuestSide.BOND),
    NicCase(*BETWEEN[1], manager="networkd"),
    NicCase(NicTarget.VF, NicTarget.RELAY, switched=True),
    NicCase(NicTarget.RELAY, NicTarget.VF, switched=True),
    *(NicCase(of, to, manager="networkd", switched=True) for of, to in BETWEEN),
)


def make_fleet(case: NicCase) -> Fleet:
    """One host with the guest on it."""
    host = make_host(SOURCE, with_interface=(3,))
    if case.switched:
        host.relay_uplink = host.function(3).address
    own = host.function(OWN)
    device = Device(ALIAS, MAC, bridge=BRIDGE, queues=QUEUES)
    xml = BASE
    if case.of is NicTarget.RELAY and case.switched:
        device = Device(ALIAS, MAC, socket=SOCKET, queues=QUEUES)
        host.ports[MAC] = RelayPort(guest=GUEST, mac=MAC, socket=SOCKET, switch=case.place)
        xml = on_relay(BASE, MAC, SOCKET)
    elif case.of is not NicTarget.VIRTIO:
        own.settings = structs.replace(CARRIED, mac=MAC, spoof_check=True)
        device = Device(ALIAS, MAC, address=own.address, managed=case.of is NicTarget.VF)
        xml = on_vf(BASE, MAC, own.address)
    if case.of is NicTarget.RELAY and not case.switched:
        device.socket, device.queues = SOCKET, QUEUES
        join(host, own, MAC, SOCKET)
        xml = on_relay(BASE, MAC, SOCKET)
    if case.of is NicTarget.VIRTIO and case.told:
        host.forwarding.add(MAC)
    inside = Inside(case.side, {MAC: device.kind}, manager=case.manager)
    host.machines[GUEST] = Machine(GUEST, inside, {ALIAS: device})
    host.definitions[GUEST] = xml
    dark = case.of is NicTarget.VIRTIO and not case.told  # the fake PF passes only what it was told of
    fleet = Fleet((host,), never_dark=() if dark else (MAC,))
    fleet.check()
    return fleet


async def survey(fleet: Fleet, to: NicTarget) -> NicAssessment:
    """Looks at the host and the guest, and plans."""
    host = fleet.host(SOURCE, OPERATION)
    inventory = await host.call(TakeInventory())
    guest = await host.call(ShowGuest(guest=GUEST))
    facts = await read_facts(host, inventory, guest, await host.call(ReadDefinition(guest=GUEST)))
    return running_nic.assess(facts, MAC, to, OPERATION)


def make_plan(fleet: Fleet, case: NicCase) -> NicPlan:
    """The plan for moving the NIC; faults are kept out of the survey."""
    faults, fleet.faults = fleet.faults, []
    assessment = run_virtually(survey(fleet, case.to))
    fleet.faults = faults
    fleet.calls.clear()
    assert assessment.plan is not None, assessment.errors
    assert assessment.plan.move is not None
    return assessment.plan


@dataclass
class NicDrive:
    """One move with its journal, through the deaths of controllers."""

    fleet: Fleet
    plan: NicPlan
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    epoch: int = 0
    left: tuple[str, ...] = ()

    def run(self) -> Ending:
        """Carries the plan out, or goes on with it where the last controller died."""
        return run_virtually(self._carry_out(None))

    def repair(self, ending: Ending) -> Ending:
        """What asking again does of one that has ended, and needs the operator."""
        assert self.plan.move is not None
        self.journal = MemoryJournal()
        self.left = left_of(self.plan.move, ending, self.left)
        return run_virtually(self._carry_out(ending))

    async def _carry_out(self, ended: Ending | None) -> Ending:
        self.epoch += 1
        host = self.fleet.host(SOURCE, self.plan.operation, self.epoch)
        await host.call(ClaimResources(guest=GUEST, vfs=self.plan.vfs, slot=False))
        assert self.plan.move is not None
        mover = NicMover(self.plan.move, {SOURCE: host}, self.journal, Witness())
        if ended is None:
            ending = await mover.run()
        else:
            ending = await (mover.finish() if ended.at_destination else mover.take_back("", self.left))
        if ending.exit is not Exit.OPERATOR:
            await host.call(ReleaseClaim())
        return ending


def wrong_there(fleet: Fleet, case: NicCase, plan: NicPlan) -> list[str]:
    """What is not as it is to be once the guest has its new NIC."""
    host = fleet.hosts[SOURCE]
    machine, move = host.machines[GUEST], plan.move
    assert move is not None
    found = [f"{host.claims.all()} is left"] if host.claims.all() else []
    if defined_on(host.definitions[GUEST], MAC) is not case.to:
        found.append("it is defined on something else")
    if queues_of(host.definitions[GUEST], MAC) != QUEUES:
        found.append("its definition has lost its queues")
    found += _wrong_inside(machine, VF if case.to is NicTarget.VF else STANDBY)
    (device,) = machine.devices.values()
    joined = move.legs[-1].joined
    used = {NicTarget.VF: move.swap.vf.address, NicTarget.RELAY: joined.address if joined else None}
    if (device.address, device.socket is None) != (used.get(case.to), case.to is not NicTarget.RELAY):
        found.append(f"its NIC is {device}")
    if not device.passed_through and device.queues != QUEUES:
        found.append(f"its NIC has {device.queues} queues")
    if (MAC in host.forwarding) != (case.to is NicTarget.VIRTIO):
        found.append(f"the PF's filter has {host.forwarding}")
    if set(host.ports) != ({MAC} if case.to is NicTarget.RELAY else set()):
        found.append(f"the relay joins {host.ports}")
    if not case.switched and [port.queues for port in host.ports.values()] != [QUEUES] * len(host.ports):
        found.append(f"the guest's port has other queues: {host.ports}")
    if case.switched and [port.switch for port in host.ports.values()] != [case.place] * len(host.ports):
        found.append(f"the guest's port is {host.ports}")
    for function in host.functions.values():
        settings = fresh_settings()
        if function.address == device.address:
            carried = settings if case.of is NicTarget.VIRTIO else structs.replace(CARRIED, spoof_check=True)
            if case.switched and case.of is NicTarget.RELAY:
                carried = structs.replace(settings, max_tx_rate=RATE)
            settings = structs.replace(carried, mac=MAC)
        driver = "vfio-pci" if function.address == device.address and device.socket else DRIVER
        if (function.settings, function.driver) != (settings, driver):
            found.append(f"VF {function.index} has {function.settings} and {function.driver}")
    return found


def _wrong_inside(machine: Machine, kind: str) -> list[str]:
    found = [] if machine.inside.chosen[MAC] == kind else [f"the guest uses {machine.inside.chosen[MAC]}"]
    found += ["its bond still waits for longer"] if machine.inside.patient else []
    return [*found, *(["it is still kept quiet"] if machine.inside.quiet else [])]


def shut_down(fleet: Fleet) -> None:
    """The guest is off."""
    fleet.hosts[SOURCE].machines.pop(GUEST)


def start(fleet: Fleet, case: NicCase) -> None:
    """The guest is started with what it is defined with."""
    host = fleet.hosts[SOURCE]
    device = _defined(host, host.definitions[GUEST])
    inside = Inside(case.side, {MAC: device.kind}, manager=case.manager)
    host.machines[GUEST] = Machine(GUEST, inside, {ALIAS: device}, run=2)


def _defined(host: HostState, xml: str) -> Device:
    """What the guest is started with, of which libvirt sets the VF up."""
    (nic,) = (nic for nic in parse(xml).iterfind("devices/interface") if mac_of(nic) == MAC)
    source = nic.find("source")
    assert source is not None
    to = defined_on(xml, MAC)
    if to is NicTarget.VIRTIO:
        return Device(ALIAS, MAC, bridge=source.get("bridge"), queues=queues_of(xml, MAC))
    if to is NicTarget.RELAY:
        vf = host.ports[MAC].vf
        address = vf.address if vf else None
        return Device(ALIAS, MAC, address=address, socket=source.get("path"), queues=queues_of(xml, MAC))
    (address,) = vfs_of(xml)
    function = host.functions[address]  # which libvirt sets up
    function.settings = structs.replace(function.settings, mac=MAC)
    return Device(ALIAS, MAC, address=address, managed=True)
