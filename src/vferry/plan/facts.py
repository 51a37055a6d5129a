"""What planning knows, and what it finds: values in, values out."""

from enum import StrEnum

from msgspec import Struct, field

from vferry.host.api import Definition, Fit, QemuAbilities
from vferry.model.guest import Guest, GuestLink, GuestNetwork
from vferry.model.host import Inventory
from vferry.model.memory import Estimate, MemoryUse
from vferry.model.ovn import KnownPort
from vferry.plan.plan import NetworkMode, Plan, TransferPlan


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that preflight found; an error keeps the migration from starting."""

    severity: Severity
    code: str
    message: str
    remedy: str = ""


def error(code: str, message: str, remedy: str) -> Finding:
    """A finding that keeps the migration from starting; it always says what would change that."""
    return Finding(severity=Severity.ERROR, code=code, message=message, remedy=remedy)


def warning(code: str, message: str, remedy: str = "") -> Finding:
    """A finding that the operator should weigh."""
    return Finding(severity=Severity.WARNING, code=code, message=message, remedy=remedy)


def info(code: str, message: str) -> Finding:
    """A finding that only explains."""
    return Finding(severity=Severity.INFO, code=code, message=message)


class Refusal(Exception):  # noqa: N818 - a finding on its way, no fault
    """Carries a finding out of the planning of one NIC."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.finding = error(code, message, remedy)


class Wishes(Struct, frozen=True, kw_only=True):
    """What the operator asks for."""

    operation: str
    mode: NetworkMode | None = None
    """None lets vferry choose."""
    accept_interruption: bool = False
    temporary_bond: bool = False
    """Mode `detach`: a bond is made in a guest that has none, over the VF and a NIC that is plugged for it."""
    transfer: TransferPlan = TransferPlan()
    unplug_timeout_s: float = 15.0


class Facts(Struct, frozen=True, kw_only=True):
    """What the hosts and the guest said, read once before planning."""

    source: Inventory
    destination: Inventory
    guest: Guest
    definition: Definition
    fit: Fit
    guest_network: GuestNetwork | None = None
    guest_silence: str | None = None
    """Why there is no `guest_network`."""
    qemu_silence: str | None = None
    """Why the guest's `blockers` are not known, where they were asked for."""
    source_qemu: QemuAbilities | str | None = None
    destination_qemu: QemuAbilities | str | None = None
    """None where they were not asked, and the reason where they did not answer."""
    memory: MemoryUse | None = None
    """None where it was not looked at."""
    lacks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What drivers of the destination cannot set of a VF (`DriverAbilities`), by the PFs of which it was asked."""

    northbound: dict[str, KnownPort] = field(default_factory=dict)
    """What OVN says of the guest's ports, by their names."""
    northbound_silence: str | None = None
    """Why it says nothing."""

    controller: str | None = None
    """The controller's version of vferry; None where agents' are not compared with it."""

    @property
    def links(self) -> tuple[GuestLink, ...]:
        """The guest's interfaces; none where its agent was not asked, or did not answer."""
        return self.guest_network.links if self.guest_network else ()


def vf_link(facts: Facts, mac: str) -> GuestLink | None:
    """A VF's interface in the guest: the one on hardware that is not virtio."""
    return next(iter(hardware_links(facts, mac)), None)


def hardware_links(facts: Facts, mac: str) -> tuple[GuestLink, ...]:
    """The guest's NICs with this MAC that are not on virtio: its VF, and any that is emulated otherwise."""
    return tuple(link for link in facts.links if link.mac == mac and link.driver not in (None, "virtio_net"))


def master_of(facts: Facts, link: GuestLink) -> GuestLink | None:
    """The guest's interface that has another one in it, if the guest shows that."""
    return next((each for each in facts.links if each.name == link.master), None)


class Found(Struct, frozen=True, kw_only=True):
    """What was found of a wish; a kind of plan comes with it where no error stands in its way."""

    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


class Assessment(Found, frozen=True, kw_only=True):
    """Whether the guest can migrate, and the plan if it can."""

    plan: Plan | None = None
    estimate: Estimate | None = None
