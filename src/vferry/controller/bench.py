"""Migrations measured side by side: the same guests, in turn, to and fro between two hosts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from vferry.controller.drive import Audience
from vferry.controller.hosts import list_hosts
from vferry.controller.migrate import Request, begin, carry_out, prepare
from vferry.controller.state import State
from vferry.host.durable import write_durably
from vferry.model.problem import Exit, Problem
from vferry.plan.plan import NetworkMode, Plan


class Case(Struct, frozen=True, kw_only=True):
    """One of the things compared: a guest, migrated in one mode."""

    name: str
    guest: str
    mode: NetworkMode


class Results:
    """The runs so far, in a file, so that a run that was cut short goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []

    def count(self, case: Case) -> int:
        return sum(run["case"] == case.name for run in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        self.runs.append(run)
        write_durably(self.path, json.dumps({"runs": self.runs}).encode(), mode=0o644)


async def measure(
    state: State,
    cases: tuple[Case, ...],
    runs: int,
    results: Results,
    audience: Callable[[Plan], Audience],
    tell: Callable[[str], None],
) -> None:
    """Migrates each case's guest `runs` times, in turn. Problem ``bench-failed`` when one does not complete."""
    for number in range(1, runs + 1):
        for case in cases:
            if results.count(case) >= number:
                continue
            tell(f"run {number} of {runs}: {case.name} ({case.guest})")
            results.add(await _once(state, case, audience))


async def _once(state: State, case: Case, audience: Callable[[Plan], Audience]) -> dict[str, Any]:
    prepared = await _towards_the_other_host(state, case)
    plan = prepared.plan
    if plan is None:
        reasons = "; ".join(finding.message for finding in prepared.survey.assessment.errors)
        raise Problem("bench-failed", f"{case.guest} cannot migrate: {reasons}", exit=Exit.REFUSED)
    report = await carry_out(state, begin(state, prepared, plan), audience(plan))
    if report.status != "completed" or report.degraded:
        raise Problem(
            "bench-failed",
            f"Migration {report.operation} of {case.guest} ended {report.status.value}: {report.reason}",
            f"Look: vferry operation show {report.operation}; then start the benchmark again: it goes on",
            exit=Exit.UNDONE,
        )
    run: dict[str, Any] = {**msgspec.to_builtins(report), "case": case.name}
    return run


async def _towards_the_other_host(state: State, case: Case) -> Any:
    problem: Problem | None = None
    for record in list_hosts(state):
        request = Request(guest=case.guest, destination=record.name, mode=case.mode)
        try:
            return await prepare(state, request)
        except Problem as refused:
            if refused.code != "same-host":
                raise
            problem = refused
    raise problem or Problem("bench-failed", "There are no two hosts to migrate between", "vferry host add")
