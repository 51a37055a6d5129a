"""What the fake agent of a host shows, without changing anything."""

from collections.abc import Iterator
from typing import Any

from msgspec import structs

from fakes.world import (
    MDEV_PARENT,
    MDEV_TYPE,
    NETWORK,
    PF,
    Device,
    HostState,
    Machine,
)
from vferry.host import api
from vferry.host.conntrack import ends
from vferry.model.definition import mac_of, parse, pci_address
from vferry.model.guest import (
    Guest,
    GuestAddress,
    GuestLink,
    GuestNetwork,
    GuestState,
    HostDevice,
    Nic,
    StateSize,
    VfRef,
)
from vferry.model.host import (
    Bond,
    Bridge,
    Inventory,
    Mdev,
    MdevType,
    MigrationEndpoint,
    Network,
    Pf,
    QemuTls,
    Versions,
    Vf,
)
from vferry.model.memory import MemoryUse, Sample
from vferry.model.ovn import Chassis
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay, RelayBridge, RelayKind, RelayState, RelayUplink
from vferry.plan.plan import GuestSide

CODECS = ("lz4", "zstd", "deflate")
RELAY = Relay(operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.DIRECT, uplinks=(PF,), cores=(1,))
"""Each host's, with no guest on it."""
RELAY_BRIDGE = "relay0"
STATE_BYTES = 3 << 20
"""Of a device that migrates itself."""


def look(host: HostState, operation: api.Operation[Any]) -> Any:
    """The answer to an operation that only looks; None for any other."""
    match operation:
        case api.TakeInventory():
            return inventory(host)
        case api.ShowGuest(guest=guest):
            return _guest(host, guest)
        case api.ReadGuestNetwork(guest=guest):
            return _inside(host, guest)
        case api.MeasureGuest(guest=guest):
            _inside(host, guest)
            return api.Latency(agent_ms=(2.0, 4.0), disk_ms=(1.0,))
        case api.MeasureMemory(guest=guest):
            _guest(host, guest)
            return MemoryUse(dirty_rate=1e6, sample=Sample(pages=100, zero_pages=50))
        case api.ReadConnections(addresses=addresses):
            found = (each for each in host.connections or () if ends(each).intersection(addresses))
            return api.Tracked(connections=tuple(found))
        case api.ReadPortConnections(mac=mac):
            _joined(host, mac)
            return api.PortTracked(connections=tuple(host.port_connections))
        case api.ReadDefinition(guest=guest):
            xml = host.definitions[_guest(host, guest).name]
            return api.Definition(live=xml if guest in host.machines else None, persistent=xml)
        case api.ReadBlockers(guest=guest):
            machine = host.machines[guest]
            return api.Blockers(reasons=tuple(_blockers(machine)), state=_state(machine))
        case api.AskQemu():
            return api.QemuAbilities(capabilities=("multifd", "xbzrle"), multifd_compression=("none", "zlib", "zstd"))
        case api.CheckFit():
            return api.Fit()
        case api.AskDriver():
            return api.DriverAbilities(lacks=("link_state",))
    return None


def _joined(host: HostState, mac: str) -> None:
    if mac not in host.ports:
        raise Problem("relay-not-joined", f"{host.name} has no port for {mac}", exit=Exit.REFUSED)


def inventory(host: HostState) -> Inventory:
    vfs = tuple(
        Vf(
            pf=PF,
            index=one.index,
            address=one.address,
            driver=one.driver,
            iommu_group=one.index,
            interface=one.interface,
            settings=one.settings,
            guest=host.user_of(one.address),
            claim=claim.operation if (claim := host.claims.of_vf(one.address)) else None,
        )
        for one in host.functions.values()
    )
    pf = Pf(
        name=PF,
        address="0000:01:00.0",
        driver="igb",
        mac="52:54:00:00:00:01",
        forwarding=tuple(sorted(host.forwarding)),
        vfs=vfs,
    )
    standby, forwarding = host.standby, tuple(sorted(host.forwarding))
    bond = Bond(name=standby.uplink, mode="active-backup", ports=(PF,), forwarding=forwarding)
    bonds = () if standby.uplink == PF else (bond,)
    names = sorted({*host.machines, *host.definitions})
    return Inventory(
        name=host.name,
        versions=Versions(vferry="0.1.0", kernel="6.12.0", qemu=(10, 0, 0), libvirt=(11, 3, 0)),
        migration=MigrationEndpoint(address="192.0.2.1", ports=(49200, 49215), slots=host.claims.slots),
        networks={NETWORK: Network(pf=PF, bridge=standby.on.device if standby.on.bridged else None)},
        pfs=(pf,),
        bridges=(Bridge(name=standby.on.device, kind=standby.on.kind, ports=(standby.uplink,)),)
        if standby.on.bridged
        else (),
        bonds=bonds,
        mdev_types=(MdevType(name=MDEV_TYPE, parent=MDEV_PARENT, available=2),),
        mdevs=tuple(Mdev(uuid=uuid, type=MDEV_TYPE, parent=MDEV_PARENT) for uuid in sorted(host.mdevs)),
        guests=tuple(_guest(host, name) for name in names),
        claims=host.claims.all(),
        memory_total=8 << 30,
        memory_free=4 << 30,
        vhost_net=True,
        iommu=True,
        codecs=CODECS,
        connections=None if host.connections is None else len(host.connections),
        relay=_relay(host),
        chassis=Chassis(name=f"{host.name}-chassis", bridge="br-int", userspace=True, connected=True),
        qemu_tls=QemuTls(names=(host.name,), authority="a"),
    )


