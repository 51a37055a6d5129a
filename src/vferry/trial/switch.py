"""An Open vSwitch of the bench's own, beside the machine's, which stays as it is."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from vferry.host.openvswitch import OpenVSwitch
from vferry.host.relay_switch import PortSpec
from vferry.model.problem import Exit, Problem
from vferry.trial.process import Process
from vferry.trial.started import Started

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
IN_USER_SPACE, IN_THE_KERNEL = "netdev", "system"
"""What Open vSwitch calls its datapaths."""
PATIENCE_S = 15


class Switch(Started):
    """It runs `daemon` in `folder`, and has its ports in the namespace that `inside` enters. Problem `bench-no-switch`.

    What asks Open vSwitch by a root's sockets, such as `OpenVSwitch`, takes `folder` as the root.
    """

    def __init__(self, folder: Path, daemon: Path, datapath: str, inside: Sequence[str]) -> None:
        super().__init__()
        self.folder, self.datapath = folder, datapath
        self._binary, self._inside = daemon, inside
        self._run = folder / "run/openvswitch"

    def configure(self, *commands: str) -> None:
        """Has `ovs-vsctl` do commands, all or none, and waits until they are done. A command's words have no spaces."""
        words = (word for command in commands for word in ("--", *command.split()))
        self._done(["ovs-vsctl", "--retry", f"--timeout={PATIENCE_S}", f"--db={self._socket}", *words])

    def put_flows(self, bridge: str, flows: Iterable[str]) -> None:
        """Has a bridge know flows, as ovs-ofctl(8) writes them."""
        self._done(["ovs-ofctl", "add-flows", bridge, "-"], "\n".join(flows))

    def ask(self, command: str, *arguments: str) -> str:
        """What the switch answers to one of ovs-appctl's commands."""
        return OpenVSwitch(self.folder).ask_switch(command, *arguments)

    def run(self, *commands: str) -> None:
        """Has `ip` do commands where the ports are."""
        for command in commands:
            self._done([*self._inside, "ip", *command.split()])

    def _start(self) -> None:
        self._run.mkdir(parents=True)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        database = self.folder / "conf.db"
        self._done(["ovsdb-tool", "create", str(database), str(SCHEMA)])
        self._daemon(["ovsdb-server", str(database), f"--remote=p{self._socket}"])
        # Its name is in that of the socket by which it is asked.
        started = self.folder / "ovs-vswitchd"
        started.symlink_to(self._binary)
        self._daemon([str(started), self._socket, "--pidfile"])
        self.configure("init")

    @property
    def _socket(self) -> str:
        return f"unix:{self._run}/db.sock"

    def _daemon(self, argv: Sequence[str]) -> None:
        logs = ["-vconsole:off", f"--log-file={self.folder}/{Path(argv[0]).name}.log"]
        self._stack.enter_context(Process([*self._inside, *self._environment(), *argv, *logs]))

    def _done(self, argv: Sequence[str], given: str = "") -> None:
        words = [*self._environment(), *argv]
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
        # ovs-vsctl also ends well where a port could not be made.
        if done.returncode or "Error detected" in done.stderr:
            why = f"{' '.join(argv)}: {done.stderr.strip()}"
            raise Problem("bench-no-switch", why[-500:], "Run it as root; look at what it logs", exit=Exit.UNDONE)

    def _environment(self) -> list[str]:
        folders = {name: str(self._run) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "RUNTIME_DIRECTORY")}
        return ["env", *(f"{name}={path}" for name, path in folders.items())]


def set_bridge(name: str, datapath: str) -> tuple[str, ...]:
    """Commands of ovs-vsctl(8): a bridge that passes only what flows say."""
    return f"add-br {name}", f"set bridge {name} datapath_type={datapath} fail_mode=secure"


def set_port(bridge: str, port: PortSpec) -> tuple[str, ...]:
    """Commands of ovs-vsctl(8): a port."""
    ((name, (kind, options)),) = port.interfaces.items()
    words = [f"options:{key}={value}" for key, value in options.items()]
    return f"add-port {bridge} {name}", " ".join([f"set interface {name} type={kind or 'system'}", *words])
