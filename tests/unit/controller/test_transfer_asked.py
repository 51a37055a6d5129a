"""What the operator and the configuration say together of the copy."""

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from vferry.controller import migrate
from vferry.controller.configuration import MigrationSettings
from vferry.controller.migrate import Request, asked_transfer
from vferry.controller.state import State
from vferry.model.compression import Codec
from vferry.model.problem import Problem
from vferry.plan.facts import Wishes
from vferry.plan.schedule import Abort, Pause, Schedule

REQUEST = Request(guest="guest1", destination="host2")
COMPRESSING = MigrationSettings(codec=Codec.ZSTD, streams=4, delta_memory=256)


def test_the_configurations_defaults_are_taken() -> None:
    found = asked_transfer(REQUEST, COMPRESSING)
    assert (found.policy, found.codec, found.parallel, found.delta_memory) == ("multifd", Codec.ZSTD, 4, 256)
    assert asked_transfer(REQUEST, MigrationSettings()).codec is Codec.NONE


def test_what_the_command_says_goes_over_them() -> None:
    found = asked_transfer(structs.replace(REQUEST, codec=Codec.LZ4, streams=1, delta_memory=0), COMPRESSING)
    assert (found.codec, found.parallel, found.delta_memory) == (Codec.LZ4, 1, 0)
    assert asked_transfer(structs.replace(REQUEST, codec=Codec.NONE, streams=1), COMPRESSING).policy == "plain"


@pytest.mark.parametrize(
    "said",
    [
        {"policy": "plain", "streams": 2},
        {"delta_memory": 64},
        {"policy": "multifd-zstd", "codec": Codec.LZ4},
        {"policy": "multifd-zstd", "delta_memory": 64},
        {"policy": "xbzrle", "streams": 2},
        {"policy": "plain", "codec": Codec.ZSTD, "delta_memory": 64},
        {"resident": True},
        {"resident": True, "policy": "plain", "codec": Codec.ZSTD},
        {"resident": True, "codec": Codec.ZSTD, "delta_memory": 0},
        {"direct": True, "codec": Codec.ZSTD},
    ],
)
def test_what_would_be_passed_over_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(Problem) as caught:
        asked_transfer(structs.replace(REQUEST, **said), MigrationSettings())
    assert caught.value.code == "option-unused"


@pytest.mark.parametrize("name", ["reclaim_free", "direct"])
@pytest.mark.parametrize(
    ("asked", "configured", "taken"),
    [(None, False, False), (None, True, True), (False, True, False), (True, False, True)],
)
def test_the_command_goes_over_the_configuration(name: str, asked: bool | None, configured: bool, taken: bool) -> None:  # noqa: FBT001
    settings = structs.replace(MigrationSettings(), **{name: configured})
    assert getattr(asked_transfer(structs.replace(REQUEST, **{name: asked}), settings), name) is taken


def test_what_is_resident_is_left_out_only_where_it_can_be() -> None:
    everywhere = structs.replace(COMPRESSING, resident=True)
    assert asked_transfer(REQUEST, everywhere).resident
    assert asked_transfer(structs.replace(REQUEST, resident=True), COMPRESSING).resident
    assert not asked_transfer(REQUEST, COMPRESSING).resident
    assert not asked_transfer(structs.replace(REQUEST, resident=False), everywhere).resident
    assert not asked_transfer(structs.replace(REQUEST, codec=Codec.NONE, streams=1), everywhere).resident


ALL = ("throttle", "pause 1", "pause 5", "abort")


@pytest.mark.parametrize(
    ("configured", "asked", "found"),
    [
        ({}, {}, ()),
        ({"when_stalled": ALL}, {}, ALL),
        ({"when_stalled": (), "max_pause_s": 2}, {}, ()),
        ({"max_pause_s": 2, "throttle": True}, {}, ("throttle", "pause 2")),
        ({}, {"when_stalled": (Abort(),)}, ("abort",)),
        ({"when_stalled": ALL}, {"when_stalled": ()}, ()),
        ({"max_pause_s": 2, "throttle": True}, {"when_stalled": (Abort(),)}, ("abort",)),
        ({}, {"max_pause_s": 2.5}, ("pause 2.5",)),
        ({}, {"throttle": True}, ("throttle",)),
        ({"when_stalled": ALL}, {"max_pause_s": 0.5, "throttle": False}, ("pause 0.5", "abort")),
    ],
)
def test_what_may_be_done_when_the_copy_stalls(
    configured: dict[str, Any], asked: dict[str, Any], found: tuple[str, ...]
) -> None:
    transfer = asked_transfer(structs.replace(REQUEST, **asked), MigrationSettings(**configured))
    assert tuple(map(str, transfer.when_stalled)) == found


@pytest.mark.parametrize(("guest", "found"), [("guest1", (Abort(),)), ("guest2", (Pause(1000),))])
async def test_a_guest_has_its_own_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guest: str, found: Schedule
) -> None:
    state = State(root=tmp_path)
    state.configuration.write_text(
        '[migration]\nwhen_stalled = ["pause 1"]\n[guests.guest1]\nwhen_stalled = ["abort"]\n'
    )

    async def look(_state: State, _guest: str, _host: str, wishes: Wishes, *, measured: bool) -> None:
        assert not measured
        raise Problem("seen", str(wishes.transfer.when_stalled))

    monkeypatch.setattr(migrate, "survey", look)
    with pytest.raises(Problem) as caught:
        await migrate.prepare(state, structs.replace(REQUEST, guest=guest))
    assert caught.value.message == str(found)


def test_how_long_the_guest_may_be_paused() -> None:
    usual = asked_transfer(REQUEST, MigrationSettings())
    assert (usual.downtime_ms, usual.most_downtime_ms, usual.throttle) == (300, 300, False)
    configured = MigrationSettings(max_pause_s=2, throttle=True)
    longer = asked_transfer(REQUEST, configured)
    assert (longer.downtime_ms, longer.most_downtime_ms, longer.throttle) == (300, 2000, True)
    shorter = asked_transfer(structs.replace(REQUEST, max_pause_s=0.05, throttle=False), configured)
    assert (shorter.downtime_ms, shorter.most_downtime_ms, shorter.throttle) == (50, 50, False)


@pytest.mark.parametrize(("asked", "configured"), [(None, False), (None, True), (False, True)])
def test_what_is_compressed_goes_through_the_gateways(asked: bool | None, configured: bool) -> None:  # noqa: FBT001
    compressing = MigrationSettings(direct=configured, codec=Codec.ZSTD)
    assert not asked_transfer(structs.replace(REQUEST, direct=asked), compressing).direct
