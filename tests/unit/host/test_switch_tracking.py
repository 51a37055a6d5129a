"""What Open vSwitch tells of the connections that it tracks, in lines of its own (3.1)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fakes import facts as f
from vferry.host import switch_tracking
from vferry.host.api import MOST_PORT_CONNECTIONS, PortTracked
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.switch_tracking import Place, find_place, read_dump, read_tracked
from vferry.model.connections import PortConnection, Way
from vferry.model.problem import Problem

ZONE = 5
FOUR = "orig=(src=10.0.0.2,dst=10.0.0.1,sport=4000,dport=80),reply=(src=10.0.0.1,dst=10.0.0.2,sport=80,dport=4000)"
SIX = "orig=(src=fd00::2,dst=fd00::1,sport=4000,dport=80),reply=(src=fd00::1,dst=fd00::2,sport=80,dport=4000)"
WAY, WAY_SIX = (Way(source=f"{net}2", destination=f"{net}1", ports=(4000, 80)) for net in ("10.0.0.", "fd00::"))
LIBERAL = "flags_orig=BE_LIBERAL,flags_reply=BE_LIBERAL"


def line(
    protocol: str = "tcp",
    ways: str = FOUR,
    *,
    zone: str = f",zone={ZONE}",
    more: str = "",
    states: tuple[str, str] = ("ESTABLISHED", "ESTABLISHED"),
) -> str:
    info = f",protoinfo=(state_orig={states[0]},state_reply={states[1]},{LIBERAL})" if protocol == "tcp" else ""
    return f"{protocol},{ways},id=0{zone},status=0{more}{info}"


TCP, UDP = PortConnection(protocol=6, way=WAY), PortConnection(protocol=17, way=WAY)
BALANCED = FOUR.replace("reply=(src=10.0.0.1,dst=10.0.0.2,sport=80", "reply=(src=10.0.0.9,dst=10.0.0.2,sport=8080")
SERVED = Way(source="10.0.0.2", destination="10.0.0.9", ports=(4000, 8080))


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("", PortTracked()),
        (line(), PortTracked(connections=(TCP,))),
        (line("udp"), PortTracked(connections=(UDP,))),
        (line(ways=SIX), PortTracked(connections=(PortConnection(protocol=6, way=WAY_SIX),))),
        (
            line(more=",mark=3,labels=0x770000000000001234"),
            PortTracked(connections=(PortConnection(protocol=6, way=WAY, mark=3, labels="770000000000001234"),)),
        ),
        (f"{line()}\n{line('udp')}\n", PortTracked(connections=(TCP, UDP))),
        *((line(states=states), PortTracked()) for states in (("SYN_SENT", "CLOSED"), ("ESTABLISHED", "SYN_SENT"))),
        *(
            (line(states=states), PortTracked())
            for states in (("FIN_WAIT_2", "FIN_WAIT_2"), ("TIME_WAIT", "TIME_WAIT"))
        ),
        *((line(states=states), PortTracked(connections=(TCP,))) for states in (("CLOSING", "ESTABLISHED"),)),
        (line(states=("ESTABLISHED", "FIN_WAIT_2")), PortTracked(connections=(TCP,))),
        (line(zone=",zone=6"), PortTracked()),
        (line(zone=""), PortTracked()),
        (line(ways=BALANCED), PortTracked(connections=(structs.replace(TCP, served=SERVED),))),
        *(
            (line(ways=each.replace(own, other)), PortTracked(left_out=1))
            for each in (FOUR, BALANCED)
            for own, other in (("dst=10.0.0.2", "dst=10.0.0.7"), ("dport=4000", "dport=1024"))
        ),
        (line("sctp"), PortTracked(left_out=1)),
        (f"icmp,{FOUR.replace('sport', 'id').replace('dport=80', 'type=8')},zone=5", PortTracked()),
        ("tcp,orig=(src=10.0.0.2),reply=()", PortTracked(left_out=1)),
    ],
)
def test_what_is_told(told: str, found: PortTracked) -> None:
    assert read_dump(told, ZONE) == found


def test_more_than_may_be_put_are_counted() -> None:
    told = "\n".join(line(ways=FOUR.replace("4000", str(1000 + at))) for at in range(MOST_PORT_CONNECTIONS + 3))
    found = read_dump(told, ZONE)
    assert (len(found.connections), found.left_out) == (MOST_PORT_CONNECTIONS, 3)


@given(st.text(alphabet="tcpud,orig=(s.:1290f)ly\n"))
def test_nonsense_is_refused_or_counted(told: str) -> None:
    try:
        found = read_dump(told, ZONE)
    except ValueError:
        return
    assert found.left_out <= len(told.splitlines())


def test_what_cannot_be_asked_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Problem, match="dump-conntrack") as caught:
        read_tracked(tmp_path, Place("br-int", 1, ZONE))
    assert caught.value.code == "connections-unreadable"
    monkeypatch.setattr(OpenVSwitch, "ask_switch", lambda *_: line(ways=FOUR.replace("10.0.0.2", "1.2.3.")))
    with pytest.raises(Problem):
        read_tracked(tmp_path, Place("br-int", 1, ZONE))


@pytest.mark.parametrize(
    ("zone", "port", "place"),
    [
        (ZONE, ("br-int", 7), Place("br-int", 7, ZONE)),
        (None, ("br-int", 7), "not bound"),
        (ZONE, None, "not bound"),
        (OSError("nobody"), ("br-int", 7), "nobody"),
    ],
)
def test_where_a_port_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    zone: int | OSError | None,
    port: tuple[str, int] | None,
    place: Place | str,
) -> None:
    def read_zone(_root: Path, logical: str) -> int | None:
        assert logical == "web-0"
        if isinstance(zone, OSError):
            raise zone
        return zone

    monkeypatch.setattr(switch_tracking, "read_zone", read_zone)
    monkeypatch.setattr(OpenVSwitch, "find", lambda *_: port)
    if isinstance(place, Place):
        assert find_place(tmp_path, f.BOUND_PORT) == place
        return
    with pytest.raises(Problem, match=place) as caught:
        find_place(tmp_path, f.BOUND_PORT)
    assert caught.value.code == "connections-unreadable"


def test_a_port_that_is_not_ovns_has_no_zone(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no port of OVN's"):
        find_place(tmp_path, f.SWITCH_PORT)
