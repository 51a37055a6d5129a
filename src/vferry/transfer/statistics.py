"""What a gateway has carried and what it cost. Bytes are payload of the wire: as they are, or blocks."""

import threading
import time
from collections import deque
from typing import Any

from vferry.transfer.connection import Connection
from vferry.transfer.counters import Counters

RATE_SAMPLES = 3600


class Statistics:
    """Counts of one gateway process. `sample` and `report` belong to one thread, the rest to any.

    `blocks` is for whoever packs or unpacks them.
    """

    def __init__(self) -> None:
        self.blocks = Counters()
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._services: dict[str, dict[str, int]] = {}
        self._refused = 0
        self._started = self._sampled = time.monotonic()
        self._cpu_start = self._cpu_sampled = time.process_time()
        self._cpu_peak: float | None = None
        self._bytes_sampled = (0, 0)
        self._rates: deque[tuple[int, int]] = deque(maxlen=RATE_SAMPLES)

    def opened(self, connection: Connection) -> None:
        """Count a connection from now on."""
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """Keep what a connection that is over has carried."""
        with self._lock:
            self._open.discard(connection)
            _add(self._services, connection)

    def refused(self) -> None:
        """Count an attempt that carried nothing: a failed handshake, hello or connect."""
        with self._lock:
            self._refused += 1

    def sample(self) -> dict[str, Any]:
        """Take the sample of about a second and return what a stats line says."""
        now, cpu = time.monotonic(), time.process_time()
        elapsed = now - self._sampled
        cores = (cpu - self._cpu_sampled) / elapsed
        totals = self._totals()
        sent, received = totals["sent_bytes"], totals["received_bytes"]
        self._rates.append(
            (round((sent - self._bytes_sampled[0]) / elapsed), round((received - self._bytes_sampled[1]) / elapsed))
        )
        self._cpu_peak = max(cores, self._cpu_peak or 0.0)
        self._sampled, self._cpu_sampled, self._bytes_sampled = now, cpu, (sent, received)
        with self._lock:
            connections_open = len(self._open)
        result: dict[str, Any] = {
            "seconds": round(now - self._started, 3),
            "sent_bytes": sent,
            "received_bytes": received,
            "open": connections_open,
            "cpu": round(cores, 3),
        }
        blocks = self.blocks.so_far()
        if blocks:
            result["compression"] = blocks
        return result

    def report(self, *, rates: bool) -> dict[str, Any]:
        """Return the totals since the start, with the samples if `rates`.

        `cpu_s` is the whole process with its start; `cpu_peak` is in cores over the busiest sample of a second,
        or over the whole run if that was shorter than one. `rates` are [sent, received] in bytes a second.
        """
        seconds = time.monotonic() - self._started
        cpu_peak = self._cpu_peak
        if cpu_peak is None:
            cpu_peak = (time.process_time() - self._cpu_start) / max(seconds, 1e-6)
        result = {
            "seconds": round(seconds, 3),
            "cpu_s": round(time.process_time(), 3),
            "cpu_peak": round(cpu_peak, 3),
            **self._totals(),
            "refused": self._refused,
            "services": self._by_service(),
        }
        blocks = self.blocks.report()
        if blocks:
            result["compression"] = blocks
        if rates:
            result["rates"] = list(self._rates)
        return result

    def _totals(self) -> dict[str, int]:
        totals = _zeros()
        for counts in self._by_service().values():
            for key in totals:
                totals[key] += counts[key]
        return totals

    def _by_service(self) -> dict[str, dict[str, int]]:
        with self._lock:
            services = {service: counts.copy() for service, counts in self._services.items()}
            for connection in self._open:
                _add(services, connection)
        return services


def _zeros() -> dict[str, int]:
    return {"connections": 0, "failed": 0, "cut": 0, "sent_bytes": 0, "received_bytes": 0}


def _add(services: dict[str, dict[str, int]], connection: Connection) -> None:
    counts = services.setdefault(connection.service, _zeros())
    counts["connections"] += 1
    counts["failed"] += connection.error is not None and not connection.cut
    counts["cut"] += connection.cut
    counts["sent_bytes"] += connection.sent
    counts["received_bytes"] += connection.received
