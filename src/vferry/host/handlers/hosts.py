"""Operations on what is no migration's alone, and so claimed by none."""

from typing import TYPE_CHECKING, Any

from vferry.host import api
from vferry.host.handlers.parts import Parts, Work

if TYPE_CHECKING:
    from vferry.host.qemu_certificates import QemuCertificates


def work(parts: Parts, operation: api.Operation[Any], _session: api.Session | None) -> Work | None:
    """What carries such an operation out; None for one of another kind."""
    match operation:
        case api.LimitHost(bandwidth=bandwidth):
            return lambda: _limit_host(parts, bandwidth)
        case api.RequestQemuCertificate(ca=ca):
            return lambda: api.CertificateRequest(pem=_qemu_certificates(parts).request(ca))
        case api.InstallQemuCertificate(certificate=certificate, ca=ca):
            return lambda: _qemu_certificates(parts).install(certificate, ca)
    return None


def _limit_host(parts: Parts, bandwidth: int | None) -> api.Done:
    changed = parts.limit.set(bandwidth)
    # Also where that was set before: an agent that ended in between has told nobody.
    parts.migrations.divide()
    return api.Done(changed=changed)


def _qemu_certificates(parts: Parts) -> "QemuCertificates":
    # Imported here because it is slow to import and rarely needed.
    from vferry.host.qemu_certificates import QemuCertificates

    return QemuCertificates(parts.root, parts.configuration.name)
