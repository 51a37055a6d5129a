"""Definitions as libvirt writes them, in the parts that matter."""

VF = "0000:01:10.2"
MAC = "52:54:00:aa:00:0b"

VF_INTERFACE = f"""
    <interface type='hostdev' managed='yes'>
      <mac address='{MAC.upper()}'/>
      <driver name='vfio'/>
      <source>
        <address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x2'/>
      </source>
      <vlan>
        <tag id='42'/>
      </vlan>
      <alias name='ua-vf'/>
      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
    </interface>"""

PLAIN_HOSTDEV = """
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <driver name='vfio'/>
      <source>
        <address domain='0x0000' bus='0x01' slot='0x10' function='0x2'/>
      </source>
      <alias name='ua-vferry-vf'/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </hostdev>"""

GRAPHICS_CARD = """
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source>
        <address domain='0x0000' bus='0x65' slot='0x00' function='0x0'/>
      </source>
      <alias name='hostdev3'/>
    </hostdev>
    <hostdev mode='subsystem' type='usb' managed='yes'>
      <source><vendor id='0x1234'/><product id='0xbeef'/></source>
    </hostdev>"""

MDEV = "7f0e0000-0000-4000-a000-000000000021"

MEDIATED = f"""
    <hostdev mode='subsystem' type='mdev' managed='no' model='vfio-pci' display='off'>
      <source><address uuid='{MDEV.upper()}'/></source>
      <alias name='ua-serial'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x14' function='0x0'/>
    </hostdev>"""

STANDBY = f"""
    <interface type='bridge'>
      <mac address='{MAC}'/>
      <source bridge='br0'/>
      <target dev='vnet0'/>
      <model type='virtio'/>
      <driver name='vhost'/>
      <teaming type='persistent'/>
      <alias name='ua-standby'/>
    </interface>"""

MACVTAP = f"""
    <interface type='direct'>
      <mac address='{MAC.upper()}'/>
      <source dev='pf0v1' mode='passthrough'/>
      <target dev='macvtap0'/>
      <model type='virtio'/>
      <alias name='net0'/>
    </interface>"""

VHOSTUSER = f"""
    <interface type='vhostuser'>
      <mac address='{MAC.upper()}'/>
      <source type='unix' path='/run/vferry/guest1.sock' mode='server'/>
      <model type='virtio'/>
      <alias name='net0'/>
    </interface>"""

PORT = "0f2c3b5e-7a1d-4c0a-9d0e-5b8a6f7c1d20"

ON_NETWORK = f"""
    <interface type='network'>
      <mac address='{MAC}'/>
      <source network='default' portid='{PORT}' bridge='virbr0'/>
      <target dev='vnet3'/>
      <model type='virtio'/>
      <alias name='net0'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </interface>"""
"""Of a network that libvirt forwards itself (``nat``, ``route``, ``open``, or not at all), while the guest runs."""

ON_NETWORK_BRIDGE = f"""
    <interface type='bridge'>
      <mac address='{MAC}'/>
      <source network='office' portgroup='blue' portid='{PORT}' bridge='br0'/>
      <target dev='vnet3'/>
      <model type='virtio'/>
      <alias name='net0'/>
    </interface>"""
"""Of a network with ``<forward mode='bridge'/>``, while the guest runs."""

ON_NETWORK_OVS = f"""
    <interface type='bridge'>
      <mac address='{MAC}'/>
      <source network='ovs' portid='{PORT}' bridge='ovs0'/>
      <vlan>
        <tag id='42'/>
      </vlan>
      <virtualport type='openvswitch'>
        <parameters interfaceid='b4b8d8a5-2f64-4f58-8f5c-0a1f6f2f7f11'/>
      </virtualport>
      <target dev='vnet3'/>
      <model type='virtio'/>
      <alias name='net0'/>
    </interface>"""

ON_NETWORK_MACVTAP = f"""
    <interface type='direct'>
      <mac address='{MAC}'/>
      <source network='macvtaps' portid='{PORT}' dev='pf0v1' mode='passthrough'/>
      <target dev='macvtap0'/>
      <model type='virtio'/>
      <alias name='net0'/>
    </interface>"""
"""Of a network whose interfaces libvirt chooses from, while the guest runs. With VFs it is `VF_INTERFACE`."""

AGENT = """
    <channel type='unix'>
      <source mode='bind' path='/run/libvirt/qemu/channel/1-guest1/org.qemu.guest_agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>
    </channel>"""


def domain(devices: str = VF_INTERFACE, *, name: str = "guest1", cpu: str = "", disk: str = "/srv/guest1.qcow2") -> str:
    """A guest with these devices."""
    return f"""<domain type='kvm' id='1'>
  <name>{name}</name>
  <uuid>7f0e0000-0000-4000-9000-000000000011</uuid>
  <metadata>
    <vferry:guest xmlns:vferry="urn:vferry:1" address="10.9.0.11"/>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/13"/>
    </libosinfo:libosinfo>
  </metadata>
  <memory unit='KiB'>262144</memory>
  <currentMemory unit='KiB'>262144</currentMemory>
  <vcpu placement='static' current='1'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-10.0'>hvm</type>
    <kernel>/boot/vmlinuz</kernel>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
  </os>
  {cpu}
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{disk}' index='1'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='pool/image'/>
      <target dev='vdb' bus='virtio'/>
    </disk>{devices}
  </devices>
</domain>"""
