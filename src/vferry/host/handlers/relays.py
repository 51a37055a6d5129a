"""Operations on the relay of this host and its ports, each after the claim on it was checked."""

import logging
from typing import Any

from vferry.host import api, relay_switch
from vferry.host.boot_pages import set_boot_pages
from vferry.host.handlers.parts import Parts, Work
from vferry.host.huge_pages import set_huge_pages
from vferry.host.relay_gateway import set_gateway
from vferry.host.vf_driver import bind_vf
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay, RelayState

log = logging.getLogger("vferry.agent")


def work(parts: Parts, operation: api.Operation[Any], session: api.Session | None) -> Work | None:
    """What carries such an operation out; None for one of another kind."""
    check, root = parts.claims.check, parts.root
    match operation:
        case api.KeepRelay(relay=relay):
            holder = api.Session(operation=check(session).operation)
            for address in relay.addresses:
                check(session, vf=address)
            if relay.state is RelayState.DISABLING:
                return lambda: parts.ports.if_unused(lambda: _keep_relay(parts, holder, relay))
            return lambda: _keep_relay(parts, holder, relay)
        case api.ForgetRelay():
            holder = api.Session(operation=check(session).operation)
            return lambda: parts.ports.if_unused(lambda: _forget_relay(parts, holder))
        case api.SetHugePages():
            check(session)
            return lambda: set_huge_pages(root, operation, parts.write)
        case api.BindVf(address=address):
            check(session, vf=address)
            return lambda: bind_vf(root, operation, parts.write)
        case api.SetSwitch():
            check(session)
            return lambda: relay_switch.set_switch(root, operation)
        case api.SetRelayBridge(bridge=bridge):
            for uplink in bridge.uplinks:
                check(session, vf=uplink.address)
            return lambda: relay_switch.set_bridge(root, operation)
        case api.SetRelayGateway(gateway=gateway):
            _check_bridge(parts, session, gateway.bridge)
            return lambda: set_gateway(root, operation)
        case api.JoinRelay(port=port):
            check(session, guest=port.guest, vf=port.vf.address if port.vf else None)
            return lambda: parts.ports.join(operation)
        case api.LeaveRelay(guest=guest):
            check(session, guest=guest)
            return lambda: parts.ports.leave(operation)
        case api.RejoinGuests():
            check(session)
            return parts.restoring.rejoin
    return None


def _keep_relay(parts: Parts, holder: api.Session, relay: Relay) -> api.Done:
    done = parts.relay.keep(holder, relay)
    if why := set_boot_pages(parts.root, relay):
        log.warning("%s", why)
    return done


def _check_bridge(parts: Parts, session: api.Session | None, name: str) -> None:
    """Whether the session holds the claim on the relay that has a bridge. Problems: ``not-claimed`` and others."""
    relay, of = parts.relay.read(), parts.claims.check(session).operation
    if relay is None or relay.operation != of or relay.bridge(name) is None:
        raise Problem(
            "relay-missing",
            f"Operation {of} has no relay with a bridge {name} on this host",
            "Make one: vferry relay enable HOST --uplink PF --switched",
            exit=Exit.REFUSED,
        )


def _forget_relay(parts: Parts, holder: api.Session) -> api.Done:
    done = parts.relay.forget(holder)
    if done.changed:
        set_boot_pages(parts.root, None)
    return done
