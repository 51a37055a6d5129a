"""OVN on the hosts of the lab, as its operator sets it up, with machines of its tenants' that are network namespaces.

    with ovn(lab) as net, known(lab, controller):
        ...                              # switched relays, whose uplinks have the MACs of `UPLINKS`
        net.join()                       # both hosts are chassis, and reach each other by the relays
        net.add_switch("red", WEB, PEER)
        net.plug("host1", PEER)

A switch in user space sends tunnels only from an address on one of its own bridges: the relay's. The emulated NIC gives
a VF only what is for the VF's own MAC, so the bridge has that one.
"""

import contextlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.operator import HOSTS, do, until
from vferry.controller.state import State
from vferry.lab import places, topology
from vferry.lab.lab import Lab

CENTRAL = HOSTS[0]
"""Where OVN's databases are."""
UNITS = "ovn-ovsdb-server-nb ovn-ovsdb-server-sb ovn-northd"
NORTHBOUND = "/run/ovn/ovnnb_db.sock"
SOUTHBOUND = topology.HOSTS[0].address
"""Of that host, on the management network."""
BRIDGE, RELAY = "br-int", "relay0"
UPLINKS = {host: f"52:54:00:00:04:{number:02x}" for number, host in enumerate(HOSTS, 1)}
UNDERLAY = {host: f"192.0.2.{number}" for number, host in enumerate(HOSTS, 1)}
MTU = 1400
"""What goes through a tunnel of the relays'."""
PATIENCE_S = 100
"""How long OVN, or what passes through it, may take on emulated CPUs."""
TALK = """import os, select, socket, sys
if len(sys.argv) > 2:
    made = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)
else:
    with socket.create_server(("", int(sys.argv[1]))) as listening:
        print("listens", flush=True)
        made, _ = listening.accept()
made.settimeout(60)
passed = 0
while not select.select([sys.stdin], [], [], 0.5)[0]:
    sent, got = os.urandom(1000), b""
    made.sendall(sent)
    while len(got) < len(sent):
        more = made.recv(len(sent))
        if not more:
            sys.exit("the connection has ended")
        got += more
    if got != sent:
        sys.exit("other bytes came back")
    passed += 1
    print(passed, flush=True)
"""
"""Holds a connection to somebody who echoes, and compares; without an address, one that somebody makes to it."""
KNOCK = """import select, socket, sys
while not select.select([sys.stdin], [], [], 1)[0]:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
        print("let in", flush=True)
    except OSError as error:
        print(error.strerror or error, flush=True)
"""
"""Opens a connection again and again, and says what comes of it."""
LEFT = f"""pgrep -fa '/[o]vn/'
ip netns list
ovs-vsctl --timeout=60 br-exists {BRIDGE} && echo {BRIDGE}
ls -A /var/lib/ovn
:"""
EVIDENCE = f"""exec 2>&1
say() {{ echo "--- $*"; timeout 20 "$@"; }}
say systemctl --no-pager --lines=0 status {UNITS} ovn-controller ovs-vswitchd
say ovs-vsctl show
say ovs-vsctl get Open_vSwitch . external_ids
say ovs-vsctl --columns=name,ofport,error,link_state,external_ids,statistics list Interface
say ovs-appctl tnl/neigh/show
say ovs-appctl tnl/ports/show
say ovs-appctl ovs/route/show
say ovs-appctl fdb/show {RELAY}
say ovs-appctl dpctl/dump-flows
say ovs-appctl dpctl/dump-conntrack
say ip address show {RELAY}
say tail -n 30 /var/log/ovn/ovn-controller.log
say tail -n 30 /var/log/openvswitch/ovs-vswitchd.log
say tail -n 20 /var/log/libvirt/qemu/guest2.log
[ -e {NORTHBOUND} ] || exit 0
say ovn-nbctl show
say ovn-nbctl list Logical_Switch_Port
say ovn-sbctl show
say ovn-sbctl list Port_Binding
say tail -n 20 /var/log/ovn/ovn-northd.log
"""
"""What is looked at where a test has failed."""


@dataclass(frozen=True, kw_only=True)
class Logical:
    """A logical port of a switch's, for one MAC and address; a machine of this name, if it is no guest's."""

    name: str
    mac: str
    address: str


