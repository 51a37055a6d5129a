"""A real ovsdb-server with Open vSwitch's own schema, and a thread that answers there as ovs-vswitchd would."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vferry.host.openvswitch import ask
from vferry.host.ovsdb import SOCKET, Database

TOOLS = ("ovsdb-tool", "ovsdb-server")


def find_tool(name: str) -> str | None:
    """Installed, or where scripts/openvswitch has put it."""
    put = Path(sys.prefix) / "sbin" / name
    return shutil.which(name) or (str(put) if put.exists() else None)


def find_schema(name: str = "openvswitch/vswitch.ovsschema") -> Path | None:
    """Beside the tools, or where scripts/openvswitch has put it."""
    tool = shutil.which(TOOLS[0])
    places = [Path(sys.prefix)] + ([Path(tool).resolve().parents[1]] if tool else [])
    return next((path for each in places if (path := each / "share" / name).exists()), None)


def needed(*tools: str) -> None:
    """Skips a test where there is no ovsdb-server, or not these; where CI is, that is a failure."""
    missing = [name for name in (*TOOLS, *tools) if find_tool(name) is None]
    missing += [] if find_schema() else ["its schema"]
    missing += [] if find_spec("ovs") else ["its binding"]
    if missing:
        why = f"NOT TESTED: of Open vSwitch, {', '.join(missing)} is missing; `make fast` gets all of it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


@contextmanager
def serve(root: Path) -> Iterator[None]:
    """The server below `root`, where Open vSwitch's would be."""
    needed()
    socket = root / SOCKET
    socket.parent.mkdir(parents=True)
    database = root / "conf.db"
    tool, server = (find_tool(name) or name for name in TOOLS)
    subprocess.run([tool, "create", str(database), str(find_schema())], check=True, capture_output=True)
    words = [server, str(database), f"--remote=punix:{socket}", f"--unixctl={root / 'ctl'}", "--no-chdir"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            transact(socket, {"op": "insert", "table": "Open_vSwitch", "row": {}})
            yield
        finally:
            process.terminate()
            process.wait(10)


def transact(socket: Path, *operations: dict[str, Any]) -> Any:
    """Asks the database by the way of the inventory, once it is there."""
    for _ in range(500):
        try:
            return ask(socket, "transact", ["Open_vSwitch", *operations])
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.01)
    raise AssertionError("ovsdb-server has not started")


class Vswitchd(threading.Thread):
    """Numbers the ports that it could open, starts DPDK when it is asked to, and says what it has done.

    What it could not, it tries again at each change. `broken` are VFs, by their PCI addresses, that it cannot open.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(name="vswitchd")
        self._root = root
        self._ending = threading.Event()
        self.broken: set[str] = set()
        self.dpdk_works = True
        self.meddle: dict[str, str] = {}
        """What somebody else puts into `other_config` at each change."""
        self.deaf = False
        self._processes = 0
        self._anew = False

    def start_anew(self, *, dpdk_works: bool) -> None:
        """As another process, which opens all ports once more; the database is read with the next change."""
        self.dpdk_works = dpdk_works
        self._processes += 1
        self._anew = True
        (self._root / SOCKET).with_name("ovs-vswitchd.pid").write_text(f"{self._processes}\n")

    def __enter__(self) -> "Vswitchd":
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ending.set()
        self.join(10)

    def run(self) -> None:
        with Database(self._root) as database:
            while not self._ending.is_set():
                wanting = database.wait(lambda: bool(database.switch.next_cfg != database.switch.cur_cfg), 0.02)
                if wanting and not self.deaf:
                    self._act(database)

    def _act(self, database: Database) -> None:
        from ovs.db.idl import Transaction

        transaction = Transaction(database._idl)
        switch = database.switch
        switch.cur_cfg = switch.next_cfg
        switch.dpdk_initialized = self.dpdk_works and switch.other_config.get("dpdk-init") in ("true", "try")
        for key, value in self.meddle.items():
            switch.setkey("other_config", key, value)
        for number, interface in enumerate(database.rows("Interface"), start=1):
            if self._anew or interface.ofport in ([], [-1]):
                without = self._processes and not self.dpdk_works and interface.type.startswith("dpdk")
                bad = without or interface.options.get("dpdk-devargs") in self.broken
                interface.ofport = [-1 if bad else number]
                interface.error = ["could not open network device"] if bad else []
                interface.statistics = {"rx_packets": 7, "rx_dropped": 2, "tx_packets": 0, "tx_dropped": 0}
                interface.link_state = ["up"]
        self._anew = False
        transaction.commit_block()
