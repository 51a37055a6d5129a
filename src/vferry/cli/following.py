"""Following an operation that another process drives: its phases, and of a migration how far it is."""

import time

import click

from vferry.cli import show
from vferry.controller.news import News, heard
from vferry.controller.operations import INTERRUPTED, RUNNING, OperationFolder, OperationState
from vferry.model.report import Kind, Phase

_POLL_S = 0.2


def to_the_end(folder: OperationFolder) -> OperationState:
    """Shows the operation for as long as it runs; how it stands then."""
    state = folder.state()
    if state.status != RUNNING:
        return state
    return _move(folder) if state.kind is Kind.NIC else _migration(folder)


def _move(folder: OperationFolder) -> OperationState:
    phase = None
    while (state := folder.state()).status == RUNNING:
        if state.phase is not phase:
            phase = state.phase
            click.echo(phase.value, err=True)
        time.sleep(_POLL_S)
    return state


def _migration(folder: OperationFolder) -> OperationState:
    told = 0
    with show.Stage(folder.plan()) as stage:
        while (state := folder.state()).status == RUNNING:
            stage.phase(state.phase, state.phase_began)
            news = heard(folder)
            _show(stage, state.phase, news)
            for stall in news.stalls[told:]:
                stage.stalled(stall)
            told = max(told, len(news.stalls))
            time.sleep(_POLL_S)
        report = folder.report()
        if report is not None and state.status != INTERRUPTED:
            stage.finish(report)
    return state


def _show(stage: show.Stage, phase: Phase, news: News) -> None:
    if news.migration is not None and phase is Phase.COPY:
        stage.progress(news.migration)
    if news.lost is not None and news.gap_ms is not None:
        stage.probed(news.lost, news.gap_ms)
