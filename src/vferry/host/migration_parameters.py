"""How libvirt is asked to migrate a guest: flags and parameters, in its own words."""

from pathlib import Path
from typing import Any, NamedTuple

from vferry.host import gateways_process as process
from vferry.host.api import StartMigration
from vferry.host.gateways import Places
from vferry.host.migration_bandwidth import mib_per_second
from vferry.model.address import with_port
from vferry.model.definition import attached, with_vfs

FLAGS = ("VIR_MIGRATE_LIVE", "VIR_MIGRATE_PEER2PEER", "VIR_MIGRATE_PERSIST_DEST")
"""Never UNDEFINE_SOURCE: vferry removes the definition itself, after it has looked at the destination."""


class Way(NamedTuple):
    """Where libvirt has QEMU send the memory: through a socket, or to an address, encrypted."""

    uri: str
    listen: str = ""
    """The address that the destination's QEMU listens on; empty where through a socket."""
    name: str = ""
    """What that shows, encrypted by QEMU itself; empty likewise."""


def way(directory: Path) -> Way:
    """As the operation's gateway was told."""
    gateway, here = process.load(directory), Places(directory)
    if gateway is None or gateway.direct is None:
        return Way(f"unix://{here.memory}")
    uri = f"tcp://{with_port(gateway.address, gateway.direct.port)}"
    return Way(uri, gateway.address, gateway.direct.name)


def flags(libvirt: Any, wanted: StartMigration, memory: Way) -> int:
    """Those of VIR_MIGRATE_…"""
    found = libvirt.VIR_MIGRATE_TLS if memory.name else 0
    for name in FLAGS:
        found |= getattr(libvirt, name)
    if wanted.parallel > 0:
        found |= libvirt.VIR_MIGRATE_PARALLEL
    if wanted.throttle:
        found |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if wanted.compression:
        found |= libvirt.VIR_MIGRATE_COMPRESSED
    return found


def parameters(libvirt: Any, domain: Any, wanted: StartMigration, memory: Way, bandwidth: int) -> dict[str, str | int]:
    """Those of VIR_MIGRATE_PARAM_…; `bandwidth` in bytes per second. Raises libvirt's error."""
    found: dict[str, str | int] = {
        libvirt.VIR_MIGRATE_PARAM_URI: memory.uri,
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: wanted.persistent_xml,
        # Always: libvirt would take the limit of the guest's last migration.
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: mib_per_second(bandwidth),
    }
    if memory.name:
        found[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = memory.name
        found[libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS] = memory.listen
    if wanted.attached or wanted.vfs:
        # As the guest is now: it may have been given NICs, or have given some back, since it was looked at.
        live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
        there, _ = with_vfs(live, wanted.vfs)
        found[libvirt.VIR_MIGRATE_PARAM_DEST_XML], _ = attached(there, wanted.attached)
    if wanted.parallel > 0:
        found[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = wanted.parallel
    if wanted.compression:
        found[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = wanted.compression
    if wanted.cache:
        found[libvirt.VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE] = wanted.cache
    return found
