"""What the fake agent of a host answers: an agent's rules, over a host in memory."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from fakes import inside, moving
from fakes.looking import RELAY_BRIDGE, look
from fakes.world import PF, Device, Gateway, HostState, Job, Machine, name_of
from vferry.host import api
from vferry.host.forwarding import parked
from vferry.host.segments import UDP
from vferry.model.compression import Codec, CodecShare, Compressed
from vferry.model.guest import GuestState
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.problem import Exit, Problem
from vferry.model.relay import RelayPort
from vferry.plan.plan import GuestSide

Hosts = Mapping[str, HostState]


def answer(
    hosts: Hosts, host: HostState, operation: api.Operation[Any], session: api.Session, *, held: set[str], now: float
) -> Any:
    """The answer of a host to an operation. Raises `Problem` as an agent does, and changes nothing then."""
    seen = look(host, operation)
    if seen is not None:
        return seen
    match operation:
        case api.SetBinding(port=port):
            before, host.bindings[port.name] = host.bindings[port.name], port
            return api.Done(changed=before != port)
        case api.ClaimResources(guest=guest, vfs=vfs):
            return _claim(host, session, guest, vfs)
        case api.ReleaseClaim():
            host.claims.fence(session)
            moving.refuse_held(host, session.operation)
            host.gateways.pop(session.operation, None)
            host.jobs.pop(session.operation, None)
            return api.Done(changed=host.claims.release(session))
        case api.SetVf() | api.HideMac() | api.MoveFilter() | api.Unpark() | api.SetForwarding():
            return _filter(host, operation, session)
        case api.StartReceiving() | api.StartSending() | api.StopGateway():
            return _gateway(host, operation, session)
        case api.Define(xml=xml):
            host.claims.check(session, guest=name_of(xml))
            changed = host.definitions.get(name_of(xml)) != xml
            host.definitions[name_of(xml)] = xml
            return api.Done(changed=changed)
        case api.JoinRelay(port=port):
            host.claims.check(session, guest=port.guest, vf=port.vf.address if port.vf else None)
            return _join(host, port)
        case api.ReadMigration():
            job = host.jobs.get(session.operation)
            return moving.show(job, now) if job else api.Migration()
    guest = operation.guest  # type: ignore[attr-defined]
    vf = operation.address if isinstance(operation, api.PlugVf) else None
    host.claims.check(session, guest=guest, vf=vf)
    return _on_guest(hosts, host, operation, session, held, now)


def _on_guest(
    hosts: Hosts, host: HostState, operation: api.Operation[Any], session: api.Session, held: set[str], now: float
) -> Any:
    match operation:
        case api.PlugStandby(guest=guest, mac=mac, alias=alias, on=on, queues=queues):
            return _plug(host, _active(host, guest), Device(alias=alias, mac=mac, bridge=on.device, queues=queues))
        case api.PlugRelayed(guest=guest, mac=mac, alias=alias, queues=queues):
            port = host.ports.get(mac)
            assert port is not None, "QEMU would wait for the relay, for good"
            address = port.vf.address if port.vf else None
            device = Device(alias=alias, mac=mac, address=address, socket=port.socket, queues=queues)
            return _plug(host, _active(host, guest), device)
        case api.PlugVf(guest=guest, address=address, alias=alias):
            machine = _active(host, guest)
            return _plug(host, machine, Device(alias=alias, mac=_mac_of(host, machine, operation), address=address))
        case api.Unplug(guest=guest, alias=alias):
            return _unplug(host, _active(host, guest), alias, held)
        case api.RunInGuest(guest=guest, script=script):
            return _run(host, guest, script)
        case api.TeachBridge(guest=guest, mac=mac, uplink=uplink):
            assert not _ovns(host, mac)
            return _teach(host, _active(host, guest), mac, uplink)
        case api.Announce(guest=guest, mac=mac, interface=interface):
            assert interface in ((None,) if _ovns(host, mac) else (PF, host.standby.uplink))
            assert mac in _active(host, guest).inside.chosen
            host.announced.add(mac)
            return api.Done()
        case api.ExpectGuest(guest=guest, announced=announced):
            assert all((each.interface is None) == _ovns(host, each.mac) for each in announced)
            before = host.unsaid.pop(guest, set())
            if announced:
                host.unsaid[guest] = {each.mac for each in announced}
            return api.Done(changed=before != {each.mac for each in announced})
        case api.PutConnections(connections=connections, lease_s=lease_s):
            assert host.connections is not None
            host.connections |= dict.fromkeys(connections, lease_s)
            return api.PutOutcome(taken=len(connections))
        case api.PutPortConnections(guest=guest, mac=mac):
            assert mac in host.ports, "it is put before the guest is there"
            return _put_port(host, operation)
        case api.LeaveRelay(guest=guest, mac=mac):
            return _leave(host, guest, mac)
        case api.SetMdev(guest=guest, uuid=uuid, present=present):
            return _set_mdev(host, guest, uuid, present=present)
        case api.ReclaimFree(guest=guest):
            return _reclaim(_active(host, guest))
        case api.ReturnFree(guest=guest):
            return _return(host.machines.get(guest))
        case api.StartMigration():
            return _start(hosts, host, operation, session, now)
        case api.AbortMigration():
            job = host.jobs.get(session.operation)
            if job and job.state == "active" and job.paused is not None:
                raise Problem("migration-ending", f"{job.guest} cannot be kept any more", exit=Exit.OPERATOR)
            return api.Done(changed=bool(job and moving.abort(hosts, host, job, now)))
        case api.LimitMigration(bandwidth=bandwidth):
            job = host.jobs.get(session.operation)
            if not job or not job.begun or job.paused is not None:
                return api.Done(changed=False)
            job.bandwidth = bandwidth
            return api.Done()
        case api.StretchPause(downtime_ms=downtime_ms):
            if job := host.jobs.get(session.operation):
                job.downtime_ms = downtime_ms
            return api.Done(changed=job is not None)
        case api.Undefine(guest=guest):
            if guest in host.machines:
                raise Problem("guest-running", f"Guest {guest} runs here", exit=Exit.OPERATOR)
            return api.Done(changed=host.definitions.pop(guest, None) is not None)
        case api.Resume(guest=guest):
            return _resume(host, guest)
        case api.Destroy(guest=guest):
            return _destroy(host, guest, session)
        case api.Concede(guest=guest):
            return moving.concede(host, guest, session.operation, now)
    raise AssertionError(f"no agent can do {operation}")


def _claim(host: HostState, session: api.Session, guest: str | None, vfs: tuple[str, ...]) -> Any:
    would_be = host.claims.would_be(session, guest, vfs)
    for vf in vfs:
        user = host.user_of(vf)
        if user is not None and user != would_be.guest:
            raise Problem("vf-in-use", f"VF {vf} belongs to guest {user}", exit=Exit.REFUSED)
    return host.claims.claim(session, guest, vfs)


def _filter(host: HostState, operation: api.Operation[Any], session: api.Session) -> api.Done:
    match operation:
        case api.SetForwarding(pf=pf, mac=mac, present=present, arriving=guest):
            assert pf == host.standby.filtered
            host.claims.check(session)
            if guest:
                host.expected[mac] = guest
                return api.Done()
            host.expected.pop(mac, None)
            return _forward(host, mac, present=present)
        case api.SetVf(index=index, settings=wanted, arriving=guest):
            function = host.function(index)
            host.claims.check(session, vf=function.address)
            before = function.settings
            host.arriving.pop(index, None)
            host.hidden.pop(index, None)
            if guest and wanted.mac is not None:
                host.arriving[index] = guest, wanted.mac
                wanted = structs.replace(wanted, mac=None)
            function.settings = _set(before, wanted)
            return api.Done(changed=before != function.settings)
        case api.HideMac(index=index, mac=mac, hidden=hidden):
            host.claims.check(session, vf=host.function(index).address)
            if not hidden:
                host.hidden.pop(index, None)
                return api.Done(changed=host.show(index, mac))
            before_it, host.hidden[index] = host.hidden.get(index), mac
            return api.Done(changed=before_it != mac)
        case api.MoveFilter(index=index, mac=mac, to_vf=to_vf, uplink=uplink, other=other):
            assert uplink == host.standby.filtered or uplink is None
            function = host.function(index)
            host.claims.check(session, vf=function.address)
            before = function.settings
            function.settings = structs.replace(before, mac=mac if to_vf else parked(mac))
            if other is not None:
                assert uplink is None
                host.claims.check(session, vf=other.address)
                joined = host.functions[other.address]
                joined.settings = structs.replace(joined.settings, mac=parked(mac, relay=True) if to_vf else mac)
            forwarded = uplink is not None and _forward(host, mac, present=not to_vf).changed
            return api.Done(changed=forwarded or before != function.settings)
        case api.Unpark(index=index, mac=mac):
            function = host.function(index)
            host.claims.check(session, vf=function.address)
            if function.settings.mac != parked(mac):
                return api.Done(changed=False)
            function.settings = structs.replace(function.settings, mac=NO_MAC)
            return api.Done()
    raise AssertionError(operation)


def _set(before: VfSettings, wanted: VfSettings) -> VfSettings:
    """What the driver does not know cannot be set, other than to what it is anyway."""
    given = {name: value for name in wanted.__struct_fields__ if (value := getattr(wanted, name)) is not None}
    return structs.replace(
        before, **{name: value for name, value in given.items() if getattr(before, name) is not None}
    )


def _forward(host: HostState, mac: str, *, present: bool) -> api.Done:
    if (mac in host.forwarding) == present:
        return api.Done(changed=False)
    (host.forwarding.add if present else host.forwarding.discard)(mac)
    return api.Done()


def _gateway(host: HostState, operation: api.Operation[Any], session: api.Session) -> Any:
    host.claims.check(session)
    match operation:
        case api.StartReceiving(peer=peer, direct=direct):
            there = host.gateways.get(session.operation)
            if there is None or there.role != "receive":
                there = Gateway("receive", peer, f"token-{session.operation}-{host.name}")
                host.gateways[session.operation] = there
            itself = api.DirectMemory(port=49201, name=host.name) if direct else None
            return api.Receiving(address="192.0.2.1", port=49200, token=there.token, direct=itself)
        case api.StartSending(peer=peer, token=token, codec=codec):
            moving.refuse_held(host, session.operation)
            before = host.gateways.get(session.operation)
            host.gateways[session.operation] = Gateway("send", peer, token, codec)
            return api.Done(changed=before is None)
    if not operation.resume:  # type: ignore[attr-defined]
        moving.refuse_held(host, session.operation)
    ended = host.gateways.pop(session.operation, None)
    if ended is None:
        return api.GatewayStatistics()
    return api.GatewayStatistics(wire_bytes=1000, cpu_s=0.5, cpu_peak=0.4, compressed=_compressed(ended.codec))


def _compressed(codec: Codec) -> Compressed | None:
    if codec is Codec.NONE:
        return None
    share = CodecShare(blocks=4, stream_bytes=2500, wire_bytes=1000)
    return Compressed(
        stream_bytes=2500, wire_bytes=1000, pages=80, zero_pages=20, delta_pages=30, codecs={codec.value: share}
    )


def _active(host: HostState, guest: str) -> Machine:
    machine = host.machines.get(guest)
    if machine is None:
        code = "guest-off" if guest in host.definitions else "guest-unknown"
        raise Problem(code, f"Guest {guest} does not run on {host.name}", exit=Exit.REFUSED)
    for job in host.jobs.values():
        if job.guest == guest and job.state == "active":
            raise Problem("guest-busy", f"libvirt is at another job of guest {guest}", exit=Exit.REFUSED)
    return machine


def _teach(host: HostState, machine: Machine, mac: str, uplink: str | None) -> api.Done:
    """Of a NIC with a tap it is that one's bridge which is told, and else that of its port on the relay."""
    assert mac in machine.inside.chosen
    assert uplink in (None, host.standby.uplink, RELAY_BRIDGE)
    tapped = any(nic.mac == mac and nic.bridge for nic in machine.devices.values())
    if uplink == RELAY_BRIDGE:
        host.held.discard(mac)
    elif uplink is None and not tapped and (port := host.ports.get(mac)) and port.switch:
        host.held.add(mac)
    return api.Done()


