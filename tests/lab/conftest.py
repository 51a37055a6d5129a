"""The lab, for the tests that need it: up before them, and as they found it after each."""

from collections.abc import Generator, Iterator

import pytest

from lab.operator import EmulatorLostGuestError, Scene, vferry
from vferry.lab import guests
from vferry.lab.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """This clone's lab, up. `make test` brings it up and takes it down around all tests."""
    found = Lab()
    assert found.alive(), "the lab is down; bring it up with: vferry lab up"
    return found


@pytest.fixture
def scene(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The guest that a test's marker `guest` names, else guest1: running alone, whole, and so again at the end."""
    marker = request.node.get_closest_marker("guest")
    guest = guests.named(marker.args[0] if marker else "guest1")
    guests.stop_others(lab, [guest])  # an emulated CPU has none to spare
    lab.guest(guest.name)
    scene = Scene(lab, guest.name)
    try:
        yield scene
        if not scene.lost:
            scene.assert_nothing_left()
    finally:
        if scene.lost:
            scene.start_anew()
        vferry("operation", "recover")  # for the next test's sake, where this one has failed


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Tells a guest that the emulator has lost from one that vferry has: the test is then run again."""
    try:
        return (yield)
    except Exception as error:
        scene = pyfuncitem.funcargs.get("scene")
        if isinstance(scene, Scene) and (where := scene.find_lost()):
            raise EmulatorLostGuestError(f"{scene.guest} spins on {where}, with interrupts off") from error
        raise


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How each fault ended, as a table."""
    rows = [
        (test.nodeid.partition("[")[2].rstrip("]") or test.nodeid.rpartition("::")[2], dict(test.user_properties), kind)
        for kind in ("passed", "failed")
        for test in terminalreporter.getreports(kind)
        if dict(test.user_properties).get("ended")
    ]
    if not rows:
        return
    width = max(len(name) for name, _, _ in rows)
    terminalreporter.section("what became of the guest")
    for name, properties, kind in sorted(rows):
        terminalreporter.line(f"{name.replace('_', ' '):<{width}}  {properties['ended']:<10}  {kind}")
