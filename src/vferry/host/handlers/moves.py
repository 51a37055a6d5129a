"""Operations on a migration and its gateways, each after the claim on it was checked."""

from typing import Any

from vferry.host import api, hypervisor_domains
from vferry.host.handlers.parts import Parts, Work
from vferry.model.problem import Exit, Problem


def work(parts: Parts, operation: api.Operation[Any], session: api.Session | None) -> Work | None:
    """What carries such an operation out; None for one of another kind."""
    check, gateways, migrations, held = parts.claims.check, parts.gateways, parts.migrations, parts.held
    match operation:
        case api.ReadMigration(guest=guest):
            # Of whom, if not of a session? But looking needs no claim.
            of = _named(session)
            return lambda: held.read(of, guest)
        case api.StartReceiving():
            of = check(session).operation
            return lambda: gateways.receive(of, operation)
        case api.StartSending():
            of = check(session).operation
            return lambda: held.send(of, operation)
        case api.StopGateway(resume=resume):
            of = check(session).operation
            return lambda: held.stop(of, resume=resume)
        case api.ReclaimFree(guest=guest):
            of = check(session, guest=guest).operation
            return lambda: parts.balloons.reclaim(of, guest)
        case api.ReturnFree(guest=guest):
            of = check(session, guest=guest).operation
            return lambda: parts.balloons.give_back(of)
        case api.StartMigration():
            of = check(session, guest=operation.guest).operation
            for vf in operation.vfs:
                check(session, vf=vf)
            return lambda: migrations.start(of, operation)
        case api.AbortMigration(guest=guest):
            of = check(session, guest=guest).operation
            return lambda: migrations.abort(of, guest)
        case api.LimitMigration(guest=guest, bandwidth=bandwidth):
            of = check(session, guest=guest).operation
            return lambda: migrations.limit(of, guest, bandwidth)
        case api.StretchPause(guest=guest, downtime_ms=downtime_ms):
            of = check(session, guest=guest).operation
            return lambda: migrations.stretch(of, guest, downtime_ms)
        case api.Concede(guest=guest):
            of = check(session, guest=guest).operation
            return lambda: held.concede(of, guest)
        case api.Destroy(guest=guest):
            of = check(session, guest=guest).operation
            return lambda: _destroy(parts, of, guest)
    return None


def _destroy(parts: Parts, operation: str, guest: str) -> api.Done:
    if parts.migrations.leaves_here(operation, guest):
        # While it is paused for its switchover, the source looks like an incoming guest to libvirt.
        raise Problem(
            "guest-not-incoming",
            f"Guest {guest} migrates away from this host: it is not ended here",
            f"Look with: vferry operation show {operation}",
            exit=Exit.OPERATOR,
        )
    return hypervisor_domains.destroy_incoming(parts.hypervisor, guest)


def _named(session: api.Session | None) -> str:
    if session is None:
        raise Problem("session-missing", "A migration is asked for without saying which operation's", "Say which")
    return session.operation
