"""What an operator does in the lab, by the command line alone, and what must be true afterwards."""

import json
import subprocess
import sys
import time
from typing import Any

from vferry.lab.lab import Lab

VFERRY = (sys.executable, "-m", "vferry")
HOSTS = ("host1", "host2")
WAIT_S = 240.0
BRIDGE, PF = "br0", "enp1s0"


def vferry(*words: str, timeout: float = WAIT_S) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run([*VFERRY, *words], capture_output=True, text=True, timeout=timeout, check=False)


def asked(*words: str) -> Any:
    """What a command that cannot fail prints as JSON."""
    done = vferry(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def where(guest: str) -> str:
    """The host that has the guest."""
    return str(asked("guest", "show", guest)["host"])


def other(host: str) -> str:
    return HOSTS[1 - HOSTS.index(host)]


class Migration:
    """A `vferry migrate --json` that runs in a process of its own."""

    def __init__(self, guest: str, destination: str, *options: str) -> None:
        self.guest, self.destination = guest, destination
        self._before = {row["operation"] for row in asked("operation", "list")}
        self.process = subprocess.Popen(
            [*VFERRY, "migrate", guest, destination, "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.operation = ""

    def wait_for(self, phase: str) -> None:
        """Waits until the operation has come to a phase; fails where it ends before."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            rows = [row for row in asked("operation", "list") if row["operation"] not in self._before]
            if rows:
                self.operation = rows[0]["operation"]
                if rows[0]["phase"] == phase:
                    return
                assert rows[0]["status"] == "running", f"ended before {phase}: {rows[0]}"
            assert self.process.poll() is None or rows, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError(f"{phase} did not come within {WAIT_S:.0f} s")

    def end(self) -> tuple[int, dict[str, Any]]:
        """Exit code and report."""
        out, err = self.process.communicate(timeout=WAIT_S)
        assert out, err
        return self.process.returncode, json.loads(out)

    def kill(self) -> None:
        """`kill -9` of the controller."""
        self.process.kill()
        self.process.communicate()


class Scene:
    """A guest on a host of the lab, with what must be true of it before and after."""

    def __init__(self, lab: Lab, guest: str) -> None:
        self.lab, self.guest = lab, guest
        self.address = next(row["address"] for row in asked("lab", "status")["guests"] if row["name"] == guest)

    @property
    def host(self) -> str:
        return where(self.guest)

    def assert_whole(self, host: str, *, on_vf: bool = True) -> None:
        """The guest runs on exactly this host, on a VF where it should, and answers."""
        states = {each: self._state(each) for each in HOSTS}
        assert states[host] == "running", states
        assert states[other(host)] != "running", states
        shown = asked("guest", "show", self.guest)
        assert shown["host"] == host
        assert any(nic["vf"] for nic in shown["nics"]) is on_vf, shown
        assert self._answers(), f"{self.guest} does not answer on {host}"

    def assert_nothing_left(self) -> None:
        """No claim, no gateway, no definition elsewhere, no forwarding entry of this guest, no VF with its MAC."""
        here = self.host
        macs = {nic["mac"] for nic in asked("guest", "show", self.guest)["nics"]}
        for host in HOSTS:
            shown = asked("host", "show", host)
            assert not shown["claims"], (host, shown["claims"])
            assert not self._processes(host, "vferry.*gateway"), host
            assert self._files(host, "/run/vferry") == ["agent.sock"], host
            for pf in shown["pfs"]:
                for vf in pf["vfs"]:
                    assert host == here or vf["settings"]["mac"] not in macs, (host, vf)
        assert self.guest not in {guest["name"] for guest in asked("host", "show", other(here))["guests"]}

    def _state(self, host: str) -> str:
        return self.lab.run(host, ["virsh", "domstate", self.guest]).stdout.strip() or "absent"

    def _answers(self) -> bool:
        done = vferry("probe", self.address, "--from", "netns:vferry-data", "--rate", "20", "--seconds", "3", "--json")
        seen = json.loads(done.stdout)
        return bool(seen["lost"] < seen["sent"])

    def _processes(self, host: str, pattern: str) -> list[str]:
        return self.lab.run(host, ["pgrep", "-f", pattern]).stdout.split()

    def _files(self, host: str, folder: str) -> list[str]:
        return sorted(self.lab.run(host, ["ls", folder]).stdout.split())
