"""OVN, an existing controller of virtual networks, as far as a guest's port on a relay is concerned."""

from typing import Annotated

from msgspec import Meta, Struct

NORTHBOUND = "OVN northbound"
"""By what name steps address its northbound database, beside hosts; no host's has a space."""

LogicalName = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,255}\Z")]
ANY_MAC = "unknown"
"""In place of a port's MAC: OVN passes there what is for any that it knows of no other port."""
Chassises = Annotated[str, Meta(max_length=1024)]


class Chassis(Struct, frozen=True, kw_only=True):
    """A host as OVN has it: under its `name` (`system-id`), with an integration bridge for its ports."""

    name: str
    bridge: str
    userspace: bool = False
    """Whether the bridge is there, in user space, where ports on vhost-user can be."""
    connected: bool = False
    """Whether its ovn-controller runs, and says that it is connected."""
    networks: tuple[str, ...] = ()
    """The physical networks that it maps to bridges in user space that are there (`ovn-bridge-mappings`)."""
    encap_types: tuple[str, ...] = ()
    """By what its tunnels may go, such as ``geneve`` (`ovn-encap-type`)."""


class LogicalPort(Struct, frozen=True, kw_only=True):
    """Where OVN may bind a logical port; None where nothing says so."""

    name: LogicalName
    requested_chassis: Chassises | None = None
    """One chassis, or the main one and others, with commas between them."""
    activation_strategy: Chassises | None = None
    """What the others wait for until they pass frames."""


class KnownPort(Struct, frozen=True, kw_only=True):
    """A logical port as the northbound database has it."""

    binding: LogicalPort
    localnets: tuple[str, ...] = ()
    """The physical networks that its switch goes out to by `localnet` ports."""
    type: str = ""
    """What else than a virtual machine's it is, such as ``router``."""
    parent: str | None = None
    """The port that it is behind, as a container's is behind that of its virtual machine."""
    macs: tuple[str, ...] = ()
    """What it is for, in lower case, and `ANY_MAC` where it is for that."""
    senders: tuple[str, ...] = ()
    """From which MACs alone it takes frames, in lower case; none where it looks at none."""
