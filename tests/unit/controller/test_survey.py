"""What QEMU says against migrating a guest, and what a driver cannot set, is asked where it matters."""

from typing import Any

import pytest

from fakes import facts as f
from vferry.controller.survey import with_blockers, with_lacks
from vferry.host.api import AskDriver, Blockers, DriverAbilities, Operation, ReadBlockers
from vferry.model.guest import Guest, GuestState, HostDevice, StateSize
from vferry.model.problem import Problem

PLAIN = Guest(name="guest1", uuid="u-1", host="host1", state=GuestState.RUNNING)
MEDIATED = Guest(
    name="guest1", uuid="u-1", host="host1", state=GuestState.RUNNING, devices=(HostDevice(kind="mdev", name="m"),)
)


class Answering:
    """A host whose answer is always the same."""

    name = "host1"

    def __init__(self, answer: Blockers | DriverAbilities | Problem) -> None:
        self.answer = answer
        self.asked: list[Operation[Any]] = []

    async def call(self, operation: Operation[Any], *, timeout_s: float = 30.0) -> Any:
        self.asked.append(operation)
        if isinstance(self.answer, Problem):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("guest", [PLAIN, MEDIATED])
async def test_only_of_a_guest_with_devices_of_its_host_is_it_asked(guest: Guest) -> None:
    state = StateSize(bytes=96)
    host = Answering(Blockers(reasons=("m: no",), state=state))
    found, silence = await with_blockers(host, guest)
    assert host.asked == ([ReadBlockers(guest="guest1")] if guest is MEDIATED else [])
    assert silence is None
    assert (found.blockers, found.device_state) == ((("m: no",), state) if guest is MEDIATED else (None, None))


async def test_a_qemu_that_says_nothing_leaves_it_unknown_and_why() -> None:
    silent = Problem("monitor-silent", "Its monitor does not answer", "Look at it")
    assert await with_blockers(Answering(silent), MEDIATED) == (MEDIATED, silent)


async def test_the_destinations_driver_is_asked_for_what_a_vf_of_the_guest_has_set() -> None:
    host = Answering(DriverAbilities(lacks=("link_state",)))
    facts = f.sample()
    assert (await with_lacks(host, facts)).lacks == {"pf0": ("link_state",)}
    assert host.asked == [AskDriver(pf="pf0")]
    await with_lacks(host, f.guest(nics=())(facts))
    assert len(host.asked) == 1
