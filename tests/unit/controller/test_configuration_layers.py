"""The controller's settings and where its state lives."""

from pathlib import Path

import pytest

from vferry.controller.configuration import EXAMPLE, ControllerConfiguration, read_controller_configuration
from vferry.controller.state import State, find_state
from vferry.model.compression import Codec
from vferry.model.problem import Problem
from vferry.plan.schedule import Abort, Pause, Throttle


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
    assert migration.schedule == (Pause(1000), Pause(5000))


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


def test_a_guest_may_have_a_schedule_of_its_own(tmp_path: Path) -> None:
    system = '[migration]\nwhen_stalled = ["pause 1"]\nstreams = 4\n[guests.db1]\nwhen_stalled = []\n'
    own = '[guests."web 2"]\nwhen_stalled = ["throttle", "pause 30", "abort"]\n'
    configuration = read(tmp_path, own=own, system=system)
    schedules = {name: configuration.migration_of(name).schedule for name in ("web1", "db1", "web 2")}
    assert schedules == {
        "web1": (Pause(1000),),
        "db1": (),
        "web 2": (Throttle(), Pause(30_000), Abort()),
    }
    assert configuration.migration_of("db1").streams == 4


@pytest.mark.parametrize(
    ("written", "said", "remedy"),
    [
        (
            '[migration]\nwhen_stalled = ["pause 1", "give-up"]\n',
            "line 2: migration.when_stalled: 'give-up' is no action: write throttle, pause SECONDS (",
            'Write for example: [migration] when_stalled = ["pause 1", "pause 5"]',
        ),
        (
            '[migration]\n[guests.db1]\n[guests.db2]\nwhen_stalled = ["pause 1", "throttle"]\n',
            "line 4: guests.db2.when_stalled: throttle stands first, and once: QEMU cannot be told to in the middle",
            'Write for example: [guests.db2] when_stalled = ["throttle", "pause 30", "abort"]',
        ),
        (
            '[migration]\nwhen_stalled = ["pause 1", 5]\n',
            "line 2: migration.when_stalled.1: Expected `str`, got `int`",
            'Write for example: [migration] when_stalled = ["pause 1", "pause 5"]',
        ),
        (
            "[guests.db1]\nthrottle = true\n",
            "line 2: there is no setting guests.db1.throttle",
            "Remove it; known here: when_stalled",
        ),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_to_write(
    tmp_path: Path, written: str, said: str, remedy: str
) -> None:
    with pytest.raises(Problem) as caught:
        read(tmp_path, own=written)
    assert f"config.toml, {said}" in caught.value.message
    assert caught.value.remedy == remedy


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
