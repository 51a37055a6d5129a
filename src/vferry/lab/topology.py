"""What the lab consists of: its networks, hosts and guests. Names and addresses only, no effects."""

from dataclasses import dataclass

from vferry.model.host import AttachmentKind

DATA = "vferry-data"
MGMT = "vferry-mgmt"
OBSERVER = "10.8.0.100"
PF = "enp1s0"
VFS = 7  # as many as the emulated igb has; those of the guests that are not spare fit on one host
AGENT_SOCKET = "/run/vferry/agent.sock"
RELAY = "relay"
"""What is added to the names of layers whose hosts have what a relay needs."""
RELAY_SOCKETS = "/run/vhost-user"
"""Where QEMU makes the sockets of guests on a relay, on hosts that may have one."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """Where guests have their addresses: the data network itself, or a VLAN on it with addresses of its own.

    `number` is in the addresses: 0 those of most guests, 1 those of second NICs, else the VLAN's.
    """

    number: int = 0
    vlan: int | None = None

    @property
    def address4(self) -> str:
        """The peer's, which is the guests' gateway."""
        return self.host4(1)

    @property
    def address6(self) -> str:
        return self.host6(1)

    @property
    def addresses(self) -> tuple[str, str]:
        """The peer's, with their prefixes."""
        return f"{self.address4}/24", f"{self.address6}/64"

    def host4(self, number: int) -> str:
        return f"10.9.{self.number}.{number}"

    def host6(self, number: int) -> str:
        return f"fd00:9:{self.number}::{number}" if self.number else f"fd00:9::{number}"

    def device(self, bridge: str) -> str:
        """The peer's network device in this subnet."""
        return f"{bridge}.{self.vlan}" if self.vlan else bridge


PLAIN, SECOND = Subnet(), Subnet(1)
PEER4, PEER6 = PLAIN.address4, PLAIN.address6


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the lab: a namespace of the outer machine that holds one bridge."""

    name: str
    namespace: str
    bridge: str
    mac: str
    """The bridge's own: without one, it takes that of its first port, and forgets its neighbours as it does."""
    addresses: tuple[str, ...]

    def tap(self, host: str) -> str:
        """Name of the tap device that leads to `host`; at most 15 characters, as the kernel demands."""
        return f"{self.name}-{host}"

    def taps(self, host: str, standby: "Standby") -> tuple[str, ...]:
        """Names of all those that lead to `host`: in the data network, each of its PFs has one."""
        more = len(standby.pfs) - 1 if self.namespace == DATA else 0
        return (self.tap(host), *(f"{self.tap(host)}-{number}" for number in range(2, 2 + more)))

    def aggregates(self, standby: "Standby") -> bool:
        """Whether all taps that lead to a host are one port of the bridge."""
        return standby.lacp and self.namespace == DATA

    def lag(self, host: str) -> str:
        """Name of the bridge that makes one port of a host's taps."""
        return f"lag-{host}"


NETWORKS = (
    Network("data", DATA, "data0", "52:54:00:00:09:00", PLAIN.addresses + SECOND.addresses),
    Network("mgmt", MGMT, "mgmt0", "52:54:00:00:08:00", (f"{OBSERVER}/24",)),
)


@dataclass(frozen=True, slots=True)
class Standby:
    """The hosts' standby path: `uplink` is in `bridge`, or else has macvtaps on it.

    With two `pfs`, it is a bond of them, and each has a tap of its own; with `lacp`, the bond is in mode 802.3ad, and
    the peer's end of it speaks LACP. `packages` are what the hosts need for it.
    """

    name: str
    pfs: tuple[str, ...] = (PF,)
    uplink: str = PF
    bridge: str | None = "br0"
    bridge_kind: AttachmentKind = AttachmentKind.BRIDGE
    packages: tuple[str, ...] = ()
    lacp: bool = False

    @property
    def variant(self) -> str:
        """What is added to the names of layers that are made for it; nothing for the usual one."""
        return "" if self is STANDBYS[0] else self.name


