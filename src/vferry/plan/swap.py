"""Two NICs with one MAC in a guest, on one host: what it takes to go from the one to the other, as a value."""

from msgspec import Struct

from vferry.host.api import PlugRelayed, PlugStandby
from vferry.model.guest import VfRef
from vferry.model.host import VfSettings
from vferry.plan.plan import GuestSide


class Swap(Struct, frozen=True, kw_only=True):
    """A VF and a virtio NIC, which is on the host's standby path or on its relay."""

    host: str
    guest: str
    mac: str
    side: GuestSide
    vf: VfRef
    vf_aliases: tuple[str, ...]
    """What the VF may be called in the guest: vferry plugs it under the last of these."""
    settings: VfSettings
    """Those of the VF but for the MAC, which goes from filter to filter."""
    virtio: PlugStandby | PlugRelayed
    """How the virtio NIC is plugged."""
    virtio_aliases: tuple[str, ...]
    """As of the VF."""
    virtio_stays: bool = False
    """Whether the guest has the virtio NIC of its own, beside the VF."""
    uplink: str
    """The interface behind which the virtio NIC's frames leave the host: of a PF, or of the bond over it."""
    filtered: str | None = None
    """Whose filter passes the MAC to the bridge; a macvtap has the kernel do that itself."""
    relay_vf: VfRef | None = None
    """The VF that the relay joins the virtio NIC to, whose filter it is then."""
    switch: str | None = None
    """The bridge of the relay that the virtio NIC is a port of, whose uplinks get what is in no VF's filter."""
    acpi_index: int | None = None
    contested: bool = False
    """Whether something in the guest fights two NICs of one MAC, and is kept quiet meanwhile."""
    unplug_timeout_s: float = 15.0

    @property
    def vlan(self) -> int:
        """The VLAN that both are in; 0 for none."""
        return self.settings.vlan or 0
