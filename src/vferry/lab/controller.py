"""Telling vferry's controller about the lab's hosts, so that every command works on them at once.

The controller is imported when it is told: `lab shell` and the like start faster without.
"""

import asyncio
from collections.abc import Sequence

from vferry.lab import outer, reach
from vferry.lab.topology import DATA, Host


def add(hosts: Sequence[Host]) -> None:
    """Registers hosts; adding one again changes nothing. The lab is of use without, so a problem is only told."""
    from vferry.controller.hosts import add_host

    for host in hosts:
        try:
            asyncio.run(add_host(host.name, f"unix://{reach.agent_socket(host)}", f"netns:{DATA}"))
        except Exception as error:
            outer.say(f"note: {host.name} is not registered with the controller ({error})")


def remove(hosts: Sequence[Host]) -> None:
    """Forgets hosts; a problem with it does not keep the lab up."""
    from vferry.controller.hosts import remove_host
    from vferry.controller.operations import close_all_on
    from vferry.controller.state import find_state

    try:
        close_all_on(find_state(), [host.name for host in hosts])
    except Exception as error:
        outer.say(f"note: the controller still has open operations on these hosts ({error})")
    for host in hosts:
        try:
            asyncio.run(remove_host(host.name))
        except Exception as error:
            outer.say(f"note: {host.name} is still registered with the controller ({error})")
