"""Operations on a guest, its NICs and its definition, each after the claim on it was checked."""

from typing import Any

from vferry.host import api, hypervisor_devices, hypervisor_domains
from vferry.host.conntrack import put_connections
from vferry.host.domain_xml import read_domain
from vferry.host.guest_agent import run_in_guest
from vferry.host.handlers.parts import Parts, Work


def work(parts: Parts, operation: api.Operation[Any], session: api.Session | None) -> Work | None:
    """What carries such an operation out; None for one of another kind."""
    hypervisor, check = parts.hypervisor, parts.claims.check
    match operation:
        case api.PlugStandby(guest=guest):
            check(session, guest=guest)
            return lambda: hypervisor_devices.plug_standby(hypervisor, parts.root, operation)
        case api.PlugRelayed(guest=guest):
            check(session, guest=guest)
            return lambda: _plug_relayed(parts, operation)
        case api.PlugVf(guest=guest, address=address):
            check(session, guest=guest, vf=address)
            return lambda: _plug_vf(parts, operation)
        case api.Unplug(guest=guest):
            check(session, guest=guest)
            return lambda: _unplug(parts, operation)
        case api.RunInGuest(guest=guest, script=script, timeout_s=timeout_s):
            check(session, guest=guest)
            return lambda: run_in_guest(hypervisor, guest, script, timeout_s, silence_s=timeout_s)
        case api.TeachBridge():
            check(session, guest=operation.guest)
            return lambda: parts.teach_bridge(operation)
        case api.Announce():
            check(session, guest=operation.guest)
            return lambda: parts.announce(operation)
        case api.ExpectGuest(guest=guest, announced=announced):
            check(session, guest=guest)
            return lambda: parts.arriving.announce(guest, announced)
        case api.PutConnections(guest=guest):
            check(session, guest=guest)
            return lambda: parts.with_table(lambda table: put_connections(table, operation))
        case api.PutPortConnections(guest=guest):
            check(session, guest=guest)
            return lambda: _put_port_connections(parts, operation)
        case api.Define(xml=xml):
            check(session, guest=read_domain(xml).name)
            return lambda: hypervisor_domains.define(hypervisor, xml)
        case api.Undefine(guest=guest):
            check(session, guest=guest)
            return lambda: hypervisor_domains.undefine(hypervisor, guest)
        case api.Resume(guest=guest):
            check(session, guest=guest)
            return lambda: hypervisor_domains.resume(hypervisor, guest)
    return None


def _plug_relayed(parts: Parts, wanted: api.PlugRelayed) -> api.Done:
    socket = parts.ports.whole(wanted.guest, wanted.mac).socket
    return hypervisor_devices.plug_relayed(parts.hypervisor, wanted, socket)


def _plug_vf(parts: Parts, wanted: api.PlugVf) -> api.Done:
    new = parts.lent.lend(wanted.address, wanted.guest, wanted.alias)
    done = hypervisor_devices.plug_vf(parts.hypervisor, wanted)
    if new and not done.changed:  # it has it from libvirt
        parts.lent.returned(wanted.guest, wanted.alias)
    return done


def _unplug(parts: Parts, wanted: api.Unplug) -> api.Done:
    done = hypervisor_devices.unplug(parts.hypervisor, parts.root, wanted.guest, wanted.alias, wanted.timeout_s)
    parts.lent.returned(wanted.guest, wanted.alias)
    return done


def _put_port_connections(parts: Parts, wanted: api.PutPortConnections) -> api.PutOutcome:
    port = parts.ports.of(wanted.guest, wanted.mac)
    if not wanted.wait_s:
        parts.arriving.then(wanted.guest, wanted.mac, parts.switch_connections.at_arrival(wanted, port))
    return parts.switch_connections.put(wanted, port)
