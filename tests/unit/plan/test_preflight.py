"""Preflight: each thing that it can find, found, and nothing found where nothing is."""

import pytest
from msgspec import structs

from fakes import facts as f
from fakes.codes import codes_of, modules
from fakes.samples import GUEST, MAC, definition
from vferry.host.api import Definition, Fit, QemuAbilities, RunInGuest
from vferry.model.compression import Codec
from vferry.model.guest import Guest, GuestAddress, GuestLink, GuestState, Nic, StateSize, VfRef
from vferry.model.host import AttachmentKind, Bond, Bridge, Claim, LinkState, Mdev, Network, QemuTls, VfSettings
from vferry.model.memory import CodecTrial, MemoryUse, Sample
from vferry.model.relay import RelayGround, RelayKind, RelayState, SwitchAbilities
from vferry.network.modes import stages
from vferry.plan.carried import asked
from vferry.plan.facts import Facts, Severity
from vferry.plan.plan import GuestSide, NetworkMode, TransferPlan
from vferry.plan.schedule import Abort

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

NAMESAKE = Guest(name=GUEST, uuid="u-2", host="host2", state=GuestState.OFF)
STANDBY = Nic(mac=MAC, model="virtio", alias="net0", bridge="br0")
TEAMED = structs.replace(STANDBY, teaming="persistent", alias="ua-standby")
CLAIM = Claim(operation="op-9", guest=GUEST)
OTHER_CLAIMS = (Claim(operation="op-8"), Claim(operation="op-9"))
DETACH: dict[str, object] = {"mode": NetworkMode.DETACH}
TEMPORARY: dict[str, object] = {**DETACH, "temporary_bond": True}
ACCEPT: dict[str, object] = {"accept_interruption": True}
VIRTIO: dict[str, object] = {"mode": NetworkMode.VIRTIO}
ZSTD: dict[str, object] = {"transfer": TransferPlan(codec=Codec.ZSTD, delta_memory=128)}
RESIDENT: dict[str, object] = {"transfer": TransferPlan(codec=Codec.ZSTD, delta_memory=128, resident=True)}
ROOM_FOR_ONE = 512 + 132 << 20
"""Beside the guest, for 128 MiB of copies, and not twice as much."""
SWITCH: dict[str, object] = {"mode": NetworkMode.SWITCH}
MACVTAP: dict[str, object] = {"mode": NetworkMode.MACVTAP}
RELAY: dict[str, object] = {"mode": NetworkMode.RELAY}
VFIO: dict[str, object] = {"mode": NetworkMode.VFIO}
FAILOVER: dict[str, object] = {"mode": NetworkMode.FAILOVER}
MASTER = GuestLink(name="eth0", mac=MAC, driver="virtio_net")
PRIMARY = GuestLink(name="eth2", mac=MAC, driver="igbvf", master="eth0")
NSBY = GuestLink(name="eth1", mac=MAC, driver="virtio_net", master="eth0")
ALONE = structs.replace(PRIMARY, master=None)
IN_BOND = (GuestLink(name="bond0", mac=MAC, kind="bond"), structs.replace(PRIMARY, master="bond0"))
SPREADING = ("802.3ad", "balance-rr", "balance-xor", "broadcast")
BONDED = (structs.replace(MASTER, kind="bond"), NSBY, PRIMARY)


def more_nics(nic: Nic) -> f.Change:
    return lambda facts: f.guest(nics=(*facts.guest.nics, nic))(facts)


def pooled(facts: Facts) -> Facts:
    """The guest's macvtap comes from one of libvirt's networks."""
    nic = f"<interface type='network'><mac address='{MAC}'/><source network='n'/></interface>"
    xml = f"<domain><devices>{nic}</devices></domain>"
    return structs.replace(facts, definition=Definition(live=facts.definition.live, persistent=xml))


def on_interface(interface: str) -> f.Change:
    """The guest's only NIC on a macvtap that is on no VF."""
    return f.guest(nics=(structs.replace(STANDBY, bridge=None, interface=interface),))


def teamed(
    standby: Nic | None = TEAMED, with_: str | None = "ua-standby", links: tuple[GuestLink, ...] = (MASTER, PRIMARY)
) -> f.Change:
    """The guest's VF in a teaming pair."""

    def change(facts: Facts) -> Facts:
        vf = structs.replace(facts.guest.nics[0], teaming="transient" if with_ else None, teamed_with=with_)
        nics = (vf, *facts.guest.nics[1:], *((standby,) if standby else ()))
        return f.both(f.guest(nics=nics), f.inside(links=links))(facts)

    return change


MASTERS = ("bridge", "team", "vrf", None)


def in_master(kind: str | None) -> f.Change:
    """The guest has its VF in something that is no bond, and says so where it can."""
    return f.inside(links=(GuestLink(name="m0", mac=MAC, kind=kind), structs.replace(PRIMARY, master="m0", mtu=9000)))


def beside_e1000e(master: str | None) -> f.Change:
    """An emulated NIC of the VF's MAC beside it, in a bond or not."""
    emulated = GuestLink(name="ens1", mac=MAC, driver="e1000e", master=master)
    links = (emulated, structs.replace(PRIMARY, master=master))
    return f.both(more_nics(structs.replace(STANDBY, model="e1000e")), f.inside(links=links))


def unnamed(facts: Facts) -> Facts:
    xml = definition(standby=True)
    return structs.replace(facts, definition=Definition(live=xml, persistent=xml))


BALLOON = "<memballoon model='virtio'/>"
TLS = QemuTls(names=("host",), authority="a")
DIRECT: dict[str, object] = {"transfer": TransferPlan(direct=True)}
SLOW = Sample(pages=1, zero_pages=0, codecs={"zstd": CodecTrial(ratio=2.0, rate=1e6)})


def memory(**use: object) -> f.Change:
    """The guest's memory was looked at, and the link is one of a gigabit per second."""
    measured = MemoryUse(**use)  # type: ignore[arg-type]
    return f.both(f.host("source", link_rate=125_000_000), lambda facts: structs.replace(facts, memory=measured))


def much_state(facts: Facts) -> Facts:
    """A second's of the link."""
    changes = (memory(dirty_rate=1e6), f.mediated(MDEV_UUID), f.guest(device_state=StateSize(bytes=125_000_000)))
    return f.both(*changes)(facts)


def without_xbzrle(facts: Facts) -> Facts:
    return structs.replace(facts, source_qemu=QemuAbilities(capabilities=("multifd",)))


