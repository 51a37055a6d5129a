"""How long a guest with a teaming pair stands still as its memory grows: QEMU's own way to give it a VF, and vferry's.

    vferry lab up --guests failover1
    python bench/failover_growth.py [--memory 256,512,1024] [--runs 1] [--results bench-results/failover.json]

QEMU's own way is libvirt's migration of a guest whose `<teaming>` VF is left in it: QEMU unplugs it before the copy,
and plugs one of the destination while the guest stands still, which pins all its memory. vferry plugs it after the
guest has resumed. Each migration begins with the guest newly started on host1. Prints a row for each: MiB, the pause
that libvirt tells (ms), the longest time without an answer to 200 probes a second (ms), and the whole migration (s).
"""

import argparse
import contextlib
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vferry.lab import guests
from vferry.lab.lab import Lab
from vferry.lab.topology import DATA, HOSTS

GUEST = "failover1"
PF = "enp1s0"
VFERRY = (sys.executable, "-m", "vferry")
SOURCE, DESTINATION = (host.name for host in HOSTS)
LIBVIRT, RELAY, PORT, MEMORY_PORT = "/run/libvirt/libvirt-sock", "/run/bench.sock", 49300, 49301


def main() -> None:
    """Parse, measure, print, and leave the guest as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="256,512,1024", help="MiB, by commas")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("bench-results/failover.json"))
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    lab = Lab()
    lab.guest(GUEST)
    guests.stop_others(lab, [guests.named(GUEST)])
    definition = host(lab, guests.where(lab, GUEST).host, f"virsh dumpxml --inactive {GUEST}")
    rows = []
    try:
        for _ in range(options.runs):
            for memory in map(int, options.memory.split(",")):
                for way in (by_qemu, by_vferry):
                    start(lab, re.sub(r"(<(?:currentM|m)emory unit=)'KiB'>\d+", rf"\1'MiB'>{memory}", definition))
                    row = {"way": way.__name__.removeprefix("by_"), "memory_mib": memory, **way(lab)}
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    finally:
        start(lab, definition)
    options.results.write_text(json.dumps({"rows": rows, "medians": medians(rows)}, indent=1) + "\n")


def start(lab: Lab, definition: str) -> None:
    """The guest anew on host1, and nowhere else."""
    for name in (SOURCE, DESTINATION):
        host(lab, name, f"virsh destroy {GUEST}; virsh undefine {GUEST}; true")
    host(lab, SOURCE, "cat > /run/bench.xml && virsh define /run/bench.xml && rm /run/bench.xml", definition)
    lab.guest(GUEST)
    while "eth" not in host(lab, SOURCE, f"virsh domifaddr --source agent {GUEST} || true"):
        time.sleep(1)


def by_vferry(lab: Lab) -> dict[str, Any]:
    """`vferry migrate`, as it is."""
    with probed() as gap:
        said = run([*VFERRY, "migrate", GUEST, DESTINATION, "--no-probe", "--json"])
    report = json.loads(said)
    return {"pause_ms": report["pause_ms"], "total_s": report["total_s"], **gap}


def by_qemu(lab: Lab) -> dict[str, Any]:
    """libvirt's own migration, with the VF in the guest; both PFs let the guest's MAC pass to the bridge meanwhile."""
    pass_on = f"bridge fdb {{}} {guests.named(GUEST).mac} dev {PF} self permanent"
    with relayed(lab), probed() as gap:
        for name in (SOURCE, DESTINATION):
            host(lab, name, pass_on.format("add"))
        began = time.monotonic()
        host(
            lab,
            SOURCE,
            f"virsh migrate --live --p2p --persistent --undefinesource {GUEST} "
            f"'qemu+unix:///system?socket={RELAY}' --migrateuri tcp://{HOSTS[1].address}:{MEMORY_PORT}",
        )
        took = time.monotonic() - began
        for name in (SOURCE, DESTINATION):
            host(lab, name, pass_on.format("del"))
        time.sleep(5)
    told = host(lab, DESTINATION, f"virsh domjobinfo {GUEST} --completed")
    pause = re.search(r"Total downtime:\s+(\d+)", told)
    return {"pause_ms": float(pause[1]) if pause else None, "total_s": round(took, 1), **gap}


@contextlib.contextmanager
def relayed(lab: Lab) -> Iterator[None]:
    """The destination's libvirt, reached from the source by a socket of its own."""
    address = HOSTS[1].address
    far = f"socat TCP-LISTEN:{PORT},bind={address},fork,reuseaddr UNIX-CONNECT:{LIBVIRT}"
    near = f"socat UNIX-LISTEN:{RELAY},fork,unlink-early TCP:{address}:{PORT}"
    for name, relay in ((DESTINATION, far), (SOURCE, near)):
        host(lab, name, f"systemd-run --quiet --collect --unit bench-relay {relay}")
    try:
        yield
    finally:
        for name in (SOURCE, DESTINATION):
            host(lab, name, "systemctl stop bench-relay")


@contextlib.contextmanager
def probed() -> Iterator[dict[str, Any]]:
    """The guest probed 200 times a second meanwhile; what came of it is filled in at the end."""
    gap: dict[str, Any] = {}
    words = [*VFERRY, "probe", guests.named(GUEST).address, "--from", f"netns:{DATA}", "--rate", "200", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as probe:
        time.sleep(2)
        yield gap
        time.sleep(2)
        probe.send_signal(signal.SIGINT)
        said, _ = probe.communicate(timeout=60)
    seen = json.loads(said)
    gap.update(longest_gap_ms=seen["longest_gap_ms"], lost=seen["lost"])


def medians(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each way and size, the median of what was measured."""
    found: dict[str, dict[str, float]] = {}
    for key in {(row["way"], row["memory_mib"]) for row in rows}:
        same = [row for row in rows if (row["way"], row["memory_mib"]) == key]
        found["{} {}".format(*key)] = {
            name: statistics.median(row[name] for row in same) for name in ("pause_ms", "longest_gap_ms", "total_s")
        }
    return dict(sorted(found.items()))


def host(lab: Lab, name: str, script: str, given: str | None = None) -> str:
    """What a script prints on a host; it must succeed."""
    done = lab.run(name, ["sh", "-c", script], input=given, timeout=400)
    if done.returncode != 0:
        raise SystemExit(f"{name}: {script}: {done.stderr}")
    return done.stdout


def run(words: list[str]) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{words}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
