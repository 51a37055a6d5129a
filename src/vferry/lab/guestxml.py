"""libvirt's definition of the lab's guests."""

from xml.sax.saxutils import quoteattr

from vferry.lab.topology import PF, STANDBYS, Guest, Standby
from vferry.model.host import AttachmentKind

NAMESPACE = "urn:vferry:1"
ROOT_PORTS = 8  # one or two for NICs, the others free for hot-plug; firmware and kernel look at each of them
LAB = "/opt/vferry/lab"
KERNELS = "/var/lib/vferry-lab"
"""Where hosts are given kernels of guests' own, a folder each (kernels)."""
# Units that a system of its own starts without, by the kernel's command line: its image stays what it is. Compiling
# AppArmor's profiles takes an emulated CPU minutes, and there is no mirror to ask for upgrades.
MASKED = ("apparmor.service", "unattended-upgrades.service", "apt-daily.timer", "apt-daily-upgrade.timer")
SERIAL_ALIAS, STANDBY_ALIAS = "ua-serial", "ua-standby"
COMMON_WORDS = "console=ttyS0 quiet mitigations=off panic=5"


def command_line(guest: Guest) -> str:
    """Kernel command line: what its system does without (files/disk-init), or what to be (files/guest-init)."""
    if not guest.own_system:
        return f"{COMMON_WORDS} {personality(guest)}"
    return " ".join((COMMON_WORDS, f"vferry.mac={guest.mac}", *(f"systemd.mask={name}" for name in MASKED)))


def personality(guest: Guest) -> str:
    """Words of the kernel command line that tell a guest's init what to be (files/guest-init)."""
    words = {
        "kind": guest.kind,
        "mac": guest.mac,
        "ip4": f"{guest.address}/24",
        "ip6": f"{guest.address6}/64",
        "gw4": guest.subnet.address4,
        "gw6": guest.subnet.address6,
    }
    for link in guest.links[1:]:
        words |= {"second": link.mac, "second4": f"{link.address}/24", "second6": f"{link.address6}/64"}
    return " ".join(f"vferry.{name}={value}" for name, value in words.items())


def vf_slot(index: int) -> str:
    """PCI address elements of VF `index` of the hosts' PF 0000:01:00.0 (first VF at 10.0, stride 2)."""
    slot, function = divmod(0x10 * 8 + 2 * index, 8)
    return f"domain='0x0000' bus='0x01' slot='0x{slot:x}' function='0x{function:x}'"


def integrated(slot: int) -> str:
    """PCI address of a device that sits on the root bus, so that it takes no root port."""
    return f"<address type='pci' domain='0x0000' bus='0x00' slot='0x{slot:02x}' function='0x0'/>"


def interfaces(guest: Guest, standby: Standby) -> str:
    """All of a guest's NICs."""
    return standby_interface(guest, standby) + relay_interface(guest) + vf_interfaces(guest)


def vf_interfaces(guest: Guest) -> str:
    """The VFs as network interfaces: libvirt sets MAC and VLAN on the PF, and takes them back."""
    if guest.macvtap:
        return "".join(
            macvtap(at, vf, link.mac) for at, (vf, link) in enumerate(zip(guest.vfs, guest.links, strict=True))
        )
    more = f"<vlan><tag id='{guest.vlan}'/></vlan>" if guest.vlan is not None else ""
    if guest.teamed:
        more += f"<teaming type='transient' persistent='{STANDBY_ALIAS}'/>"
    if guest.acpi_index is not None:
        more += f"<acpi index='{guest.acpi_index}'/>"
    return "".join(
        f"""
    <interface type='hostdev' managed='yes'>
      <mac address='{link.mac}'/>
      <source><address type='pci' {vf_slot(vf)}/></source>
      {more}<alias name='ua-vf{at or ""}'/>
    </interface>"""
        for at, (vf, link) in enumerate(zip(guest.vfs, guest.links, strict=False))
    )


def macvtap(at: int, vf: int, mac: str) -> str:
    """A virtio NIC, by vhost-net and a macvtap, on the interface that a VF has on the host."""
    return f"""
    <interface type='direct'>
      <mac address='{mac}'/>
      <source dev='{PF}v{vf}' mode='passthrough'/>
      <model type='virtio'/>
      <driver name='vhost' rx_queue_size='1024'/>
      <alias name='ua-vf{at or ""}'/>
    </interface>"""


def standby_interface(guest: Guest, standby: Standby) -> str:
    """On the standby path; a virtio one by vhost-net: QEMU's main loop stalls while devices come and go."""
    if not guest.standby:
        return ""
    served = "<driver name='vhost' rx_queue_size='1024'/>" if guest.model == "virtio" else ""
    kind, source = "type='bridge'", f"<source bridge='{standby.bridge}'/>"
    if standby.bridge is None:
        # Else a macvtap drops the multicast that the guest wants.
        kind, source = "type='direct' trustGuestRxFilters='yes'", f"<source dev='{standby.uplink}' mode='bridge'/>"
    elif standby.bridge_kind is AttachmentKind.OPENVSWITCH:
        source += "<virtualport type='openvswitch'/>"
    return f"""
    <interface {kind}>
      <mac address='{guest.mac}'/>
      {source}
      <model type='{guest.model}'/>
      {served}
      {"<teaming type='persistent'/>" if guest.teamed else ""}<alias name='{STANDBY_ALIAS}'/>
    </interface>"""