def from_pool(facts: Facts) -> Facts:
    nic = f"<interface type='network'><mac address='{MAC}'/><source network='vfs'/></interface>"
    xml = f"<domain><devices>{nic}</devices></domain>"
    return structs.replace(facts, definition=structs.replace(facts.definition, persistent=xml))


def silent_qemu(facts: Facts) -> Facts:
    return structs.replace(facts, destination_qemu="it does not start")


def old_libvirt(facts: Facts) -> Facts:
    versions = structs.replace(facts.source.versions, libvirt=(9, 0, 0))
    return f.host("source", versions=versions)(facts)


def in_vlan(*passing: str) -> f.Change:
    """The VF in VLAN 42, which the bridges of these hosts pass."""
    bridge = Bridge(name="br0", ports=("pf0",), vlan_filtering=True, vlans={"pf0": (1, 42)})
    changes = [f.host(name, bridges=(bridge,)) for name in passing]
    return f.both(f.vf("source", 1, settings=structs.replace(f.SETTINGS, vlan=42)), *changes)


def live(devices: str, machine: str = "pc-q35-10.0") -> f.Change:
    """The running guest's definition, with these devices beside its VF on a root port."""

    def change(facts: Facts) -> Facts:
        vfs = [nic.vf.address for nic in facts.guest.nics if nic.vf]
        on_port = definition(*vfs, standby=False).replace(
            "</interface>", "<address type='pci' bus='0x01'/></interface>"
        )
        xml = on_port.replace("<devices>", f"<os><type machine='{machine}'/></os><devices>{PORT % 1}{devices}")
        return structs.replace(facts, definition=Definition(live=xml, persistent=facts.definition.persistent))

    return change


def of_type(kind: str) -> str:
    """A virtio NIC that libvirt has on something else than a bridge."""
    return f"<interface type='{kind}'><mac address='52:54:00:00:BB:01'/><model type='virtio'/></interface>"


def plain_live(devices: str) -> f.Change:
    """The definition of a running guest that has no VF."""
    xml = f"<domain><devices>{devices}</devices></domain>"
    return lambda facts: structs.replace(facts, definition=Definition(live=xml, persistent=xml))


def vf_on_root_bus(facts: Facts) -> Facts:
    moved = live(FREE)(facts)
    xml = (moved.definition.live or "").replace("bus='0x01'/></interface>", "bus='0x00'/></interface>")
    return structs.replace(moved, definition=Definition(live=xml, persistent=facts.definition.persistent))


def vf_on_bridge(devices: str) -> f.Change:
    """The VF in a slot of a conventional bridge, which is no port that another one could have."""

    def change(facts: Facts) -> Facts:
        moved = live(devices + DISK.replace("0x02", "0x01"))(facts)
        xml = (moved.definition.live or "").replace("bus='0x01'/></interface>", "bus='0x05'/></interface>")
        return structs.replace(moved, definition=Definition(live=xml, persistent=facts.definition.persistent))

    return change


def with_a_second_vf(facts: Facts) -> Facts:
    """The guest has another VF, of the same PF."""
    mac = f"{MAC[:-2]}57"
    vf = VfRef(pf="pf0", index=2, address=f.address(2))
    nics = (*facts.guest.nics, Nic(mac=mac, model="hostdev", alias="vf2", vf=vf))
    links = (
        GuestLink(name="eth1", mac=MAC, driver="igbvf", mtu=9000),
        GuestLink(name="eth2", mac=mac, driver="igbvf", mtu=9000),
    )
    xml = definition(f.VF, vf.address, standby=False)
    named = structs.replace(facts, definition=Definition(live=xml, persistent=xml))
    used = f.vf("source", 2, settings=structs.replace(f.SETTINGS, mac=mac), guest=GUEST)
    return f.both(f.guest(nics=nics), f.inside(links=links), used)(named)


def second_on_port(facts: Facts) -> Facts:
    """The second of two VFs on root port 2, after `live` has put both on the first."""
    first, second, rest = (facts.definition.live or "").split("bus='0x01'/></interface>")
    xml = f"{first}bus='0x01'/></interface>{second}bus='0x02'/></interface>{rest}"
    return structs.replace(facts, definition=Definition(live=xml, persistent=facts.definition.persistent))


def tracking(source: int | None, destination: int | None) -> f.Change:
    """How many connections the hosts track; the sample's guest has a NIC on a bridge beside its VF."""
    return f.both(f.host("source", connections=source), f.host("destination", connections=destination))


BRIDGE = Bridge(name="br0", ports=("pf0",))
HELD = ("52:54:00:00:00:09",)
ELSEWHERE = {"lan": Network(pf="pf0", bridge="br7")}


def on_openvswitch(**values: object) -> f.Change:
    """The destination's bridge is one of Open vSwitch, under another name."""
    usual: dict[str, object] = {"name": "ovsbr0", "kind": AttachmentKind.OPENVSWITCH, "ports": ("pf0",)}
    bridge = Bridge(**{**usual, **values})  # type: ignore[arg-type]
    return f.host("destination", bridges=(bridge,), networks={"lan": Network(pf="pf0", bridge="ovsbr0")})


def without_bridge(**values: object) -> f.Change:
    """The destination's standby NICs are on macvtaps on its PF; a second one, since its VFs are not what is missing."""

    def change(facts: Facts) -> Facts:
        pf = structs.replace(facts.destination.pfs[0], **values)
        spare = structs.replace(facts.destination.pfs[0], name="pf1")
        networks = {"lan": Network(pf="pf0", more_pfs=("pf1",))}
        return f.host("destination", pfs=(pf, spare), bridges=(), networks=networks)(facts)

    return change


def spreading(mode: str) -> f.Change:
    """The guest's bond has a mode, and a virtio NIC beside the VF."""
    standby = structs.replace(PRIMARY, name="eth1", driver="virtio_net")
    return f.inside(links=(structs.replace(IN_BOND[0], bond_mode=mode), *IN_BOND[1:], standby))


def bonded(**values: object) -> f.Change:
    """The destination's PF is in a bond, and the bond in the bridge."""
    usual: dict[str, object] = {"name": "bond0", "mode": "active-backup", "ports": ("pf0", "pf1"), "mtu": 9000}
    bond = Bond(**{**usual, **values})  # type: ignore[arg-type]
    return f.host("destination", bonds=(bond,), bridges=(structs.replace(BRIDGE, ports=("bond0",)),))


