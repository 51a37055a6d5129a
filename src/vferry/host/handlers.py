"""What acts on this host: each operation of the API, led to the module that carries it out."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from vferry.host import api, forwarding, hypervisor_devices, hypervisor_domains, relay_names, relay_switch, relay_view
from vferry.host.announcing import Wire, announce, open_wire, teach_bridge
from vferry.host.arriving import Arriving
from vferry.host.balloon import Balloons
from vferry.host.boot_pages import set_boot_pages
from vferry.host.claims import Claims
from vferry.host.configuration import AgentConfiguration
from vferry.host.conntrack import put_connections, read_connections
from vferry.host.conntrack_netlink import Table
from vferry.host.device_state import read_blockers
from vferry.host.domain_xml import read_domain
from vferry.host.gateways import RUNTIME, Gateways
from vferry.host.gateways_cpu import confine
from vferry.host.guest_agent import run_in_guest
from vferry.host.guest_agent_latency import measure_guest
from vferry.host.guest_agent_network import SCRIPT, read_network
from vferry.host.guest_memory import measure_memory
from vferry.host.hiding import Hiding
from vferry.host.huge_pages import set_huge_pages
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_guests import describe, describe_all, guest_of
from vferry.host.inventory import take_inventory
from vferry.host.lent import Lent
from vferry.host.mediated import read_mdevs, set_mdev
from vferry.host.migration import Migrations
from vferry.host.migration_held import Held
from vferry.host.migration_limit import HostLimit
from vferry.host.openflow import Inlet
from vferry.host.platform import check_fit
from vferry.host.qemu_abilities import ask_qemu
from vferry.host.relay_far import Flows
from vferry.host.relay_gateway import set_gateway
from vferry.host.relay_ports import RelayPorts
from vferry.host.relay_restore import Restoring
from vferry.host.relay_store import RelayStore
from vferry.host.sriov import read_pfs, vf_address, vf_addresses
from vferry.host.sriov_netlink import Links
from vferry.host.sriov_settings import ask_driver
from vferry.host.switch_connections import SwitchConnections
from vferry.host.switch_tracking import find_place, read_tracked
from vferry.host.sysfs import Write, write_attribute
from vferry.host.vf_driver import bind_vf
from vferry.model.guest import Guest, GuestNetwork
from vferry.model.host import Inventory
from vferry.model.problem import Exit, Problem
from vferry.model.relay import Relay, RelayState

if TYPE_CHECKING:
    from vferry.host.qemu_certificates import QemuCertificates

T = TypeVar("T")

log = logging.getLogger("vferry.agent")

THREADS = 32
"""How many calls may block at a time: several operations wait for an unplug or a script each."""

GUEST_NETWORK_TIMEOUT_S = 20.0


class Handlers:
    """Carries operations out, in threads. Whatever changes something needs a session that holds the claim on it."""

    def __init__(
        self,
        configuration: AgentConfiguration,
        claims: Claims,
        directory: Path,
        *,
        hypervisor: Hypervisor | None = None,
        runtime: Path = RUNTIME,
        root: Path = Path("/"),
        links: Callable[[], Links] = Links,
        table: Callable[[], Table] = Table,
        wire: Callable[[str], Wire] = open_wire,
        write: Write = write_attribute,
    ) -> None:
        """`directory` keeps the host's certificates in its ``pki``; the rest stands in for the system in tests."""
        self._configuration = configuration
        self._claims = claims
        self._root = root
        self._links = links
        self._table = table
        self._wire = wire
        self._write = write
        self._hypervisor = hypervisor or Hypervisor()
        self._relay = RelayStore(directory)
        self._ports = RelayPorts(directory, self._relay.read, root, write)
        self._restoring = Restoring(root, self._relay.read, self._ports, links, write)
        self._flows = Flows(root, self._relay.read)
        self._switch_connections = SwitchConnections(root)
        self._arriving = Arriving(self._hypervisor, self._announce_arrived, root, links)
        self._hiding = Hiding(root, links)
        self._lent = Lent(self._hypervisor, claims, directory, root, links)
        confined = confine(configuration.cpu_share, root)
        self._gateways = Gateways(configuration.migration, self._hypervisor, directory / "pki", runtime, confined, root)
        self._limit = HostLimit(configuration.migration, directory)
        self._migrations = Migrations(self._hypervisor, runtime, self._limit.most)
        self._balloons = Balloons(self._hypervisor, runtime)
        self._held = Held(self._hypervisor, self._migrations, self._gateways, runtime)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="operation")
        self._pool.submit(self._lent.take_back)  # what stopped while there was no agent
        self._pool.submit(self._hide_again)
        self._pool.submit(self._balloons.give_all_back)

    async def handle(self, operation: api.Operation[Any], session: api.Session | None) -> Struct:
        """The answer to an operation. Raises `Problem`."""
        work = self._looking(operation) or self._on_host(operation) or self._acting(operation, session)
        return await self._in_thread(work)

    async def started(self) -> None:
        """Puts back what a restart of the host has taken away."""
        await self._in_thread(self._restoring.restore)

    async def follow(self) -> None:
        """Puts back what a restart of Open vSwitch has taken away, where it has; asked for again and again."""
        await self._in_thread(self._restoring.follow)
        await self._in_thread(self._flows.follow)

    async def users_of(self, vfs: tuple[str, ...]) -> dict[str, str]:
        """The guests that have VFs, running or only defined, by the VFs' addresses."""

        def look() -> dict[str, str]:
            described = describe_all(self._hypervisor, self._root)
            found = {address: one.now.name for one in described for address in one.addresses}
            found |= self._ports.users()
            return {address: guest for address, guest in found.items() if address in vfs}

        return await self._in_thread(look)

    async def released(self, operation_id: str) -> None:
        """Ends the gateway that an operation has left running, and forgets its migration. Problem ``guest-held``."""
        await self._in_thread(lambda: self._balloons.release(operation_id))
        await self._in_thread(lambda: self._held.release(operation_id))

    def close(self) -> None:
        """Waits for what is under way. Migrations and gateways go on."""
        self._pool.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _looking(self, operation: api.Operation[Any]) -> Callable[[], Struct] | None:
        """The work of an operation that changes nothing, and so needs no claim."""
        hypervisor = self._hypervisor
        match operation:
            case api.TakeInventory():
                return self._take_inventory
            case api.ReadRelay():
                return lambda: relay_view.read_relay(self._root, self._read_relay())
            case api.ShowGuest(guest=guest):
                return lambda: self._show_guest(guest)
            case api.ReadGuestNetwork(guest=guest):
                return lambda: self._read_network(guest)
            case api.MeasureGuest(guest=guest, seconds=seconds):
                return lambda: measure_guest(hypervisor, guest, seconds)
            case api.MeasureMemory(guest=guest, seconds=seconds):
                return lambda: measure_memory(hypervisor, guest, seconds, self._root)
            case api.ReadConnections():
                return lambda: self._with_table(lambda table: read_connections(table, operation))
            case api.ReadPortConnections(guest=guest, mac=mac):
                return lambda: read_tracked(self._root, find_place(self._root, self._ports.of(guest, mac)))
            case api.ReadDefinition(guest=guest):
                return lambda: hypervisor_domains.read_definition(hypervisor, guest)
            case api.ReadBlockers(guest=guest):
                return lambda: read_blockers(hypervisor, guest, self._root)
            case api.AskQemu(live_xml=xml):
                return lambda: ask_qemu(hypervisor, xml)
            case api.CheckFit():
                return lambda: check_fit(hypervisor, self._root, operation)
            case api.AskDriver(pf=pf):
                return lambda: self._with_links(lambda links: ask_driver(links, self._root, pf))
        return None

    def _on_host(self, operation: api.Operation[Any]) -> Callable[[], Struct] | None:
        """The work of an operation on what is no migration's alone, and so claimed by none."""
        match operation:
            case api.LimitHost(bandwidth=bandwidth):
                return lambda: self._limit_host(bandwidth)
            case api.RequestQemuCertificate(ca=ca):
                return lambda: api.CertificateRequest(pem=self._qemu_certificates().request(ca))
            case api.InstallQemuCertificate(certificate=certificate, ca=ca):
                return lambda: self._qemu_certificates().install(certificate, ca)
        return None

    def _qemu_certificates(self) -> "QemuCertificates":
        # Imported here because it is slow to import and rarely needed.
        from vferry.host.qemu_certificates import QemuCertificates

        return QemuCertificates(self._root, self._configuration.name)

    def _acting(self, operation: api.Operation[Any], session: api.Session | None) -> Callable[[], Struct]:
        """The work of an operation that changes something, after the claim on it was checked."""
        return (
            self._on_device(operation, session)
            or self._on_guest(operation, session)
            or self._on_relay(operation, session)
            or self._on_move(operation, session)
        )

    def _on_device(self, operation: api.Operation[Any], session: api.Session | None) -> Callable[[], Struct] | None:
        check = self._claims.check
        match operation:
            case api.SetVf(pf=pf, index=index, only_at=wanted):
                if wanted is not None and wanted != vf_addresses(self._root, pf).get(index):
                    check(session, vf=wanted)
                    return lambda: api.Done(changed=False)
                check(session, vf=vf_address(self._root, pf, index))
                return lambda: self._set_vf(operation)
            case api.HideMac(pf=pf, index=index, mac=mac, hidden=hidden):
                check(session, vf=vf_address(self._root, pf, index))
                change = self._hiding.hide if hidden else self._hiding.show
                return lambda: change(pf, index, mac)
            case api.SetForwarding(pf=pf, mac=mac, present=present, arriving=guest):
                check(session)
                if present and guest:
                    return lambda: self._arriving.expect(guest, pf, mac)
                return lambda: self._arriving.set(pf, mac, present=present)
            case api.MoveFilter(pf=pf, index=index, other=other):
                check(session, vf=vf_address(self._root, pf, index))
                if other is not None:
                    check(session, vf=vf_address(self._root, other.pf, other.index))
                return lambda: self._with_links(lambda links: forwarding.move_filter(links, self._root, operation))
            case api.Unpark(pf=pf, index=index, mac=mac):
                check(session, vf=vf_address(self._root, pf, index))
                return lambda: self._with_links(lambda links: forwarding.unpark(links, pf, index, mac))
            case api.SetMdev(guest=guest):
                check(session, guest=guest)
                return lambda: set_mdev(self._hypervisor, self._root, operation)
        return None

    def _on_guest(self, operation: api.Operation[Any], session: api.Session | None) -> Callable[[], Struct] | None:
        hypervisor, check = self._hypervisor, self._claims.check
        match operation:
            case api.PlugStandby(guest=guest):
                check(session, guest=guest)
                return lambda: hypervisor_devices.plug_standby(hypervisor, self._root, operation)
            case api.PlugRelayed(guest=guest):
                check(session, guest=guest)
                return lambda: self._plug_relayed(operation)
            case api.PlugVf(guest=guest, address=address):
                check(session, guest=guest, vf=address)
                return lambda: self._plug_vf(operation)
            case api.Unplug(guest=guest):
                check(session, guest=guest)
                return lambda: self._unplug(operation)
            case api.RunInGuest(guest=guest, script=script, timeout_s=timeout_s):
                check(session, guest=guest)
                return lambda: run_in_guest(hypervisor, guest, script, timeout_s, silence_s=timeout_s)
            case api.TeachBridge():
                check(session, guest=operation.guest)
                return lambda: self._teach_bridge(operation)
            case api.Announce():
                check(session, guest=operation.guest)
                return lambda: announce(operation, lambda: self._way(operation))
            case api.ExpectGuest(guest=guest, announced=announced):
                check(session, guest=guest)
                return lambda: self._arriving.announce(guest, announced)
            case api.PutConnections(guest=guest):
                check(session, guest=guest)
                return lambda: self._with_table(lambda table: put_connections(table, operation))
            case api.PutPortConnections(guest=guest):
                check(session, guest=guest)
                return lambda: self._put_port_connections(operation)
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

    def _on_relay(self, operation: api.Operation[Any], session: api.Session | None) -> Callable[[], Struct] | None:
        check, root = self._claims.check, self._root
        match operation:
            case api.KeepRelay(relay=relay):
                holder = api.Session(operation=check(session).operation)
                for address in relay.addresses:
                    check(session, vf=address)
                if relay.state is RelayState.DISABLING:
                    return lambda: self._ports.if_unused(lambda: self._keep_relay(holder, relay))
                return lambda: self._keep_relay(holder, relay)
            case api.ForgetRelay():
                holder = api.Session(operation=check(session).operation)
                return lambda: self._ports.if_unused(lambda: self._forget_relay(holder))
            case api.SetHugePages():
                check(session)
                return lambda: set_huge_pages(root, operation, self._write)
            case api.BindVf(address=address):
                check(session, vf=address)
                return lambda: bind_vf(root, operation, self._write)
            case api.SetSwitch():
                check(session)
                return lambda: relay_switch.set_switch(root, operation)
            case api.SetRelayBridge(bridge=bridge):
                for uplink in bridge.uplinks:
                    check(session, vf=uplink.address)
                return lambda: relay_switch.set_bridge(root, operation)
            case api.SetRelayGateway(gateway=gateway):
                self._check_bridge(session, gateway.bridge)
                return lambda: set_gateway(root, operation)
            case api.JoinRelay(port=port):
                check(session, guest=port.guest, vf=port.vf.address if port.vf else None)
                return lambda: self._ports.join(operation)
            case api.LeaveRelay(guest=guest):
                check(session, guest=guest)
                return lambda: self._ports.leave(operation)
            case api.RejoinGuests():
                check(session)
                return self._restoring.rejoin
        return None

    def _on_move(self, operation: api.Operation[Any], session: api.Session | None) -> Callable[[], Struct]:
        check, gateways, migrations, held = self._claims.check, self._gateways, self._migrations, self._held
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
                return lambda: self._balloons.reclaim(of, guest)
            case api.ReturnFree(guest=guest):
                of = check(session, guest=guest).operation
                return lambda: self._balloons.give_back(of)
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
                return lambda: self._destroy(of, guest)
        raise Problem(
            "operation-unknown", f"This agent cannot do {type(operation).__name__}", "Update vferry on this host"
        )

    def _take_inventory(self) -> Inventory:
        try:
            relay = self._read_relay()
        except Problem as problem:
            # Migrations do not need it, its VFs are claimed, and whoever wants to change it is told.
            log.error("%s", problem)
            relay = None
        claims = self._claims.all()
        configuration = replace(self._configuration, migration=self._limit.endpoint())
        return take_inventory(configuration, claims, self._hypervisor, self._root, self._links, relay)

    def _read_relay(self) -> Relay | None:
        relay = self._relay.read()
        return None if relay is None else replace(relay, ports=tuple(each.port for each in self._ports.all()))

    def _keep_relay(self, holder: api.Session, relay: Relay) -> api.Done:
        done = self._relay.keep(holder, relay)
        if why := set_boot_pages(self._root, relay):
            log.warning("%s", why)
        return done

    def _check_bridge(self, session: api.Session | None, name: str) -> None:
        """Whether the session holds the claim on the relay that has a bridge. Problems: ``not-claimed`` and others."""
        relay, of = self._relay.read(), self._claims.check(session).operation
        if relay is None or relay.operation != of or relay.bridge(name) is None:
            raise Problem(
                "relay-missing",
                f"Operation {of} has no relay with a bridge {name} on this host",
                "Make one: vferry relay enable HOST --uplink PF --switched",
                exit=Exit.REFUSED,
            )

    def _forget_relay(self, holder: api.Session) -> api.Done:
        done = self._relay.forget(holder)
        if done.changed:
            set_boot_pages(self._root, None)
        return done

    def _limit_host(self, bandwidth: int | None) -> api.Done:
        changed = self._limit.set(bandwidth)
        # Also where that was set before: an agent that ended in between has told nobody.
        self._migrations.divide()
        return api.Done(changed=changed)

    def _show_guest(self, guest: str) -> Guest:
        described = describe(self._hypervisor, self._hypervisor.domain(guest), self._root)
        pfs = self._with_links(lambda links: read_pfs(self._root, links))
        return guest_of(described, self._configuration.name, pfs, read_mdevs(self._root), self._ports.by_socket())

    def _read_network(self, guest: str) -> GuestNetwork:
        return read_network(guest, run_in_guest(self._hypervisor, guest, SCRIPT, GUEST_NETWORK_TIMEOUT_S))

    def _hide_again(self) -> None:
        """For guests that are on their way since before this agent was started."""
        try:
            running = [each.live for each in describe_all(self._hypervisor, self._root) if each.live]
            nics = [(nic.interface, nic.mac) for xml in running for nic in xml.nics if nic.interface and nic.mac]
            self._hiding.take_up(nics)
        except (Problem, OSError) as problem:
            log.warning("Whether VFs wait for the MACs of guests is not known: %s", problem)

    def _set_vf(self, wanted: api.SetVf) -> api.Done:
        self._hiding.forget(wanted.pf, wanted.index)
        done = self._arriving.set_vf(wanted.pf, wanted.index, wanted.settings, wanted.arriving)
        if wanted.settings.mac and not wanted.arriving:
            self._ports.keep_mac(wanted.pf, wanted.index, wanted.settings.mac)
        return done

    def _plug_relayed(self, wanted: api.PlugRelayed) -> api.Done:
        socket = self._ports.whole(wanted.guest, wanted.mac).socket
        return hypervisor_devices.plug_relayed(self._hypervisor, wanted, socket)

    def _plug_vf(self, wanted: api.PlugVf) -> api.Done:
        new = self._lent.lend(wanted.address, wanted.guest, wanted.alias)
        done = hypervisor_devices.plug_vf(self._hypervisor, wanted)
        if new and not done.changed:  # it has it from libvirt
            self._lent.returned(wanted.guest, wanted.alias)
        return done

    def _unplug(self, wanted: api.Unplug) -> api.Done:
        done = hypervisor_devices.unplug(self._hypervisor, self._root, wanted.guest, wanted.alias, wanted.timeout_s)
        self._lent.returned(wanted.guest, wanted.alias)
        return done

    def _teach_bridge(self, wanted: api.TeachBridge) -> api.Done:
        # A guest that goes from the relay to a bridge has a port at both, and its NIC at the bridge alone.
        port = wanted.uplink or hypervisor_devices.tap_of(self._hypervisor, wanted.guest, wanted.mac)
        port = port or self._ports.on_switch(wanted.guest, wanted.mac)
        return self._with_links(lambda links: teach_bridge(links, self._root, port, wanted.mac, hold=not wanted.uplink))

    def _put_port_connections(self, wanted: api.PutPortConnections) -> api.PutOutcome:
        port = self._ports.of(wanted.guest, wanted.mac)
        if not wanted.wait_s:
            self._arriving.then(wanted.guest, wanted.mac, self._switch_connections.at_arrival(wanted, port))
        return self._switch_connections.put(wanted, port)

    def _announce_arrived(self, wanted: api.Announce) -> None:
        """The bridge first: what is announced may come back to it by the uplink."""
        if wanted.interface is not None:
            self._teach_bridge(api.TeachBridge(guest=wanted.guest, mac=wanted.mac))
        announce(wanted, lambda: self._way(wanted))

    def _way(self, wanted: api.Announce) -> Wire:
        if wanted.interface is None:
            return Inlet(self._root, relay_names.guest_name(wanted.port or wanted.mac))
        return self._wire(wanted.interface)

    def _destroy(self, operation: str, guest: str) -> api.Done:
        if self._migrations.leaves_here(operation, guest):
            # While it is paused for its switchover, the source looks like an incoming guest to libvirt.
            raise Problem(
                "guest-not-incoming",
                f"Guest {guest} migrates away from this host: it is not ended here",
                f"Look with: vferry operation show {operation}",
                exit=Exit.OPERATOR,
            )
        return hypervisor_domains.destroy_incoming(self._hypervisor, guest)

    def _with_links(self, work: Callable[[Links], T]) -> T:
        with self._links() as links:
            return work(links)

    def _with_table(self, work: Callable[[Table], T]) -> T:
        with self._table() as table:
            return work(table)


def _named(session: api.Session | None) -> str:
    if session is None:
        raise Problem("session-missing", "A migration is asked for without saying which operation's", "Say which")
    return session.operation
