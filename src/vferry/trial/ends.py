"""Where the two virtio NICs of the bench are plugged, whoever drives them."""

import os
from pathlib import Path
from typing import NamedTuple

from vferry.host.sysfs import read_file

VHOST = Path("/dev/vhost-net")


class End(NamedTuple):
    """A socket to which a switch comes by vhost-user; or vhost-net's device, and the tap that is to be the NIC's."""

    path: Path
    tap: str = ""


Ends = tuple[End, End]


def give_cpu(pid: int, cpu: int) -> None:
    """Has the kernel's threads for a process's NICs run on a CPU: from Linux 6.4 on they are threads of the process."""
    tasks = [*Path(f"/proc/{pid}/task").iterdir(), *Path("/proc").glob("[0-9]*")]
    for task in tasks:
        if read_file(task / "comm") == f"vhost-{pid}":
            os.sched_setaffinity(int(task.name), {cpu})
