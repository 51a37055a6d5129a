"""What `vferry migrate` makes of its words."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from vferry.cli import check, migrate
from vferry.controller.migrate import Request
from vferry.model.compression import Codec
from vferry.plan.plan import NetworkMode
from vferry.plan.schedule import Abort, Pause, Schedule, Throttle


class Asked(Exception):  # noqa: N818 - an end, not an error
    """Carries the request that would be prepared."""

    def __init__(self, request: Request, *, estimated: bool) -> None:
        super().__init__()
        self.request = request
        self.estimated = estimated


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Any:
    async def prepare(_state: object, request: Request, *, estimated: bool = False) -> None:
        raise Asked(request, estimated=estimated)

    monkeypatch.setattr("vferry.controller.migrate.prepare", prepare)
    monkeypatch.setattr(check, "prepare", prepare)

    def ask(*words: str, command: click.Command = migrate.command, estimated: bool = False) -> Request:
        result = CliRunner().invoke(command, ["guest1", "host2", *words])
        assert isinstance(result.exception, Asked), result.output
        assert result.exception.estimated is estimated
        return result.exception.request

    return ask


@pytest.mark.parametrize("mode", ["switch", "detach", "virtio"])
def test_a_mode_is_named_as_the_report_names_it(ask: Any, mode: str) -> None:
    assert ask("--network", mode).mode is NetworkMode(mode)


def test_without_a_mode_it_is_chosen(ask: Any) -> None:
    assert ask().mode is None
    assert ask("--network", "auto").mode is None


def test_a_check_takes_the_same_words(ask: Any) -> None:
    words = ("--codec", "auto", "--bandwidth", "50M", "--deadline", "60", "--network", "switch")
    assert ask(*words, command=check.command, estimated=True) == ask(*words, "--dry-run", estimated=True) == ask(*words)


@pytest.mark.parametrize(("words", "asked"), [((), None), (("--direct",), True), (("--no-direct",), False)])
def test_qemu_sends_by_itself_where_that_is_asked_for(ask: Any, words: tuple[str, ...], asked: bool | None) -> None:  # noqa: FBT001
    assert ask(*words).direct is asked
    assert ask(*words, command=check.command, estimated=True).direct is asked


@pytest.mark.parametrize(("words", "asked"), [((), None), (("--reclaim-free",), True), (("--no-reclaim-free",), False)])
def test_what_is_free_is_taken_where_that_is_asked_for(ask: Any, words: tuple[str, ...], asked: bool | None) -> None:  # noqa: FBT001
    assert ask(*words).reclaim_free is asked
    assert ask(*words, command=check.command, estimated=True).reclaim_free is asked


def test_how_the_memory_goes(ask: Any) -> None:
    request = ask("--codec", "zstd", "--streams", "3", "--delta-memory", "64", "--transfer", "plain")
    assert (request.codec, request.streams, request.delta_memory, request.policy) == (Codec.ZSTD, 3, 64, "plain")
    request = ask()
    assert (request.codec, request.streams, request.delta_memory, request.policy) == (None, None, None, "auto")


@pytest.mark.parametrize(
    "words", [("--codec", "gzip"), ("--streams", "0"), ("--streams", "17"), ("--delta-memory", "-1")]
)
@pytest.mark.parametrize("command", [migrate.command, check.command])
def test_what_no_gateway_can_do_is_refused(command: click.Command, words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(command, ["guest1", "host2", *words]).exit_code == 2


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("none", ()),
        ("pause 2", (Pause(2000),)),
        ("throttle, pause 1,pause 5, abort", (Throttle(), Pause(1000), Pause(5000), Abort())),
    ],
)
def test_what_may_be_done_when_the_copy_stalls(ask: Any, written: str, found: Schedule) -> None:
    assert ask("--when-stalled", written).when_stalled == found
    assert ask().when_stalled is None


def test_the_short_forms_of_it(ask: Any) -> None:
    request = ask("--max-pause", "2.5", "--throttle")
    assert (request.when_stalled, request.max_pause_s, request.throttle) == (None, 2.5, True)
    assert ask("--no-throttle").throttle is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--when-stalled", "pause 1, pray"), "'pray' is no action: write throttle, pause SECONDS"),
        (("--when-stalled", "pause 1, throttle"), "throttle stands first"),
        (("--when-stalled", ""), "'' is no action"),
        (("--when-stalled", "abort", "--max-pause", "2"), "--when-stalled says all of it"),
        (("--when-stalled", "none", "--no-throttle"), "--when-stalled says all of it"),
    ],
)
@pytest.mark.parametrize("command", [migrate.command, check.command])
def test_what_cannot_be_done_when_it_stalls_is_refused(
    command: click.Command, words: tuple[str, ...], says: str
) -> None:
    refused = CliRunner().invoke(command, ["guest1", "host2", *words], terminal_width=200)
    assert refused.exit_code == 2
    assert says in refused.output


def test_whether_it_is_measured(ask: Any) -> None:
    assert ask().measured
    assert not ask("--no-probe").measured
    assert ask("--probe", "10.0.0.1").probe_address == "10.0.0.1"
    assert (ask().probe_tcp, ask("--probe-tcp", "7").probe_tcp) == (None, 7)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--no-probe", "--probe", "10.0.0.1"), "--probe and --no-probe contradict"),
        (("--no-probe", "--probe-tcp", "7"), "--probe-tcp and --no-probe contradict"),
        (("--probe-tcp", "0"), "--probe-tcp"),
        (("--probe-tcp", "65536"), "--probe-tcp"),
    ],
)
def test_what_cannot_be_probed_is_refused(words: tuple[str, ...], says: str) -> None:
    refused = CliRunner().invoke(migrate.command, ["guest1", "host2", *words])
    assert refused.exit_code == 2
    assert says in refused.output
