"""A relay's metrics: what Prometheus' own parser reads of them."""

from prometheus_client.parser import text_string_to_metric_families

from vferry.model.relay import PortCounters, Relay, RelayCpu, RelayKind, RelayState, RelayView
from vferry.report.relay_metrics import exposition

RELAY = Relay(operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.DIRECT, uplinks=("pf0",), cores=(1,))
VIEW = RelayView(
    relay=RELAY,
    dpdk_started=True,
    connections=3,
    cpus=(RelayCpu(number=1, packets=7, idle_cycles=75, busy_cycles=25),),
    ports=(
        PortCounters(
            name="vfg1",
            bridge="vfr1",
            type="dpdkvhostuserclient",
            guest='we"b',
            mac="52:54:00:aa:00:01",
            up=True,
            statistics={"rx_packets": 5, "tx_packets": 6, "rx_bytes": 500, "tx_bytes": 600, "tx_dropped": 2},
        ),
        PortCounters(name="vfu1", bridge="vfr1", type="dpdk"),
    ),
)


SAID_LAST = ("direction", "reason", "state", "cpu", "mac", "host")


def read(view: RelayView) -> dict[tuple[str, str], float]:
    """The samples of all but the second port, by their name and the most special of their labels."""
    samples = [each for family in text_string_to_metric_families(exposition("host1", view)) for each in family.samples]
    found = {}
    for each in samples:
        if each.labels.get("port") != "vfu1":
            found[each.name, next(each.labels[label] for label in SAID_LAST if label in each.labels)] = each.value
    return found


def test_all_that_a_relay_counts() -> None:
    assert read(VIEW) == {
        ("vferry_relay", "host1"): 1,
        ("vferry_relay_dpdk", "host1"): 1,
        ("vferry_relay_connections", "host1"): 3,
        ("vferry_relay_port_packets_total", "in"): 5,
        ("vferry_relay_port_packets_total", "out"): 6,
        ("vferry_relay_port_bytes_total", "in"): 500,
        ("vferry_relay_port_bytes_total", "out"): 600,
        ("vferry_relay_port_drops_total", "tx_dropped"): 2,
        ("vferry_relay_port_up", "52:54:00:aa:00:01"): 1,
        ("vferry_relay_cpu_packets_total", "1"): 7,
        ("vferry_relay_cpu_cycles_total", "busy"): 25,
        ("vferry_relay_cpu_cycles_total", "idle"): 75,
    }


def test_a_guest_is_named_whatever_it_is_called() -> None:
    families = text_string_to_metric_families(exposition("host1", VIEW))
    guests = {each.labels["guest"] for family in families for each in family.samples if "guest" in each.labels}
    assert guests == {'we"b', ""}


def test_a_host_without_a_relay_says_so() -> None:
    assert read(RelayView()) == {("vferry_relay", "host1"): 0}