TOLD = GuestLink(
    name="eth1", mac="52:54:00:00:aa:01", addresses=(GuestAddress(address="192.0.2.8", prefix=24, family="inet"),)
)
LEASED = GuestLink(
    name="eth1",
    mac=MAC,
    driver="igbvf",
    addresses=(GuestAddress(address="192.0.2.7", prefix=24, family="inet", dynamic=True),),
)
PLAIN = f.guest(nics=(structs.replace(STANDBY, mac=TOLD.mac),))
AS_VIRTIO = f.guest(nics=(Nic(mac=TOLD.mac, model="virtio", alias="net1", bridge="br9"),))
PORT = "<controller type='pci' index='%d' model='pcie-root-port'/>"
FREE = PORT % 2
DISK = "<disk type='file'><address type='pci' bus='0x02'/></disk>"
USB = "<hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>"
GPU = "<hostdev type='pci'><source><address domain='0x0' bus='0x5' slot='0x0' function='0x0'/></source></hostdev>"
MDEV_UUID, OTHER_UUID, THIRD_UUID = (f"5d3b6a51-7d1c-4e6c-8a47-00000000000{number}" for number in range(3))
MDEV = f"<hostdev type='mdev'><source><address uuid='{MDEV_UUID}'/></source></hostdev>"
LEFTOVER = Mdev(uuid=MDEV_UUID, type="sample-2", parent="parent1")
NINE_P = "<filesystem type='mount'><source dir='/srv'/></filesystem>"
VIRTIOFS = "<filesystem type='mount'><driver type='virtiofs'/></filesystem>"


OLDER, RESETS = (
    0x33D008000,
    0x1033D008000,
)


def vhost(source: int | None, destination: int | None) -> f.Change:
    """Hosts whose vhost-net offers this."""
    return f.both(f.host("source", vhost_features=source), f.host("destination", vhost_features=destination))


@pytest.mark.parametrize(
    ("source", "destination", "on_vhost"),
    [(OLDER, OLDER, True), (OLDER, RESETS, True), (RESETS, OLDER, False), (RESETS, None, True), (None, OLDER, True)],
)
def test_the_standby_nic_is_on_vhost_where_the_destination_s_offers_as_much(
    source: int | None, destination: int | None, *, on_vhost: bool
) -> None:
    plan = f.found(vhost(source, destination)).plan
    assert plan is not None
    assert plan.standby_vhost == on_vhost


def dpdk(source: str | None, destination: str | None) -> f.Change:
    """Hosts whose Open vSwitch has this DPDK; its guest is on the relay."""
    said = {"source": source, "destination": destination}
    switches = {which: SwitchAbilities(dpdk_version=version) for which, version in said.items()}
    ground = [f.host(which, relay_ground=RelayGround(switch=switch)) for which, switch in switches.items()]
    return f.both(f.on_relay, *ground)


def no_more_offload(facts: Facts) -> Facts:
    """Open vSwitch may offload at the source alone."""
    offloads = RelayGround(switch=SwitchAbilities(settings={"hw-offload": "true"}))
    nothing = RelayGround(switch=SwitchAbilities())
    return f.both(f.host("source", relay_ground=offloads), f.host("destination", relay_ground=nothing))(facts)


