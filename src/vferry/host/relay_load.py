"""What the relay's CPUs do, and how many connections its switch follows, as Open vSwitch's own tools ask for it.

Its database has neither; ovs-vswitchd answers in text (`dpif-netdev/pmd-stats-show`, ovs-vswitchd(8)).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from vferry.host.openvswitch import OpenVSwitch, RefusedError
from vferry.model.relay import RelayCpu

DATAPATH = "netdev@ovs-netdev"
THREAD = re.compile(r"pmd thread numa_id (\d{1,4}) core_id (\d{1,5}):")
COUNT = re.compile(r"\s+(packets received|idle cycles|processing cycles): (\d{1,20})\b.*")


def read_cpus(root: Path) -> tuple[RelayCpu, ...]:
    """What each CPU has counted since Open vSwitch was started; none where it does not say."""
    return tuple(_cpus(_ask(root, "dpif-netdev/pmd-stats-show", "ovs-netdev")))


def read_connections(root: Path) -> int | None:
    """How many connections the switch in user space follows; None where it does not say."""
    said = _ask(root, "dpctl/ct-get-nconns", DATAPATH).strip()
    return int(said) if said.isdecimal() and len(said) < 20 else None


def _ask(root: Path, command: str, *arguments: str) -> str:
    try:
        return OpenVSwitch(root).ask_switch(command, *arguments)
    except (OSError, ValueError, RefusedError):
        return ""


def _cpus(text: str) -> Iterator[RelayCpu]:
    """Until the main thread, which is no CPU of the relay's."""
    found: dict[tuple[int, int], dict[str, int]] = {}
    counts: dict[str, int] | None = None
    for line in text.splitlines():
        if not line.startswith((" ", "\t")):
            thread = THREAD.fullmatch(line.strip())
            counts = found.setdefault((int(thread[2]), int(thread[1])), {}) if thread else None
        elif counts is not None and (count := COUNT.fullmatch(line)):
            counts[count[1]] = int(count[2])
    for (cpu, node), counted in sorted(found.items()):
        yield RelayCpu(
            number=cpu,
            node=node,
            packets=counted.get("packets received", 0),
            idle_cycles=counted.get("idle cycles", 0),
            busy_cycles=counted.get("processing cycles", 0),
        )
