"""A guest's free memory is taken and given back, and whatever fails in between, the guest has all that it had."""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fake_libvirt import PAUSED, FakeAgents, FakeBalloon, FakeDomain, FakeLibvirt
from xml_samples import MEDIATED, VF_INTERFACE, domain

from vferry.host import balloon
from vferry.host.balloon import FILE, Balloons, Before
from vferry.host.guest_memory import free_bytes
from vferry.host.hypervisor import Hypervisor
from vferry.model.problem import Problem

KIB_OF_MIB = 1024
MEMORY, FREE = 1024 * KIB_OF_MIB, 600 * KIB_OF_MIB
TAKEN = FREE - MEMORY // 16
OPERATION = "op-1"
BALLOON = "<memballoon model='virtio'><stats period='10'/></memballoon>"


class Killed(BaseException):
    """The agent's process ends."""


class Host:
    """A host with a guest, and agents that follow one another."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.guest = FakeDomain(live=domain(BALLOON), persistent=domain())
        self.guest.balloon = self.balloon = FakeBalloon(MEMORY, FREE)
        self.balloon.period = 10
        self.library = FakeLibvirt(self.guest)
        self.balloons = self.agent()
        self.file = runtime / OPERATION / FILE

    def agent(self) -> Balloons:
        return Balloons(Hypervisor(library=self.library, agent_library=FakeAgents()), self.runtime)

    def is_killed_in_between(self) -> None:
        """The agent is gone while the balloon holds the guest's memory."""

        def look() -> None:
            if self.balloon.actual < self.balloon.memory:
                raise Killed

        self.balloon.on_move = look
        real, balloon.Balloons._put_back = balloon.Balloons._put_back, lambda *_: False  # type: ignore[method-assign]
        try:
            with pytest.raises(Killed):
                self.agent().reclaim(OPERATION, "guest1")
        finally:
            balloon.Balloons._put_back = real  # type: ignore[method-assign]
        self.balloon.on_move = lambda: None
        assert self.balloon.target == MEMORY - TAKEN
        assert self.balloon.period == 1

    def is_as_it_was(self) -> bool:
        found = self.balloon
        return (found.actual, found.target, found.period) == (found.memory, found.memory, 10) and not self.file.exists()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(balloon, "POLL_S", 0.001)
    monkeypatch.setattr(balloon, "TELLS_S", 0.1)
    monkeypatch.setattr(balloon, "STANDS_S", 0.05)
    return Host(tmp_path / "run")