def _plug(host: HostState, machine: Machine, device: Device) -> api.Done:
    if device.alias in machine.devices:
        return api.Done(changed=False)
    if device.address is not None:
        # A VF that the guest has already, under whatever alias, is left alone.
        if any(other.address == device.address for other in machine.devices.values()):
            return api.Done(changed=False)
        if host.user_of(device.address) not in (None, machine.guest):
            raise Problem("libvirt-failed", f"{device.address} is in use", exit=Exit.REFUSED)
    machine.devices[device.alias] = device
    inside.plugged(machine, device, host)
    return api.Done()


def _mac_of(host: HostState, machine: Machine, plugged: api.PlugVf) -> str:
    """Which of the guest's NICs a VF is for: vferry's alias says it, or else the MAC that the VF has."""
    named = (mac for mac in machine.inside.chosen if plugged.alias.endswith(mac.replace(":", "")))
    return next(named, None) or host.functions[plugged.address].settings.mac or NO_MAC


def _unplug(host: HostState, machine: Machine, alias: str, held: set[str]) -> api.Done:
    device = machine.devices.get(alias)
    if device is None:
        return api.Done(changed=False)
    if alias in held:
        raise Problem("unplug-refused", f"The guest refuses to give {alias} back", exit=Exit.REFUSED)
    del machine.devices[alias]
    if device.managed and device.address is not None:
        function = host.functions[device.address]
        function.settings = structs.replace(function.settings, mac=NO_MAC, vlan=0)
    inside.unplugged(machine, device)
    return api.Done(detail="gone after 12 ms")


