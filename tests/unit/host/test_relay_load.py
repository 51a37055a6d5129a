"""What Open vSwitch says of its CPUs and of the connections that it follows, in its own words of 3.5."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.host.openvswitch import OpenVSwitch, RefusedError
from vferry.host.relay_load import _cpus, read_connections, read_cpus
from vferry.model.relay import RelayCpu

SAID = """pmd thread numa_id 1 core_id 13:
  packets received: 7
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  emc hits: 5
  idle cycles: 23227706 (96.00%)
  processing cycles: 967821 (4.00%)
  avg cycles per packet: 3456503.86 (24195527/7)
pmd thread numa_id 0 core_id 1:
  packets received: 0
  idle cycles: 100 (100.00%)
  processing cycles: 0 (0.00%)
main thread:
  packets received: 99
  packet recirculations: 0
"""


def says(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str]) -> None:
    def ask(_self: OpenVSwitch, command: str, *_arguments: str) -> str:
        if command not in answers:
            raise RefusedError("datapath not found (Invalid argument)")
        return answers[command]

    monkeypatch.setattr(OpenVSwitch, "ask_switch", ask)


def test_each_cpu_by_itself_and_not_the_main_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    says(monkeypatch, {"dpif-netdev/pmd-stats-show": SAID, "dpctl/ct-get-nconns": "12\n"})
    assert read_cpus(tmp_path) == (
        RelayCpu(number=1, node=0, packets=0, idle_cycles=100, busy_cycles=0),
        RelayCpu(number=13, node=1, packets=7, idle_cycles=23227706, busy_cycles=967821),
    )
    assert read_connections(tmp_path) == 12


@pytest.mark.parametrize("said", ["", "many\n", "-1", "1" * 30])
def test_what_it_does_not_say_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str) -> None:
    says(monkeypatch, {"dpctl/ct-get-nconns": said})
    assert (read_cpus(tmp_path), read_connections(tmp_path)) == ((), None)


def test_where_nothing_runs_there_is_nothing(tmp_path: Path) -> None:
    assert (read_cpus(tmp_path), read_connections(tmp_path)) == ((), None)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert all(cpu.packets >= 0 for cpu in _cpus(text))


@pytest.mark.parametrize(
    ("idle", "busy", "before", "load"),
    [
        (75, 25, None, 0.25),
        (0, 0, None, None),
        (150, 75, RelayCpu(number=1, idle_cycles=100, busy_cycles=25), 0.5),
        (75, 25, RelayCpu(number=1, idle_cycles=75, busy_cycles=25), None),
        (10, 5, RelayCpu(number=1, idle_cycles=1000, busy_cycles=500), None),
    ],
)
def test_the_load_of_a_cpu(idle: int, busy: int, before: RelayCpu | None, load: float | None) -> None:
    assert RelayCpu(number=1, idle_cycles=idle, busy_cycles=busy).load(before) == load
