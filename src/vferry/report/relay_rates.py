"""What a relay's ports pass a second, from one look at them to the next."""

from msgspec import Struct, field
from msgspec.structs import replace

from vferry.model.relay import PortCounters, RelayView

COUNTERS = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")


class PortRates:
    """Rates by port and counter, for looks that come oftener than Open vSwitch writes its counters down.

    So what is new at a look has taken as long as lies between two of its writings, not just since the look before; and
    that nothing is new says nothing, until it would have written twice.
    """

    def __init__(self) -> None:
        self._ports: dict[str, _Port] = {}
        self._read_at_s = 0.0

    def see(self, view: RelayView) -> dict[str, dict[str, float]]:
        """Takes a look in. What is not known yet is left out."""
        passed_s = max(view.counted_every_s, view.read_at_s - self._read_at_s)
        idle_after_s = 2 * view.counted_every_s
        self._ports = {
            port.name: _next(self._ports.get(port.name), _Port.of(port, view.read_at_s), passed_s, idle_after_s)
            for port in view.ports
        }
        self._read_at_s = view.read_at_s
        return {name: port.rates for name, port in self._ports.items()}


class _Port(Struct, frozen=True, kw_only=True):
    """A port's counters, since when they are these, and what they grew by in a second before."""

    counts: dict[str, int]
    since_s: float
    rates: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, port: PortCounters, read_at_s: float) -> "_Port":
        return cls(counts={name: port.count(name) for name in COUNTERS}, since_s=read_at_s)


def _next(was: _Port | None, seen: _Port, passed_s: float, idle_after_s: float) -> _Port:
    """A port that counts from its beginning again, as after a restart, is a new one."""
    if was is None or any(seen.counts[name] < was.counts[name] for name in COUNTERS):
        return seen
    if seen.counts == was.counts:
        idle = seen.since_s - was.since_s >= idle_after_s
        return replace(was, rates=dict.fromkeys(COUNTERS, 0.0)) if idle else was
    return replace(seen, rates={name: (seen.counts[name] - was.counts[name]) / passed_s for name in COUNTERS})