STANDBYS = (
    Standby("bridge"),
    Standby("ovs", bridge_kind=AttachmentKind.OPENVSWITCH, packages=("openvswitch-switch",)),
    Standby("bond", pfs=(PF, "enp3s0"), uplink="bond0"),
    Standby("lacp", pfs=(PF, "enp3s0"), uplink="bond0", lacp=True),
    Standby("macvtap", bridge=None),
)
"""The first is the usual one: a Linux bridge that filters VLANs."""


def standby_named(name: str) -> Standby:
    return next(standby for standby in STANDBYS if standby.name == name)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all hosts of a lab have, whichever release each runs: their standby path, and what a relay needs or not."""

    standby: Standby = STANDBYS[0]
    relay: bool = False

    @property
    def variant(self) -> str:
        """What is added to the names of layers that are made for it; nothing for the usual one."""
        return f"{self.standby.variant}{RELAY if self.relay else ''}"


USUAL = Setup()


@dataclass(frozen=True, slots=True)
class Host:
    """An emulated host: a QEMU process of the outer machine."""

    name: str
    number: int
    own_vf: int
    """Index of the VF that has an interface on the host, once a guest on a macvtap was started: one taken last."""

    @property
    def address(self) -> str:
        return f"10.8.0.{self.number}"

    @property
    def uuid(self) -> str:
        """SMBIOS system UUID; libvirt refuses to migrate between hosts that share one."""
        return f"7f0e0000-0000-4000-8000-00000000000{self.number}"

    @property
    def machine_id(self) -> str:
        return self.uuid.replace("-", "")

    def mac(self, network: int) -> str:
        """MAC address of the host's NIC in the data (1) or the management network (2), and of its second PF (3)."""
        return f"52:54:00:00:0{network}:0{self.number}"


HOSTS = (Host("host1", 1, own_vf=6), Host("host2", 2, own_vf=5))


def preferred(host: Host, standby: Standby) -> tuple[str, ...]:
    """The PFs of a host, first the one whose VFs are taken first: on the last host its last, so that guests change."""
    return standby.pfs if host is HOSTS[0] else standby.pfs[::-1]


