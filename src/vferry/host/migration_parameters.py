"""How libvirt is asked to migrate a guest: flags and parameters, in its own words."""

from typing import Any

from vferry.host.api import StartMigration
from vferry.host.gateways import Places
from vferry.host.migration_bandwidth import mib_per_second
from vferry.model.definition import attached, with_vfs

FLAGS = ("VIR_MIGRATE_LIVE", "VIR_MIGRATE_PEER2PEER", "VIR_MIGRATE_PERSIST_DEST")
"""Never UNDEFINE_SOURCE: vferry removes the definition itself, after it has looked at the destination."""


def flags(libvirt: Any, wanted: StartMigration) -> int:
    """Those of VIR_MIGRATE_…"""
    found = 0
    for name in FLAGS:
        found |= getattr(libvirt, name)
    if wanted.parallel > 0:
        found |= libvirt.VIR_MIGRATE_PARALLEL
    if wanted.throttle:
        found |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if wanted.compression:
        found |= libvirt.VIR_MIGRATE_COMPRESSED
    return found


def parameters(libvirt: Any, domain: Any, wanted: StartMigration, here: Places, bandwidth: int) -> dict[str, str | int]:
    """Those of VIR_MIGRATE_PARAM_…; `bandwidth` in bytes per second. Raises libvirt's error."""
    found: dict[str, str | int] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{here.memory}",
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: wanted.persistent_xml,
        # Always: libvirt would take the limit of the guest's last migration.
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: mib_per_second(bandwidth),
    }
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
