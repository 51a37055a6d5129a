"""What tests of the controller share."""

from pathlib import Path

import pytest

from vferry.controller.state import State


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A controller's, in a folder of its own."""
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return State(root=tmp_path / "state")
