"""What is done to put a guest's NIC on something else, as values; one that runs is moved, one that is off redefined."""

from enum import StrEnum

from msgspec import Struct

from vferry.model.host import VfSettings
from vferry.model.relay import RelayPort, RelayVf
from vferry.plan import nic_definition
from vferry.plan.facts import Found
from vferry.plan.host_step import HostStep
from vferry.plan.swap import Swap


class NicTarget(StrEnum):
    """What a guest's NIC can be put on."""

    VF = "vf"
    RELAY = "relay"
    VIRTIO = "virtio"

    @property
    def described(self) -> str:
        """What it is, in a sentence."""
        return {"vf": "a VF", "relay": "the relay", "virtio": "the standby path, as a virtio NIC"}[self.value]


_TYPES = {
    "hostdev": NicTarget.VF,
    "vhostuser": NicTarget.RELAY,
    "bridge": NicTarget.VIRTIO,
    "direct": NicTarget.VIRTIO,
}


def defined_on(persistent: str, mac: str) -> NicTarget | None:
    """What a definition says that a NIC is on; None for one of a libvirt network, which only a running guest tells."""
    return _TYPES.get(nic_definition.type_of(persistent, mac))


class NicLeg(Struct, frozen=True, kw_only=True):
    """From a VF to a virtio NIC, or the other way: all that its steps are built from. Nothing in it is a secret."""

    to: NicTarget
    swap: Swap
    settings: VfSettings
    """Those of the VF that it comes to, whether the guest has it or the relay joins it; without the MAC."""
    vf_before: VfSettings
    """What the guest's VF has now."""
    vf_wiped: VfSettings
    """What it is given back with, where the guest leaves it."""
    port: RelayPort | None = None
    """What joins the virtio NIC to a VF or to a switch, where it is on the relay."""
    relay_before: VfSettings = VfSettings()
    """What that VF has now."""
    relay_wiped: VfSettings = VfSettings()

    @property
    def joined(self) -> RelayVf | None:
        """The VF that the relay joins the virtio NIC to."""
        return self.port.vf if self.port else None


class NicMove(Struct, frozen=True, kw_only=True):
    """The NIC of a guest that runs, on its way; from one virtio NIC to another by a VF, in two legs."""

    to: NicTarget
    run: int | None
    """Of the guest (`Guest.run`): one that was started anew meanwhile has what it is defined with."""
    legs: tuple[NicLeg, ...]
    xml: str
    """The definition for the next cold boot."""
    xml_before: str

    @property
    def swap(self) -> Swap:
        """What leads to the NIC that it is to have."""
        return self.legs[-1].swap

    @property
    def vfs(self) -> tuple[str, ...]:
        """The VFs that it takes or gives back, by their PCI addresses."""
        used = {leg.swap.vf.address for leg in self.legs}
        return tuple(sorted(used | {leg.joined.address for leg in self.legs if leg.joined}))


class NicPlan(Struct, frozen=True, kw_only=True):
    """What is done for one NIC, and what of the host is claimed meanwhile."""

    guest: str
    mac: str
    to: NicTarget
    host: str
    operation: str
    logical_port: str | None = None
    """OVN's, which it is to be on the relay."""
    vfs: tuple[str, ...] = ()
    steps: tuple[HostStep, ...] = ()
    """For a guest that is off."""
    move: NicMove | None = None
    """For one that runs."""

    @property
    def described(self) -> str:
        """What the NIC is to be on, in a sentence."""
        port = f", as {self.logical_port} of OVN's" if self.logical_port else ""
        return f"{self.to.described}{port}"

    @property
    def command(self) -> str:
        """What asks for it again."""
        port = f" --ovn-port {self.logical_port}" if self.logical_port else ""
        return f"vferry guest nic {self.guest} {self.mac} --to {self.to}{port}"


class NicAssessment(Found, frozen=True, kw_only=True):
    """What was found, and the plan if nothing stands in the way; one with nothing to do if it is so already."""

    plan: NicPlan | None = None


def prefix(mac: str) -> str:
    """How the ids of operations begin that put a NIC on something else."""
    return f"nic-{mac.replace(':', '')}-"
