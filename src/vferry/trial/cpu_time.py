"""CPU time of a whole machine, as its kernel counts it in `/proc`."""

from typing import NamedTuple, Self

from vferry.trial.process import TICK_S


class CpuTime(NamedTuple):
    """Seconds of CPU time that a machine has taken so far, but for what its hypervisor had of it.

    `guests_s`: what of them the CPUs of its guests had.
    """

    busy_s: float
    guests_s: float

    @classmethod
    def of(cls, stat: str) -> Self:
        """By `/proc/stat`."""
        user, nice, system, _idle, _wait, irq, softirq, _stolen, guest, guest_nice = map(
            int, stat.split("\n")[0].split()[1:11]
        )
        return cls((user + nice + system + irq + softirq) * TICK_S, (guest + guest_nice) * TICK_S)
