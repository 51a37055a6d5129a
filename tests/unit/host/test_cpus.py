import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.host.cpus import MOST, read_cpus
from vferry.host.domain_xml import read_domain


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", ()),
        ("\n", ()),
        ("0", (0,)),
        ("0-3,^2,8", (0, 1, 3, 8)),
        ("8, 1", (1, 8)),
        ("0-7,^4-6", (0, 1, 2, 3, 7)),
    ],
)
def test_a_list_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert read_cpus(text) == cpus


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-", "70000", "^", "1;2", "9" * 30])
def test_what_is_no_cpu_is_passed_over(text: str) -> None:
    assert read_cpus(text) == ()
    assert read_cpus(f"7,{text},9") == (7, 9)


def test_a_list_has_an_end() -> None:
    assert read_cpus("0-999999999") == tuple(range(MOST))


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert all(0 <= cpu < MOST for cpu in read_cpus(text))


@given(st.sets(st.integers(0, MOST - 1), max_size=40), st.sets(st.integers(0, MOST - 1), max_size=5))
def test_what_is_written_is_read(cpus: set[int], without: set[int]) -> None:
    text = ",".join([*map(str, cpus), *(f"^{cpu}" for cpu in without)])
    assert read_cpus(text) == tuple(sorted(cpus - without))


def test_what_a_guest_is_pinned_to() -> None:
    xml = """<domain><name>g</name><vcpu cpuset='4-5'>2</vcpu>
      <cputune><shares>5</shares><vcpupin vcpu='0' cpuset='2'/><emulatorpin cpuset='3,^3,7'/><x cpuset='odd'/></cputune>
    </domain>"""
    assert read_domain(xml).pinned == (2, 4, 5, 7)
    assert read_domain("<domain><name>g</name><vcpu>2</vcpu></domain>").pinned == ()


@pytest.mark.parametrize(
    ("vcpu", "tune", "pins"),
    [
        ("", "", ()),
        ("", "<shares>5</shares><emulatorpin cpuset='odd'/>", ()),
        (" cpuset='4-5'", "", ((4, 5),)),
        ("", "<vcpupin vcpu='0' cpuset='2'/>", ((2,),)),
        (" cpuset='4-5'", "<vcpupin vcpu='0' cpuset='2'/><emulatorpin cpuset='7'/>", ((2,), (4, 5), (7,))),
        (" cpuset='4-5'", "<vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='2'/>", ((2,), (4, 5))),
        (
            " cpuset='4-5'",
            "<vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/><emulatorpin cpuset='2-3'/>",
            ((2,), (2, 3), (3,)),
        ),
        (" cpuset='4'", "<iothreadpin iothread='1' cpuset='6'/>", ((4,), (6,))),
    ],
)
def test_what_each_thread_of_a_guest_is_pinned_to(vcpu: str, tune: str, pins: tuple[tuple[int, ...], ...]) -> None:
    """One without a set of its own has the one that is for all; where nobody needs that, it says nothing."""
    xml = f"<domain><name>g</name><vcpu{vcpu}>2</vcpu><cputune>{tune}</cputune></domain>"
    assert read_domain(xml).pins == pins