@dataclass(frozen=True, slots=True)
class Link:
    """A guest's attachment to the data network: on a VF, a virtio NIC, or both."""

    mac: str
    address: str
    address6: str
    subnet: Subnet


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest as it is defined at first, on host1.

    `kind` chooses what its init does (files/guest-init), or is "cloud" or "nm": its disk holds a system of its own
    (cloud), which is told by its cloud, or by NetworkManager's profile in it, what to be. `vfs` are the indices of its
    VFs, none for a guest that has no other NIC; `standby` says whether it has a NIC on the hosts' bridge, of that
    `model`; with `macvtap`, that is on the VF's interface; `vlan` is set on its VF, and the guest knows nothing of it.
    With `relayed`, it has a virtio NIC on its host's relay alone, and somebody makes its port there before it starts.
    A `spare` guest is defined when it is first started, since a NIC has fewer VFs than all guests together.
    `kernel`: the name of one of its own (kernels), rather than Debian 13's. `serial`: whether it has serial ports on a
    device that migrates itself (mtty). `acpi_index`: that of its VF, by which its udev names it. Memory and
    disk in MiB; `answer_bound`: how long it may take to answer ping, in seconds; most need about 15 without KVM, and
    140 on a slow machine, beside a relay.
    """

    name: str
    kind: str
    number: int
    vfs: tuple[int, ...] = ()
    standby: bool = False
    model: str = "virtio"
    macvtap: bool = False
    vlan: int | None = None
    relayed: bool = False
    spare: bool = False
    kernel: str | None = None
    serial: bool = False
    acpi_index: int | None = None
    memory_mib: int = 256
    disk_mib: int = 64
    answer_bound: float = 300.0

    @property
    def seeded(self) -> bool:
        """Whether a second disk tells it what to be."""
        return self.kind == "cloud"

    @property
    def own_system(self) -> bool:
        """Whether its disk holds a system, rather than being mounted by the lab's init."""
        return self.kind in ("cloud", "nm")

    @property
    def teamed(self) -> bool:
        """Whether its two NICs are a teaming pair, of which its kernel's net_failover makes one, if it can."""
        return self.kind in ("failover", "bare")

    @property
    def links(self) -> tuple[Link, ...]:
        """One for each VF, or for the virtio NIC alone; a virtio NIC beside a VF shares its link."""
        return tuple(self._link(at) for at in range(max(1, len(self.vfs))))

    def _link(self, at: int) -> Link:
        subnet = Subnet(self.vlan or at, self.vlan)
        mac = f"52:54:00:aa:{at:02x}:{self.number:02x}"
        return Link(mac, subnet.host4(self.number), subnet.host6(self.number), subnet)

    @property
    def subnet(self) -> Subnet:
        return self.links[0].subnet

    @property
    def address(self) -> str:
        return self.links[0].address

    @property
    def address6(self) -> str:
        return self.links[0].address6

    @property
    def disk(self) -> str:
        """File name of its disk in the lab's folder."""
        return f"{self.name}.img"

    @property
    def mac(self) -> str:
        return self.links[0].mac

    @property
    def socket(self) -> str | None:
        """What its QEMU makes and a relay connects to, on its host."""
        return f"{RELAY_SOCKETS}/{self.name}.sock" if self.relayed else None

    @property
    def uuid(self) -> str:
        return f"7f0e0000-0000-4000-9000-0000000000{self.number:02d}"

    @property
    def device(self) -> str | None:
        """UUID of its mediated device, if it has one."""
        return f"7f0e0000-0000-4000-a000-0000000000{self.number:02d}" if self.serial else None


GUESTS = (
    Guest("guest1", "lone", 11, vfs=(0,)),
    Guest("guest2", "virtio", 12, standby=True),
    Guest("bond1", "bond", 13, vfs=(1,), standby=True),
    Guest("plain1", "plain", 14, vfs=(2,)),
    Guest("dhcp1", "dhcp", 15, vfs=(3,)),
    Guest("cloud1", "cloud", 16, vfs=(4,), memory_mib=384, disk_mib=2048, answer_bound=900.0),
    Guest("vlan1", "lone", 17, vfs=(5,), vlan=7),
    Guest("two1", "two", 18, vfs=(4, 5), spare=True),
    Guest("failover1", "failover", 19, vfs=(3,), standby=True, spare=True),
    Guest("mtty1", "lone", 21, vfs=(2,), spare=True, serial=True),
    Guest("macvtap1", "virtio", 20, vfs=(HOSTS[0].own_vf,), macvtap=True, spare=True),
    Guest("nm1", "nm", 22, vfs=(4,), spare=True, acpi_index=1, memory_mib=384, disk_mib=1024, answer_bound=900.0),
    Guest("e1000e1", "virtio", 23, standby=True, model="e1000e", spare=True),
    Guest("oldest1", "lone", 24, vfs=(3,), spare=True, kernel="oldest"),
    Guest("newest1", "lone", 25, vfs=(2,), spare=True, kernel="newest"),
    Guest("bare1", "bare", 26, vfs=(5,), standby=True, spare=True),
    Guest("relay1", "virtio", 27, relayed=True, spare=True),
)
VLANS = tuple(sorted({guest.vlan for guest in GUESTS if guest.vlan}))
"""Those that guests are in: the hosts' bridges pass them."""
STARTED = ("guest1", "guest2")


def host_named(name: str) -> Host | None:
    return next((host for host in HOSTS if host.name == name), None)


def guest_named(name: str) -> Guest | None:
    return next((guest for guest in GUESTS if guest.name == name), None)
