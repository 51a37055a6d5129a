"""Facts of a guest that can migrate; each test takes something away from them."""

from collections.abc import Callable

from msgspec import structs

from fakes.samples import GUEST, MAC, definition
from vferry.host.api import Definition, Fit
from vferry.model.guest import Guest, GuestLink, GuestNetwork, GuestState, HostDevice, Nic, VfRef
from vferry.model.host import (
    WIPED,
    Bridge,
    Inventory,
    Mdev,
    MdevType,
    MigrationEndpoint,
    Network,
    Pf,
    Versions,
    Vf,
)
from vferry.model.ovn import Chassis, KnownPort, LogicalPort
from vferry.model.relay import (
    ChainPlace,
    Relay,
    RelayBridge,
    RelayKind,
    RelayPort,
    RelayState,
    RelayUplink,
    RelayVf,
    SwitchPlace,
)
from vferry.plan.facts import Assessment, Facts, Wishes
from vferry.plan.plan import Plan
from vferry.plan.preflight import assess

VF = "0000:01:10.2"
FRESH = WIPED
"""What rtnetlink says of a VF that nobody has: rates and a link state also where a driver cannot set them."""
SETTINGS = structs.replace(WIPED, mac=MAC, trust=True, spoof_check=False, max_tx_rate=500)


def address(index: int) -> str:
    """A VF's PCI address, as igb lays them out."""
    return f"0000:01:{0x10 + index // 4:02x}.{2 * index % 8}"


def inventory(name: str, *, guests: tuple[Guest, ...] = (), vfs: int = 4) -> Inventory:
    functions = tuple(Vf(pf="pf0", index=at, address=address(at), settings=FRESH) for at in range(vfs))
    pf = Pf(name="pf0", address="0000:01:00.0", driver="igb", mac="52:54:00:00:00:01", mtu=9000, vfs=functions)
    return Inventory(
        name=name,
        versions=Versions(vferry="0.1.0", kernel="6.12.0", qemu=(10, 0, 0), libvirt=(11, 3, 0)),
        migration=MigrationEndpoint(address="192.0.2.1", ports=(49200, 49215)),
        networks={"lan": Network(pf="pf0", bridge="br0")},
        pfs=(pf,),
        bridges=(Bridge(name="br0", ports=("pf0",)),),
        guests=guests,
        memory_free=4 << 30,
        vhost_net=True,
        codecs=("lz4", "zstd", "deflate"),
    )


def sample() -> Facts:
    nic = Nic(mac=MAC, model="hostdev", alias="hostdev0", vf=VfRef(pf="pf0", index=1, address=VF))
    other = Nic(mac="52:54:00:00:aa:01", model="virtio", alias="net1", bridge="br9")
    guest = Guest(name=GUEST, uuid="u-1", host="host1", state=GuestState.RUNNING, memory=256 << 20, nics=(nic, other))
    source = inventory("host1", guests=(guest,))
    pf = source.pfs[0]
    used = structs.replace(pf.vfs[1], settings=SETTINGS, guest=GUEST)
    pf = structs.replace(pf, vfs=(pf.vfs[0], used, *pf.vfs[2:]))
    xml = definition(VF, standby=False)
    destination = inventory("host2")
    return Facts(
        source=structs.replace(source, pfs=(pf,)),
        destination=destination,
        guest=guest,
        definition=Definition(live=xml, persistent=xml),
        fit=Fit(),
        guest_network=GuestNetwork(links=(GuestLink(name="enp7s0", mac=MAC, driver="igbvf", mtu=9000),)),
        controller=destination.versions.vferry,
    )


Change = Callable[[Facts], Facts]


def found(change: Change = lambda facts: facts, **wishes: object) -> Assessment:
    return assess(change(sample()), Wishes(operation="op-1", **wishes))  # type: ignore[arg-type]


def planned(change: Change = lambda facts: facts, **wishes: object) -> Plan:
    assessment = found(change, **wishes)
    assert assessment.plan is not None, assessment.errors
    return assessment.plan


def guest(**values: object) -> Change:
    return lambda facts: structs.replace(facts, guest=structs.replace(facts.guest, **values))


