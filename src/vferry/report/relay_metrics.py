"""A relay's counters as Prometheus reads them (its text format, by its own client library)."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vferry.model.relay import PortCounters, RelayView

_PORT = ("host", "bridge", "port", "guest", "mac")
_WAYS = {"rx": "in", "tx": "out"}


def exposition(host: str, view: RelayView) -> str:
    """All that a view tells of a host's relay; a host without one says just that."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(host, view))
    return generate_latest(registry).decode()


class _Collector(Collector):
    def __init__(self, host: str, view: RelayView) -> None:
        self._host, self._view = host, view

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for."""
        yield _gauge("vferry_relay", "Whether the host has a relay", self._host, self._view.relay is not None)
        if self._view.relay is None:
            return
        yield _gauge("vferry_relay_dpdk", "Whether DPDK runs in Open vSwitch", self._host, self._view.dpdk_started)
        if self._view.connections is not None:
            says = "Connections that the switch in user space follows"
            yield _gauge("vferry_relay_connections", says, self._host, self._view.connections)
        yield from self._of_ports()
        yield from self._of_cpus()

    def _of_ports(self) -> Iterator[Metric]:
        packets = CounterMetricFamily("vferry_relay_port_packets", "Packets of a port", labels=(*_PORT, "direction"))
        size = CounterMetricFamily("vferry_relay_port_bytes", "Bytes of a port", labels=(*_PORT, "direction"))
        drops = CounterMetricFamily("vferry_relay_port_drops", "What a port did not pass", labels=(*_PORT, "reason"))
        up = GaugeMetricFamily("vferry_relay_port_up", "Whether Open vSwitch calls a port up", labels=_PORT)
        for port in self._view.ports:
            labels = self._labels(port)
            for way, direction in _WAYS.items():
                packets.add_metric((*labels, direction), port.count(f"{way}_packets"))
                size.add_metric((*labels, direction), port.count(f"{way}_bytes"))
            for reason, count in port.drops.items():
                drops.add_metric((*labels, reason), count)
            if port.up is not None:
                up.add_metric(labels, port.up)
        yield from (packets, size, drops, up)

    def _of_cpus(self) -> Iterator[Metric]:
        packets = CounterMetricFamily("vferry_relay_cpu_packets", "Packets of a CPU", labels=("host", "cpu"))
        cycles = CounterMetricFamily(
            "vferry_relay_cpu_cycles", "Cycles of a CPU, with packets and without", labels=("host", "cpu", "state")
        )
        for cpu in self._view.cpus:
            packets.add_metric((self._host, str(cpu.number)), cpu.packets)
            cycles.add_metric((self._host, str(cpu.number), "busy"), cpu.busy_cycles)
            cycles.add_metric((self._host, str(cpu.number), "idle"), cpu.idle_cycles)
        yield from (packets, cycles)

    def _labels(self, port: PortCounters) -> tuple[str, ...]:
        return (self._host, port.bridge, port.name, port.guest, port.mac)


def _gauge(name: str, says: str, host: str, value: float) -> GaugeMetricFamily:
    found = GaugeMetricFamily(name, says, labels=("host",))
    found.add_metric((host,), value)
    return found