class Program:
    """One that runs in a machine of OVN's until it is told that it is enough; what it says is in `path`."""

    def __init__(self, lab: Lab, host: str, machine: Logical, path: Path, script: str, *words: str) -> None:
        self._what, self._path = f"{machine.name} on {host}", path
        argv = lab.shell(host, ["ip", "netns", "exec", machine.name, "python3", "-c", script, *words])
        with path.open("wb") as file:
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)

    @property
    def said(self) -> list[str]:
        return self._path.read_text().splitlines()

    def says(self, more: int = 1) -> None:
        """Waits until it has said something more, so many lines."""
        wanted = len(self.said) + more
        until(lambda: self._ended() or len(self.said) >= wanted, PATIENCE_S, f"{self._what} says nothing more")
        assert not self._ended(), f"{self._what}: {self.said[-1:]} after {len(self.said)} lines"

    def end(self) -> None:
        """Has it end, which it must do by itself."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=PATIENCE_S)
        assert self._process.returncode == 0, f"{self._what}: {self.said[-3:]}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ended(self) -> bool:
        return self._process.poll() is not None


class Ovn:
    """All of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._ids: dict[str, str] = {}
        self._machines: dict[str, list[str]] = {host: [] for host in HOSTS}
        self._programs: list[Program] = []

    # --- setting up and taking back ------------------------------------------------------------------------

    def start(self) -> None:
        """The databases, and northd."""
        do(self.lab, CENTRAL, f"systemctl start {UNITS}")
        until(self._answers, PATIENCE_S, "OVN's databases do not answer")
        do(self.lab, CENTRAL, f"ovn-sbctl --timeout=60 set-connection ptcp:6642:{SOUTHBOUND}")

    def join(self) -> None:
        """Makes each host a chassis, which reaches the other one by its relay."""
        for host in HOSTS:
            self._ids[host] = do(self.lab, host, "ovs-vsctl --timeout=60 get Open_vSwitch . external_ids")
            self._give_address(host)
            self._make_chassis(host)
        ping = ["ping", "-q", "-c", "1", "-W", "2", UNDERLAY[HOSTS[1]]]
        until(lambda: self.lab.run(HOSTS[0], ping).returncode == 0, PATIENCE_S, "the relays do not reach each other")
        until(lambda: len(self._chassis()) == len(HOSTS), PATIENCE_S, "not both hosts are chassis")
        self.settle()

    def end(self) -> None:
        """Takes back what was done, as far as it was."""
        for program in self._programs:
            program.kill()
        for host, ids in self._ids.items():
            self._unmake_chassis(host, ids)
        self.lab.run(CENTRAL, ["sh", "-c", f"systemctl stop {UNITS}; find /var/lib/ovn -mindepth 1 -delete"])

    def assert_gone(self) -> None:
        """No process of OVN's, no machine, no bridge and no database is left on any host."""
        left = {host: do(self.lab, host, LEFT) for host in HOSTS}
        assert not any(left.values()), f"OVN has left behind: {left}"

    def _answers(self) -> bool:
        asking = "ovn-nbctl --timeout=10 init && ovn-sbctl --timeout=10 init"
        return self.lab.run(CENTRAL, ["sh", "-c", asking]).returncode == 0

    def _give_address(self, host: str) -> None:
        """To the relay's bridge, which is told where it is itself: what it broadcasts, the emulated NIC gives back."""
        mac = UPLINKS[host]
        script = f"""ovs-vsctl --timeout=60 set Bridge {RELAY} 'other_config:hwaddr="{mac}"' &&
        ip address replace {UNDERLAY[host]}/24 dev {RELAY} && ip link set {RELAY} up &&
        ovs-appctl fdb/add {RELAY} {RELAY} 0 {mac}"""
        do(self.lab, host, script)

    def _make_chassis(self, host: str) -> None:
        told = {
            "system-id": host,
            "ovn-remote": f"tcp:{SOUTHBOUND}:6642",
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": UNDERLAY[host],
            "ovn-bridge-datapath-type": "netdev",
            "ovn-bridge-mappings": f"physnet1:{RELAY}",
        }
        ids = " ".join(f"'external_ids:{key}=\"{value}\"'" for key, value in told.items())
        made = f"--may-exist add-br {BRIDGE} -- set Bridge {BRIDGE} datapath_type=netdev fail_mode=secure"
        do(self.lab, host, f"ovs-vsctl --timeout=60 set Open_vSwitch . {ids} -- {made}; systemctl start ovn-controller")

    def _unmake_chassis(self, host: str, ids: str) -> None:
        script = f"""systemctl stop ovn-controller
        for each in {" ".join(self._machines[host])}; do
            ip netns pids $each | xargs -r kill
            ip netns delete $each
        done
        ovs-vsctl --timeout=60 --if-exists del-br {BRIDGE} -- clear Open_vSwitch . datapaths
        ovs-vsctl --timeout=60 set Open_vSwitch . external_ids={shlex.quote(ids)}"""
        self.lab.run(host, ["sh", "-c", script])

    # --- what it is told -----------------------------------------------------------------------------------

    def northbound(self, *words: str) -> str:
        """What ovn-nbctl says."""
        return do(self.lab, CENTRAL, shlex.join(["ovn-nbctl", f"--timeout={PATIENCE_S}", *words]))

    def settle(self) -> None:
        """Waits until all chassis have done what the northbound database says."""
        self.northbound("--wait=hv", "sync")

    def add_switch(self, name: str, *ports: Logical) -> None:
        """A logical switch with its ports, from which nobody sends as somebody else."""
        words = ["ls-add", name]
        for port in ports:
            addresses = f"{port.mac} {port.address}"
            words += ["--", "lsp-add", name, port.name, "--", "lsp-set-addresses", port.name, addresses]
            words += ["--", "lsp-set-port-security", port.name, addresses]
        self.northbound(*words)

    def filter(self, switch: str, direction: str, priority: int, match: str, verdict: str) -> None:
        """`direction`: from or to the port that it is about."""
        self.northbound("acl-add", switch, f"{direction}-lport", str(priority), match, verdict)

    def plug(self, host: str, port: Logical) -> None:
        """A machine on a host, in a namespace: a port of the bridge, which has its MAC and address."""
        name = port.name
        self._machines[host].append(name)
        do(
            self.lab,
            host,
            f"""ip netns add {name} &&
            ovs-vsctl --timeout=60 add-port {BRIDGE} {name} -- set Interface {name} type=internal \
                external_ids:iface-id={name} &&
            ip link set {name} netns {name} && ip -n {name} link set {name} address {port.mac} mtu {MTU} up &&
            ip -n {name} address add {port.address}/24 dev {name} && ip -n {name} link set lo up""",
        )

    # --- what it says --------------------------------------------------------------------------------------

    def options(self, port: str) -> str:
        """Of a logical port in the northbound database."""
        return self.northbound("get", "Logical_Switch_Port", port, "options")

    def places(self, port: str) -> list[str]:
        """The chassis that have a logical port: the main one, then others."""
        names = self._chassis()
        (row,) = self._southbound("chassis,additional_chassis", "find", "Port_Binding", f"logical_port={port}")
        return [names[each] for column in ("chassis", "additional_chassis") for each in _identities(row[column])]

    def interfaces(self, port: str) -> dict[str, list[str]]:
        """What each host's switch has for a logical port."""
        find = f"ovs-vsctl --timeout=60 --bare --columns=name find Interface external_ids:iface-id={port}"
        return {host: do(self.lab, host, find).split() for host in HOSTS}

    def _chassis(self) -> dict[str, str]:
        """Their names by their rows."""
        return {row["_uuid"][1]: row["name"] for row in self._southbound("_uuid,name", "list", "Chassis")}

    def _southbound(self, columns: str, *words: str) -> list[dict[str, Any]]:
        said = do(self.lab, CENTRAL, f"ovn-sbctl --timeout=60 --format=json --columns={columns} {shlex.join(words)}")
        table = json.loads(said)
        return [dict(zip(table["headings"], row, strict=True)) for row in table["data"]]

    def evidence(self) -> str:
        """What may say why a test has failed."""
        looks = {host: self.lab.run(host, ["sh", "-c", EVIDENCE], timeout=600).stdout for host in HOSTS}
        return "\n".join(f"=== {host}\n{look}" for host, look in looks.items())

    # --- its machines --------------------------------------------------------------------------------------

    def reaches(self, host: str, machine: Logical, address: str) -> bool:
        """Whether a machine is answered when it asks."""
        argv = ["ip", "netns", "exec", machine.name, "ping", "-q", "-c", "1", "-W", "2", address]
        return self.lab.run(host, argv).returncode == 0

    def opens(self, host: str, machine: Logical, address: str, port: int) -> bool:
        """Whether a machine can open a connection."""
        script = f"import socket; socket.create_connection(({address!r}, {port}), 5)"
        return self.lab.run(host, ["ip", "netns", "exec", machine.name, "python3", "-c", script]).returncode == 0

    def run(self, host: str, machine: Logical, path: Path, script: str, *words: str) -> Program:
        """A program in a machine, on a host."""
        self._programs.append(Program(self.lab, host, machine, path, script, *words))
        return self._programs[-1]


@contextlib.contextmanager
def ovn(lab: Lab) -> Iterator[Ovn]:
    """OVN on both hosts, of which nothing is left afterwards."""
    made = Ovn(lab)
    try:
        made.start()
        yield made
    finally:
        made.end()
    made.assert_gone()


@contextlib.contextmanager
def known(lab: Lab, controller: State) -> Iterator[None]:
    """The controller knows the northbound database, which it reaches by the lab's own connection to the host."""
    here, before = places.RUN / "northbound", controller.configuration.read_text()
    words = ["ssh", "-F", str(lab.folder / "ssh_config"), "-O"]
    way = ["-L", f"{here}:{NORTHBOUND}", CENTRAL]
    done = subprocess.run([*words, "forward", *way], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"no way to OVN's northbound database: {done.stderr}"
    try:
        controller.configuration.write_text(f'{before}[ovn]\nnorthbound = "unix:{here}"\n')
        yield
    finally:
        controller.configuration.write_text(before)
        subprocess.run([*words, "cancel", *way], capture_output=True, check=False)
        here.unlink(missing_ok=True)


def _identities(column: Any) -> list[str]:
    """Of the rows that a column refers to, be they one or several."""
    return [each[1] for each in (column[1] if column[0] == "set" else [column])]
