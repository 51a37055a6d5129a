"""Migrations measured side by side: the same guests, in turn, to and fro between two hosts."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from vferry.controller.configuration import ControllerConfiguration
from vferry.controller.drive import Audience
from vferry.controller.hosts import list_hosts, open_host
from vferry.controller.latency import LatencyWatch, kept
from vferry.controller.migrate import Prepared, Request, begun, carry_out, prepare
from vferry.controller.state import State
from vferry.host.durable import write_durably
from vferry.model.problem import Exit, Problem
from vferry.model.report import Report
from vferry.plan.plan import NetworkMode, Plan


class Case(Struct, frozen=True, kw_only=True):
    """One of the things compared: a guest, migrated in one mode, and all that its runs must have in common."""

    name: str
    guest: str
    mode: NetworkMode
    probe_tcp: int | None = None
    """The port to which a TCP connection is watched."""
    configuration: ControllerConfiguration = ControllerConfiguration()
    """The controller's: how often it probes, and how it moves guests."""
    code: str = ""
    """The vferry that measures."""

    @property
    def setting(self) -> dict[str, Any]:
        """What its runs say of it."""
        said: dict[str, Any] = msgspec.to_builtins(self)
        return said


class Results:
    """The runs so far, in a file, so that a run that was cut short goes on where it stopped.

    Only those of the same setting count: others stay in the file, and are not compared.
    """

    def __init__(self, path: Path) -> None:
        kept = json.loads(path.read_text()) if path.exists() else {"runs": []}
        self.path = path
        self.runs: list[dict[str, Any]] = kept["runs"]
        self._latency: dict[str, Any] | None = kept.get("latency")
        self._latency_setting: dict[str, Any] | None = kept.get("latency_setting")

    def count(self, case: Case) -> int:
        return len(self.of((case,)))

    def of(self, cases: Iterable[Case]) -> list[dict[str, Any]]:
        """The runs of these cases."""
        settings = [case.setting for case in cases]
        return [run for run in self.runs if run.get("setting") in settings]

    def latency(self, case: Case) -> dict[str, Any] | None:
        """Of the guest's disk and agent, by step; None until it was measured."""
        return self._latency if self._latency_setting == case.setting else None

    def add(self, case: Case, report: dict[str, Any]) -> None:
        self.runs.append({**report, "case": case.name, "setting": case.setting})
        self._write()

    def add_latency(self, case: Case, latency: dict[str, Any]) -> None:
        self._latency, self._latency_setting = latency, case.setting
        self._write()

    def _write(self) -> None:
        kept = {"runs": self.runs, "latency": self._latency, "latency_setting": self._latency_setting}
        write_durably(self.path, json.dumps(kept).encode(), mode=0o644)


def watched(cases: Iterable[Case]) -> Case | None:
    """The case whose guest's latency is measured as well."""
    return next((case for case in cases if case.mode is NetworkMode.SWITCH), None)


async def measure(
    state: State,
    cases: tuple[Case, ...],
    runs: int,
    results: Results,
    audience: Callable[[Plan], Audience],
    tell: Callable[[str], None],
) -> None:
    """Migrates each case's guest `runs` times, in turn, and mode `switch` once more to measure latency.

    Problem ``bench-failed`` when one does not complete.
    """
    for number in range(1, runs + 1):
        for case in cases:
            if results.count(case) >= number:
                continue
            tell(f"run {number} of {runs}: {case.name} ({case.guest})")
            results.add(case, await _once(state, case, audience))
    switch = watched(cases)
    if switch is not None and results.latency(switch) is None:
        tell(f"once more, for the latency of disk and agent: {switch.name} ({switch.guest})")
        latency = await _latency(state, switch, audience)
        if latency is None:
            tell(f"no latency is measured: {switch.guest} has no agent that answers")
        else:
            results.add_latency(switch, latency)


async def _once(state: State, case: Case, audience: Callable[[Plan], Audience]) -> dict[str, Any]:
    prepared, plan = await _planned(state, case)
    report: dict[str, Any] = msgspec.to_builtins(await _carried_out(state, prepared, plan, audience(plan)))
    return report


async def _latency(state: State, case: Case, audience: Callable[[Plan], Audience]) -> dict[str, Any] | None:
    """A run of its own, without probes: either measurement would cost the guest time that the other one sees."""
    prepared, plan = await _planned(state, case, measured=False)
    if prepared.survey.facts.guest_network is None:
        return None
    async with open_host(plan.source, state=state) as source, open_host(plan.destination, state=state) as destination:
        hosts = {plan.source: source, plan.destination: destination}
        async with LatencyWatch(plan.guest, hosts, audience(plan)) as watch:
            await watch.baseline(plan.source)
            await _carried_out(state, prepared, plan, watch)
    return kept(watch.measured)


async def _planned(state: State, case: Case, *, measured: bool = True) -> tuple[Prepared, Plan]:
    prepared = await _towards_the_other_host(state, case, measured=measured)
    if prepared.plan is None:
        reasons = "; ".join(finding.message for finding in prepared.survey.assessment.errors)
        raise Problem("bench-failed", f"{case.guest} cannot migrate: {reasons}", exit=Exit.REFUSED)
    return prepared, prepared.plan


async def _carried_out(state: State, prepared: Prepared, plan: Plan, audience: Audience) -> Report:
    with begun(state, prepared, plan) as folder:
        report = await carry_out(state, folder, audience)
    if report.status != "completed" or report.degraded:
        raise Problem(
            "bench-failed",
            f"Migration {report.operation} of {plan.guest} ended {report.status.value}: {report.reason}",
            f"Look: vferry operation show {report.operation}; then start the benchmark again: it goes on",
            exit=Exit.UNDONE,
        )
    return report


async def _towards_the_other_host(state: State, case: Case, *, measured: bool) -> Prepared:
    problem: Problem | None = None
    for record in list_hosts(state):
        port = case.probe_tcp if measured else None
        request = Request(guest=case.guest, destination=record.name, mode=case.mode, measured=measured, probe_tcp=port)
        try:
            return await prepare(state, request)
        except Problem as refused:
            if refused.code != "same-host":
                raise
            problem = refused
    raise problem or Problem("bench-failed", "There are no two hosts to migrate between", "vferry host add")
