"""Migrations measured side by side: the same guests, in turn, to and fro between two hosts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

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
    """One of the things compared: a guest, migrated in one mode."""

    name: str
    guest: str
    mode: NetworkMode
    probe_tcp: int | None = None
    """The port to which a TCP connection is watched."""


class Results:
    """The runs so far, in a file, so that a run that was cut short goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        kept = json.loads(path.read_text()) if path.exists() else {"runs": []}
        self.path = path
        self.runs: list[dict[str, Any]] = kept["runs"]
        self.latency: dict[str, Any] | None = kept.get("latency")
        """Of the guest's disk and agent, by step; None until it was measured."""

    def count(self, case: Case) -> int:
        return sum(run["case"] == case.name for run in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        self.runs.append(run)
        self._write()

    def add_latency(self, latency: dict[str, Any]) -> None:
        self.latency = latency
        self._write()

    def _write(self) -> None:
        kept = {"runs": self.runs, "latency": self.latency}
        write_durably(self.path, json.dumps(kept).encode(), mode=0o644)


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
            results.add(await _once(state, case, audience))
    switch = next((case for case in cases if case.mode is NetworkMode.SWITCH), None)
    if switch is not None and results.latency is None:
        tell(f"once more, for the latency of disk and agent: {switch.name} ({switch.guest})")
        latency = await _latency(state, switch, audience)
        if latency is None:
            tell(f"no latency is measured: {switch.guest} has no agent that answers")
        else:
            results.add_latency(latency)


async def _once(state: State, case: Case, audience: Callable[[Plan], Audience]) -> dict[str, Any]:
    prepared, plan = await _planned(state, case)
    report = await _carried_out(state, prepared, plan, audience(plan))
    return {**msgspec.to_builtins(report), "case": case.name}


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
