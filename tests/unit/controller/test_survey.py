"""What a guest's QEMU says against migrating it is asked where it matters, and its silence is told."""

from typing import Any

import pytest

from vferry.controller.survey import with_blockers
from vferry.host.api import Blockers, Operation, ReadBlockers
from vferry.model.guest import Guest, GuestState, HostDevice
from vferry.model.problem import Problem

PLAIN = Guest(name="guest1", uuid="u-1", host="host1", state=GuestState.RUNNING)
MEDIATED = Guest(
    name="guest1", uuid="u-1", host="host1", state=GuestState.RUNNING, devices=(HostDevice(kind="mdev", name="m"),)
)


class Answering:
    """A host whose answer is always the same."""

    name = "host1"

    def __init__(self, answer: Blockers | Problem) -> None:
        self.answer = answer
        self.asked: list[Operation[Any]] = []

    async def call(self, operation: Operation[Any], *, timeout_s: float = 30.0) -> Any:
        self.asked.append(operation)
        if isinstance(self.answer, Problem):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("guest", [PLAIN, MEDIATED])
async def test_only_of_a_guest_with_devices_of_its_host_is_it_asked(guest: Guest) -> None:
    host = Answering(Blockers(reasons=("m: no",)))
    found, silence = await with_blockers(host, guest)
    assert host.asked == ([ReadBlockers(guest="guest1")] if guest is MEDIATED else [])
    assert (found.blockers, silence) == (("m: no",) if guest is MEDIATED else None, None)


async def test_a_qemu_that_says_nothing_leaves_it_unknown_and_why() -> None:
    silent = Problem("monitor-silent", "Its monitor does not answer", "Look at it")
    assert await with_blockers(Answering(silent), MEDIATED) == (MEDIATED, silent)
