"""The guests of a host as values: what libvirt says of a domain, joined with what the PF says of its VFs."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from vferry.host.domain_xml import DomainXml, NicXml, read_domain
from vferry.host.hypervisor import Hypervisor
from vferry.host.sriov import vf_under
from vferry.model.guest import Guest, GuestState, HostDevice, Nic, VfRef
from vferry.model.host import NO_MAC, Mdev, Pf, Vf
from vferry.model.relay import RelayPort

# virDomainState and virDomainPausedReason: numbers of libvirt's ABI.
PAUSED = (3, 7)
OFF = (5, 6)
SHUTOFF = 5
PAUSE_REASONS = {
    0: "unknown",
    1: "user",
    2: "migration",
    3: "save",
    4: "dump",
    5: "io error",
    6: "watchdog",
    7: "from snapshot",
    8: "shutting down",
    9: "snapshot",
    10: "crashed",
    11: "starting up",
    12: "post-copy",
    13: "post-copy failed",
    14: "api error",
}


class Described(Struct, frozen=True, kw_only=True):
    """A domain as libvirt describes it. `live` is None when it is off, `persistent` when it is transient."""

    state: GuestState
    reason: int
    live: DomainXml | None
    persistent: DomainXml | None
    run: int | None = None

    @property
    def now(self) -> DomainXml:
        """The definition that holds now."""
        found = self.live or self.persistent
        assert found is not None, "a domain is running or defined"  # noqa: S101 - one of them was read
        return found

    @property
    def addresses(self) -> set[str]:
        """The PCI addresses on the host of what the guest has, or is on, now or when it starts."""
        definitions = (xml for xml in (self.live, self.persistent) if xml)
        return {nic.address for xml in definitions for nic in xml.nics if nic.address}

    def has_mdev(self, uuid: str) -> bool:
        """Whether the guest has a mediated device, or will have it when it starts."""
        definitions = (xml for xml in (self.live, self.persistent) if xml)
        return any(device.uuid == uuid for xml in definitions for device in xml.devices)


def describe(hypervisor: Hypervisor, domain: Any, root: Path) -> Described:
    """Asks libvirt for a domain's state and definitions, and the kernel which VFs its interfaces are."""
    libvirt = hypervisor.libvirt
    with hypervisor.calling("Reading a guest's definition"):
        number, reason = domain.state()
        active = bool(domain.isActive())
        run = domain.ID() if active else None
        live = _read(domain.XMLDesc(0), root) if active else None
        inactive = libvirt.VIR_DOMAIN_XML_INACTIVE
        persistent = _read(domain.XMLDesc(inactive), root) if domain.isPersistent() else None
    return Described(state=state_of(number, active=active), reason=reason, live=live, persistent=persistent, run=run)


def _read(xml: str, root: Path) -> DomainXml:
    found = read_domain(xml)
    return replace(found, nics=tuple(_with_vf(nic, root) for nic in found.nics))


def _with_vf(nic: NicXml, root: Path) -> NicXml:
    return nic if nic.interface is None else replace(nic, address=vf_under(root, nic.interface))


def describe_all(hypervisor: Hypervisor, root: Path) -> list[Described]:
    """All guests; one that vanishes while it is read is left out."""
    found = []
    for domain in hypervisor.domains():
        try:
            found.append(describe(hypervisor, domain, root))
        except Exception:
            if hypervisor.find(domain.name()) is not None:
                raise
    return found


def state_of(number: int, *, active: bool) -> GuestState:
    if not active or number in OFF:
        return GuestState.OFF
    return GuestState.PAUSED if number in PAUSED else GuestState.RUNNING


def guest_of(
    described: Described,
    host: str,
    pfs: Iterable[Pf],
    mdevs: Iterable[Mdev] = (),
    relayed: Mapping[str, RelayPort] = MappingProxyType({}),
) -> Guest:
    """A guest as the API shows it. `relayed`: the ports of the host's relay, by their sockets."""
    xml = described.now
    vfs = {vf.address: vf for pf in pfs for vf in pf.vfs}
    types = {mdev.uuid: mdev.type for mdev in mdevs}
    paused = described.state == GuestState.PAUSED
    metadata = described.persistent or described.live
    return Guest(
        name=xml.name,
        uuid=xml.uuid,
        host=host,
        state=described.state,
        persistent=described.persistent is not None,
        memory=xml.memory,
        vcpus=xml.vcpus,
        pinned=xml.pinned,
        pins=xml.pins,
        machine=xml.machine,
        nics=tuple(_nics(described, vfs, relayed)),
        devices=tuple(_devices(described, vfs, types)),
        disks=xml.disks,
        address=xml.address or (metadata.address if metadata else None),
        agent_connected=bool(described.live and described.live.agent_connected),
        pause_reason=PAUSE_REASONS.get(described.reason, "unknown") if paused else None,
        run=described.run,
    )


def _nics(described: Described, vfs: dict[str, Vf], relayed: Mapping[str, RelayPort]) -> Iterator[Nic]:
    for nic in described.now.nics:
        port = relayed.get(nic.socket) if nic.socket else None
        switch = port.switch if port else None
        address = port.vf.address if port and port.vf else nic.address
        vf = vfs.get(address) if address else None
        if nic.mac is None and vf is None:
            continue
        yield Nic(
            mac=_mac(nic, vf, described),
            model=nic.model,
            alias=nic.alias,
            vf=VfRef(pf=vf.pf, index=vf.index, address=vf.address) if vf else None,
            interface=nic.interface,
            socket=nic.socket,
            relay_bridge=switch.bridge if switch else None,
            bridge=nic.source if nic.type == "bridge" else None,
            vlan=nic.vlan or (switch.vlan if switch else 0) or (vf.settings.vlan or 0 if vf else 0),
            teaming=nic.teaming,
            teamed_with=nic.teamed_with,
            acpi_index=nic.acpi_index,
        )


def _devices(described: Described, vfs: dict[str, Vf], types: dict[str, str]) -> Iterator[HostDevice]:
    for nic in described.now.nics:
        if nic.mac is None and nic.address not in vfs:
            # A host device that is no VF of a NIC: a graphics card, say.
            yield HostDevice(kind="pci", name=nic.address or "", alias=nic.alias)
    for device in described.now.devices:
        uuid = device.uuid or ""
        yield HostDevice(kind=device.type, name=uuid, alias=device.alias, type=types.get(uuid))


def _mac(nic: NicXml, vf: Vf | None, described: Described) -> str:
    """A plain host device does not say its MAC: then the PF does, and else the persistent definition."""
    if nic.mac:
        return nic.mac
    if vf and vf.settings.mac and vf.settings.mac != NO_MAC:
        return vf.settings.mac
    persistent = described.persistent.nics if described.persistent else ()
    same = [other.mac for other in persistent if other.mac and other.address == nic.address]
    return same[0] if same else NO_MAC
