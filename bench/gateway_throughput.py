"""Throughput of a gateway pair over loopback: unix socket → send ══ TLS ══ receive → unix socket.

    python bench/gateway_throughput.py [--mib 1024] [--channels 1] [--runs 5] [--plaintext] [--codec none]

The bytes do not compress: with a codec, this is what it costs where there is nothing to gain.

Prints a JSON line: MB/s of each run, the median, and CPU seconds per GiB of each gateway. Source, both gateways
and sink share this machine's cores.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import trustme

MIB = 1 << 20
VFERRY = Path(sys.executable).with_name("vferry")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="MiB over all channels")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--plaintext", action="store_true")
    parser.add_argument("--codec", default="none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure(Path(folder), options) for _ in range(options.runs)]
    median = statistics.median(run["mb_per_s"] for run in runs)
    print(json.dumps({"median_mb_per_s": median, "cores": os.cpu_count(), "runs": runs}))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Carry the bytes once through a fresh pair."""
    sink = socket.socket(socket.AF_UNIX)
    sink_path = folder / "sink.sock"
    sink_path.unlink(missing_ok=True)
    sink.bind(str(sink_path))
    sink.listen(options.channels)
    security = ["--insecure-plaintext"] if options.plaintext else credentials(folder)
    source_path = folder / "source.sock"
    receiver, address = start("receive", "--listen", "127.0.0.1:0", "--connect", f"unix:{sink_path}", *security)
    sender, _ = start(
        "send", "--listen", f"unix:{source_path}", "--connect", address, "--codec", options.codec, *security
    )
    size = options.mib * MIB // options.channels
    threads = [threading.Thread(target=write, args=(source_path, size)) for _ in range(options.channels)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    readers = [threading.Thread(target=read, args=(sink.accept()[0], size)) for _ in range(options.channels)]
    for thread in readers:
        thread.start()
    for thread in readers + threads:
        thread.join()
    seconds = time.monotonic() - begin
    sink.close()
    gib = size * options.channels / (1024 * MIB)
    return {
        "mb_per_s": round(size * options.channels / seconds / 1e6),
        "send_cpu_s_per_gib": round(stop(sender)["cpu_s"] / gib, 2),
        "receive_cpu_s_per_gib": round(stop(receiver)["cpu_s"] / gib, 2),
    }


def credentials(folder: Path) -> list[str]:
    """Make one certificate that both gateways use."""
    ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    if not ca.exists():
        authority = trustme.CA()
        leaf = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(ca)
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
    return ["--ca", str(ca), "--cert", str(cert), "--key", str(key), "--peer", "127.0.0.1"]


def start(role: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start a gateway and wait until it listens; returns it and its TCP address."""
    process = subprocess.Popen([VFERRY, "gateway", role, *arguments], stdout=subprocess.PIPE, text=True)
    ready = process.stdout.readline() if process.stdout else ""
    return process, json.loads(ready)["address"]


def stop(process: subprocess.Popen[str]) -> dict[str, Any]:
    """End a gateway and return its last event."""
    process.send_signal(signal.SIGTERM)
    lines = process.communicate()[0].splitlines()
    end: dict[str, Any] = json.loads(lines[-1])
    return end


def write(path: Path, size: int) -> None:
    """Write `size` bytes that are not all the same, wait for the far end to close."""
    block = memoryview(os.urandom(MIB))
    with socket.socket(socket.AF_UNIX) as source:
        source.connect(str(path))
        for _ in range(size // MIB):
            source.sendall(block)
        source.shutdown(socket.SHUT_WR)
        source.recv(1)


def read(sink: socket.socket, size: int) -> None:
    """Read to the end."""
    buffer = bytearray(MIB)
    total = 0
    with sink:
        while count := sink.recv_into(buffer):
            total += count
    if total != size:
        raise SystemExit(f"{total} bytes of {size} arrived")


if __name__ == "__main__":
    main()