TABLE: list[tuple[str, Severity, f.Change, dict[str, object]]] = [
    ("guest-not-running", ERROR, f.guest(state=GuestState.OFF), {}),
    ("guest-not-running", ERROR, f.guest(state=GuestState.PAUSED), {}),
    ("guest-transient", ERROR, f.guest(persistent=False), {}),
    ("guest-exists", ERROR, f.host("destination", guests=(NAMESAKE,)), {}),
    ("guest-claimed", ERROR, f.host("source", claims=(CLAIM,)), {}),
    ("guest-claimed", ERROR, f.host("destination", claims=(CLAIM,)), {}),
    ("does-not-fit", ERROR, lambda facts: structs.replace(facts, fit=Fit(reasons=("no such disk",))), {}),
    ("relay-core-used", ERROR, f.both(f.guest(pins=((1,), (2,))), f.host("destination", relay=f.RELAY)), {}),
    ("relay-cores-shared", WARNING, f.both(f.guest(pins=((1, 2),)), f.host("destination", relay=f.RELAY)), {}),
    ("other-vferry", WARNING, f.version("source", vferry="0.0.9"), {}),
    ("other-vferry", WARNING, f.version("destination", vferry="0.2.0"), {}),
    ("older-qemu", WARNING, f.version("destination", qemu=(9, 2, 4)), {}),
    ("other-cpu", WARNING, f.version("destination", cpu_model="EPYC-Milan"), {}),
    ("other-microcode", WARNING, f.version("destination", microcode="0xa0011d5"), {}),
    ("no-memory", ERROR, f.host("destination", memory_free=(512 << 20) - 1), {}),
    ("no-delta-memory", ERROR, f.host("source", memory_free=64 << 20), ZSTD),
    ("no-delta-memory", ERROR, f.host("destination", memory_free=512 << 20), ZSTD),
    ("no-delta-memory", ERROR, f.host("destination", memory_free=ROOM_FOR_ONE), RESIDENT),
    ("not-measured", INFO, memory(notes=("the dirty rate is not known: QEMU is too old",)), {}),
    ("estimate", INFO, memory(dirty_rate=1e6), {}),
    ("nothing-to-gain", INFO, memory(sample=SLOW), {"transfer": TransferPlan(codec=Codec.AUTO)}),
    ("direct", INFO, f.both(f.host("source", qemu_tls=TLS), f.host("destination", qemu_tls=TLS)), DIRECT),
    ("not-direct", WARNING, f.host("source", qemu_tls=TLS), DIRECT),
    ("free-memory", INFO, f.both(live(FREE + BALLOON), memory(sample=SLOW, free=128 << 20)), {}),
    ("reclaim-useless", WARNING, live(FREE), {"transfer": TransferPlan(reclaim_free=True)}),
    ("will-not-converge", WARNING, memory(dirty_rate=2e8), {}),
    ("too-much-device-state", WARNING, much_state, {}),
    ("past-deadline", WARNING, memory(dirty_rate=1e6), {"transfer": TransferPlan(deadline_s=1.0)}),
    ("when-stalled", INFO, lambda facts: facts, {"transfer": TransferPlan(when_stalled=(Abort(),))}),
    ("method-missing", ERROR, without_xbzrle, {"transfer": TransferPlan(policy="xbzrle")}),
    ("method-unknown", WARNING, silent_qemu, {"transfer": TransferPlan(policy="multifd")}),
    ("libvirt-too-old", ERROR, old_libvirt, {"transfer": TransferPlan(policy="multifd-zstd", compression="zstd")}),
    ("no-vf", ERROR, f.guest(nics=(STANDBY,)), SWITCH),
    ("codec-missing", ERROR, f.host("destination", codecs=("lz4",)), ZSTD),
    ("no-slot", ERROR, f.host("source", claims=OTHER_CLAIMS), {}),
    ("no-slot", ERROR, f.host("destination", claims=OTHER_CLAIMS), {}),
    ("has-vf", ERROR, lambda facts: facts, VIRTIO),
    ("network-unknown", ERROR, f.host("source", networks={}), {}),
    ("network-missing", ERROR, f.host("destination", networks={}), {}),
    ("pf-missing", ERROR, f.host("destination", pfs=()), {}),
    ("pf-missing", ERROR, f.pf("destination", up=False), {}),
    ("no-free-vf", ERROR, f.pf("destination", vfs=()), {}),
    ("teaming", ERROR, teamed(with_=None), SWITCH),
    ("teaming-macs", ERROR, teamed(standby=structs.replace(TEAMED, mac="52:54:00:12:34:99"), links=(ALONE,)), {}),
    ("teaming", ERROR, teamed(), SWITCH),
    ("teaming", ERROR, teamed(), DETACH),
    ("teaming", ERROR, teamed(), TEMPORARY),
    ("teaming", ERROR, teamed(), {**DETACH, **ACCEPT}),
    ("teaming", ERROR, f.both(teamed(), f.silent), DETACH),
    ("teaming", ERROR, f.inside(links=(MASTER, NSBY, PRIMARY)), DETACH),
    *(("not-in-a-bond", ERROR, in_master(kind), wishes) for kind in MASTERS for wishes in ({}, DETACH, TEMPORARY)),
    ("not-in-a-bond", ERROR, f.inside(links=(PRIMARY,)), {}),
    *(("hotplug-only", WARNING, in_master("team"), {**wishes, **ACCEPT}) for wishes in ({}, DETACH)),
    ("not-teamed", ERROR, lambda facts: facts, FAILOVER),
    ("teaming-missing", ERROR, teamed(standby=None), {}),
    ("teaming-missing", ERROR, teamed(standby=structs.replace(TEAMED, alias="ua-other")), {}),
    ("teaming-macs", ERROR, teamed(standby=structs.replace(TEAMED, mac="52:54:00:12:34:99")), {}),
    ("teaming-not-offered", ERROR, teamed(standby=structs.replace(TEAMED, teaming=None)), {}),
    ("teaming-not-offered", ERROR, teamed(standby=structs.replace(TEAMED, model="e1000e")), {}),
    ("no-net-failover", ERROR, teamed(links=(PRIMARY,)), {}),
    ("no-net-failover", ERROR, teamed(links=(ALONE,)), FAILOVER),
    ("no-net-failover", ERROR, teamed(links=BONDED), FAILOVER),
    ("no-net-failover", ERROR, teamed(links=(structs.replace(MASTER, driver=None), PRIMARY)), FAILOVER),
    ("no-net-failover", ERROR, teamed(links=(MASTER, NSBY, ALONE)), {}),
    ("no-net-failover", ERROR, teamed(links=(MASTER,)), {}),
    ("no-macvtap", ERROR, lambda facts: facts, MACVTAP),
    ("no-relay", ERROR, lambda facts: facts, RELAY),
    ("no-relay", ERROR, f.on_macvtap, RELAY),
    ("no-macvtap", ERROR, f.on_relay, MACVTAP),
    ("no-vf", ERROR, f.on_relay, SWITCH),
    ("has-vf", ERROR, f.on_relay, VIRTIO),
    ("relay-unknown", ERROR, f.both(f.on_relay, f.host("source", relay=None)), {}),
    ("relay-unknown", ERROR, f.both(f.on_relay, f.host("source", relay=f.RELAY)), RELAY),
    ("relay-missing", ERROR, f.both(f.on_relay, f.host("destination", relay=None)), {}),
    ("relay-missing", ERROR, f.both(f.on_relay, f.relay_there(state=RelayState.ENABLING)), {}),
    ("relay-missing", ERROR, f.both(f.on_relay, f.relay_there(state=RelayState.DISABLING)), {}),
    ("relay-missing", ERROR, f.both(f.on_relay, f.relay_there(uplinks=("pf7",))), {}),
    ("pf-missing", ERROR, f.both(f.on_relay, f.pf("destination", up=False)), {}),
    ("relay-differs", ERROR, f.both(f.on_relay, f.relay_there(kind=RelayKind.SWITCHED)), {}),
    ("network-missing", ERROR, f.both(f.on_relay, f.host("destination", networks={})), {}),
    ("no-macvtap", ERROR, f.on_switch, MACVTAP),
    ("no-vf", ERROR, f.on_switch, SWITCH),
    ("has-relay", ERROR, f.on_switch, VIRTIO),
    ("relay-unknown", ERROR, f.both(f.on_switch, f.host("source", relay=None)), {}),
    ("relay-unknown", ERROR, f.both(f.on_switch, f.host("source", relay=f.SWITCHED)), RELAY),
    ("relay-missing", ERROR, f.both(f.on_switch, f.host("destination", relay=None)), {}),
    ("relay-missing", ERROR, f.both(f.on_switch, f.switch_there(state=RelayState.ENABLING)), {}),
    ("relay-missing", ERROR, f.both(f.on_switch, f.switch_there(bridges=())), {}),
    ("relay-differs", ERROR, f.both(f.on_switch, f.host("destination", relay=f.RELAY)), {}),
    ("pf-missing", ERROR, f.both(f.on_switch, f.pf("destination", up=False)), {}),
    ("chain-apart", INFO, f.from_chain, {}),
    ("relay-mtu", ERROR, f.both(f.on_relay, f.pf("destination", mtu=1500)), {}),
    ("relay-mtu", ERROR, f.both(f.on_switch, f.switch_there(bridges=(f.NARROW,))), {}),
    ("network-missing", ERROR, f.both(f.on_switch, f.host("destination", networks={})), {}),
    ("network-unknown", ERROR, f.both(f.on_switch, f.host("source", networks={})), {}),
    ("ovn-missing", ERROR, f.both(f.on_ovn, f.host("destination", chassis=None)), {}),
    ("ovn-missing", ERROR, f.both(f.on_ovn, f.host("source", chassis=None)), {}),
    ("ovn-missing", ERROR, f.both(f.on_ovn, f.chassis("destination", userspace=False)), {}),
    ("ovn-missing", ERROR, f.both(f.on_ovn, f.chassis("destination", connected=False)), {}),
    ("northbound-unknown", ERROR, f.both(f.on_ovn, f.unheard), {}),
    ("ovn-no-mapping", ERROR, f.both(f.on_ovn, f.localnet("lan")), {}),
    (
        "ovn-no-tunnel",
        ERROR,
        f.both(
            f.on_ovn, f.chassis("source", encap_types=("geneve",)), f.chassis("destination", encap_types=("vxlan",))
        ),
        {},
    ),
    ("relay-missing", ERROR, f.both(f.on_ovn, f.host("destination", relay=None)), {}),
    ("relay-missing", ERROR, f.both(f.on_ovn, f.host("destination", relay=f.RELAY)), {}),
    ("other-dpdk", WARNING, dpdk("DPDK 24.11.1", "DPDK 22.11.4"), {}),
    ("no-offload", INFO, f.both(f.on_relay, no_more_offload), {}),
    ("representor", WARNING, f.both(f.on_relay, f.pf("destination", eswitch="switchdev")), {}),
    ("representor-left", WARNING, f.both(f.on_relay, f.pf("source", eswitch="switchdev")), {}),
    ("nic-stays-behind", ERROR, f.both(f.on_relay, f.guest(nics=())), {}),
    ("no-vf", ERROR, f.on_macvtap, SWITCH),
    ("has-vf", ERROR, f.on_macvtap, VIRTIO),
    ("no-vf-interface", ERROR, f.on_macvtap, {}),
    ("no-free-vf", ERROR, f.both(f.on_macvtap, f.pf("destination", vfs=())), {}),
    ("network-missing", ERROR, f.both(f.on_macvtap, f.host("destination", networks={})), {}),
    ("network-missing", ERROR, f.both(on_interface("pf0"), f.host("destination", networks={})), {}),
    ("interface-in-bridge", ERROR, on_interface("pf0"), {}),
    (
        "neighbours-wait",
        INFO,
        f.both(f.on_macvtap, f.vf("destination", 2, interface="pf0v2"), f.pf("destination", driver="i40e")),
        {},
    ),
    ("macvtap-from-pool", ERROR, f.both(f.on_macvtap, f.vf("destination", 2, interface="pf0v2"), pooled), {}),
    ("no-standby-path", ERROR, f.both(teamed(), f.host("source", bridges=())), {}),
    ("hotplug-only", WARNING, f.both(teamed(), f.silent), {}),
    *(("bond-chooses-none", ERROR, spreading(mode), wishes) for mode in SPREADING for wishes in ({}, DETACH)),
    ("bond-without-standby", ERROR, f.inside(links=IN_BOND), {}),
    ("bond-without-standby", ERROR, f.inside(links=IN_BOND), DETACH),
    ("bond-without-standby", ERROR, f.inside(links=BONDED), {}),
    *(
        ("standby-not-virtio", ERROR, beside_e1000e(master), wishes)
        for master in ("bond0", None)
        for wishes in ({}, DETACH)
    ),
    ("vf-unknown", ERROR, f.pf("source", vfs=()), {}),
    ("vlan-differs", ERROR, f.both(in_vlan("source", "destination"), more_nics(STANDBY)), {}),
    ("no-vlan", ERROR, in_vlan("destination"), {}),
    ("no-vlan", ERROR, in_vlan("source"), {}),
    ("vlan-libvirt", ERROR, f.both(in_vlan("source", "destination"), f.version("source", libvirt=(10, 10, 0))), {}),
    ("guest-not-reached", ERROR, f.silent, {}),
    ("guest-not-reached", ERROR, f.inside(links=()), {}),
    ("guest-not-reached", ERROR, f.both(more_nics(STANDBY), f.silent), DETACH),
    ("hotplug-only", WARNING, f.both(more_nics(STANDBY), f.silent), {**DETACH, **ACCEPT}),
    ("no-standby-path", ERROR, f.host("source", bridges=()), {}),
    ("no-standby-path", ERROR, f.host("destination", bridges=(Bridge(name="br0", ports=("eth9",)),)), {}),
    ("standby-path-down", ERROR, f.host("destination", bridges=(Bridge(name="br0", ports=("pf0",), up=False),)), {}),
    ("forwarding-full", ERROR, f.pf("destination", forwarding=("52:54:00:00:00:09",), forwarding_limit=1), {}),
    ("no-vhost-net", WARNING, f.host("destination", vhost_net=False), {}),
    ("standby-without-vhost", INFO, vhost(RESETS, OLDER), {}),
    ("vhost-lacks", WARNING, vhost(RESETS, OLDER), {}),
    ("connections-on-vf", WARNING, f.host("source", connections=3), {}),
    ("connections-on-vf", WARNING, f.host("destination", connections=3), {}),
    ("connections-untracked", WARNING, f.host("destination", connections=3), DETACH),
    ("connections-untold", WARNING, tracking(3, 0), DETACH),
    ("connections-untold", WARNING, f.both(tracking(3, 0), f.silent), DETACH),
    ("keepalive-on", WARNING, f.host("source", keepalive_off=False), {}),
    *(("no-standby-path", ERROR, host, {}) for host in (on_openvswitch(ports=()), without_bridge(up=False))),
    *(("no-vlan", ERROR, on_openvswitch(vlans={"pf0": passed}), {}) for passed in ((), (7,))),
    ("no-vlan", ERROR, f.both(in_vlan("source"), on_openvswitch(vlans={"pf0": (0, 7)})), {}),
    ("bridge-controlled", WARNING, on_openvswitch(controlled=True), {}),
    ("no-vlan", ERROR, f.both(in_vlan("source"), without_bridge()), {}),
    ("interface-in-bridge", ERROR, f.both(without_bridge(), f.host("destination", bridges=(BRIDGE,))), {}),
    ("no-bridge", ERROR, f.both(PLAIN, without_bridge()), {}),
    ("no-standby-path", ERROR, f.both(PLAIN, f.host("destination", networks=ELSEWHERE)), {}),
    ("no-standby-path", ERROR, f.both(PLAIN, f.host("destination", bridges=())), {}),
    ("no-standby-path", ERROR, f.both(bonded(), f.host("destination", bridges=(BRIDGE,))), {}),
    ("bond-spreads", WARNING, bonded(mode="802.3ad"), {}),
    ("mtu-too-small", ERROR, bonded(mtu=1500), {}),
    ("forwarding-full", ERROR, f.both(bonded(), f.pf("destination", forwarding=HELD, forwarding_limit=1)), {}),
    ("forwarding-full", ERROR, f.both(bonded(forwarding=HELD), f.pf("destination", forwarding_limit=1)), {}),
    ("dark", INFO, lambda facts: facts, DETACH),
    ("hotplug-only", WARNING, f.silent, ACCEPT),
    ("strict-rp-filter", WARNING, f.inside(strict_rp_filter=("all",)), {}),
    ("configured-by", INFO, f.inside(configured_by="networkd"), {}),
    ("configured-by", WARNING, f.inside(configured_by="networkd"), DETACH),
    ("configured-by", INFO, f.inside(configured_by="NetworkManager"), {}),
    ("configured-by", WARNING, f.inside(configured_by="NetworkManager"), DETACH),
    ("configured-by", WARNING, f.both(f.inside(configured_by="NetworkManager"), more_nics(STANDBY)), {}),
    ("lease-not-renewed", WARNING, f.inside(configured_by="NetworkManager", links=(LEASED,)), {}),
    ("configured-by", INFO, f.inside(configured_by="networkd", links=(LEASED,)), {}),
    ("vf-not-defined", WARNING, unnamed, {}),
    *(
        ("does-not-migrate", ERROR, live(FREE + device), {})
        for device in (
            *(USB, GPU, MDEV, NINE_P),
            "<shmem name='x'/>",
            "<tpm><backend type='passthrough'/></tpm>",
            "<disk type='nvme'/>",
        )
    ),
    ("does-not-migrate", ERROR, live(f"{FREE}</devices><launchSecurity type='sev'/><devices>"), {}),
    ("virtiofs", WARNING, live(FREE + VIRTIOFS), {}),
    *(
        ("nic-stays-behind", ERROR, live(FREE + of_type(kind)), wishes)
        for kind in ("vdpa", "vhostuser", "server", "client", "udp")
        for wishes in ({}, ACCEPT)
    ),
    *(
        ("nic-interrupted", severity, live(FREE + of_type(kind)), wishes)
        for kind in ("user", "ethernet")
        for severity, wishes in ((ERROR, {}), (WARNING, ACCEPT))
    ),
    ("nic-stays-behind", ERROR, f.both(AS_VIRTIO, plain_live(of_type("vhostuser"))), {}),
    ("multicast-nic", WARNING, live(FREE + of_type("mcast")), {}),
    ("vf-cannot", ERROR, f.vf("destination", 0, settings=structs.replace(f.FRESH, trust=None)), {}),
    ("vf-cannot", ERROR, f.lacking("min_tx_rate", "max_tx_rate"), {}),
    ("mtu-too-small", ERROR, f.pf("source", mtu=8999), {}),
    ("mtu-too-small", ERROR, f.pf("destination", mtu=1500), {}),
    ("vf-from-pool", INFO, from_pool, {}),
    ("mdev-unknown", ERROR, f.both(f.mediated(MDEV_UUID), f.host("source", mdevs=())), {}),
    ("no-mdev-type", ERROR, f.both(f.mediated(MDEV_UUID), f.host("destination", mdev_types=())), {}),
    ("no-free-mdev", ERROR, f.mediated(MDEV_UUID, OTHER_UUID, THIRD_UUID), {}),
    ("mdev-taken", ERROR, f.both(f.mediated(MDEV_UUID), f.host("destination", mdevs=(LEFTOVER,))), {}),
    ("device-state", INFO, f.mediated(MDEV_UUID), {}),
    ("not-asked", ERROR, f.both(live(FREE), f.mediated(MDEV_UUID), f.guest(blockers=None)), {}),
    ("not-asked", ERROR, lambda facts: facts, VFIO),
    ("qemu-refuses", ERROR, f.both(live(FREE), f.guest(blockers=("dump in progress",))), {}),
    ("vf-does-not-migrate", ERROR, f.guest(blockers=(f"{f.VF}: VFIO migration is not supported in kernel",)), VFIO),
    ("no-migratable-vf", ERROR, f.both(f.migratable, f.vf("destination", 2, driver="vfio-pci")), VFIO),
    ("teaming", ERROR, f.both(teamed(), f.migratable), VFIO),
    ("no-free-port", ERROR, live(""), {}),
    ("no-free-port", ERROR, live(FREE + DISK), {}),
    ("no-free-port", ERROR, live(""), TEMPORARY),
    ("no-free-port", ERROR, vf_on_bridge(""), DETACH),
    ("bond-not-made", ERROR, f.silent, TEMPORARY),
    ("bond-not-made", ERROR, more_nics(STANDBY), TEMPORARY),
    ("bond-not-needed", ERROR, f.inside(links=IN_BOND), TEMPORARY),
    ("vf-not-unpluggable", ERROR, vf_on_root_bus, {}),
]


