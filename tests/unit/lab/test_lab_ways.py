"""The paths of `vferry lab bench`: what is laid for each is taken back, whatever fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vferry.cli import lab_bench
from vferry.lab import guests, guestxml, owner, relays, ways
from vferry.lab.lab import Lab
from vferry.lab.topology import STANDBYS, Setup
from vferry.model.problem import Problem
from vferry.plan.nic_plan import NicTarget
from vferry.trial import echoes

MAC = ways.GUEST.mac


class FakeLab(Lab):
    """A lab that is up, or not."""

    def __init__(self, *, alive: bool = True, relay: bool = True) -> None:
        self._alive, self._relay = alive, relay
        self.folder = Path("/nonexistent")

    def alive(self) -> bool:
        return self._alive

    def setup(self) -> Setup:
        return Setup(relay=self._relay)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the host and the guest, in a word each; nothing of it is."""
    said: list[str] = []

    def do(_lab: Lab, _host: str, script: str, _given: str = "") -> str:
        said.append(" ".join(script.split()[:2]))
        return "<domain/>"

    def mark(*_: object) -> int:
        said.append("mark")
        return 0

    def move(_host: str, _guest: object, to: NicTarget, _tell: object) -> None:
        said.append(f"to {to}")

    monkeypatch.setattr(relays, "do", do)
    monkeypatch.setattr(relays, "mark", mark)
    monkeypatch.setattr(relays, "unmark", lambda *_: said.append("unmark"))
    monkeypatch.setattr(relays, "_enable", lambda _host, kind, _tell: said.append(f"enable {kind}"))
    monkeypatch.setattr(relays, "_disable", lambda *_: said.append("disable"))
    monkeypatch.setattr(relays, "_move", move)
    monkeypatch.setattr(guests, "start", lambda _lab, wanted: said.append(f"start {wanted[0].name}"))
    return said


def lay(name: str) -> None:
    with ways.laid(FakeLab(), "host1", name, print) as address:
        assert address == ways.WAYS[name].guest.address
        raise InterruptedError


ON, OFF = ["start guest2"], ["virsh destroy"]
BACK = ["to virtio", "cat >"]
LAID = {
    "direct": ["enable direct", "virsh dumpxml", "to relay", *ON, *OFF, *BACK, "disable", "systemctl restart"],
    "switched": [
        *("mark", "enable switched", "virsh dumpxml", "to relay", *ON),
        *(*OFF, *BACK, "disable", "systemctl restart", "unmark"),
    ],
    "bridge": [*ON, *OFF],
    "macvtap": ["start macvtap1", *OFF],
    "vf": ["virsh dumpxml", "to vf", *ON, *OFF, *BACK],
}


@pytest.mark.parametrize("name", ways.WAYS)
def test_a_path_is_taken_back_where_its_measurement_fails(name: str, done: list[str]) -> None:
    with pytest.raises(InterruptedError):
        lay(name)
    assert done == LAID[name]


@pytest.mark.parametrize("failing", ["_enable", "_move"])
def test_a_path_that_cannot_be_laid_is_taken_back(
    failing: str, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    working = getattr(relays, failing)

    def fails_once(*arguments: Any) -> None:
        monkeypatch.setattr(relays, failing, working)
        raise Problem("host-unreachable", "It does not answer")

    monkeypatch.setattr(relays, failing, fails_once)
    with pytest.raises(Problem, match="does not answer"):
        lay("switched")
    assert done[-3:] == ["disable", "systemctl restart", "unmark"]
    assert ("to virtio" in done) == (failing == "_move")


@pytest.mark.parametrize(
    ("lab", "what"),
    [(FakeLab(alive=False), "vferry lab up --relay"), (FakeLab(relay=False), "vferry lab down; vferry lab up --relay")],
)
def test_a_lab_that_cannot_have_a_relay_is_refused(lab: FakeLab, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "refuse_another", lambda *_, **__: None)
    with pytest.raises(Problem) as raised:
        ways.ready(lab, ["direct"])
    assert what in raised.value.remedy


def test_guests_must_be_on_one_host() -> None:
    assert ways.at_one_host({"guest2": "host2", "macvtap1": "host2"}) == "host2"
    with pytest.raises(Problem, match="vferry migrate macvtap1 host2"):
        ways.at_one_host({"guest2": "host2", "macvtap1": "host1"})


@pytest.mark.parametrize("standby", STANDBYS, ids=lambda standby: standby.name)
def test_a_guest_that_was_moved_is_refused(standby: Any) -> None:
    own = guestxml.definition(ways.GUEST, "pc-q35-10.0", standby)
    ways.refuse_moved(own)
    with pytest.raises(Problem, match=f"vferry guest nic guest2 {MAC} --to virtio"):
        ways.refuse_moved(
            own.replace("interface type='bridge'", "interface type='vhostuser'").replace(
                "interface type='direct'", "interface type='vhostuser'"
            )
        )


def test_the_command_goes_on_where_it_stopped_and_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid: list[str] = []

    @contextmanager
    def lay(_lab: Lab, _host: str, name: str, _tell: object) -> Iterator[str]:
        laid.append(name)
        yield "10.9.0.12"

    @contextmanager
    def alone(_: Lab) -> Iterator[None]:
        yield

    row = {"pps": 3000, "cores": 0.5, "pps_per_core": 6000, "guest_cores": 0.3, "lost_percent": 0.0}
    row |= {"rtt_us_median": 9000.0, "rtt_us_p99": 20000.0}
    monkeypatch.setattr(lab_bench, "Lab", FakeLab)
    monkeypatch.setattr(ways, "ready", lambda *_: "host1")
    monkeypatch.setattr(ways, "alone", alone)
    monkeypatch.setattr(ways, "laid", lay)
    monkeypatch.setattr(relays, "do", lambda *_: "6.12\n")
    monkeypatch.setattr(echoes, "figures", lambda _ground, _address, sizes, *_: [row] * len(sizes))
    words = ["--runs", "1", "--results", str(tmp_path / "relay-lab.json")]
    first = CliRunner().invoke(lab_bench.command, words)
    assert first.exit_code == 0, first.output
    assert laid == list(ways.WAYS)
    assert "1,500 bytes" in first.output
    assert "kpps : vf's" in first.output
    again = CliRunner().invoke(lab_bench.command, ["--runs", "2", "--paths", "bridge", *words[2:]])
    assert again.exit_code == 0, again.output
    assert laid[len(ways.WAYS) :] == ["bridge"]


@pytest.mark.parametrize("words", [("--sizes", "63"), ("--paths", "direct,other")])
def test_nonsense_is_refused(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_bench, "Lab", FakeLab)
    assert CliRunner().invoke(lab_bench.command, words).exit_code == 2