def _relay(host: HostState) -> Relay:
    ports = tuple(host.ports.values())
    if host.relay_uplink is None:
        return structs.replace(RELAY, ports=ports)
    uplink = RelayUplink(name=f"{RELAY_BRIDGE}-up0", address=host.relay_uplink)
    bridge = RelayBridge(name=RELAY_BRIDGE, uplinks=(uplink,))
    return structs.replace(RELAY, ports=ports, kind=RelayKind.SWITCHED, bridges=(bridge,))


def _guest(host: HostState, name: str) -> Guest:
    machine = host.machines.get(name)
    if machine is None and name not in host.definitions:
        raise Problem("guest-unknown", f"{host.name} defines no guest {name}", exit=Exit.REFUSED)
    return Guest(
        name=name,
        uuid="7f1c2c3e-0000-4000-8000-000000000001",
        host=host.name,
        state=machine.state if machine else GuestState.OFF,
        persistent=name in host.definitions,
        memory=256 << 20,
        nics=tuple(_nic(host, machine, device) for device in machine.devices.values())
        if machine
        else tuple(_defined(host, name)),
        devices=tuple(HostDevice(kind="mdev", name=uuid) for uuid in sorted(machine.mdevs)) if machine else (),
        pause_reason=machine.reason if machine else None,
        run=machine.run if machine else None,
    )


def _defined(host: HostState, name: str) -> Iterator[Nic]:
    """The NICs that a guest that is off is to have."""
    for nic in parse(host.definitions[name]).iterfind("devices/interface"):
        mac, source = mac_of(nic), nic.find("source")
        if mac is None or source is None:
            continue
        if nic.get("type") == "vhostuser":
            port = host.ports.get(mac)
            vf = VfRef(pf=PF, index=port.vf.index, address=port.vf.address) if port and port.vf else None
            on = port.switch.bridge if port and port.switch else None
            yield Nic(mac=mac, model="virtio", alias="", vf=vf, socket=source.get("path"), relay_bridge=on)
        elif nic.get("type") == "hostdev":
            found = source.find("address")
            function = host.functions[pci_address(found) or ""] if found is not None else None
            assert function is not None
            vf = VfRef(pf=PF, index=function.index, address=function.address)
            yield Nic(mac=mac, model="hostdev", alias="", vf=vf)
        else:
            yield Nic(mac=mac, model="virtio", alias="", bridge=source.get("bridge"))


def _blockers(machine: Machine) -> Iterator[str]:
    """QEMU's, for the VFs that it would not migrate."""
    if machine.inside.side is GuestSide.NOBODY:
        return
    for device in machine.devices.values():
        if device.passed_through:
            yield f"{device.address}: VFIO migration is not supported in kernel"


def _state(machine: Machine) -> StateSize | None:
    """Of the devices that QEMU would migrate."""
    vfs = sum(device.passed_through for device in machine.devices.values())
    count = len(machine.mdevs) + (vfs if machine.inside.side is GuestSide.NOBODY else 0)
    return StateSize(bytes=count * STATE_BYTES) if count else None


def _nic(host: HostState, machine: Machine, device: Device) -> Nic:
    teamed = machine.inside.side is GuestSide.FAILOVER
    if device.address is None and device.socket is not None:
        switch = host.ports[device.mac].switch if device.mac in host.ports else None
        on = switch.bridge if switch else None
        return Nic(mac=device.mac, model="virtio", alias=device.alias, socket=device.socket, relay_bridge=on)
    if device.address is None:
        teaming = "persistent" if teamed else None
        bridged = host.standby.on.bridged
        return Nic(
            mac=device.mac,
            model="virtio",
            alias=device.alias,
            bridge=device.bridge if bridged else None,
            interface=None if bridged else device.bridge,
            teaming=teaming,
        )
    function = host.functions[device.address]
    return Nic(
        mac=device.mac,
        model="hostdev" if device.passed_through else "virtio",
        alias=device.alias,
        vf=VfRef(pf=PF, index=function.index, address=function.address),
        interface=function.interface if device.macvtap else None,
        socket=device.socket,
        vlan=function.settings.vlan or 0,
        teaming="transient" if teamed else None,
        teamed_with="ua-standby" if teamed else None,
    )


def _inside(host: HostState, name: str) -> GuestNetwork:
    machine = host.machines.get(name)
    if machine is None or machine.state is not GuestState.RUNNING or machine.inside.side is GuestSide.HOTPLUG:
        raise Problem("guest-agent-silent", f"The agent of {name} does not answer", exit=Exit.REFUSED)
    return GuestNetwork(
        links=(*_masters(machine), *(_link(machine, device) for device in machine.devices.values())),
        configured_by=machine.inside.manager,
    )


def _masters(machine: Machine) -> tuple[GuestLink, ...]:
    """The guest's bond, or the interfaces of its net_failover driver."""
    if machine.inside.side is GuestSide.BOND:
        return tuple(GuestLink(name="bond0", mac=mac, kind="bond") for mac in machine.inside.chosen)
    if machine.inside.side is not GuestSide.FAILOVER:
        return ()
    return tuple(GuestLink(name="eth0", mac=mac, driver="virtio_net") for mac in machine.inside.chosen)


MASTERS = {GuestSide.BOND: "bond0", GuestSide.FAILOVER: "eth0"}


def _link(machine: Machine, device: Device) -> GuestLink:
    kind = device.kind
    has_it = machine.inside.chosen.get(device.mac) == kind and machine.inside.side is GuestSide.ADDRESSES
    return GuestLink(
        name=f"eth-{kind}",
        mac=device.mac,
        driver="igbvf" if device.passed_through else "virtio_net",
        master=MASTERS.get(machine.inside.side),
        addresses=(GuestAddress(address="192.0.2.7", prefix=24, family="inet"),) if has_it else (),
    )
