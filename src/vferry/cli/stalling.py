"""What may be done when a copy stalls, as it is written on the command line."""

import click

from vferry.plan.schedule import Schedule, parse


def actions(written: str) -> Schedule:
    """A schedule from words with commas between them; ``none`` allows nothing. Raises `click.BadParameter`."""
    if written == "none":
        return ()
    try:
        return parse(written.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