def _run(host: HostState, guest: str, script: str) -> api.GuestRun:
    machine = _active(host, guest)
    if machine.inside.side is GuestSide.HOTPLUG or machine.state is not GuestState.RUNNING:
        raise Problem("guest-agent-silent", f"The agent of {guest} does not answer", exit=Exit.REFUSED)
    return inside.run_script(machine, script)


def _start(hosts: Hosts, host: HostState, wanted: api.StartMigration, session: api.Session, now: float) -> api.Done:
    job = host.jobs.get(session.operation)
    if job and job.state in ("active", "completed"):
        return api.Done(changed=False, detail=job.state)
    machine = _active(host, wanted.guest)
    gateway = host.gateways.get(session.operation)
    if gateway is None or gateway.role != "send":
        raise Problem("gateway-missing", f"{host.name} has no sending gateway", exit=Exit.REFUSED)
    devices = machine.devices.values()
    if any(device.passed_through and device.address not in wanted.vfs for device in devices):
        raise Problem("libvirt-failed", f"{wanted.guest} has a VF and cannot migrate", exit=Exit.REFUSED)
    if machine.state is not GuestState.RUNNING:
        raise Problem("guest-off", f"Guest {wanted.guest} is {machine.state.value}", exit=Exit.REFUSED)
    if wanted.guest in hosts[gateway.peer].machines:
        raise Problem("libvirt-failed", f"{gateway.peer} has {wanted.guest} already", exit=Exit.REFUSED)
    if not machine.mdevs <= hosts[gateway.peer].mdevs:
        raise Problem("libvirt-failed", f"{gateway.peer} has not the guest's devices", exit=Exit.REFUSED)
    sockets = {port.socket for port in hosts[gateway.peer].ports.values() if port.guest == wanted.guest}
    if not {device.socket for device in devices if device.socket} <= sockets:
        raise Problem("libvirt-failed", f"{gateway.peer}'s QEMU waits for a port of its relay", exit=Exit.REFUSED)
    job = Job(session.operation, wanted.guest, gateway.peer, wanted.persistent_xml, wanted.vfs, now, wanted.attached)
    job.bandwidth = wanted.bandwidth
    moving.start(hosts, host, job)
    return api.Done()


