"""What an operator does in the lab, by the command line alone, and what must be true afterwards."""

import base64
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vferry.lab import guests
from vferry.lab.lab import Lab

VFERRY = (sys.executable, "-m", "vferry")
HOSTS = ("host1", "host2")
WAIT_S = 600.0
ANSWER_S = 30.0
PF = "enp1s0"


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


def do(lab: Lab, host: str, script: str) -> str:
    """What a shell script prints on a host; it must succeed."""
    done = lab.run(host, ["sh", "-c", script])
    assert done.returncode == 0, f"{host}: {script}: status {done.returncode}, {done.stderr.strip()}"
    return done.stdout.strip()


def until(true: Callable[[], Any], seconds: float, otherwise: str) -> None:
    """Waits until something is true; fails where it is not for that long."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"{otherwise}, not within {seconds:.0f} s"
        time.sleep(0.5)


@contextlib.contextmanager
def certified_qemu(scene: "Scene") -> Iterator[None]:
    """QEMU may send by itself for so long: both hosts have certificates for it."""
    for host in HOSTS:
        assert vferry("host", "certify-qemu", host).returncode == 0
    try:
        yield
    finally:
        for host in HOSTS:
            scene.run(host, "rm -f /etc/pki/qemu/*")


class Migration:
    """A `vferry migrate --json --no-probe` that runs in a process of its own."""

    def __init__(self, guest: str, destination: str, *options: str) -> None:
        self.guest, self.source, self.destination = guest, other(destination), destination
        self.said = ""
        self._before = {row["operation"] for row in asked("operation", "list")}
        self._process = subprocess.Popen(
            [*VFERRY, "migrate", guest, destination, "--json", "--no-probe", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.operation = ""

    def wait_for(self, phase: str) -> None:
        """Waits until the operation has come to a phase; fails where it ends before."""

        def come() -> bool:
            rows = [row for row in asked("operation", "list") if row["operation"] not in self._before]
            if not rows:
                return False
            self.operation = rows[0]["operation"]
            assert rows[0]["phase"] == phase or rows[0]["status"] == "running", f"ended before {phase}: {rows[0]}"
            return bool(rows[0]["phase"] == phase)

        self.wait_until(come)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Waits until something is true; fails where the command ends before."""
        until = time.monotonic() + WAIT_S
        while not true():
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < until, f"not within {WAIT_S:.0f} s"
            time.sleep(0.05)

    def wait(self, seconds: float) -> None:
        """Waits for so long, or until the command ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    def end(self) -> tuple[int, dict[str, Any]]:
        """Exit code and report."""
        out, err = self._process.communicate(timeout=WAIT_S)
        self.said = err
        assert out, err
        return self._process.returncode, json.loads(out)

    def kill(self) -> None:
        """`kill -9` of the controller."""
        self._process.kill()
        self._process.communicate()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None


def migrate(scene: "Scene", *options: str) -> dict[str, Any]:
    """The report of a migration of the guest to the other host, which must be whole there."""
    destination = other(scene.host)
    report = asked("migrate", scene.guest, destination, *options)
    assert report["status"] == "completed", report
    assert report["degraded"] is None, report
    assert report["destination"] == destination
    return dict(report)


def there_and_back(scene: "Scene", *options: str, back: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The reports of a migration to the other host and of one home again, each as it has ended.

    The guest is whole then, and nothing of it is left where it was. `back`: more options for the way home.
    """
    home = scene.host
    for host, more in ((other(home), ()), (home, back)):
        report = migrate(scene, *options, *more)
        scene.assert_whole(host)
        scene.assert_nothing_left()
        yield report


class EmulatorLostGuestError(Exception):
    """A guest hangs in its own kernel, since QEMU without KVM delivered an interrupt twice (docs/lab.md)."""


