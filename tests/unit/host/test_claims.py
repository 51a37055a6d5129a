"""Claims: exclusive, bounded, fenced, durable."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vferry.host.api import Session
from vferry.host.claims import REMEMBERED, Claims
from vferry.model.host import Claim
from vferry.model.problem import Exit, Problem

T = TypeVar("T")
OPERATIONS = st.sampled_from(["op1", "op2", "op3", "op4"])
EPOCHS = st.integers(1, 4)
GUESTS = st.none() | st.sampled_from(["g1", "g2", "g3"])
VF = st.sampled_from(["0000:01:10.0", "0000:01:10.2", "0000:01:10.4"])
VFS = st.lists(VF, unique=True, max_size=3).map(tuple)


def session(operation: str, epoch: int = 1) -> Session:
    return Session(operation=operation, epoch=epoch)


def attempt(act: Callable[[], T]) -> T | Problem:
    try:
        return act()
    except Problem as problem:
        return problem


class ManyControllers(RuleBasedStateMachine):
    """Controllers that claim, check, release and crash in any order, against what must always hold."""

    @initialize(slots=st.integers(1, 3))
    def start(self, slots: int) -> None:
        self.temporary = TemporaryDirectory()
        self.slots = slots
        self.claims = Claims(Path(self.temporary.name), slots)
        self.highest: dict[str, int] = {}

    @rule(operation=OPERATIONS, epoch=EPOCHS, guest=GUESTS, vfs=VFS)
    def claim(self, operation: str, epoch: int, guest: str | None, vfs: tuple[str, ...]) -> None:
        before = self.claims.all()
        held = attempt(lambda: self.claims.claim(session(operation, epoch), guest, vfs))
        if isinstance(held, Problem):
            assert self.claims.all() == before, "a refused claim must leave nothing behind"
            assert held.code != "stale-controller" or epoch < self.highest[operation]
            return
        assert held.epoch == epoch >= self.highest.get(operation, 0)
        assert guest in (None, held.guest)
        assert not vfs or set(vfs) == set(held.vfs)
        self.highest[operation] = epoch

    @rule(operation=OPERATIONS, epoch=EPOCHS, guest=GUESTS, vf=st.none() | VF)
    def check(self, operation: str, epoch: int, guest: str | None, vf: str | None) -> None:
        held = attempt(lambda: self.claims.check(session(operation, epoch), guest, vf))
        if isinstance(held, Problem):
            assert held.code in ("stale-controller", "not-claimed")
            return
        assert held in self.claims.all()
        assert epoch >= self.highest[operation]
        self.highest[operation] = epoch

    @rule(operation=OPERATIONS, epoch=EPOCHS)
    def release(self, operation: str, epoch: int) -> None:
        released = attempt(lambda: self.claims.release(session(operation, epoch)))
        if isinstance(released, Problem):
            assert released.code == "stale-controller"
            assert epoch < self.highest[operation]
            return
        assert self.claims.of(operation) is None
        if released:
            self.highest[operation] = epoch

    @rule()
    def restart(self) -> None:
        before = set(self.claims.all())
        self.claims = Claims(Path(self.temporary.name), self.slots)
        assert set(self.claims.all()) == before

    @invariant()
    def exclusive_and_bounded(self) -> None:
        if not hasattr(self, "claims"):
            return
        held = self.claims.all()
        assert len(held) <= self.slots
        for things in ([c.guest for c in held], [vf for c in held for vf in c.vfs], [c.operation for c in held]):
            named = [thing for thing in things if thing is not None]
            assert len(named) == len(set(named))

    @invariant()
    def epochs_never_go_back(self) -> None:
        if hasattr(self, "claims"):
            assert all(claim.epoch == self.highest[claim.operation] for claim in self.claims.all())

    def teardown(self) -> None:
        if hasattr(self, "temporary"):
            self.temporary.cleanup()


ManyControllers.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestManyControllers = ManyControllers.TestCase


def test_a_guest_claimed_by_another_names_the_operation_and_what_to_do(tmp_path: Path) -> None:
    claims = Claims(tmp_path, slots=2)
    claims.claim(session("op1"), guest="g1", vfs=("0000:01:10.0",))
    with pytest.raises(Problem) as caught:
        claims.claim(session("op2"), guest="g1")
    assert caught.value.code == "guest-claimed"
    assert caught.value.exit == Exit.REFUSED
    assert "op1" in caught.value.message
    assert "vferry operation show op1" in caught.value.remedy
    assert "vferry operation recover" in caught.value.remedy


@pytest.mark.parametrize("kind", ["chain", "release"])
def test_one_that_no_folder_is_kept_of_is_asked_for_again(tmp_path: Path, kind: str) -> None:
    claims = Claims(tmp_path, slots=2)
    claims.claim(session(f"{kind}-525400aa000b-1"), guest="g1", slot=False)
    with pytest.raises(Problem) as caught:
        claims.claim(session("op2"), guest="g1")
    assert caught.value.remedy.endswith(f"ask again: vferry relay {kind}")


def test_a_higher_epoch_takes_over_and_the_older_controller_is_refused(tmp_path: Path) -> None:
    claims = Claims(tmp_path, slots=1)
    claims.claim(session("op1", 1), guest="g1")
    claims.claim(session("op1", 2))
    assert claims.all() == (Claim(operation="op1", epoch=2, guest="g1"),)
    for act in (claims.claim, claims.check, claims.release):
        with pytest.raises(Problem, match="epoch 2") as caught:
            act(session("op1", 1))
        assert caught.value.code == "stale-controller"


def test_an_epoch_is_remembered_after_the_release_and_over_a_restart(tmp_path: Path) -> None:
    claims = Claims(tmp_path, slots=1)
    claims.claim(session("op1", 3), guest="g1")
    assert claims.release(session("op1", 3))
    assert not claims.release(session("op1", 3))
    with pytest.raises(Problem, match="taken operation op1 over"):
        Claims(tmp_path, slots=1).claim(session("op1", 2), guest="g1")


def test_only_so_many_released_ones_are_remembered(tmp_path: Path) -> None:
    claims = Claims(tmp_path, slots=1)
    for number in range(REMEMBERED + 5):
        claims.claim(session(f"op{number}"))
        claims.release(session(f"op{number}"))
    assert len(list(tmp_path.iterdir())) == REMEMBERED
    assert not (tmp_path / "op4.json").exists()


def test_a_call_without_a_session_has_claimed_nothing(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        Claims(tmp_path, slots=1).check(None, guest="g1")
    assert caught.value.code == "not-claimed"


def test_an_operation_keeps_to_the_vfs_that_it_holds(tmp_path: Path) -> None:
    claims = Claims(tmp_path, slots=1)
    held = claims.claim(session("op1"), guest="g1", vfs=("0000:01:10.2", "0000:01:10.0"))
    assert claims.claim(session("op1"), vfs=("0000:01:10.0", "0000:01:10.2")) == held
    with pytest.raises(Problem, match=r"holds the VFs 0000:01:10\.0, 0000:01:10\.2 here, not 0000:01:10\.4") as caught:
        claims.claim(session("op1"), vfs=("0000:01:10.4",))
    assert caught.value.code == "claim-differs"
    for vf in held.vfs:
        claims.check(session("op1"), vf=vf)
    with pytest.raises(Problem) as caught:
        claims.check(session("op1"), vf="0000:01:10.4")
    assert caught.value.code == "not-claimed"


def test_all_vfs_are_claimed_or_none(tmp_path: Path) -> None:
    claims = Claims(tmp_path, slots=2)
    claims.claim(session("op1"), guest="g1", vfs=("0000:01:10.2",))
    with pytest.raises(Problem, match="op1") as caught:
        claims.claim(session("op2"), guest="g2", vfs=("0000:01:10.0", "0000:01:10.2"))
    assert caught.value.code == "vf-claimed"
    assert claims.of_vf("0000:01:10.0") is None
    assert claims.of("op2") is None


@pytest.mark.parametrize(
    ("vf", "vfs"), [('"0000:01:10.0"', ("0000:01:10.0",)), ("null", ())], ids=["with a VF", "without one"]
)
def test_what_an_older_agent_has_written_is_still_held(tmp_path: Path, vf: str, vfs: tuple[str, ...]) -> None:
    written = f'{{"claim":{{"operation":"op1","epoch":3,"guest":"g1","vf":{vf}}},"released":false}}'
    (tmp_path / "op1.json").write_text(written)
    assert Claims(tmp_path, slots=1).all() == (Claim(operation="op1", epoch=3, guest="g1", vfs=vfs),)


@given(st.sampled_from(["", "..", "../x", "a/b", ".hidden", "a\n", "x" * 200]))
def test_an_id_that_would_be_another_file_is_refused(operation: str) -> None:
    with TemporaryDirectory() as directory, pytest.raises(Problem) as caught:
        Claims(Path(directory), slots=1).claim(session(operation))
    assert caught.value.code == "operation-invalid"


@pytest.mark.parametrize("content", ["", "{", '{"claim": {"operation": "op2"}}', '{"claim": {"operation": 3}}'])
def test_a_damaged_claim_stops_the_agent_rather_than_being_forgotten(tmp_path: Path, content: str) -> None:
    (tmp_path / "op1.json").write_text(content)
    with pytest.raises(Problem, match=r"op1\.json") as caught:
        Claims(tmp_path, slots=1)
    assert caught.value.code == "claims-unreadable"


def test_an_unfinished_write_is_no_claim(tmp_path: Path) -> None:
    (tmp_path / ".op1.json.abc").write_text("{")
    assert Claims(tmp_path, slots=1).all() == ()


def test_claims_are_for_root_alone(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims", slots=1)
    claims.claim(session("op1"))
    assert (tmp_path / "claims").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "claims" / "op1.json").stat().st_mode & 0o777 == 0o600


def test_what_lasts_takes_no_slot(tmp_path: Path) -> None:
    claims = Claims(tmp_path, 1)
    kept = Session(operation="relay-1")
    assert not claims.claim(kept, vfs=("0000:01:10.0",), slot=False).slot
    claims.claim(Session(operation="op-1"), "guest1")
    with pytest.raises(Problem, match="All 1 migration slots of this host are taken, by op-1"):
        claims.claim(Session(operation="op-2"), "guest2")
    with pytest.raises(Problem) as caught:
        claims.claim(Session(operation="op-1"), "guest1", ("0000:01:10.0",))
    assert "vferry relay show" in caught.value.remedy
    again = Claims(tmp_path, 1)
    assert again.of("relay-1") == claims.of("relay-1")
    assert not again.claim(Session(operation="relay-1", epoch=2)).slot