def _join(host: HostState, port: RelayPort) -> api.Done:
    there = host.ports.get(port.mac)
    assert (port.vf is None) == (host.relay_uplink is not None)
    if there is not None:
        if (there.guest, _place(there)) != (port.guest, _place(port)):
            raise Problem("relay-joined", f"{port.mac} is on the relay of {host.name}", exit=Exit.REFUSED)
        if port.vf and there.vf:
            port = structs.replace(port, vf=structs.replace(port.vf, driver=there.vf.driver))
    host.ports[port.mac] = port
    if port.vf:
        host.functions[port.vf.address].driver = port.vf.bound
    return api.Done(changed=port != there)


def _place(port: RelayPort) -> str | None:
    if port.vf:
        return port.vf.address
    return port.switch.bridge if port.switch else None


def _ovns(host: HostState, mac: str) -> bool:
    """Whether a NIC is a port of OVN's, by which it is announced."""
    port = host.ports.get(mac)
    return port is not None and port.switch is not None and port.switch.logical_port is not None


def _leave(host: HostState, guest: str, mac: str) -> api.Done:
    there = host.ports.get(mac)
    if there is None:
        return api.Done(changed=False)
    if there.guest != guest:
        raise Problem("relay-joined", f"{mac} on the relay of {host.name} is {there.guest}'s", exit=Exit.REFUSED)
    if there.vf:
        host.functions[there.vf.address].driver = there.vf.driver
    del host.ports[mac]
    host.held.discard(mac)
    return api.Done()


