"""libvirt's figures of a guest's migration: of one that runs, of one that has completed."""

import threading
from typing import Any

from vferry.host.device_state import DeviceState
from vferry.host.hypervisor import Hypervisor
from vferry.host.migration_record import Record, figures

ANSWER_S = 2.0
"""How long an answer is waited for, while the caller goes without."""


class _Asking(threading.Thread):
    def __init__(self, domain: Any, error: type[Exception]) -> None:
        super().__init__(name="job-statistics", daemon=True)
        self._domain, self._error = domain, error
        self.job: dict[str, Any] = {}

    def run(self) -> None:
        try:
            self.job = self._domain.jobStats()
        except self._error:
            # Between two phases, or over: the next answer will say.
            self.job = {}


class Statistics:
    """Asks libvirt, which asks QEMU.

    QEMU answers nobody in the guest's pause, which lasts as long as its devices send their state. Who has asked at
    that moment must wait, and so must who asks next: one thread does, and nobody takes the silence for a failure.
    """

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._asking: dict[str, _Asking] = {}
        self.device_state = DeviceState(hypervisor)

    def running(self, record: Record, domain: Any) -> dict[str, float]:
        """Empty where there is no answer yet."""
        asking = self._asking.get(record.operation)
        if asking is None:
            asking = self._asking[record.operation] = _Asking(domain, self._hypervisor.libvirt.libvirtError)
            asking.start()
        asking.join(ANSWER_S)
        if asking.is_alive():
            return {}
        # Two may have waited for the same answer.
        self._asking.pop(record.operation, None)
        return figures(asking.job)

    def completed(self, record: Record, domain: Any) -> dict[str, float]:
        """`domain` is None where nothing is left of it."""
        libvirt = self._hypervisor.libvirt
        job = self._hypervisor.events.completed_job(record.uuid)
        if job is None and domain is not None:
            try:
                job = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
            except libvirt.libvirtError:
                job = None
        sent = self.device_state.sent(record.uuid)
        return {**figures(job or {}, completed=True), **({} if sent is None else {"device_bytes": sent})}