def host(which: str, **values: object) -> Change:
    return lambda facts: structs.replace(facts, **{which: structs.replace(getattr(facts, which), **values)})


def pf(which: str, **values: object) -> Change:
    def change(facts: Facts) -> Facts:
        inventory: Inventory = getattr(facts, which)
        return host(which, pfs=(structs.replace(inventory.pfs[0], **values),))(facts)

    return change


def vf(which: str, index: int, **values: object) -> Change:
    def change(facts: Facts) -> Facts:
        inventory: Inventory = getattr(facts, which)
        vfs = list(inventory.pfs[0].vfs)
        vfs[index] = structs.replace(vfs[index], **values)
        return pf(which, vfs=tuple(vfs))(facts)

    return change


def lacking(*names: str) -> Change:
    """The driver of the destination's PF was asked, and cannot set these."""
    return lambda facts: structs.replace(facts, lacks={"pf0": names})


def version(which: str, **values: object) -> Change:
    def change(facts: Facts) -> Facts:
        inventory: Inventory = getattr(facts, which)
        return host(which, versions=structs.replace(inventory.versions, **values))(facts)

    return change


def inside(**values: object) -> Change:
    def change(facts: Facts) -> Facts:
        assert facts.guest_network is not None
        return structs.replace(facts, guest_network=structs.replace(facts.guest_network, **values))

    return change


def on_macvtap(facts: Facts) -> Facts:
    """The guest's VF is not passed through: its virtio NIC is on the VF's interface."""
    xml = definition("pf0v1", standby=False)
    nic = structs.replace(facts.guest.nics[0], model="virtio", alias="net0", interface="pf0v1")
    links = (GuestLink(name="eth0", mac=MAC, driver="virtio_net"),)
    changed = both(guest(nics=(nic, *facts.guest.nics[1:])), inside(links=links))(facts)
    return structs.replace(changed, definition=Definition(live=xml, persistent=xml))


SOCKET = "/run/vferry/web.sock"
PORT = RelayPort(
    guest=GUEST, mac=MAC, socket=SOCKET, vf=RelayVf(pf="pf0", index=1, address=VF, driver="igbvf"), mtu=9000, queues=4
)
RELAY = Relay(operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.DIRECT, uplinks=("pf0",), cores=(1,))


def on_relay(facts: Facts) -> Facts:
    """The guest's VF is not passed through: its host's relay joins its virtio NIC to it, and there is one there."""
    xml = definition(SOCKET, standby=False)
    nic = structs.replace(facts.guest.nics[0], model="virtio", alias="net0", socket=SOCKET)
    grouped = tuple(structs.replace(vf, iommu_group=vf.index) for vf in facts.destination.pfs[0].vfs)
    changed = both(
        guest(nics=(nic, *facts.guest.nics[1:]), blockers=()),
        inside(links=(GuestLink(name="eth0", mac=MAC, driver="virtio_net", mtu=9000),)),
        host("source", relay=structs.replace(RELAY, ports=(PORT,))),
        host("destination", relay=RELAY),
        pf("destination", vfs=grouped),
    )(facts)
    return structs.replace(changed, definition=Definition(live=xml, persistent=xml))


PLACE = SwitchPlace(bridge="relay0", vlan=42, max_tx_rate=500)
SWITCH_PORT = RelayPort(guest=GUEST, mac=MAC, socket=SOCKET, switch=PLACE, mtu=9000)
UPLINK = RelayUplink(name="relay0-up0", address=address(3))
SWITCHED = structs.replace(
    RELAY, kind=RelayKind.SWITCHED, bridges=(RelayBridge(name="relay0", uplinks=(UPLINK,), mtu=9000),)
)
NARROW = structs.replace(SWITCHED.bridges[0], mtu=1500)


