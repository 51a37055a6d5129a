"""How fast a guest's disk and agent answer: a script that reads in the guest while its agent is pinged.

Statistics of libvirt's would wait for the device that is being plugged; the agent does not.
"""

import re
import time
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from vferry.host.api import GuestRun, Latency
from vferry.host.guest_agent import GuestAgent, nonsense
from vferry.host.hypervisor import Hypervisor
from vferry.model.problem import Problem

PING_S = 0.2
PATIENCE_S = 10.0
"""How much longer than it was asked to a script may take: a guest that stands still is what is looked for."""
MOST_LOOKS = 500

# A read is not waited for, and has no hold on the pipe to the agent: the script ends in time though the disk stalls.
# Time and figures are read by the shell itself, since a process is dear in a busy guest.
SCRIPT = r"""
LC_ALL=C; export LC_ALL
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
sys=/sys/block dev=/dev
clock() { read -r up rest < /proc/uptime; now=${up%.*}${up#*.}; now=${now#0}; now=${now#0}; }
look() {
  read -r flying rest < "$disk/inflight"; read -r reads merged sectors ticks rest < "$disk/stat"; clock
  echo "$now $reads $ticks $flying"
}
disk=
for d in "$sys"/*; do
  [ -e "$d/device" ] && [ -e "$dev/${d##*/}" ] || continue
  read -r size < "$d/size"; read -r removable < "$d/removable"
  [ "$size" != 0 ] && [ "$removable" = 0 ] && disk=$d && break
done
[ -n "$disk" ] && command -v dd >/dev/null || exit 0
look; end=$((now + hundredths)); pid=
while [ "$now" -lt "$end" ]; do
  if [ -z "$pid" ] || ! kill -0 "$pid" 2>/dev/null; then
    dd if="$dev/${disk##*/}" of=/dev/null bs=4096 count=1 iflag=direct </dev/null >/dev/null 2>&1 &
    pid=$!
  fi
  sleep 0.1 2>/dev/null || sleep 1
  look
done
echo end
"""

LOOK = re.compile(r"(\d{1,15}) (\d{1,20}) (\d{1,20}) (\d{1,9})")


class Look(Struct, frozen=True, kw_only=True):
    """A disk's counters at one moment of the guest's uptime, in hundredths of a second."""

    at: int
    reads: int
    ticks_ms: int
    """What all reads that have ended took together."""
    in_flight: int


def measure_guest(hypervisor: Hypervisor, guest: str, seconds: float) -> Latency:
    """Pings the agent while the script reads. Problems: those of `run_in_guest`."""
    agent = GuestAgent(hypervisor, guest, seconds + PATIENCE_S)
    pid = agent.start(script(seconds))
    agent_ms = _ping(agent, seconds)
    return Latency(agent_ms=agent_ms, disk_ms=read_latencies(read_looks(guest, agent.wait(pid))))


def script(seconds: float) -> str:
    """What runs in the guest, for so long."""
    return f"hundredths={round(seconds * 100)}{SCRIPT}"


def read_looks(guest: str, run: GuestRun) -> list[Look]:
    """What the script printed. Problem ``guest-agent-nonsense`` when it is not that."""
    *lines, end = run.stdout.splitlines() or ["end"]
    found = [LOOK.fullmatch(line) for line in lines[:MOST_LOOKS]]
    looks = [_look(match) for match in found if match]
    if run.code != 0 or end != "end" or len(looks) != len(lines):
        raise _nonsense(guest, f"the script ended with {run.code}: {run.stderr.strip()[:200] or 'odd output'}")
    return looks


def read_latencies(looks: Sequence[Look]) -> tuple[float, ...]:
    """The average of the reads that ended between two looks, in ms, where any did.

    The kernel counts a read's time when it ends, so one that waits over several looks is in the last of them. One
    that waits still counts for as long as it was seen to.
    """
    found: list[float] = []
    waiting: Look | None = None
    for before, look in pairwise(looks):
        reads, ticks_ms = look.reads - before.reads, look.ticks_ms - before.ticks_ms
        if reads > 0 and ticks_ms >= 0:
            found.append(round(ticks_ms / reads, 3))
        waiting = (waiting or look) if look.in_flight and reads == 0 else None
    if waiting and looks[-1].at > waiting.at:
        found.append((looks[-1].at - waiting.at) * 10.0)
    return tuple(found)


def _ping(agent: GuestAgent, seconds: float) -> tuple[float, ...]:
    found: list[float] = []
    until = time.monotonic() + seconds
    while (begun := time.monotonic()) < until:
        agent.ask("guest-ping", {})
        found.append(round((time.monotonic() - begun) * 1000, 3))
        time.sleep(max(0.0, min(begun + PING_S, until) - time.monotonic()))
    return tuple(found)


def _look(match: re.Match[str]) -> Look:
    at, reads, ticks_ms, in_flight = map(int, match.groups())
    return Look(at=at, reads=reads, ticks_ms=ticks_ms, in_flight=in_flight)


def _nonsense(guest: str, what: str) -> Problem:
    message = f"What guest {guest} says of its disk makes no sense: {what}"
    return nonsense(guest, message, "Read /sys/block/DISK/stat in the guest and look at qemu-guest-agent there")
