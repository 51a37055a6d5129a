"""An Open vSwitch of the bench's own, beside the machine's, which stays as it is."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import Database
from vferry.host.relay_bridge import PortSpec, insert_port, unopened
from vferry.model.problem import Exit, Problem
from vferry.trial.namespace import Namespace
from vferry.trial.process import Process
from vferry.trial.started import Started

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
IN_USER_SPACE, IN_THE_KERNEL = "netdev", "system"
"""What Open vSwitch calls its datapaths."""
READY_S = 30.0


class Bridge(NamedTuple):
    """Without `learns`, it passes only what flows say; without `mac`, its own interface has any."""

    name: str
    ports: tuple[PortSpec, ...]
    learns: bool = False
    mac: str | None = None


def port(name: str, kind: str = "", **options: str) -> PortSpec:
    """A port of one interface; of a kind of Open vSwitch's, or one that is there."""
    return PortSpec(name=name, interfaces={name: (kind, options)})


def missing(daemon: Path, package: str) -> str:
    """What this machine lacks for such a switch, in words; empty if nothing."""
    if not daemon.exists() or not SCHEMA.exists():
        return f"Open vSwitch is not there: apt install {package} python3-openvswitch"
    return "" if find_spec("ovs") else "Open vSwitch's Python binding is not there: apt install python3-openvswitch"


class Switch(Started):
    """It runs `daemon` in `folder`, which is the root of its sockets, with its ports in `namespace`.

    Problems: ``bench-no-switch``, and those of `Database`.
    """

    def __init__(self, folder: Path, daemon: Path, datapath: str, namespace: Namespace) -> None:
        super().__init__()
        self.folder, self.datapath, self.namespace = folder, datapath, namespace
        self._binary = daemon
        self._run = folder / "run/openvswitch"

    def add(self, *bridges: Bridge) -> None:
        """Makes bridges, all at once."""

        def insert(transaction: Any) -> None:
            made = [self._insert(transaction, database, bridge) for bridge in bridges]
            database.switch.bridges = [*database.switch.bridges, *made]

        with Database(self.folder) as database:
            database.change(insert)
            interfaces = {row.name: row for row in database.rows("Interface")}
            ports = (each for bridge in bridges for each in bridge.ports)
            for name in (each for spec in ports for each in spec.interfaces):
                if why := unopened(interfaces[name]):
                    raise _problem(f"{name}: {why}")

    def put_flows(self, bridge: str, flows: Iterable[str]) -> None:
        """Has a bridge know flows, as ovs-ofctl(8) writes them."""
        self._do(["ovs-ofctl", "add-flows", bridge, "-"], "\n".join(flows))

    def ask(self, command: str, *arguments: str) -> str:
        """What it answers to one of ovs-appctl's commands."""
        return OpenVSwitch(self.folder).ask_switch(command, *arguments)

    def _start(self) -> None:
        self._run.mkdir(parents=True)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        database, socket = str(self.folder / "conf.db"), f"unix:{self._run}/db.sock"
        row = {"op": "insert", "table": "Open_vSwitch", "row": {}}
        self._do(["ovsdb-tool", "create", database, str(SCHEMA)])
        self._do(["ovsdb-tool", "transact", database, json.dumps(["Open_vSwitch", row])])
        self._run_daemon(["ovsdb-server", database, f"--remote=p{socket}"])
        # Its name is in that of the socket by which it is asked.
        started = self.folder / "ovs-vswitchd"
        started.symlink_to(self._binary)
        self._run_daemon([str(started), socket, "--pidfile"])
        self._await_ready()

    def _await_ready(self) -> None:
        ends = time.monotonic() + READY_S
        while (found := OpenVSwitch(self.folder).abilities()) is None or found.version is None:
            if time.monotonic() > ends:
                raise _problem("it does not come up")
            time.sleep(0.05)

    def _insert(self, transaction: Any, database: Database, bridge: Bridge) -> Any:
        made = transaction.insert(database.table("Bridge"))
        made.name, made.datapath_type = bridge.name, self.datapath
        made.fail_mode = ["standalone" if bridge.learns else "secure"]
        made.other_config = {"hwaddr": bridge.mac} if bridge.mac else {}
        ports = (port(bridge.name, "internal"), *bridge.ports)
        made.ports = [insert_port(transaction, database, each, None) for each in ports]
        return made

    def _run_daemon(self, argv: Sequence[str]) -> None:
        logs = ["-vconsole:off", f"--log-file={self.folder}/{Path(argv[0]).name}.log"]
        self._stack.enter_context(Process(self.namespace.inside([*self._environment(), *argv, *logs])))

    def _do(self, argv: Sequence[str], given: str = "") -> None:
        words = [*self._environment(), *argv]
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _problem(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")

    def _environment(self) -> list[str]:
        folders = {name: str(self._run) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "RUNTIME_DIRECTORY")}
        return ["env", *(f"{name}={path}" for name, path in folders.items())]


def _problem(why: str) -> Problem:
    return Problem("bench-no-switch", f"Open vSwitch of the bench: {why}", "Run it as root", exit=Exit.UNDONE)
