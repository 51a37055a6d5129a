"""The fake libvirt's migrations: they take their time, end well, or are torn apart in the middle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msgspec import structs

from fakes.world import Device, HostState, Job, Machine, name_of
from vferry.host.api import Done, Migration
from vferry.host.forwarding import parked
from vferry.model.guest import GuestState
from vferry.model.problem import Exit, Problem


@dataclass
class Pace:
    """How long a migration takes, and what becomes of it.

    `torn` names what a cut of the connection in the pause leaves behind: ``source`` (paused there, gone here),
    ``both`` (paused on both hosts) or ``destination`` (paused there, gone at the source). What begins with ``held``
    is a cut that the gateway keeps from the source's libvirt, with the guest paused there, and at the destination
    ``running``, ``paused``, ``gone``, or ``late``: it goes on `late_s` later, if the gateway there lives so long.
    `fails_with` lets it fail at the end of the copy.
    """

    copy_s: float = 1.0
    pause_s: float = 0.1
    torn: str | None = None
    fails_with: str | None = None
    late_s: float = 1.0
    begin_s: float = 0.0
    """How long libvirt is not at it yet: what is asked of the migration meanwhile changes nothing."""
    needs_ms: int = 0
    """The copy stalls, at a pass a second, until it may pause the guest for so long."""


def start(hosts: Mapping[str, HostState], host: HostState, job: Job) -> None:
    """The guest appears, paused, where it goes."""
    machine = host.machines[job.guest]
    incoming = Machine(
        guest=job.guest,
        inside=machine.inside,
        devices={alias: _arriving(device, hosts[job.target], job) for alias, device in machine.devices.items()},
        mdevs=machine.mdevs,
        state=GuestState.PAUSED,
        reason="migration",
        squeezed=machine.squeezed,
    )
    hosts[job.target].machines[job.guest] = incoming
    host.jobs[job.operation] = job


def _arriving(device: Device, target: HostState, job: Job) -> Device:
    """The device at the destination; a macvtap's VF has the MAC, or is kept from it, when QEMU starts there."""
    if device.address is None and device.socket is not None:
        assert target.ports[device.mac].switch is not None
        return replace(device)
    if device.address is None:
        there = job.attached.get(device.mac)
        return replace(device, bridge=there.device if there else device.bridge)
    if device.socket is not None:
        vf = target.ports[device.mac].vf
        assert vf is not None
        return replace(device, address=vf.address)
    if not device.macvtap:
        return replace(device, address=job.vfs[device.address])
    wanted = job.attached[device.mac].device
    (function,) = (each for each in target.functions.values() if each.interface == wanted)
    hidden = target.hidden.get(function.index) == device.mac
    function.settings = structs.replace(function.settings, mac=parked(device.mac) if hidden else device.mac)
    return replace(device, address=function.address)


def advance(hosts: Mapping[str, HostState], pace: Pace, now: float) -> None:
    """Brings all migrations to where they are by now."""
    for host in hosts.values():
        for job in host.jobs.values():
            if job.state == "active":
                _advance(hosts, host, job, pace, now)


def _advance(hosts: Mapping[str, HostState], host: HostState, job: Job, pace: Pace, now: float) -> None:
    target = hosts[job.target]
    if host.dead:
        _fail(host, target, job, "the source has died", now)
        return
    if job.held:
        _hold(host, target, job, pace, now)
        return
    job.begun = job.begun or now >= job.started + pace.begin_s
    if job.paused is None:
        if not _carried(host, target, job):
            _fail(host, target, job, "the connection was lost", now)
            return
        if now < job.started + pace.copy_s:
            return
        if job.downtime_ms < pace.needs_ms:
            job.passes = int(now - job.started)
            return
        if pace.fails_with:
            _fail(host, target, job, pace.fails_with, now)
            return
        job.paused = now if pace.needs_ms else job.started + pace.copy_s
        host.machines[job.guest].state, host.machines[job.guest].reason = GuestState.PAUSED, "migration"
    if now >= job.paused + pace.pause_s:
        _land(hosts, host, job, pace)


