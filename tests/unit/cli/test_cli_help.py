"""What `vferry --help` promises is there."""

import click

from vferry.cli import COMMANDS, bench


def test_a_benchmark_of_the_relay_is_named_once_there_is_one() -> None:
    assert isinstance(bench.command, click.Group)
    assert ("relay" in COMMANDS["bench"]) == ("relay" in bench.command.commands)
