"""Faults to put into a fleet: what goes wrong, and at which call."""

import asyncio
from collections.abc import Callable
from typing import Any

from fakes.fleet import FOREVER_S, Call, Fault, Fleet, Instead, unreachable
from vferry.host.api import GuestRun, Operation, ReclaimFree, RunInGuest
from vferry.model.problem import Exit, Problem


class Crash(BaseException):
    """The controller's process is killed."""


def at(number: int) -> Callable[[Call], bool]:
    """At the n-th call of the fleet, counting from 0."""
    return lambda call: call.number == number


def at_operation(kind: type[Operation[Any]], host: str | None = None) -> Callable[[Call], bool]:
    """At calls of an operation, of one host or of any."""
    return lambda call: isinstance(call.operation, kind) and host in (None, call.host)


def refusal(
    when: Callable[[Call], bool], *, after: bool = False, code: str = "libvirt-failed", times: int = 1
) -> Fault:
    """The agent answers with a problem; with `after`, though it has done what it was asked."""

    def act(_fleet: Fleet, call: Call) -> None:
        raise Problem(code, f"{type(call.operation).__name__} failed on {call.host}", "Look there", exit=Exit.REFUSED)

    return Fault(when, act, after, times)


def lost_answer(when: Callable[[Call], bool], *, after: bool = False, times: int = 1) -> Fault:
    """The request is lost once; with `after`, the answer is."""

    def act(_fleet: Fleet, call: Call) -> None:
        raise unreachable(call.host)

    return Fault(when, act, after, times)


def outage(when: Callable[[Call], bool], *, after: bool = False, seconds: float = FOREVER_S, host: str = "") -> Fault:
    """The agent of the call's host, or of `host`, is silent from then on; its guests are not touched by that."""

    def act(fleet: Fleet, call: Call) -> None:
        fleet.named(host or call.host).down_until = asyncio.get_running_loop().time() + seconds

    return Fault(when, act, after)


def death(when: Callable[[Call], bool], *, after: bool = False, host: str = "") -> Fault:
    """The host dies, with its guests."""
    return Fault(when, lambda fleet, call: fleet.kill(host or call.host), after)


def crash(when: Callable[[Call], bool], *, after: bool = False) -> Fault:
    """The controller dies."""

    def act(_fleet: Fleet, _call: Call) -> None:
        raise Crash

    return Fault(when, act, after)


def doing(when: Callable[[Call], bool], what: Callable[[], object], *, after: bool = False) -> Fault:
    """Anything else."""

    def act(_fleet: Fleet, _call: Call) -> None:
        what()

    return Fault(when, act, after)


def squeezing(when: Callable[[Call], bool]) -> Fault:
    """A guest's memory is with its balloon when libvirt fails: it is not given back."""

    def act(fleet: Fleet, call: Call) -> None:
        assert isinstance(call.operation, ReclaimFree)
        fleet.hosts[call.host].machines[call.operation.guest].squeezed = True
        raise Problem("libvirt-failed", "Giving a guest its memory back: broken", "Look there", exit=Exit.REFUSED)

    return Fault(when, act)


def failing_script(
    when: Callable[[Call], bool] = lambda _call: True, *, times: int = 1, says: str = "enp7s0 has no carrier\n"
) -> Fault:
    """A script in the guest ends with an error, and has done nothing."""

    def act(_fleet: Fleet, _call: Call) -> None:
        raise Instead(GuestRun(code=4, stderr=says))

    return Fault(lambda call: isinstance(call.operation, RunInGuest) and when(call), act, times=times)