def on_switch(facts: Facts) -> Facts:
    """The guest's NIC is a port of its host's switched relay, and there is one there."""
    xml = definition(SOCKET, standby=False)
    nic = Nic(mac=MAC, model="virtio", alias="net0", socket=SOCKET, relay_bridge="relay0", vlan=42)
    changed = both(
        guest(nics=(nic, *facts.guest.nics[1:])),
        inside(links=(GuestLink(name="eth0", mac=MAC, driver="virtio_net", mtu=9000),)),
        vf("source", 1, guest=None, settings=FRESH),
        host("source", relay=structs.replace(SWITCHED, ports=(SWITCH_PORT,))),
        host("destination", relay=SWITCHED),
    )(facts)
    return structs.replace(changed, definition=Definition(live=xml, persistent=xml))


def from_chain(facts: Facts) -> Facts:
    """A guest on a switched relay whose NIC is in a chain, and leaves a service behind."""
    chain = ChainPlace(name="web", serves=False, within=True, vlan=42)
    place = structs.replace(PLACE, vlan=901, chain=chain)
    led = structs.replace(SWITCH_PORT, switch=place)
    service = structs.replace(led, guest="fw", mac="52:54:00:00:00:21")
    return both(on_switch, host("source", relay=structs.replace(SWITCHED, ports=(led, service))))(facts)


CHASSIS = Chassis(name="c1", bridge="br-int", userspace=True, connected=True)
LOGICAL = LogicalPort(name="web-0", requested_chassis="c1")
BOUND_PORT = structs.replace(SWITCH_PORT, switch=SwitchPlace(bridge="br-int", logical_port="web-0"))


def on_ovn(facts: Facts) -> Facts:
    """The guest's NIC is a port of OVN's on its host's switched relay."""
    nic = Nic(mac=MAC, model="virtio", alias="net0", socket=SOCKET, relay_bridge="br-int")
    return both(
        on_switch,
        lambda facts: guest(nics=(nic, *facts.guest.nics[1:]))(facts),
        host("source", relay=structs.replace(SWITCHED, ports=(BOUND_PORT,)), chassis=CHASSIS),
        host("destination", chassis=structs.replace(CHASSIS, name="c2")),
        lambda facts: structs.replace(facts, northbound={"web-0": KnownPort(binding=LOGICAL)}),
    )(facts)


def chassis(which: str, **values: object) -> Change:
    """What a host is to OVN is something else."""
    return host(which, chassis=structs.replace(CHASSIS, **values))


def localnet(*networks: str) -> Change:
    """The switch of the guest's port goes out to physical networks."""
    known = KnownPort(binding=LOGICAL, localnets=networks)
    return lambda facts: structs.replace(facts, northbound={"web-0": known})


def unheard(facts: Facts) -> Facts:
    """OVN does not say where it may bind its ports."""
    return structs.replace(facts, northbound={}, northbound_silence="it does not answer")


def switch_there(**values: object) -> Change:
    """The switched relay of the destination is another one."""
    return host("destination", relay=structs.replace(SWITCHED, **values))


def relay_there(**values: object) -> Change:
    """The relay of the destination is another one."""
    return host("destination", relay=structs.replace(RELAY, **values))


def mediated(*uuids: str, kind: str = "sample-1", **more: object) -> Change:
    """The guest has mediated devices of the source's, which QEMU migrates; the destination can make two."""

    def change(facts: Facts) -> Facts:
        devices = tuple(
            HostDevice(kind="mdev", name=uuid, alias=f"ua-{at}", type=kind) for at, uuid in enumerate(uuids)
        )
        return both(
            guest(devices=devices, blockers=(), **more),
            host("source", mdevs=tuple(Mdev(uuid=uuid, type=kind, parent="parent0") for uuid in uuids)),
            host("destination", mdev_types=(MdevType(name=kind, parent="parent1", available=2),)),
        )(facts)

    return change


def migratable(facts: Facts) -> Facts:
    """QEMU migrates the guest's VF, and VF 2 of the destination has the driver for it."""
    bound = both(vf("source", 1, driver="sample_vfio_pci"), vf("destination", 2, driver="sample_vfio_pci"))
    return both(bound, guest(blockers=()))(facts)


def silent(facts: Facts) -> Facts:
    return structs.replace(facts, guest_network=None, guest_silence="its agent does not answer")


def both(*changes: Change) -> Change:
    def change(facts: Facts) -> Facts:
        for each in changes:
            facts = each(facts)
        return facts

    return change