@pytest.mark.parametrize(("code", "severity", "change", "wishes"), TABLE, ids=[row[0] for row in TABLE])
def test_each_thing_is_found_and_said_with_what_to_do(
    code: str, severity: Severity, change: f.Change, wishes: dict[str, object]
) -> None:
    assessment = f.found(change, **wishes)
    hits = [finding for finding in assessment.findings if finding.code == code]
    assert [finding.severity for finding in hits] == [severity]
    assert hits[0].message
    assert not hits[0].message.endswith(".")
    assert hits[0].remedy or severity is not ERROR
    assert (assessment.plan is None) == bool(assessment.errors)
    assert (severity is ERROR) == bool(assessment.errors)


NICS_ALONE = ("guest_nic", "nic_place", "nic_port", "nic_slots", "running_nic")
"""What is said of a NIC that is put on something else on its host."""


def test_every_code_is_in_the_table() -> None:
    own_tables = {
        *NICS_ALONE,
        "switch_place",
        *(name for name in modules() if name.startswith("relay") and name != "relayed"),
    }
    assert codes_of(modules() - own_tables) == {row[0] for row in TABLE}


def masked(mask: str) -> f.Change:
    """Open vSwitch of the destination is told to forward on these CPUs."""
    ground = RelayGround(switch=SwitchAbilities(settings={"pmd-cpu-mask": mask}))
    return f.host("destination", relay_ground=ground)