def relay_interface(guest: Guest) -> str:
    """On the host's relay, by vhost-user: QEMU makes the socket and waits, at its start, until the relay connects."""
    if not guest.relayed:
        return ""
    return f"""
    <interface type='vhostuser'>
      <mac address='{guest.mac}'/>
      <source type='unix' path='{guest.socket}' mode='server'/>
      <model type='virtio'/>
      <alias name='ua-relay'/>
    </interface>"""


def memory_backing(guest: Guest) -> str:
    """Memory that a relay can map, too."""
    return "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>" if guest.relayed else ""


def seed_disk(guest: Guest) -> str:
    """The disk by which a cloud guest is told what to be; both hosts have the file."""
    if not guest.seeded:
        return ""
    return f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{LAB}/{guest.name}.iso'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
      {integrated(19)}
    </disk>"""


def serial_device(guest: Guest) -> str:
    """The mediated device that migrates itself, an integrated one: it need not be unplugged."""
    if not guest.serial:
        return ""
    return f"""
    <hostdev mode='subsystem' type='mdev' model='vfio-pci'>
      <source><address uuid='{guest.device}'/></source>
      <alias name='{SERIAL_ALIAS}'/>
      {integrated(20)}
    </hostdev>"""


def overrides(guest: Guest) -> str:
    """What libvirt has no words for, by device."""
    properties: dict[str, dict[str, tuple[str, str]]] = {}
    if guest.serial:  # it migrates, though the kernel does not track what it writes to memory
        properties[SERIAL_ALIAS] = {
            "enable-migration": ("string", "on"),
            "x-device-dirty-page-tracking": ("string", "off"),
        }
    if guest.kind == "bare":  # its kernel is not offered the pair, and so is as one that does not know of such
        properties[STANDBY_ALIAS] = {"failover": ("bool", "false")}
    if not properties:
        return ""
    devices = "".join(_override(alias, wanted) for alias, wanted in properties.items())
    return f"""
  <qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>{devices}
  </qemu:override>"""


def _override(alias: str, properties: dict[str, tuple[str, str]]) -> str:
    each = (f"<qemu:property name='{name}' type='{kind}' value='{v}'/>" for name, (kind, v) in properties.items())
    return f"""
    <qemu:device alias='{alias}'><qemu:frontend>{"".join(each)}</qemu:frontend></qemu:device>"""


def file_name(guest: Guest) -> str:
    """Where the definition is on a host, below `LAB`. What is not in a folder is defined when the hosts first boot."""
    return f"{'spare/' if guest.spare else ''}{guest.name}.xml"


def definition(guest: Guest, machine: str, standby: Standby = STANDBYS[0]) -> str:
    """The domain, ready for `virsh define`; a fixed `machine` type, so that it looks the same on every host."""
    ports = "\n    ".join("<controller type='pci' model='pcie-root-port'/>" for _ in range(ROOT_PORTS))
    folder = f"{KERNELS}/{guest.kernel}" if guest.kernel else LAB
    initrd = "disk.cpio" if guest.own_system else "guest.cpio"
    channel = (
        ""
        if guest.kind == "plain"
        else "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    )
    return f"""<domain type='kvm'>
  <name>{guest.name}</name>
  <uuid>{guest.uuid}</uuid>
  <metadata><vferry:guest xmlns:vferry='{NAMESPACE}' address='{guest.address}'/></metadata>
  <memory unit='MiB'>{guest.memory_mib}</memory>{memory_backing(guest)}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{folder}/vmlinux</kernel>
    <initrd>{folder}/{initrd}</initrd>
    <cmdline>{quoteattr(command_line(guest))[1:-1]}</cmdline>
  </os>
  <features><acpi/></features>
  <clock offset='utc'><timer name='hpet' present='no'/></clock>
  <cpu mode='host-passthrough' check='none' migratable='on'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='pci' model='pcie-root'/>
    {ports}
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0'>{integrated(16)}</controller>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source dev='/dev/disk/by-id/virtio-{guest.name}'/>
      <target dev='vda' bus='virtio'/>
      {integrated(17)}
    </disk>{seed_disk(guest)}{interfaces(guest, standby)}{serial_device(guest)}
    <serial type='pty'><log file='/var/log/libvirt/qemu/{guest.name}.console' append='on'/></serial>
    {channel}
    <memballoon model='virtio'>{integrated(18)}</memballoon>
  </devices>{overrides(guest)}
</domain>
"""
