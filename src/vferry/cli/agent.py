"""`vferry agent`: runs the agent of this host."""

from pathlib import Path

import click


@click.group()
def command() -> None:
    """Run the agent of this host.

    \b
    Example: vferry agent run
    """


@command.command()
@click.option(
    "--config",
    "configuration",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/vferry/agent.toml"),
    show_default=True,
    help="What this host is called, where it listens, and its networks.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/var/lib/vferry"),
    show_default=True,
    help="Where claims and certificates are kept.",
)
def run(configuration: Path, directory: Path) -> None:
    """Serve controllers until SIGTERM. Must be root; systemd runs it as vferry-agent.service.

    \b
    Example: vferry agent run --config /etc/vferry/agent.toml
    """
    from vferry.host.service_run import run as run_agent

    run_agent(configuration, directory)