def _put_port(host: HostState, wanted: api.PutPortConnections) -> api.PutOutcome:
    """The guest tells numbers only where it runs, and if it is waited for."""
    machine = host.machines.get(wanted.guest)
    tells = wanted.wait_s > 0 and machine is not None and machine.state is GuestState.RUNNING
    if not wanted.wait_s:
        host.to_ask[wanted.guest] = set(wanted.connections)
    host.port_connections |= {each for each in wanted.connections if each.protocol == UDP or tells}
    refused = len(set(wanted.connections) - host.port_connections)
    return api.PutOutcome(
        taken=len(wanted.connections) - refused, refused=refused, why="it is silent" if refused else ""
    )


def _set_mdev(host: HostState, guest: str, uuid: str, *, present: bool) -> api.Done:
    if (uuid in host.mdevs) == present:
        return api.Done(changed=False)
    if not present and any(uuid in machine.mdevs for machine in host.machines.values()):
        raise Problem("mdev-in-use", f"Guest {guest} has {uuid}", exit=Exit.REFUSED)
    (host.mdevs.add if present else host.mdevs.discard)(uuid)
    return api.Done()


def _reclaim(machine: Machine) -> api.Done:
    """Where its VFs have not gone, nothing of what is taken is had back."""
    assert not any(device.passed_through for device in machine.devices.values())
    machine.squeezed = False
    return api.Done(detail="64 MiB")


def _return(machine: Machine | None) -> api.Done:
    before = machine is not None and machine.squeezed
    if machine is not None:
        machine.squeezed = False
    return api.Done(changed=before)


def _resume(host: HostState, guest: str) -> api.Done:
    machine = _active(host, guest)
    changed = machine.state is GuestState.PAUSED
    host.go_on(guest)
    return api.Done(changed=changed)


def _destroy(host: HostState, guest: str, session: api.Session) -> api.Done:
    if session.operation in host.jobs:
        raise Problem("guest-not-incoming", f"Guest {guest} migrates away from here", exit=Exit.OPERATOR)
    machine = host.machines.get(guest)
    if machine is None:
        return api.Done(changed=False)
    if machine.state is GuestState.RUNNING:
        raise Problem("guest-running", f"Guest {guest} runs here", exit=Exit.OPERATOR)
    host.end(guest)
    return api.Done()