ON_TWO = f.both(f.on_relay, masked("0x6"))
USED, SHARED = ("relay-core-used", ERROR), ("relay-cores-shared", WARNING)


@pytest.mark.parametrize(
    ("pins", "change", "said", "named"),
    [
        (((0,), (1,), (2,)), f.on_relay, USED, "(1)"),
        (((0,), (1,), (2,)), f.on_switch, USED, "(1)"),
        (((0,), (1, 2)), ON_TWO, USED, "(1, 2)"),
        (((0, 1), (2,)), ON_TWO, USED, "(2)"),
        (((0, 1, 2),), f.on_relay, SHARED, "(1)"),
        (((0, 1), (2, 3)), ON_TWO, SHARED, "(1, 2)"),
        (((0, 1, 2),), f.both(f.on_relay, masked("0x8")), None, ""),
        (((0, 2),), f.on_relay, None, ""),
        ((), f.on_relay, None, ""),
        (((1,),), f.host("source", relay=f.RELAY), None, ""),
        (((1,), (1, 2)), masked("0x6"), None, ""),
    ],
)
def test_a_guest_is_not_pinned_to_where_the_relay_forwards(
    pins: tuple[tuple[int, ...], ...], change: f.Change, said: tuple[str, Severity] | None, named: str
) -> None:
    """With a CPU beside that, the kernel has it run there, or not."""
    findings = f.found(f.both(change, f.guest(pins=pins))).findings
    found = [each for each in findings if each.code in (USED[0], SHARED[0])]
    assert [(each.code, each.severity) for each in found] == ([said] if said else [])
    assert all(each.message.endswith(named) and each.remedy for each in found)


