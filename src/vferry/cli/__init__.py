"""Commands: parse, call, print."""

import importlib
import sys
from typing import NoReturn

import click

from vferry.model.problem import Exit, Problem, no_space

# Each command's module is imported only when it is called: an agent on a slow host starts no dashboard code.
COMMANDS = {
    "agent": "run the agent of this host",
    "bench": "measure interruption, transfer and relay",
    "check": "tell whether a guest can migrate to a host, and how",
    "gateway": "carry a migration's streams over mutual TLS",
    "guest": "list and show guests, and put their NICs on something else",
    "host": "add, list, show and limit hosts",
    "lab": "two SR-IOV hosts without hardware",
    "migrate": "migrate a guest to a host",
    "operation": "list, follow, abort and recover migrations and moves of NICs",
    "relay": "make, show and take back a host's relay",
    "probe": "measure the interruption of an address by packets",
}


class Commands(click.Group):
    """The group of all commands, each in `vferry.cli.<name>` under the name `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"vferry.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vferry")
def vferry() -> None:
    """Live-migrate KVM virtual machines, the ones with SR-IOV virtual functions included.

    \b
    Example: vferry migrate guest1 host2
    """


def main() -> None:
    """Entry point: runs a command and turns a `Problem`, or a full disk, into one line and an exit code."""
    try:
        vferry.main(prog_name="vferry")
    except Problem as problem:
        _end(problem)
    except OSError as error:
        full = no_space(error)
        if full is None:
            raise
        # What was asked for may be done, all but telling it; what was not begun for it is a problem of its own.
        full.exit = Exit.OPERATOR
        _end(full)


def _end(problem: Problem) -> NoReturn:
    print(f"vferry: {problem}", file=sys.stderr)
    sys.exit(problem.exit)
