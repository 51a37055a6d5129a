"""Telling vferry's controller about the lab's hosts, so that every command works on them at once."""

import asyncio
import importlib
import inspect
from collections.abc import Sequence
from typing import Any

from vferry.lab import outer, reach
from vferry.lab.topology import DATA, Host


def _functions() -> Any:
    """The controller's module of hosts; None where its dependencies are not installed."""
    try:
        return importlib.import_module("vferry.controller.hosts")
    except ImportError as error:
        outer.say(f"note: the hosts are not registered with the controller ({error})")
        return None


def _finish(result: object) -> None:
    if inspect.iscoroutine(result):
        asyncio.run(result)


def add(hosts: Sequence[Host]) -> None:
    """Registers hosts; adding one again changes nothing. The lab is of use without, so a problem is only told."""
    module = _functions()
    for host in hosts if module else ():
        try:
            _finish(module.add_host(host.name, f"unix://{reach.agent_socket(host)}", f"netns:{DATA}"))
        except Exception as error:
            outer.say(f"note: {host.name} is not registered with the controller ({error})")


def remove(hosts: Sequence[Host]) -> None:
    """Forgets hosts; a problem with it does not keep the lab up."""
    module = _functions()
    for host in hosts if module else ():
        try:
            _finish(module.remove_host(host.name))
        except Exception as error:
            outer.say(f"note: {host.name} is still registered with the controller ({error})")