def _land(hosts: Mapping[str, HostState], host: HostState, job: Job, pace: Pace) -> None:
    target = hosts[job.target]
    assert job.paused is not None
    ended = job.paused + pace.pause_s
    if pace.torn and pace.torn.startswith("held"):
        job.held = True
        if pace.torn == "held-running":
            _go_on(target, job)
        if pace.torn == "held-gone":
            target.end(job.guest)
        return
    if pace.torn == "source":
        target.end(job.guest)
    if pace.torn == "destination":
        host.end(job.guest)
    if pace.torn or target.dead:
        job.state, job.error, job.ended = "failed", "the connection was lost in the pause", ended
        return
    host.end(job.guest)
    _go_on(target, job)
    job.state, job.ended = "completed", ended


def _go_on(target: HostState, job: Job) -> None:
    target.go_on(job.guest)
    target.definitions[name_of(job.persistent_xml)] = job.persistent_xml


def _hold(host: HostState, target: HostState, job: Job, pace: Pace, now: float) -> None:
    """What was under way still arrives at the destination; at the source all waits for the end of the gateway."""
    assert job.paused is not None
    late = pace.torn == "held-late" and now >= job.paused + pace.pause_s + pace.late_s
    if late and job.operation in target.gateways and job.guest in target.machines:
        _go_on(target, job)
    if job.operation in host.gateways:
        return
    # libvirt learns of the loss, and lets the guest go on.
    job.state, job.error, job.ended = "failed", "the connection was lost in the pause", now
    if job.guest in host.machines:
        host.machines[job.guest].state, host.machines[job.guest].reason = GuestState.RUNNING, None


def refuse_held(host: HostState, operation: str) -> None:
    """Problem ``guest-held`` where the end of the operation's gateway would let a guest go on here."""
    job = host.jobs.get(operation)
    machine = host.machines.get(job.guest) if job else None
    if job and job.state == "active" and machine and machine.state is GuestState.PAUSED:
        raise Problem("guest-held", f"{job.guest} is paused here for its switchover", exit=Exit.OPERATOR)


def concede(host: HostState, guest: str, operation: str, now: float) -> Done:
    """Ends a paused guest that has left, with its gateway."""
    job, machine = host.jobs.get(operation), host.machines.get(guest)
    if machine is None:
        return Done(changed=False)
    if machine.state is GuestState.RUNNING:
        raise Problem("guest-running", f"Guest {guest} runs here", exit=Exit.OPERATOR)
    if job is None:
        raise Problem("guest-not-leaving", f"Guest {guest} has not left with this operation", exit=Exit.OPERATOR)
    host.end(guest)
    host.gateways.pop(operation, None)
    job.state, job.ended = "completed", now
    return Done()


def abort(hosts: Mapping[str, HostState], host: HostState, job: Job, now: float) -> bool:
    """Ends a migration that libvirt is at, and that has not come to its pause yet."""
    if job.state != "active" or job.paused is not None or not job.begun:
        return False
    _fail(host, hosts[job.target], job, "it was aborted", now)
    return True


def show(job: Job, now: float) -> Migration:
    """A migration as the API shows it."""
    return Migration(
        state="uncertain" if job.held and job.state == "active" else job.state,
        error=job.error,
        total_bytes=1 << 20,
        remaining_bytes=job.left,
        sent_bytes=1 << 19,
        rounds=job.passes if job.begun else 0,
        downtime_ms=job.downtime_ms,
        pause_ms=98.7 if job.state == "completed" else None,
        started_age_s=now - job.started,
        paused_age_s=None if job.paused is None else now - job.paused,
        ended_age_s=None if job.ended is None else now - job.ended,
    )


def _carried(host: HostState, target: HostState, job: Job) -> bool:
    sending, receiving = host.gateways.get(job.operation), target.gateways.get(job.operation)
    return bool(sending and receiving and sending.token == receiving.token and not target.dead)


def _fail(host: HostState, target: HostState, job: Job, error: str, now: float) -> None:
    job.state, job.error, job.ended = "failed", error, now
    target.end(job.guest)
