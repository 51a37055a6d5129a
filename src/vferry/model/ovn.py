"""OVN, an existing controller of virtual networks, as far as a guest's port on a relay is concerned."""

from typing import Annotated

from msgspec import Meta, Struct

NORTHBOUND = "OVN northbound"
"""By what name steps address its northbound database, beside hosts; no host's has a space."""

LogicalName = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,255}\Z")]
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