class Scene:
    """A guest on a host of the lab, with what must be true of it before and after."""

    def __init__(self, lab: Lab, guest: str) -> None:
        self.lab, self.guest = lab, guest
        self.address, self.address6 = guests.named(guest).address, guests.named(guest).address6
        self.lost: str | None = None
        """The host on which the emulator has lost the guest."""
        self._begun: list[Migration] = []

    def migrate(self, *options: str) -> Migration:
        """Begins to migrate the guest to the host that it is not on."""
        self._begun.append(Migration(self.guest, other(self.host), *options))
        return self._begun[-1]

    def end_migrations(self) -> None:
        """Ends what a test that has failed leaves running."""
        left = [migration for migration in self._begun if migration.runs]
        for migration in left:
            migration.kill()
        if left:
            vferry("operation", "recover")

    @property
    def host(self) -> str:
        return where(self.guest)

    def run(self, host: str, script: str) -> str:
        """What a shell script prints on a host, whatever its status."""
        return self.lab.run(host, ["sh", "-c", script]).stdout

    def state(self, host: str) -> str:
        """The guest's state there, in virsh's words, or ``absent``."""
        return self.run(host, f"virsh domstate {self.guest}").strip() or "absent"

    def find_lost(self) -> str | None:
        """The host on which the emulator has lost the guest."""
        for host in HOSTS:
            if self.state(host) == "running" and guests.is_lost(self.lab, self.guest, host):
                self.lost = host
        return self.lost

    def start_anew(self) -> None:
        """Ends a guest that the emulator has lost, and starts it again where it was."""
        self._power_cycle(self.lost or self.host)

    def settled_at(self, migration: Migration) -> str:
        """The host that the guest runs on, or else the source, once both hosts' libvirt answer again."""
        for _ in range(10):
            if self.state(migration.destination) == "running":
                return migration.destination
            time.sleep(1)
        return migration.source

    @contextlib.contextmanager
    def booted_with(self, parameter: str) -> Iterator[None]:
        """The guest, started anew with one more parameter of its kernel, and as it was afterwards."""
        line = "console=ttyS0"
        with self.defined_as(lambda xml: xml.replace(line, f"{line} {parameter}")):
            yield

    @contextlib.contextmanager
    def defined_as(self, edit: Callable[[str], str]) -> Iterator[None]:
        """The guest, started anew with another definition, and with its own afterwards, where it was."""
        home = self.host
        own = self.run(home, f"virsh dumpxml --inactive {self.guest}")
        self._restart(home, edit(own))
        try:
            yield
        except BaseException:
            self.find_lost()  # for it is started anew now
            raise
        finally:
            if self.host != home:
                self.run(self.host, f"virsh destroy {self.guest}; virsh undefine {self.guest}")
            self._restart(home, own)

    def _restart(self, host: str, definition: str) -> None:
        self.run(host, f"virsh destroy {self.guest}")
        defined = self.lab.run(
            host, ["sh", "-c", "cat > /run/x.xml; virsh define /run/x.xml; rm /run/x.xml"], definition
        )
        assert "defined" in defined.stdout, defined.stderr
        self.lab.guest(self.guest)

    def cold_boot(self, host: str) -> None:
        """Ends the guest on this host and starts it from its definition there."""
        self._power_cycle(host)
        self.await_answer()

    def assert_boots_anew(self) -> None:
        """The guest is whole after a cold boot where it is."""
        host = self.host
        self.cold_boot(host)
        self.assert_whole(host)

    def _power_cycle(self, host: str) -> None:
        self.run(host, f"virsh destroy {self.guest}; virsh start {self.guest}")

    def await_agent(self) -> None:
        """The guest's agent starts later than its network."""
        until(self._agent_answers, WAIT_S, f"the agent of {self.guest} does not answer")

    @contextlib.contextmanager
    def busy(self, script: str) -> Iterator[None]:
        """A shell script that runs in the guest meanwhile, wherever that is; it is ended afterwards."""
        pid = self._start_in_guest("sh", "-c", script)["pid"]
        try:
            yield
        finally:
            self._start_in_guest("sh", "-c", f"kill {pid}")

    def tell(self, script: str) -> str:
        """Runs a shell script in the guest to its end, which must succeed; what it prints."""
        asked_for = {"pid": self._start_in_guest("sh", "-c", script)["pid"]}
        until = time.monotonic() + ANSWER_S
        while not (status := self._agent("guest-exec-status", **asked_for))["exited"]:
            assert time.monotonic() < until, f"not within {ANSWER_S:.0f} s: {script}"
            time.sleep(0.2)
        assert status["exitcode"] == 0, status
        return base64.b64decode(status.get("out-data", "")).decode()

    @contextlib.contextmanager
    def without_library(self, host: str, name: str) -> Iterator[None]:
        """A host whose loader does not find a library meanwhile."""
        there, away = "/usr/lib/x86_64-linux-gnu", "/root/away"
        self.run(host, f"mkdir {away} && mv {there}/{name}* {away}; ldconfig")
        try:
            yield
        finally:
            self.run(host, f"mv {away}/* {there} && rmdir {away}; ldconfig")

    def _start_in_guest(self, path: str, *words: str) -> Any:
        return self._agent("guest-exec", path=path, arg=words, **{"capture-output": True})

    def _agent(self, command: str, **arguments: object) -> Any:
        asked = {"execute": command, "arguments": arguments}
        done = self.lab.run(self.host, ["virsh", "qemu-agent-command", self.guest, json.dumps(asked)])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["return"]

    def _agent_answers(self) -> bool:
        ask = ["virsh", "qemu-agent-command", self.guest, '{"execute": "guest-ping"}']
        return self.lab.run(self.host, ask).returncode == 0

    def await_answer(self) -> None:
        guests.answer(self.lab, guests.named(self.guest))

    def assert_whole(self, host: str) -> None:
        """The guest runs on exactly this host, on its VFs, and answers at all its addresses."""
        states = {each: self.state(each) for each in HOSTS}
        assert states[host] == "running", states
        assert states[other(host)] != "running", states
        shown = asked("guest", "show", self.guest)
        assert shown["host"] == host
        assert sum(nic["vf"] is not None for nic in shown["nics"]) == len(guests.named(self.guest).vfs), shown
        self._assert_answers(host)

    def assert_nothing_left(self) -> None:
        """No claim, no gateway, no definition elsewhere, no forwarding entry of this guest, no VF with its MAC."""
        here = self.host
        macs = {nic["mac"] for nic in asked("guest", "show", self.guest)["nics"]}
        for host in HOSTS:
            shown = asked("host", "show", host)
            assert not shown["claims"], (host, shown["claims"])
            assert not self.run(host, "pgrep -f '[v]ferry.*gateway'"), host
            assert self.run(host, "ls /run/vferry").split() == ["agent.sock"], host
            mdevs = {mdev["uuid"] for mdev in shown["mdevs"]}
            assert host == here or guests.named(self.guest).device not in mdevs, (host, mdevs)
            entries = self.run(host, f"bridge fdb show dev {PF} | grep self")
            assert host == here or not any(mac in entries for mac in macs), (host, entries)
            for pf in shown["pfs"]:
                for vf in pf["vfs"]:
                    assert host == here or vf["settings"]["mac"] not in macs, (host, vf)
        assert self.guest not in {guest["name"] for guest in asked("host", "show", other(here))["guests"]}

    def _assert_answers(self, host: str) -> None:
        """Within half a minute: the peer may still send to the old host until it asks by broadcast again."""
        began = time.monotonic()
        for link in guests.named(self.guest).links:
            while self.lab.peer(["busybox", "ping", "-q", "-c", "1", "-W", "1", link.address]).returncode != 0:
                late = time.monotonic() - began >= ANSWER_S
                assert not late, f"{self.guest} does not answer at {link.address} on {host}"
