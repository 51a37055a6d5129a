"""A migration as the operator asks for it: looked at, refused or begun, carried out, reported."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from vferry.controller import operations
from vferry.controller.configuration import MigrationSettings, read_controller_configuration
from vferry.controller.drive import Audience, drive, first_state
from vferry.controller.operations import OperationFolder
from vferry.controller.room import forgotten_without_room, room
from vferry.controller.state import State
from vferry.controller.survey import Survey, survey
from vferry.migration.conductor import Conductor
from vferry.migration.record import now_text
from vferry.model.compression import Codec
from vferry.model.problem import Exit, Problem
from vferry.model.report import Report, Status
from vferry.plan import transfer
from vferry.plan.facts import Finding, Wishes
from vferry.plan.outlook import Outlook, outlooks
from vferry.plan.plan import NetworkMode, Plan, TransferPlan
from vferry.plan.schedule import Schedule, adjusted


class Request(Struct, frozen=True, kw_only=True):
    """What was asked for on the command line; None takes the configuration's."""

    guest: str
    destination: str
    mode: NetworkMode | None = None
    policy: str = "auto"
    codec: Codec | None = None
    streams: int | None = None
    delta_memory: int | None = None
    """In MiB."""
    resident: bool | None = None
    accept_interruption: bool = False
    temporary_bond: bool = False
    deadline_s: float | None = None
    bandwidth: int | None = None
    when_stalled: Schedule | None = None
    max_pause_s: float | None = None
    """In place of the pauses of the configuration's schedule."""
    throttle: bool | None = None
    """The same of its throttling."""
    reclaim_free: bool | None = None
    direct: bool | None = None
    measured: bool = True
    probe_address: str | None = None
    probe_tcp: int | None = None


class Prepared(Struct, frozen=True, kw_only=True):
    """What looking has brought: `plan` is None where the migration is refused."""

    request: Request
    wishes: Wishes
    survey: Survey
    plan: Plan | None
    began: float
    started: str

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.survey.assessment.findings

    def outlooks(self) -> tuple[Outlook, ...]:
        """What every network mode would do, as the facts are."""
        return outlooks(self.survey.facts, self.wishes)


async def prepare(state: State, request: Request, *, estimated: bool = False) -> Prepared:
    """Looks at both hosts and the guest, plans, and changes nothing. Raises `Problem` where it cannot even look.

    An estimate takes some seconds more.
    """
    began, started = time.monotonic(), now_text()
    settings = read_controller_configuration(state).migration_of(request.guest)
    wishes = Wishes(
        operation=operations.new_operation(state),
        mode=request.mode,
        accept_interruption=request.accept_interruption,
        temporary_bond=request.temporary_bond,
        transfer=asked_transfer(request, settings),
        unplug_timeout_s=settings.unplug_timeout_s,
    )
    # Whether compressing gains anything is to be known before, where QEMU would send by itself if not.
    measured = estimated or (wishes.transfer.direct and wishes.transfer.codec is Codec.AUTO)
    seen = await survey(state, request.guest, request.destination, wishes, measured=measured)
    return Prepared(
        request=request, wishes=wishes, survey=seen, plan=seen.assessment.plan, began=began, started=started
    )


def asked_transfer(request: Request, settings: MigrationSettings) -> TransferPlan:
    """The transfer that was asked for. Problem ``option-unused``, rather than to pass over what was said."""
    schedule = settings.schedule if request.when_stalled is None else request.when_stalled
    wanted = transfer.choose(
        request.policy,
        request.codec or settings.codec,
        request.streams or settings.streams,
        settings.delta_memory if request.delta_memory is None else request.delta_memory,
        resident=settings.resident if request.resident is None else request.resident,
        bandwidth=request.bandwidth or settings.bandwidth,
        deadline_s=request.deadline_s or settings.deadline_s,
        reclaim_free=settings.reclaim_free if request.reclaim_free is None else request.reclaim_free,
        direct=settings.direct if request.direct is None else request.direct,
        when_stalled=adjusted(schedule, request.max_pause_s, request.throttle),
    )
    if wanted.compression and request.codec not in (None, Codec.NONE):
        raise Problem(
            "option-unused", f"With --transfer {request.policy} it is QEMU that compresses", "Leave --codec out"
        )
    if (request.streams or 1) > max(wanted.parallel, wanted.streams):
        raise Problem("option-unused", "A plain stream that is not compressed stays one", "Leave --streams out")
    if request.delta_memory and not (wanted.delta_memory or wanted.cache):
        raise Problem(
            "option-unused",
            "Copies of pages are kept only where multifd's channels are compressed by a codec, and by xbzrle",
            "Give a --codec and not --transfer plain, or leave --delta-memory out",
        )
    if request.resident and not wanted.resident:
        raise Problem(
            "option-unused",
            "Pages that are at the destination are left out only where multifd's channels are compressed by a codec",
            "Give a --codec, and neither --transfer plain nor --delta-memory 0, or leave --resident out",
        )
    if request.direct and not wanted.direct:
        raise Problem(
            "option-unused",
            f"QEMU does not send by itself what the gateways compress with {wanted.codec.value}",
            "Use --codec none or auto, or leave --direct out",
        )
    return wanted


def refuse(prepared: Prepared) -> tuple[Report, Problem]:
    """The report of a refused migration, and the problem that ends the command."""
    errors = prepared.survey.assessment.errors
    reason = "; ".join(finding.message for finding in errors)
    report = Report(
        operation="",
        guest=prepared.request.guest,
        source=prepared.survey.facts.source.name,
        destination=prepared.request.destination,
        status=Status.REFUSED,
        reason=reason,
        started=prepared.started,
        total_s=round(time.monotonic() - prepared.began, 3),
        network_note="nothing was changed",
    )
    remedy = "; ".join(finding.remedy for finding in errors if finding.remedy)
    return report, Problem("refused", reason, remedy, exit=Exit.REFUSED)


@contextmanager
def begun(state: State, prepared: Prepared, plan: Plan) -> Iterator[OperationFolder]:
    """Writes the operation down and holds its lock, so that nobody sees it undriven; no host is changed yet.

    Problem ``no-space``; then, also where whoever drives it raises `NoRoom`, there is no operation.
    """
    folder = operations.create(state, plan)
    address = prepared.request.probe_address or prepared.survey.probe_address
    first = first_state(plan, address, prepared.survey.probe_from, prepared.began)
    asked = prepared.request
    first = replace(first, started=prepared.started, measured=asked.measured, probe_tcp=asked.probe_tcp)
    with forgotten_without_room(folder.root), folder.driven():
        with room():
            folder.write_state(first)
        yield folder


async def carry_out(state: State, folder: OperationFolder, audience: Audience) -> Report:
    """Drives a begun operation to its end. The caller holds its lock."""
    return await drive(state, folder, audience, Conductor.run, folder.name)


async def leave_to_itself(folder: OperationFolder) -> None:
    """Starts a process of its own that drives the operation, whatever becomes of this one."""
    log = (folder.root / "log").open("ab")
    with closing(log):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vferry", "operation", "recover", folder.name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while folder.state().status == operations.INTERRUPTED:
        if process.returncode is not None:
            raise Problem("not-detached", f"The process that should drive {folder.name} ended", f"See {log.name}")
        await asyncio.sleep(0.1)
