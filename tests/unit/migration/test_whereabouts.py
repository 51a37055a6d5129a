"""Where a guest runs, from what two hosts say: the whole table."""

import itertools

import pytest

from fakes.clock import run_virtually
from vferry.host.api import Host, Operation, R, ShowGuest
from vferry.migration.whereabouts import Seen, Verdict, decide, locate, look
from vferry.model.guest import Guest, GuestState
from vferry.model.problem import Problem

RUNNING, PAUSED, OFF, UNREACHABLE = Seen.RUNNING, Seen.PAUSED, Seen.OFF, Seen.UNREACHABLE

TABLE = {
    (RUNNING, RUNNING): Verdict.BOTH,
    (RUNNING, PAUSED): Verdict.SOURCE,
    (RUNNING, OFF): Verdict.SOURCE,
    (RUNNING, UNREACHABLE): Verdict.SOURCE,
    (PAUSED, RUNNING): Verdict.DESTINATION,
    (PAUSED, PAUSED): Verdict.SOURCE_PAUSED,
    (PAUSED, OFF): Verdict.SOURCE_PAUSED,
    (PAUSED, UNREACHABLE): Verdict.UNKNOWN,
    (OFF, RUNNING): Verdict.DESTINATION,
    (OFF, PAUSED): Verdict.DESTINATION_PAUSED,
    (OFF, OFF): Verdict.NOWHERE,
    (OFF, UNREACHABLE): Verdict.UNKNOWN,
    (UNREACHABLE, RUNNING): Verdict.DESTINATION,
    (UNREACHABLE, PAUSED): Verdict.UNKNOWN,
    (UNREACHABLE, OFF): Verdict.UNKNOWN,
    (UNREACHABLE, UNREACHABLE): Verdict.UNKNOWN,
}


@pytest.mark.parametrize(("source", "destination"), list(itertools.product(Seen, Seen)))
def test_the_table(source: Seen, destination: Seen) -> None:
    assert decide(source, destination) is TABLE[source, destination]


def test_nothing_may_be_resumed_where_a_host_is_silent() -> None:
    resumable = {Verdict.SOURCE_PAUSED, Verdict.DESTINATION_PAUSED}
    assert not any(verdict in resumable for seen, verdict in TABLE.items() if UNREACHABLE in seen)


class Says:
    """A host that gives one answer."""

    name = "host"

    def __init__(self, state: GuestState | None, code: str = "") -> None:
        self.state = state
        self.code = code

    async def call(self, operation: Operation[R], *, timeout_s: float = 30.0) -> R:
        assert isinstance(operation, ShowGuest)
        assert timeout_s <= 30
        if self.state is None:
            raise Problem(self.code, "it says so")
        return Guest(name=operation.guest, uuid="u", host="host", state=self.state)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        (Says(GuestState.RUNNING), RUNNING),
        (Says(GuestState.PAUSED), PAUSED),
        (Says(GuestState.OFF), OFF),
        (Says(None, "guest-unknown"), OFF),
        (Says(None, "host-unreachable"), UNREACHABLE),
        (Says(None, "libvirt-unreachable"), UNREACHABLE),
        (Says(None, "libvirt-failed"), UNREACHABLE),
        (Says(None, "stale-controller"), UNREACHABLE),
    ],
)
def test_an_answer_that_says_nothing_of_the_guest_is_none(host: Host, seen: Seen) -> None:
    assert run_virtually(look(host, "web")) is seen


def test_both_are_asked() -> None:
    verdict = run_virtually(locate(Says(GuestState.OFF), Says(GuestState.PAUSED), "web"))
    assert verdict is Verdict.DESTINATION_PAUSED