def test_a_guest_whose_nic_is_moved_is_left_to_that_operation() -> None:
    claim = structs.replace(CLAIM, operation="nic-525400123456-1", slot=False)
    (refused,) = f.found(f.host("source", claims=(claim,))).errors
    wanted = "vferry operation recover nic-525400123456-1"
    assert (refused.code, wanted in refused.remedy) == ("guest-claimed", True)


@pytest.mark.parametrize("which", ["source", "destination"])
def test_what_takes_no_slot_leaves_them_to_migrations(which: str) -> None:
    lasting = tuple(structs.replace(claim, slot=False) for claim in OTHER_CLAIMS)
    assert f.found(f.host(which, claims=lasting)).findings == ()
    assert f.found(f.host(which, claims=(*lasting, Claim(operation="op-7")))).findings == ()
    full = f.found(f.host(which, claims=(*lasting, *(Claim(operation=f"op-{at}") for at in (6, 7)))))
    assert [finding.code for finding in full.errors] == ["no-slot"]
    assert "2 migrations already" in full.errors[0].message


@pytest.mark.parametrize("with_", ["ua-standby", None], ids=["as defined", "plugged by itself"])
def test_a_teaming_pair_is_moved_by_failover(with_: str | None) -> None:
    assessment = f.found(teamed(with_=with_))
    assert assessment.findings == ()
    assert assessment.plan is not None
    assert assessment.plan.network_mode == "failover"
    assert assessment.plan.reason == "its net_failover driver chooses the NIC"
    (move,) = assessment.plan.moves
    assert (move.guest_side, move.standby_alias, move.standby_stays) == (GuestSide.FAILOVER, "ua-standby", True)


@pytest.mark.parametrize(
    ("links", "side"), [((structs.replace(NSBY, master=None), ALONE), GuestSide.ADDRESSES), (BONDED, GuestSide.BOND)]
)
@pytest.mark.parametrize("wishes", [{}, SWITCH])
def test_a_pair_of_which_no_driver_makes_one_is_two_nics(
    links: tuple[GuestLink, ...], side: GuestSide, wishes: dict[str, object]
) -> None:
    (move,) = f.planned(teamed(links=links), **wishes).moves
    assert (move.mode, move.guest_side, move.standby_alias) == (NetworkMode.SWITCH, side, "ua-standby")
    assert move.standby_stays


def test_its_vf_is_detached_in_the_dark() -> None:
    (move,) = f.planned(teamed(links=(ALONE,)), **DETACH).moves
    assert (move.guest_side, move.dark) == (GuestSide.ADDRESSES, True)


def test_a_nic_that_is_not_on_virtio_beside_a_vf_is_named() -> None:
    (finding,) = f.found(beside_e1000e("bond0")).errors
    assert finding.message == (
        f"The guest has several NICs with {MAC} that are not on virtio (ens1 by e1000e, eth2 by igbvf), "
        "and vferry knows the VF by that"
    )


def test_it_does_not_matter_to_a_guest_that_is_left_to_itself() -> None:
    change = f.both(beside_e1000e("bond0"), f.silent)
    assert f.found(change, **ACCEPT).errors == ()


@pytest.mark.parametrize("mode", ["active-backup", "balance-tlb", "balance-alb"])
def test_a_bond_that_has_an_active_nic_can_be_told(mode: str) -> None:
    assert f.found(spreading(mode), **DETACH).plan is not None


def test_a_bond_goes_on_by_a_virtio_nic_that_has_its_mac_inside_alone() -> None:
    (refused,) = f.found(f.inside(links=BONDED)).errors
    assert refused.remedy == "Give it one in its definition, or use --network detach"
    (move,) = f.planned(f.inside(links=BONDED), **DETACH).moves
    assert (move.guest_side, move.standby_stays, move.dark) == (GuestSide.BOND, False, False)


def test_a_pair_whose_guest_has_no_agent_is_moved_unseen() -> None:
    """By its driver and the hosts alone: nothing is run in it that could fail half-way."""
    plan = f.planned(f.both(teamed(), f.silent))
    assert [move.guest_side for move in plan.moves] == [GuestSide.HOTPLUG]
    asked = [operation for step in stages(plan).all for operation in (*step.apply, *step.undo)]
    assert not any(isinstance(operation, RunInGuest) for operation in asked)


def test_nothing_is_found_where_nothing_is() -> None:
    assessment = f.found()
    assert assessment.findings == ()
    assert assessment.plan is not None


def test_all_is_said_at_once() -> None:
    change = f.both(f.guest(state=GuestState.OFF), f.host("destination", memory_free=0), f.silent)
    assert {finding.code for finding in f.found(change).errors} == {
        "guest-not-running",
        "no-memory",
        "guest-not-reached",
    }


