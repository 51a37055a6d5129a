"""What ports pass a second, by counters that are written down more seldom than they are looked at."""

from vferry.model.relay import PortCounters, RelayView
from vferry.report.relay_rates import PortRates


def look(at_s: float, packets: int, every_s: float = 5.0, name: str = "up") -> RelayView:
    port = PortCounters(name=name, bridge="relay0", statistics={"rx_packets": packets, "rx_dropped": packets})
    return RelayView(ports=(port,), read_at_s=at_s, counted_every_s=every_s)


def rates(*looks: RelayView) -> list[float | None]:
    """Of the packets that came in at the port."""
    seen = PortRates()
    return [seen.see(each).get("up", {}).get("rx_packets") for each in looks]


def steady(per_s: int, written_every_s: int, looks_at_s: range) -> list[RelayView]:
    """A port whose packets are written down now and then."""
    return [look(at, at // written_every_s * written_every_s * per_s, written_every_s) for at in looks_at_s]


def test_what_is_new_has_come_since_it_was_written_before() -> None:
    assert rates(look(0, 7), look(2, 7), look(4, 7), look(5, 5007), look(7, 5007)) == [None, None, None, 1000, 1000]


def test_steady_traffic_is_steady_however_often_it_is_looked_at() -> None:
    for every in (1, 2, 3, 5):
        assert set(rates(*steady(1000, 5, range(0, 60, every)))) == {None, 1000}
    assert set(rates(*steady(1000, 30, range(0, 120, 2)))) == {None, 1000}


def test_looks_further_apart_are_divided_by_what_is_between_them() -> None:
    assert rates(look(0, 0), look(60, 60_000)) == [None, 1000]


def test_a_port_that_passes_nothing_more_is_said_to() -> None:
    before = [look(0, 0), look(2, 5000)]
    assert rates(*before, *(look(at, 5000) for at in (4, 10, 12, 14))) == [None, 1000, 1000, 1000, 0, 0]
    assert rates(*before, look(60, 5000), look(62, 10_000)) == [None, 1000, 0, 1000]


def test_one_that_is_counted_anew_has_no_rate_at_first() -> None:
    assert rates(look(0, 0), look(5, 5000), look(10, 2000), look(15, 7000)) == [None, 1000, None, 1000]


def test_one_that_was_away_is_another_one() -> None:
    assert rates(look(0, 0), look(5, 5000, name="other"), look(10, 10_000)) == [None, None, None]
