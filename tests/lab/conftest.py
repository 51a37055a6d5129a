"""The lab, for the tests that need it: up before them, and as they found it after each."""

from collections.abc import Iterator

import pytest

from lab.operator import Scene
from vferry.lab.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """This clone's lab, up. `make test` brings it up and takes it down around all tests."""
    found = Lab()
    assert found.alive(), "the lab is down; bring it up with: vferry lab up"
    return found


@pytest.fixture
def scene(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The guest that a test's marker `guest` names, else guest1: running, whole, and so again at the end."""
    marker = request.node.get_closest_marker("guest")
    name = marker.args[0] if marker else "guest1"
    lab.guest(name)
    scene = Scene(lab, name)
    yield scene
    scene.assert_nothing_left()
