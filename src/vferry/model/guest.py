"""A virtual machine as its host's libvirt describes it, and the network as the guest itself sees it."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct


class GuestState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"


class VfRef(Struct, frozen=True, kw_only=True):
    """Which VF of its host a NIC is on."""

    pf: str
    index: int
    address: str


class Nic(Struct, frozen=True, kw_only=True):
    """A NIC of a guest. `model` is ``hostdev`` for a VF passed through, else what libvirt says (``virtio``…)."""

    mac: str
    model: str
    alias: str
    vf: VfRef | None = None
    """The VF that is passed through, whose `interface` it is on, or that the relay joins it to."""
    interface: str | None = None
    """The interface of its host that it is on by a macvtap: a VF's, a PF's, or another one."""
    socket: str | None = None
    """The socket of its host by which it is on vhost-user: of the relay, where it has a `vf` or a `relay_bridge`."""
    relay_bridge: str | None = None
    """The bridge of its host's switched relay that it is a port of."""
    bridge: str | None = None
    vlan: int = 0
    teaming: str | None = None
    """``persistent`` or ``transient`` for a `<teaming>` pair."""
    teamed_with: str | None = None
    """Of a transient one: the alias of the persistent NIC."""
    acpi_index: int | None = None
    """libvirt's `<acpi index>`, by which udev in the guest names the NIC."""

    @property
    def passed_through(self) -> bool:
        """Whether it is a VF, and not a virtio NIC on one."""
        return self.vf is not None and self.interface is None and self.socket is None

    @property
    def relayed(self) -> bool:
        """Whether it is on its host's relay, joined to a VF or a port of its switch."""
        return self.socket is not None and (self.vf is not None or self.relay_bridge is not None)


class HostDevice(Struct, frozen=True, kw_only=True):
    """A device of its host that a guest has, and that is no NIC.

    `kind` is libvirt's: ``mdev`` for a mediated one, ``pci``… `name` is what QEMU calls it, a UUID or a PCI address,
    and empty for other kinds. `type` is a mediated device's, while there is one.
    """

    kind: str
    name: str = ""
    alias: str = ""
    type: str | None = None


class StateSize(Struct, frozen=True, kw_only=True):
    """How much state the devices of a guest have that migrate themselves, as their drivers say; all of them together.

    `bytes` is to be sent while the guest stands still, or, with `precopy`, that at most: some may go before.
    `silent` is how many more do not say.
    """

    bytes: Annotated[int, Meta(ge=0)]
    precopy: bool = False
    silent: int = 0


class Guest(Struct, frozen=True, kw_only=True):
    """A guest on one host. `memory` in bytes; `address` is what its definition's metadata says, for probing."""

    name: str
    uuid: str
    host: str
    state: GuestState
    persistent: bool = True
    memory: int = 0
    vcpus: int = 1
    pinned: tuple[int, ...] = ()
    """The CPUs of its host that it is pinned to; none where it floats over all."""
    pins: tuple[tuple[int, ...], ...] = ()
    """The same for each of its threads that is pinned, each set once: `pinned` is all of them together."""
    machine: str = ""
    nics: tuple[Nic, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    disks: tuple[str, ...] = ()
    address: str | None = None
    agent_connected: bool = False
    pause_reason: str | None = None
    """Why it is paused, where libvirt says (``migration``, ``starting up``, ``io error``…)."""
    run: int | None = None
    """Which run of it on its host this is: another one each time that it is started; None while it is off."""
    blockers: tuple[str, ...] | None = None
    """Why its QEMU would not migrate it as it is now, in QEMU's words; None where it was not asked."""
    device_state: StateSize | None = None
    """None where no device migrates itself, or none was asked."""

    @property
    def uses_vfio(self) -> bool:
        """Whether it runs with anything of which only QEMU can say whether it migrates."""
        return self.state is GuestState.RUNNING and (bool(self.devices) or any(nic.vf for nic in self.nics))


class GuestAddress(Struct, frozen=True, kw_only=True):
    """An address on a guest's NIC; `valid_s` is None when it does not expire."""

    address: str
    prefix: int
    family: str
    scope: str = "global"
    dynamic: bool = False


class GuestLink(Struct, frozen=True, kw_only=True):
    """An interface inside a guest, as its own `ip -j` shows it."""

    name: str
    mac: str
    mtu: int = 1500
    up: bool = True
    carrier: bool = True
    driver: str | None = None
    master: str | None = None
    kind: str | None = None
    bond_mode: str | None = None
    """A bond's, in the kernel's words, such as ``active-backup`` or ``802.3ad``."""
    over: str | None = None
    """The interface that it is on top of, as a VLAN's or a macvlan's is: it goes with that one."""
    addresses: tuple[GuestAddress, ...] = ()


class GuestNetwork(Struct, frozen=True, kw_only=True):
    """What a guest's agent says of its network; the interface names are the guest's."""

    links: tuple[GuestLink, ...] = ()
    strict_rp_filter: tuple[str, ...] = ()
    """Interfaces (or ``all``) whose rp_filter is strict (1)."""
    routes_ipv6: bool = False
    """Whether it forwards IPv6 between its interfaces, and tells its neighbours that it is a router."""
    configured_by: str | None = None
    """What configures it and may fight back: ``networkd``, ``NetworkManager``, ``ifupdown``, ``dhcp``."""
