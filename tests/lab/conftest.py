"""The lab, for the tests that need it: up before them, and as they found it after each."""

from collections.abc import Iterator

import pytest

from lab.operator import Scene, vferry
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
        scene.assert_nothing_left()
    finally:
        vferry("operation", "recover")  # for the next test's sake, where this one has failed


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