@pytest.mark.parametrize(
    ("change", "wishes"),
    [
        (f.version("destination", qemu=(10, 0, 1)), {}),
        (f.host("destination", memory_free=512 << 20), {}),
        (f.host("source", claims=(Claim(operation="op-8", guest="other"),)), {}),
        (f.pf("destination", forwarding=("52:54:00:00:00:09",), forwarding_limit=2), {}),
        (f.inside(configured_by="ifupdown"), {}),
        (f.inside(configured_by="dhcp", links=(LEASED,)), {}),
        (f.host("destination", codecs=()), {}),
        (f.host("source", codecs=("zstd",)), ZSTD),
        (f.inside(strict_rp_filter=()), {}),
        (live(FREE), {}),
        (tracking(0, 0), {}),
        (f.both(tracking(3, None), AS_VIRTIO), {}),
        (f.both(tracking(3, 0), AS_VIRTIO, f.inside(links=(TOLD,))), {}),
        (in_vlan("source", "destination"), {}),
        (on_openvswitch(), {}),
        (f.both(in_vlan("source"), on_openvswitch(), f.version("destination", libvirt=(9, 0, 0))), {}),
        (f.both(in_vlan("source"), on_openvswitch(vlans={"pf0": (7, 42)})), {}),
        (f.both(PLAIN, on_openvswitch()), {}),
        (without_bridge(), {}),
        (bonded(), {}),
        (f.both(bonded(mode="802.3ad"), f.pf("destination", eswitch="switchdev")), {}),
        (f.both(bonded(forwarding=HELD), f.pf("destination", forwarding=HELD, forwarding_limit=2)), {}),
        (f.both(in_vlan("source", "destination"), more_nics(structs.replace(STANDBY, vlan=42))), {}),
        (live(FREE + "<shmem name='x' role='master'/><tpm><backend type='emulator'/></tpm>"), {}),
        (live("", "pc-i440fx-10.0"), {}),
        *((live(FREE + of_type(kind)), {}) for kind in ("bridge", "network", "direct", "null")),
    ],
)
def test_what_is_fine_is_not_complained_about(change: f.Change, wishes: dict[str, object]) -> None:
    assert f.found(change, **wishes).findings == ()


@pytest.mark.parametrize(
    "change",
    [
        more_nics(TEAMED),
        f.vf("source", 1, settings=VfSettings(mac=MAC, vlan=42)),
        f.host("source", bridges=()),
        f.host("destination", bridges=()),
        f.silent,
    ],
)
def test_what_only_the_standby_path_lacks_does_not_matter_without_it(change: f.Change) -> None:
    """Preflight says "use --network detach" for these, so that has to do."""
    assert f.found(change, **DETACH).errors == ()


@pytest.mark.parametrize(
    ("change", "wishes", "message", "remedy"),
    [
        (live(""), SWITCH, "plug the standby NIC", "or use --network detach"),
        (live(""), TEMPORARY, "plug the standby NIC", "or do without --temporary-bond"),
        (vf_on_bridge(""), DETACH, "plug the VF", "start it anew"),
    ],
)
def test_a_nic_that_has_no_port_is_named(
    change: f.Change, wishes: dict[str, object], message: str, remedy: str
) -> None:
    (refused,) = f.found(change, **wishes).errors
    assert message in refused.message
    assert refused.remedy.endswith(remedy)


def test_a_nic_that_no_mode_moves_is_named_with_what_it_is_on() -> None:
    (refused,) = f.found(live(FREE + of_type("vhostuser"))).errors
    assert refused.message == (
        "52:54:00:00:bb:01 is on a vhost-user socket of its host, at which no relay of vferry's is "
        "(vhostuser): it does not migrate"
    )


def test_vfs_that_go_leave_their_ports_to_what_comes() -> None:
    """Each NIC is done by itself, so one free port does for any number; where no NIC stands by, none is needed."""
    full = f.both(with_a_second_vf, live(PORT % 2), second_on_port)
    spare = f.both(with_a_second_vf, live(PORT % 2 + PORT % 3), second_on_port)
    assert f.found(spare).errors == ()
    assert [finding.code for finding in f.found(full).errors] == ["no-free-port"]
    assert f.found(full, **DETACH).errors == ()


def test_a_setting_that_the_destination_lacks_is_named() -> None:
    lacking = structs.replace(f.FRESH, trust=None, spoof_check=None)
    (trust, spoof) = f.found(f.vf("destination", 0, settings=lacking)).errors
    assert trust.message == f"{MAC} has trust on, which the driver of pf0 on host2 cannot do"
    assert trust.remedy.endswith("ip link set pf0 vf 1 trust off")
    assert "spoof_check off" in spoof.message


@pytest.mark.parametrize(
    ("settings", "lacks", "shown", "command"),
    [
        ({"vlan": 42, "qos": 3}, ("vlan", "qos"), ["vlan 42", "qos 3"], "vlan 0"),
        ({"min_tx_rate": 10}, ("min_tx_rate", "max_tx_rate"), ["min_tx_rate 10"], "min_tx_rate 0"),
        ({"max_tx_rate": 500}, ("min_tx_rate", "max_tx_rate"), ["max_tx_rate 500"], "max_tx_rate 0"),
        ({"link_state": LinkState.ENABLE}, ("link_state",), ["link_state enable"], "state auto"),
        ({"trust": True}, ("trust",), ["trust on"], "trust off"),
    ],
)
def test_a_setting_that_the_destinations_driver_shows_and_cannot_make_is_refused(
    settings: dict[str, object], lacks: tuple[str, ...], shown: list[str], command: str
) -> None:
    """rtnetlink shows a rate of 0, VLAN 0 and the link state auto for any driver."""
    having = f.vf("source", 1, settings=structs.replace(f.FRESH, mac=MAC, **settings))
    errors = [each for each in f.found(f.both(having, f.lacking(*lacks)), **DETACH).errors if each.code == "vf-cannot"]
    assert [each.message.split(" has ")[1].split(",")[0] for each in errors] == shown
    assert errors[0].remedy.endswith(f"ip link set pf0 vf 1 {command}")
    assert all(each.code != "vf-cannot" for each in f.found(having, **DETACH).errors)


def test_drivers_are_asked_only_where_a_vf_is_not_as_the_kernel_makes_it() -> None:
    facts = f.sample()
    assert asked(facts.guest, facts.source, facts.destination) == ("pf0",)
    usual = f.vf("source", 1, settings=structs.replace(f.FRESH, mac=MAC))(facts)
    assert asked(usual.guest, usual.source, usual.destination) == ()


def test_a_setting_that_is_as_the_kernel_makes_it_is_not_missed() -> None:
    usual = f.vf("source", 1, settings=structs.replace(f.FRESH, mac=MAC))
    unsaid = f.vf("destination", 0, settings=VfSettings())
    assert f.found(f.both(usual, unsaid, f.lacking(*VfSettings.__struct_fields__))).errors == ()
