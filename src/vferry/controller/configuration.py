"""A controller's settings: /etc/vferry/controller.toml, and over it config.toml in the state folder. All optional."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from vferry.controller.state import State
from vferry.model.compression import DELTA_MIB, Codec, DeltaMib, Streams
from vferry.model.settings import read_layers
from vferry.plan.schedule import LONGEST_PAUSE_S, Schedule, adjusted, parse

SYSTEM_FILE = Path("/etc/vferry/controller.toml")

EXAMPLE = """\
[probe]
rate_hz = 1000
method = "auto"

[migration]
deadline_s = 1800
codec = "zstd"
streams = 4
delta_memory = 1024
bandwidth = 1_250_000_000
unplug_timeout_s = 15
when_stalled = ["pause 1", "pause 5"]

[guests.guest1]
when_stalled = ["throttle", "pause 30", "abort"]

[ovn]
northbound = "ssl:192.0.2.10:6641"
private_key = "/etc/vferry/ovn-key.pem"
certificate = "/etc/vferry/ovn-certificate.pem"
ca = "/etc/vferry/ovn-ca.pem"
"""


PemFile = Annotated[str, Meta(pattern="^/")]
Actions = tuple[str, ...]
"""Such as ``pause 5``."""


def _check(actions: Actions | None) -> None:
    """ValueError where they are no schedule."""
    try:
        parse(actions or ())
    except ValueError as error:
        raise ValueError(f"when_stalled: {error}") from None


class ProbeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a guest's interruption is measured: at most `rate_hz` probes a second, fewer where the guest is slow."""

    rate_hz: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    method: Annotated[str, Meta(pattern="^[a-z][a-z0-9-]*$")] = "auto"


class MigrationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How guests are moved, unless the command says otherwise."""

    deadline_s: Annotated[float, Meta(gt=0)] = 1800.0
    """How long the copy may take before the migration is aborted."""
    codec: Codec = Codec.NONE
    streams: Streams | None = None
    """Over how many the memory goes; None leaves it to vferry. More than one are multifd's channels."""
    delta_memory: DeltaMib = DELTA_MIB
    """MiB for copies of pages on each host, where they are compressed."""
    resident: bool = False
    """Whether pages are left out, where they are compressed, that guests at the destination have, too."""
    bandwidth: Annotated[int, Meta(gt=0)] | None = None
    """Bytes per second of QEMU's stream, before it is compressed; None is unlimited."""
    when_stalled: Actions | None = None
    """What may be done, in turn, when the copy would not end otherwise; None goes by the next two."""
    max_pause_s: Annotated[float, Meta(gt=0, le=LONGEST_PAUSE_S)] | None = None
    """Short for ``pause SECONDS``: how long the guest may be paused for its memory then."""
    throttle: bool = False
    """Short for ``throttle``: whether QEMU may slow the guest down then."""
    reclaim_free: bool = False
    """Whether what the guest has free is taken by its balloon before the copy, and given back."""
    direct: bool = False
    """Whether QEMU may send by itself, over its own TLS, what gateways would not compress."""
    unplug_timeout_s: Annotated[float, Meta(gt=0)] = 15.0
    """How long a guest may take to give a device back."""

    def __post_init__(self) -> None:
        _check(self.when_stalled)

    @property
    def schedule(self) -> Schedule:
        """What may be done when the copy stalls."""
        if self.when_stalled is None:
            return adjusted((), self.max_pause_s, self.throttle)
        return parse(self.when_stalled)


class GuestSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is otherwise for one guest; None leaves it as it is for all."""

    when_stalled: Actions | None = None

    def __post_init__(self) -> None:
        _check(self.when_stalled)


class OvnSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where OVN's northbound database is, for guests that are ports of OVN's; with ``ssl``, all three files."""

    northbound: Annotated[str, Meta(pattern="^(ssl|tcp|unix):[^ ]+$")] | None = None
    """As ovn-nbctl's ``--db`` has it, several of a cluster with commas between them. ``tcp`` protects nothing."""
    private_key: PemFile | None = None
    certificate: PemFile | None = None
    ca: PemFile | None = None

    def __post_init__(self) -> None:
        if self.northbound and "ssl:" in self.northbound and not (self.private_key and self.certificate and self.ca):
            raise ValueError("northbound: over ssl it needs private_key, certificate and ca")


class ControllerConfiguration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    probe: ProbeSettings = ProbeSettings()
    migration: MigrationSettings = MigrationSettings()
    guests: dict[str, GuestSettings] = {}
    """By their names."""
    ovn: OvnSettings = OvnSettings()

    def migration_of(self, guest: str) -> MigrationSettings:
        """How this guest is moved."""
        own = self.guests.get(guest, GuestSettings()).when_stalled
        return self.migration if own is None else replace(self.migration, when_stalled=own)


def read_controller_configuration(state: State, system_file: Path = SYSTEM_FILE) -> ControllerConfiguration:
    """Problem ``configuration-invalid``, with file and line."""
    return read_layers([system_file, state.configuration], ControllerConfiguration, EXAMPLE)
