"""What it brings a migration that a guest at the destination has the same pages: `vferry gateway receive --resident`.

    python bench/resident.py [--memory 1024] [--link 400] [--runs 3] [--results resident.json]

Two guests with Debian 13 from one image, as in left_out.py, boot, read all their programs and compile Python's library.
Then the first one is moved from one QEMU to the next, over a link of so many Mbit/s and through gateways with zstd, by
turns with the second one as a resident and without; after each move it must still answer. As root; needs no KVM.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from left_out import MIB, SECOND, WORK, Guest, system
from vferry.trial.gateways import Gateways
from vferry.trial.link import Link

CHANNELS = 2
POLL_S = 0.02


def main() -> None:
    """Boot, work, move, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=1024, help="MiB of each guest")
    parser.add_argument("--link", type=int, default=400, help="Mbit/s")
    parser.add_argument("--runs", type=int, default=3, help="moves with the resident, and as many without")
    parser.add_argument("--results", type=Path, default=Path("resident.json"))
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        files = system(folder)
        first, second = (Guest(folder, name, options.memory, files) for name in ("first", "second"))
        stack.callback(second.end)
        link = stack.enter_context(Link(options.link))
        for work in SECOND:
            for guest in (first, second):
                guest.run(WORK[work])
        rows = []
        try:
            for number in range(2 * options.runs):
                places = [second.place] if number % 2 else []
                following = Guest(folder, f"first{number}", options.memory, files, incoming=True)
                first, row = moved(link, folder, first, following, places)
                rows.append({"link_mbit": options.link, **row})
                print(json.dumps(rows[-1]), flush=True)
        finally:
            first.end()
    options.results.write_text(json.dumps(rows, indent=1) + "\n")
    for name in ("total_s", "wire_mib", "cpu_s"):
        with_it, without = ([row[name] for row in rows if row["resident"] is so] for so in (True, False))
        print(f"{name}: {statistics.median(with_it)} with the resident, {statistics.median(without)} without")


def moved(link: Link, folder: Path, here: Guest, there: Guest, places: list[str]) -> tuple[Guest, dict[str, Any]]:
    """Move a guest, end what it leaves, and tell what that took, the copying of resident pages included in the CPU."""
    before = link.carried()
    with Gateways(link, folder, None, "zstd", places) as gateways:
        for guest in (there, here):
            capability = {"capability": "multifd", "state": True}
            guest.monitor.ask("migrate-set-capabilities", capabilities=[capability])
            guest.monitor.ask("migrate-set-parameters", **{"multifd-channels": CHANNELS, "max-bandwidth": 10**10})
        there.monitor.ask("migrate-incoming", uri=f"unix:{gateways.exit}")
        began = time.monotonic()
        here.monitor.ask("migrate", uri=f"unix:{gateways.entrance}")
        while (status := there.monitor.ask("query-migrate").get("status")) not in ("completed", "failed"):
            time.sleep(POLL_S)
        total, wire = time.monotonic() - began, link.carried() - before
        if status == "failed":
            raise RuntimeError("the migration failed")
        cpu = sum(process.cpu_s() for process in (gateways.send, gateways.receive))
        told, _ = gateways.end()
    here.end()
    there.run("true")
    row = {"resident": bool(places), "total_s": round(total, 2), "wire_mib": wire // MIB, "cpu_s": round(cpu, 2)}
    return there, row | {name: told[name] for name in ("pages", "resident_pages", "delta_pages")}


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("resident.py: must be root")
    main()
