"""Operations that change nothing, and so need no claim."""

import logging
from functools import partial
from typing import Any

from msgspec.structs import replace

from vferry.host import api, hypervisor_domains, relay_view
from vferry.host.conntrack import read_connections
from vferry.host.device_state import read_blockers
from vferry.host.guest_agent import run_in_guest
from vferry.host.guest_agent_latency import measure_guest
from vferry.host.guest_agent_network import SCRIPT, read_network
from vferry.host.guest_memory import measure_memory
from vferry.host.handlers.parts import Parts, Work
from vferry.host.hypervisor_guests import describe, guest_of
from vferry.host.inventory import take_inventory
from vferry.host.mediated import read_mdevs
from vferry.host.platform import check_fit
from vferry.host.qemu_abilities import ask_qemu
from vferry.host.sriov import read_pfs
from vferry.host.sriov_settings import ask_driver
from vferry.host.switch_tracking import find_place, read_tracked
from vferry.model.guest import Guest, GuestNetwork
from vferry.model.host import Inventory
from vferry.model.problem import Problem

log = logging.getLogger("vferry.agent")

GUEST_NETWORK_TIMEOUT_S = 20.0


def work(parts: Parts, operation: api.Operation[Any], _session: api.Session | None) -> Work | None:
    """What carries such an operation out; None for one of another kind."""
    hypervisor = parts.hypervisor
    match operation:
        case api.TakeInventory():
            return partial(_take_inventory, parts)
        case api.ReadRelay():
            return lambda: relay_view.read_relay(parts.root, parts.read_relay())
        case api.ShowGuest(guest=guest):
            return lambda: _show_guest(parts, guest)
        case api.ReadGuestNetwork(guest=guest):
            return lambda: _read_network(parts, guest)
        case api.MeasureGuest(guest=guest, seconds=seconds):
            return lambda: measure_guest(hypervisor, guest, seconds)
        case api.MeasureMemory(guest=guest, seconds=seconds):
            return lambda: measure_memory(hypervisor, guest, seconds, parts.root)
        case api.ReadConnections():
            return lambda: parts.with_table(lambda table: read_connections(table, operation))
        case api.ReadPortConnections(guest=guest, mac=mac):
            return lambda: read_tracked(parts.root, find_place(parts.root, parts.ports.of(guest, mac)))
        case api.ReadDefinition(guest=guest):
            return lambda: hypervisor_domains.read_definition(hypervisor, guest)
        case api.ReadBlockers(guest=guest):
            return lambda: read_blockers(hypervisor, guest, parts.root)
        case api.AskQemu(live_xml=xml):
            return lambda: ask_qemu(hypervisor, xml)
        case api.CheckFit():
            return lambda: check_fit(hypervisor, parts.root, operation)
        case api.AskDriver(pf=pf):
            return lambda: parts.with_links(lambda links: ask_driver(links, parts.root, pf))
    return None


def _take_inventory(parts: Parts) -> Inventory:
    try:
        relay = parts.read_relay()
    except Problem as problem:
        # Migrations do not need it, its VFs are claimed, and whoever wants to change it is told.
        log.error("%s", problem)
        relay = None
    claims = parts.claims.all()
    configuration = replace(parts.configuration, migration=parts.limit.endpoint())
    return take_inventory(configuration, claims, parts.hypervisor, parts.root, parts.links, relay)


def _show_guest(parts: Parts, guest: str) -> Guest:
    described = describe(parts.hypervisor, parts.hypervisor.domain(guest), parts.root)
    pfs = parts.with_links(lambda links: read_pfs(parts.root, links))
    return guest_of(described, parts.configuration.name, pfs, read_mdevs(parts.root), parts.ports.by_socket())


def _read_network(parts: Parts, guest: str) -> GuestNetwork:
    return read_network(guest, run_in_guest(parts.hypervisor, guest, SCRIPT, GUEST_NETWORK_TIMEOUT_S))
