"""What a guest has free: how much of it may be taken, what that is worth, and what is said of it before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fakes import facts as f
from vferry.host.api import Definition
from vferry.model.definition import kept_from_balloon
from vferry.model.memory import LEAST_RECLAIMED, MemoryUse, Sample, reclaimable
from vferry.plan.estimate import freed
from vferry.plan.facts import Assessment, Facts
from vferry.plan.plan import TransferPlan

MIB, GIB = 1 << 20, 1 << 30
UUID = "5d3b6a51-7d1c-4e6c-8a47-000000000001"
BALLOON = "<memballoon model='virtio'/>"
ASKED = TransferPlan(reclaim_free=True)


@given(memory=st.integers(0, 1 << 50), free=st.integers(0, 1 << 64))
def test_a_reserve_always_stays(memory: int, free: int) -> None:
    taken = reclaimable(memory, free)
    assert taken == 0 or taken >= LEAST_RECLAIMED
    left = min(free, memory) - taken
    assert taken == 0 or (left >= memory // 16 and left >= 32 * MIB)


@given(memory=st.integers(0, 1 << 50), free=st.integers(0, 1 << 50), more=st.integers(0, 1 << 40))
def test_of_more_that_is_free_no_less_is_taken(memory: int, free: int, more: int) -> None:
    assert reclaimable(memory, free) <= reclaimable(memory, free + more)


@pytest.mark.parametrize(
    ("memory", "free", "taken"),
    [(GIB, 80 * MIB, 16), (GIB, 79 * MIB, 0), (256 * MIB, 100 * MIB, 68), (GIB, 2 * GIB, 960), (0, 0, 0)],
)
def test_how_much_may_be_taken(memory: int, free: int, taken: int) -> None:
    assert reclaimable(memory, free) == taken * MIB


@pytest.mark.parametrize(
    ("free", "sample", "expected"),
    [
        (564, Sample(pages=100, zero_pages=0), 500),
        # Which of the free pages are zero is not known: as many as there are.
        (564, Sample(pages=100, zero_pages=25), 244),
        (564, Sample(pages=100, zero_pages=90), 0),
        (564, None, 0),
        (None, Sample(pages=100, zero_pages=0), 0),
    ],
)
def test_only_what_is_surely_not_zero_counts(free: int | None, sample: Sample | None, expected: int) -> None:
    use = MemoryUse(free=None if free is None else free * MIB, sample=sample)
    assert freed(GIB, use) == expected * MIB
    assert freed(GIB, None) == 0


@pytest.mark.parametrize(
    ("within", "why"),
    [
        (f"<devices>{BALLOON}</devices>", None),
        (f"<memoryBacking><source type='memfd'/></memoryBacking><devices>{BALLOON}</devices>", None),
        ("<devices/>", "it has no balloon"),
        ("<devices><memballoon model='none'/></devices>", "it has no balloon"),
        (f"<memoryBacking><hugepages/></memoryBacking><devices>{BALLOON}</devices>", "its memory is of huge pages"),
        (f"<memoryBacking><locked/></memoryBacking><devices>{BALLOON}</devices>", "its memory is locked"),
    ],
)
def test_whose_balloon_gives_back(within: str, why: str | None) -> None:
    found = kept_from_balloon(f"<domain>{within}</domain>")
    assert found == why or (found and why and found.startswith(why))


def with_free(facts: Facts) -> Facts:
    """A guest of 1 GiB with a balloon that says that half of it is free, and none of it is zero."""
    live = (facts.definition.live or facts.definition.persistent or "").replace("</devices>", f"{BALLOON}</devices>")
    return structs.replace(
        facts,
        guest=structs.replace(facts.guest, memory=GIB),
        definition=Definition(live=live, persistent=facts.definition.persistent),
        memory=MemoryUse(free=GIB // 2, sample=Sample(pages=100, zero_pages=0)),
    )


def without_balloon(facts: Facts) -> Facts:
    live = (facts.definition.live or "").replace(BALLOON, "")
    return structs.replace(facts, definition=structs.replace(facts.definition, live=live))


def off(facts: Facts) -> Facts:
    return structs.replace(facts, definition=structs.replace(facts.definition, live=None))


def said(found: Assessment) -> dict[str, str]:
    codes = ("free-memory", "reclaim-useless")
    return {finding.code: finding.message for finding in found.findings if finding.code in codes}


def size(found: Assessment) -> int:
    assert found.estimate is not None
    return found.estimate.guest_bytes


def test_what_there_is_to_gain_is_said_and_counted_where_it_is_asked_for() -> None:
    usual, asked = f.found(with_free), f.found(with_free, transfer=ASKED)
    assert said(usual) == {
        "free-memory": "At least 448 MiB of what the copy sends is memory that the guest has free: --reclaim-free "
        "leaves it out"
    }
    assert said(asked) == {}
    assert asked.plan is not None
    assert asked.plan.transfer.reclaim_free
    assert (size(usual), size(asked)) == (GIB, GIB - 448 * MIB)


@pytest.mark.parametrize(
    ("change", "why"), [(without_balloon, "it has no balloon"), (f.mediated(UUID), "QEMU keeps what it takes")]
)
def test_where_it_is_for_nothing_that_is_said_and_nothing_is_counted(change: f.Change, why: str) -> None:
    changed = f.both(with_free, change)
    assert said(f.found(changed)) == {}
    asked = f.found(changed, transfer=ASKED)
    assert list(said(asked)) == ["reclaim-useless"]
    assert said(asked)["reclaim-useless"].startswith(f"The guest's balloon leaves nothing out of the copy: {why}")
    assert size(asked) == GIB


def test_of_a_guest_that_is_not_known_nothing_is_said() -> None:
    assert said(f.found(f.both(with_free, off), transfer=ASKED)) == {}
    assert said(f.found()) == {}
    assert said(f.found(f.both(with_free, f.guest(nics=())), transfer=ASKED)) == {}