@pytest.mark.parametrize("step", [MEMORY, MEMORY // 20])
def test_what_is_free_is_taken_but_for_a_reserve_and_given_back(host: Host, step: int) -> None:
    host.balloon.step = step
    done = host.balloons.reclaim(OPERATION, "guest1")
    assert (done.changed, done.detail) == (True, f"{TAKEN // KIB_OF_MIB} MiB")
    assert host.balloon.least == MEMORY - TAKEN
    assert host.is_as_it_was()
    assert not host.balloons.give_back(OPERATION).changed


def test_what_the_balloon_held_before_it_holds_again(host: Host) -> None:
    host.balloon.actual = host.balloon.target = MEMORY // 2
    host.balloon.free = MEMORY // 4
    assert host.balloons.reclaim(OPERATION, "guest1").changed
    assert host.balloon.least == MEMORY // 4 + MEMORY // 32
    assert host.balloon.actual == MEMORY // 2


def test_a_balloon_that_gets_only_so_far_is_taken_at_that(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the guest's own programs take what was free, or its driver gives way to them."""
    monkeypatch.setattr(balloon, "MOVES_S", 0.05)
    host.balloon.step = 16
    host.balloons.reclaim(OPERATION, "guest1")
    assert MEMORY - TAKEN < host.balloon.least < MEMORY
    assert host.balloon.target == MEMORY
    assert not host.file.exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda host: put(host, "<memballoon model='none'/>"), "it has no balloon"),
        (lambda host: put(host, ""), "it has no balloon"),
        (lambda host: put(host, BALLOON + VF_INTERFACE), "QEMU keeps all of its memory"),
        (lambda host: put(host, BALLOON + MEDIATED), "QEMU keeps all of its memory"),
        (lambda host: backed(host, "<hugepages/>"), "its memory is of huge pages"),
        (lambda host: backed(host, "<locked/>"), "its memory is locked"),
        (lambda host: setattr(host.balloon, "silent", True), "it does not say"),
        (lambda host: setattr(host.balloon, "free", MEMORY // 16 + 8 * KIB_OF_MIB), "it has next to nothing free"),
        (lambda host: setattr(host.balloon, "step", 0), "its balloon does not move"),
        (lambda host: refuse(host, "setMemoryFlags", MEMORY - TAKEN), "Asking its balloon: no setMemoryFlags now"),
        (lambda host: refuse(host, "setMemoryStatsPeriod", 1), "Asking its balloon: no setMemoryStatsPeriod now"),
    ],
)
def test_where_nothing_can_be_taken_that_is_said_and_nothing_is_changed(
    host: Host, change: Callable[[Host], None], why: str
) -> None:
    change(host)
    done = host.balloons.reclaim(OPERATION, "guest1")
    assert not done.changed
    assert done.detail.startswith(f"nothing: {why}")
    assert host.is_as_it_was()


def put(host: Host, devices: str) -> None:
    host.guest.live_xml = domain(devices)


def backed(host: Host, how: str) -> None:
    host.guest.live_xml = domain(BALLOON).replace("<os>", f"<memoryBacking>{how}</memoryBacking><os>")


def refuse(host: Host, name: str, value: int) -> None:
    host.balloon.refuses = lambda asked, with_value: (asked, with_value) == (name, value)


def test_a_guest_that_stands_still_keeps_what_it_has(host: Host) -> None:
    host.guest.state_ = (PAUSED, 1)
    host.balloon.silent, host.balloon.step = True, 0
    assert not host.balloons.reclaim(OPERATION, "guest1").changed
    assert host.is_as_it_was()


def test_a_guest_that_says_it_has_more_free_than_memory_is_not_believed(host: Host) -> None:
    host.balloon.free = 1 << 63
    assert host.balloons.reclaim(OPERATION, "guest1").changed
    assert host.balloon.least == MEMORY // 16


@pytest.mark.parametrize("after", ["reclaim", "give_back", "give_all_back", "release"])
def test_an_agent_that_is_killed_in_between_leaves_it_to_the_next(host: Host, after: str) -> None:
    host.is_killed_in_between()
    before = msgspec.json.decode(host.file.read_bytes(), type=Before)
    assert before == Before(guest="guest1", run=7, period=10, held=0)
    next_one = host.agent()
    calls: dict[str, Callable[[], object]] = {
        "reclaim": lambda: next_one.reclaim(OPERATION, "guest1"),
        "give_back": lambda: next_one.give_back(OPERATION),
        "give_all_back": next_one.give_all_back,
        "release": lambda: next_one.release(OPERATION),
    }
    calls[after]()
    assert host.is_as_it_was()


def test_memory_that_was_plugged_meanwhile_is_the_guest_s(host: Host) -> None:
    host.is_killed_in_between()
    host.balloon.memory += MEMORY
    host.balloon.actual += MEMORY
    assert host.agent().give_back(OPERATION).changed
    assert host.balloon.actual == 2 * MEMORY


@pytest.mark.parametrize("gone", ["off", "another run", "undefined"])
def test_a_guest_that_has_ended_needs_nothing_back(host: Host, gone: str) -> None:
    host.is_killed_in_between()
    if gone == "another run":
        host.guest.run += 1
    elif gone == "off":
        host.guest.live_xml = None
    else:
        host.library.domains.clear()
    host.balloon.refuses = lambda *_: True
    assert host.agent().give_back(OPERATION).changed
    assert not host.file.exists()


def test_what_libvirt_does_not_give_back_is_a_problem_and_is_given_back_later(host: Host) -> None:
    refuse(host, "setMemoryFlags", MEMORY)
    with pytest.raises(Problem, match="Giving a guest its memory back") as caught:
        host.balloons.reclaim(OPERATION, "guest1")
    assert caught.value.code == "libvirt-failed"
    for call in (host.balloons.give_back, host.balloons.release):
        with pytest.raises(Problem):
            call(OPERATION)
    host.balloons.give_all_back()
    assert host.file.exists()
    host.balloon.refuses = lambda *_: False
    assert host.balloons.give_back(OPERATION).changed
    assert host.is_as_it_was()


def test_a_guest_that_ends_meanwhile_is_no_problem_of_its_balloon(host: Host) -> None:
    def end() -> None:
        if host.balloon.target < MEMORY:
            host.guest.live_xml = None

    host.balloon.on_move = end
    host.balloon.step = 16
    assert not host.balloons.reclaim(OPERATION, "guest1").changed
    assert not host.file.exists()
    with pytest.raises(Problem) as caught:
        host.balloons.reclaim(OPERATION, "guest1")
    assert caught.value.code == "guest-off"


def test_of_one_operation_one_call_at_a_time(host: Host) -> None:
    """A controller that took over asks again while the call of the last one goes on."""
    squeezed, go_on = threading.Event(), threading.Event()

    def look() -> None:
        if host.balloon.actual < MEMORY:
            squeezed.set()
            go_on.wait(5)

    host.balloon.on_move = look
    threads = [threading.Thread(target=host.balloons.reclaim, args=(OPERATION, "guest1"))]
    threads[0].start()
    assert squeezed.wait(5)
    threads.append(threading.Thread(target=host.balloons.give_back, args=(OPERATION,)))
    threads[1].start()
    threads[1].join(0.05)
    assert threads[1].is_alive()
    assert host.balloon.target == MEMORY - TAKEN
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert host.is_as_it_was()


def test_an_operation_that_is_none_has_left_nothing(host: Host) -> None:
    host.balloons.release("../claims")


def test_what_a_guest_has_free_is_known_where_it_is_asked_anyway(host: Host) -> None:
    assert free_bytes(host.guest) == FREE * 1024
    host.balloon.silent = True
    assert free_bytes(host.guest) is None
    told = {"unused": 7, "last_update": 1}
    host.guest.memoryStats = lambda: told  # type: ignore[method-assign]
    assert free_bytes(host.guest) is None, "that is long ago"
