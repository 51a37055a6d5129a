"""The controller's settings and where its state lives."""

from pathlib import Path

import pytest

from vferry.controller.configuration import EXAMPLE, ControllerConfiguration, read_controller_configuration
from vferry.controller.state import State, find_state
from vferry.model.compression import Codec
from vferry.model.problem import Problem


def read(directory: Path, own: str | None = None, system: str | None = None) -> ControllerConfiguration:
    state = State(root=directory)
    if own is not None:
        state.configuration.write_text(own)
    if system is not None:
        (directory / "controller.toml").write_text(system)
    return read_controller_configuration(state, directory / "controller.toml")


def test_all_is_optional(tmp_path: Path) -> None:
    configuration = read(tmp_path)
    assert configuration == ControllerConfiguration()
    assert configuration.probe.rate_hz == 1000
    assert configuration.migration.bandwidth is None
    assert configuration.migration.codec is Codec.NONE


def test_the_example_is_read(tmp_path: Path) -> None:
    migration = read(tmp_path, own=EXAMPLE).migration
    assert (migration.codec, migration.streams, migration.delta_memory) == (Codec.ZSTD, 4, 1024)


def test_the_state_folders_file_goes_over_the_systems_key_by_key(tmp_path: Path) -> None:
    configuration = read(
        tmp_path,
        own="[migration]\nstreams = 2\n",
        system="[migration]\nstreams = 8\ndeadline_s = 60\n[probe]\nrate_hz = 100\n",
    )
    assert configuration.migration.streams == 2
    assert configuration.migration.deadline_s == 60
    assert configuration.probe.rate_hz == 100


def test_an_error_names_the_file_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"controller\.toml, line 2: probe\.rate_hz") as caught:
        read(tmp_path, own="[probe]\nrate_hz = 10\n", system="[probe]\nrate_hz = 0\n")
    assert caught.value.remedy == "Write for example: [probe] rate_hz = 1000"
    with pytest.raises(Problem, match=r"config\.toml, line 1: there is no setting prob"):
        read(tmp_path, own="[prob]\n", system="")


def test_where_the_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFERRY_STATE", str(tmp_path / "named"))
    state = find_state()
    assert state.root == tmp_path / "named"
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert state.hosts == tmp_path / "named" / "hosts.json"

    monkeypatch.delenv("VFERRY_STATE")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert find_state().root == tmp_path / "xdg" / "vferry"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_state().root == tmp_path / "home" / ".local" / "state" / "vferry"


def test_names_that_do_not_meet_the_agents(tmp_path: Path) -> None:
    state = State(root=tmp_path)
    ours = {path.name for path in (state.hosts, state.pki, state.operations, state.journal, state.sockets)}
    assert ours.isdisjoint({"claims", "pki", "agent.lock"})
