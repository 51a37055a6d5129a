"""A guest's network without a guest: real links in a namespace of their own, under a /sys/class/net with drivers.

veth pairs stand in for NICs. What a NIC's directory shows is the kernel's, but for the driver. Processes are the
guest's own, too: a script that has NetworkManager read its configuration anew must not find this machine's.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STANDBY, VF = "ens1", "enp7s0"
MAC = "52:54:00:12:34:56"

FILES = "address ifindex carrier operstate mtu master ifalias"
"""What the scripts read of a NIC's directory."""

SETUP = """
set -eu
mount --make-rprivate /
mount -t proc none /proc
mount -t tmpfs none {place}
mkdir {place}/sys {place}/net {place}/bin {place}/run
mount -t sysfs none {place}/sys
mount --bind {place}/net /sys/class/net
mount --bind {place}/run /run
ip link set lo up
echo ready
sleep 120 &
wait $!  # and for whatever ends and has no parent left
"""

# Says on which NIC each packet would leave after every change, and complains of each moment without one. A NIC that
# gets another name has its directory moved, as sysfs would.
SHIM = """#!/bin/sh
{ip} "$@" || exit
case "$*" in "link set dev "*" name "*)
  mv {place}/net/$4 {place}/net/$6
  for file in {files}; do ln -sf {place}/sys/class/net/$6/$file {place}/net/$6/$file; done ;;
esac
case "$*" in *"show"*) exit 0 ;; esac
for to in 198.51.100.1 2001:db8:ffff::1; do
  {ip} route get $to >/dev/null 2>&1 || echo "no route to $to after: $*" >> {place}/gaps
done
"""


class GuestBox:
    """A namespace with NICs, in which scripts run."""

    def __init__(self, pid: int, place: Path) -> None:
        self.pid = pid
        self.place = place

    @property
    def inside(self) -> list[str]:
        """What runs a command in it."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", f"--pid=/proc/{self.pid}/ns/pid_for_children"]

    def run(self, script: str, *, watched: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        path = f"{self.place}/bin:{os.environ['PATH']}" if watched else os.environ["PATH"]
        done = subprocess.run(
            [*self.inside, "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PATH": path},
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def add(self, name: str, driver: str, mac: str) -> None:
        """Plugs a NIC; its cable's other end is up."""
        net = f"{self.place}/net/{name}"
        self.run(
            f"set -eu; ip link add {name} type veth peer name p-{name}; ip link set p-{name} up\n"
            f"ip link set {name} address {mac}; mkdir -p {net}/device {self.place}/{driver}\n"
            f"ln -s {self.place}/{driver} {net}/device/driver\n"
            f"for file in {FILES}; do\n"
            f"  ln -s {self.place}/sys/class/net/{name}/$file {net}/$file; done"
        )

    def remove(self, name: str) -> None:
        self.run(f"ip link delete {name}; rm -r {self.place}/net/{name}")

    def addresses(self, name: str) -> list[str]:
        lines = self.run(f"ip -o address show dev {name} scope global").stdout.splitlines()
        return sorted(line.split()[3] for line in lines)

    def routes(self, name: str) -> list[str]:
        said = self.run(f"ip -4 route show dev {name}; ip -6 route show dev {name}").stdout.splitlines()
        return sorted(line.strip() for line in said if not line.startswith(("fe80::", "multicast", "ff00::")))

    def leaves_by(self, to: str) -> str:
        """The NIC by which a packet leaves."""
        words = self.run(f"ip route get {to}").stdout.split()
        return words[words.index("dev") + 1]

    def gaps(self) -> list[str]:
        """When there was no route in a watched run."""
        return self.run(f"cat {self.place}/gaps 2>/dev/null || :").stdout.splitlines()

    def read(self, path: str) -> str:
        return self.run(f"cat {path}").stdout.strip()


@contextmanager
def guest_box(place: Path) -> Iterator[GuestBox]:
    """A guest with its VF, on which it has its addresses and routes; a standby NIC is plugged by the test."""
    place.mkdir()
    unshare = ["unshare", "-m", "-n", "-p", "--fork", "--kill-child"]
    holder = subprocess.Popen([*unshare, "sh", "-c", SETUP.format(place=place)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        box = GuestBox(holder.pid, place)
        ip = box.run("command -v ip").stdout.strip()
        shim = SHIM.format(ip=ip, place=place, files=FILES)
        box.run(f"cat > {place}/bin/ip <<'END'\n{shim}END\nchmod +x {place}/bin/ip")
        box.add(VF, "igbvf", MAC)
        yield box
    finally:
        holder.kill()
        holder.communicate()
