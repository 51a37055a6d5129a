from pathlib import Path

import pytest
from msgspec.structs import replace

from vferry.host.api import Session
from vferry.host.relay_store import RelayStore
from vferry.model.problem import Problem
from vferry.model.relay import Relay, RelayKind, RelayPort, RelayState, RelayVf

MINE, OTHERS = Session(operation="relay-1"), Session(operation="relay-2")
RELAY = Relay(operation="relay-1", state=RelayState.ENABLING, kind=RelayKind.DIRECT, uplinks=("pf0",), cores=(1,))


def test_it_outlives_the_agent(tmp_path: Path) -> None:
    assert RelayStore(tmp_path / "new").read() is None
    store = RelayStore(tmp_path / "new")
    assert store.keep(MINE, RELAY).changed
    assert not store.keep(MINE, RELAY).changed
    done = replace(RELAY, state=RelayState.ENABLED)
    assert store.keep(MINE, done).changed
    again = RelayStore(tmp_path / "new")
    assert again.read() == done
    assert again.forget(MINE).changed
    assert not again.forget(MINE).changed
    assert again.read() is None


def test_its_guests_ports_are_not_in_it(tmp_path: Path) -> None:
    store = RelayStore(tmp_path)
    vf = RelayVf(pf="pf0", index=0, address="0000:01:10.0")
    store.keep(MINE, replace(RELAY, ports=(RelayPort(guest="g", mac="52:54:00:aa:00:01", socket="/s", vf=vf),)))
    assert store.read() == RELAY


def test_another_s_is_left(tmp_path: Path) -> None:
    store = RelayStore(tmp_path)
    with pytest.raises(Problem, match="relay-1"):
        store.keep(OTHERS, RELAY)
    store.keep(MINE, RELAY)
    with pytest.raises(Problem) as caught:
        store.keep(OTHERS, replace(RELAY, operation="relay-2"))
    assert caught.value.code == "relay-anothers"
    assert not store.forget(OTHERS).changed
    assert store.read() == RELAY


@pytest.mark.parametrize("text", ["", "{", "[]", '{"operation": "x"}', '{"operation": "x", "state": "odd"}'])
def test_what_cannot_be_read_is_not_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / "relay.json").write_text(text)
    with pytest.raises(Problem) as caught:
        RelayStore(tmp_path).read()
    assert caught.value.code == "relay-unreadable"
