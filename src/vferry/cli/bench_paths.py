"""What the commands have in common that compare paths of packets: their options, and what becomes of the rows."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vferry.cli.choices import numbers, tell_left_out
from vferry.cli.signals import ended_by_signals

if TYPE_CHECKING:
    from vferry.trial.relay_bench import Begin, RelayCase, RelaySettings
    from vferry.trial.results import Results

LEAST, MOST = 64, 1500
RESULTS = Path("bench-results")
Measure = Callable[["RelaySettings", "Results[RelayCase]", "Begin"], None]
"""Adds to the results what they lack, and says what it begins."""
F = TypeVar("F", bound=Callable[..., Any])


def options(paths: str, seconds: float, results: str) -> Callable[[F], F]:
    """The options of what compares paths, with their defaults."""
    file = click.Path(path_type=Path, dir_okay=False)
    lines = (
        click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="How often each."),
        click.option("--paths", default=paths, show_default=True, help="Which, in which order, by commas."),
        click.option(
            "--sizes", default="64,512,1500", show_default=True, metavar="BYTES", help="Of packets, by commas."
        ),
        click.option(
            "--seconds", type=click.FloatRange(0.5, 60), default=seconds, show_default=True, help="How long each."
        ),
        click.option("--results", type=file, default=RESULTS / results, show_default=True),
        click.option("--fresh", is_flag=True, help="Forget the rows of an earlier one."),
        click.option("--json", "as_json", is_flag=True, help="Print all rows and the summary as JSON."),
    )

    def optioned(command: F) -> F:
        for line in reversed(lines):
            command = line(command)
        return command

    return optioned


def octets(sizes: str) -> list[int]:
    """The sizes of packets that a text has. Raises click.BadParameter."""
    found = numbers(sizes, "--sizes")
    if not all(LEAST <= size <= MOST for size in found):
        raise click.BadParameter(f"give numbers from {LEAST} to {MOST}", param_hint="--sizes")
    return found


def compare(
    settings: "RelaySettings", now: Mapping[str, Any], measure: Measure, results: Path, *, fresh: bool, as_json: bool
) -> None:
    """Measures, and prints what rows in the file have in common that were measured as `now` says."""
    # Until then, commands start faster without.
    from vferry.cli import show
    from vferry.report.bench_relay import render, summary
    from vferry.report.text import terminal
    from vferry.trial.relay_bench import RelayCase
    from vferry.trial.results import Results

    if fresh:
        results.unlink(missing_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    kept = Results(results, RelayCase.of)
    with ended_by_signals(), show.Line() as line:
        measure(settings, kept, line.begin)
    rows = kept.of(lambda _: dict(now))
    tell_left_out(len(kept.rows) - len(rows), results)
    if as_json:
        sys.stdout.write(json.dumps({"rows": rows, "summary": summary(rows)}, indent=2) + "\n")
    else:
        terminal().print(render(summary(rows)))
