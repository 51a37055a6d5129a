"""A relay's bridges in a real Open vSwitch, without DPDK: what they pass, and what they learn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ovs_database import find_tool, needed, serve

from vferry.host import relay_switch

SCRIPT = """set -e
export OVS_RUNDIR=$1/run/openvswitch OVS_LOGDIR=$1 OVS_DBDIR=$1 OVS_SYSCONFDIR=$1
run=$1/run/openvswitch
switch() {
  "$2" unix:$run/db.sock --pidfile=$run/ovs-vswitchd.pid --detach --no-chdir --log-file=$1/log
}
end() { kill $(cat $run/ovs-vswitchd.pid); while [ -e $run/ovs-vswitchd.pid ]; do sleep 0.05; done; }
for port in nic guest other; do ip link add name $port type veth peer name far$port; done
for port in nic guest other farnic farguest farother; do ip link set $port up; done
switch "$@"
trap end EXIT
"$3" -c "$4" "$1" learns
"$3" -c "$4" "$1" joins
end
switch "$@"
"$3" -c "$4" "$1" again
"""

WIRES = r"""
import socket, struct, subprocess, sys, time
from pathlib import Path

SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 0x10
GUEST, OTHER = bytes.fromhex("525400aa0001"), bytes.fromhex("525400bb0002")
wires = {}
for name in ("farnic", "farguest", "farother"):
    wires[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wires[name].bind((name, 0))
    wires[name].setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)

def passes(sender, receiver, frame, seconds=1.0, seen=None):
    wires[sender].send(frame)
    wanted = seen or frame
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        wires[receiver].settimeout(left)
        try:
            got, beside, _, place = wires[receiver].recvmsg(2000, 100)
        except TimeoutError:
            return False
        if beside:  # the kernel takes a tag out of the frame, and says it beside
            status, *_, tag = struct.unpack("=IIIHHH", beside[0][2][:18])
            got = got[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + got[12:] if status & VLAN_VALID else got
        if got[: len(wanted)] == wanted and place[2] != socket.PACKET_OUTGOING:
            return True
    return False

def frame(to, of, kind=b"\x88\xb5", tag=b"", number=[0]):
    number[0] += 1
    return to + of + tag + kind + number[0].to_bytes(46, "big")
"""

PROGRAM = r"""
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.relay_bridge import BridgeSpec, PortSpec, set_spec

root, how = Path(sys.argv[1]), sys.argv[2]
ports = tuple(PortSpec(name=name, interfaces={name: ("", {})}) for name in ("nic", "guest"))
spec = BridgeSpec(name="vfr", ports=ports, mtu=1500, joins=how != "learns")
print(how, set_spec(root, spec, present=True).changed, end=" ")
subprocess.run(["ip", "link", "set", "vfr", "up"], check=True)

hello = frame(b"\xff" * 6, GUEST)
print(passes("farguest", "farnic", hello, 5.0), end=" ")       # what the guest says
print(passes("farnic", "farguest", hello), end=" ")            # and a NIC gives back
print(passes("farnic", "farguest", frame(GUEST, OTHER)), end=" ")  # then the answer, by which it is known
if how == "learns":
    print()
    set_spec(root, spec, present=False)
    sys.exit()
print(passes("farguest", "farnic", frame(OTHER, GUEST)), end=" ")
print(passes("farnic", "farguest", frame(GUEST, OTHER, tag=b"\x81\x00\x00\x07")), end=" ")
print(passes("farguest", "farnic", frame(bytes.fromhex("0180c2000000"), GUEST)), end=" ")
OpenVSwitch(root).teach("guest", GUEST.hex(":"), hold=True)  # libvirt may name a guest's NIC by its port
print(passes("farnic", "farguest", hello), passes("farnic", "farguest", frame(GUEST, OTHER)), end=" ")
(line,) = (line for line in Path("/proc/self/net/dev").read_text().splitlines() if line.strip().startswith("vfr:"))
print(line.split(":")[1].split()[1] == "0")  # nothing goes to the bridge's own interface
"""

SWITCHED = r"""
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.ovsdb import Database
from vferry.host.relay_bridge import BridgeSpec, PortSpec, drop_ports, insert_port, set_spec

if sys.argv[2] != "joins":
    sys.exit()
root = Path(sys.argv[1])

def port(name):
    return PortSpec(name=name, interfaces={name: ("", {})})

def add(transaction):
    made = [insert_port(transaction, database, port(name), None) for name in ("guest", "other")]
    for each in made:
        each.tag, each.vlan_mode = [7], ["access"]
    bridge.ports = [*bridge.ports, *made]

def comes(mac, seconds=1.0):
    "A broadcast of somebody's comes from outside, and so by the NIC what a guest or its host has said."
    inside = frame(b"\xff" * 6, mac)
    return passes("farnic", "farother", tagged(inside), seconds, seen=inside)

def tagged(inside):
    return inside[:12] + b"\x81\x00\x00\x07" + inside[12:]

def goes():
    "Where what another guest sends to the guest is seen: outside, at the guest's port."
    outside, here = frame(GUEST, OTHER), frame(GUEST, OTHER)
    return passes("farother", "farnic", outside, seen=tagged(outside)), passes("farother", "farguest", here)

def soon(outside, here):
    "The same, once flows that are in use are seen to."
    for _ in range(5):
        found = goes()
        if found == (outside, here):
            break
    return found

set_spec(root, BridgeSpec(name="relay0", ports=(port("nic"),), mtu=1500), present=True)
with Database(root) as database:
    bridge = database.named("Bridge", "relay0")
    database.change(add)
    print("before", comes(GUEST, 5.0), *goes())
    OpenVSwitch(root).teach("guest", GUEST.hex(":"), hold=True)
    print("resumed", *soon(False, True))
    print("announced", comes(GUEST), *goes())
    OpenVSwitch(root).teach("relay0", GUEST.hex(":"))
    print("forgotten", *soon(True, True))
    database.change(lambda _: drop_ports(bridge, ("guest",)))
    print("left", *soon(True, False), comes(GUEST), *goes())
"""


WITHOUT_DPDK = """
import sys
from pathlib import Path
from vferry.host import ovsdb
from vferry.host.api import SetRelayBridge, SetSwitch
from vferry.host.openvswitch import OpenVSwitch
from vferry.host.relay_switch import set_bridge, set_switch
from vferry.model.problem import Problem
from vferry.model.relay import RelayBridge, RelayUplink

root = Path(sys.argv[1])
ovsdb.TIMEOUT_S = 5.0
if sys.argv[2] == "joins":
    abilities = OpenVSwitch(root).abilities()
    print(abilities.release >= (2, 17), abilities.dpdk_version, abilities.dpdk_started)
    settings = {"dpdk-init": "try", "pmd-cpu-mask": "0x2"}
    uplink = RelayUplink(name="relay0-up0", address="0000:01:10.0")
    bridge = SetRelayBridge(bridge=RelayBridge(name="relay0", uplinks=(uplink,)), present=True)
    for work in (lambda: set_switch(root, SetSwitch(settings=settings, start=True)), lambda: set_bridge(root, bridge)):
        try:
            work()
        except Problem as problem:
            print(problem.code, problem.message)
    set_switch(root, SetSwitch(settings=dict.fromkeys(settings), instead_of=settings))
    print(OpenVSwitch(root).abilities().settings, [bridge.name for bridge in OpenVSwitch(root).bridges()])
"""


RESTARTED = """
import sys
from pathlib import Path
from msgspec.json import encode
from vferry.host import relay_bridge, relay_guest_port
from vferry.host.api import JoinRelay, SetRelayBridge
from vferry.host.ovsdb import Database
from vferry.host.relay_guest_port import set_port
from vferry.host.relay_ports import FILE, RelayPorts
from vferry.host.relay_restore import Restoring
from vferry.host.relay_names import guest_name
from vferry.host.relay_switch import set_bridge
from vferry.model.problem import Problem
from vferry.model.relay import Relay, RelayBridge, RelayKind, RelayPort, RelayState, RelayUplink, RelayVf, SwitchPlace

root, how = Path(sys.argv[1]), sys.argv[2]
uplink = RelayUplink(name="relay0-up0", address="0000:01:10.0")
bridge = RelayBridge(name="relay0", uplinks=(uplink,))
relay = Relay(operation="relay-1", state=RelayState.ENABLED, kind=RelayKind.SWITCHED, uplinks=("pf0",), cores=(1,),
              bridges=(bridge,))
own = RelayVf(pf="pf0", index=1, address="0000:01:10.2")
joined = RelayPort(guest="a", mac="52:54:00:aa:00:0a", socket="/a", vf=own)
port = RelayPort(guest="b", mac="52:54:00:aa:00:0b", socket="/b", switch=SwitchPlace(bridge="relay0", vlan=7))

def rows():
    with Database(root) as database:
        return sorted((row.name, row.uuid) for table in ("Bridge", "Port") for row in database.rows(table))

def tries():
    "How often it has tried to open the port, by its log."
    return (root / "log").read_text().count(f"device {guest_name(port.mac)} ")

def fails(work):
    before = rows()
    try:
        work()
    except Problem as problem:
        print(problem.code, rows() == before, end=" ")

if how == "learns":
    fails(lambda: set_port(root, joined, present=True))
    relay_bridge.unopened = relay_guest_port.unopened = lambda _: ""  # as with DPDK
    set_bridge(root, SetRelayBridge(bridge=bridge, present=True))
    set_port(root, joined, present=True)
    set_port(root, port, present=True)
    print(len(rows()))
    sys.exit()
(root / FILE).write_bytes(encode([JoinRelay(port=port)]))
kept = RelayPorts(root, lambda: relay, root)
restoring = Restoring(root, lambda: relay, kept, lambda: None)
before = rows()
restoring.restore()
restoring.follow()
print(rows() == before, end=" ")
tried = tries()
fails(restoring.rejoin)
print(tries() > tried, end=" ")
fails(lambda: set_port(root, joined, present=True))
print(len(rows()))
"""


def run(root: Path, program: str) -> list[str]:
    """What a program says three times: with a switch, with the same, and with one that was started anew."""
    needed("ovs-vswitchd")
    switch = find_tool("ovs-vswitchd")
    paths = [str(Path(relay_switch.__file__).parents[2]), *sys.path]
    with serve(root):
        done = subprocess.run(
            ["unshare", "-n", "bash", "-c", SCRIPT, "bash", str(root), str(switch), sys.executable, program],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@as_root
def test_nothing_is_learnt_and_nothing_lost(tmp_path: Path) -> None:
    # What the NIC gives back moves the guest behind the uplink, and the answer to it is dropped.
    assert run(tmp_path, WIRES + PROGRAM) == [
        "learns True True True False ",
        "joins True True True True True True True True True True",
        "again False True True True True True True True True True",
    ]


@as_root
def test_an_open_vswitch_without_dpdk_says_so_and_keeps_nothing(tmp_path: Path) -> None:
    able, unstarted, refused, left = run(tmp_path, WITHOUT_DPDK)
    assert able == "True None False"
    assert unstarted == "dpdk-not-started DPDK does not start in Open vSwitch"
    assert refused.startswith("port-refused Open vSwitch cannot make the bridge relay0: relay0-up0: ")
    assert left == "{} []"


@as_root
def test_what_guests_have_outlasts_an_open_vswitch_without_dpdk(tmp_path: Path) -> None:
    """Each failure: with which code, and whether what was there is there. It tries all again at each change."""
    assert run(tmp_path, RESTARTED) == [
        "port-refused True 8",  # two bridges, and three ports on each
        "True port-refused True True port-refused True 8",
        "True port-refused True True port-refused True 8",
    ]


@as_root
def test_a_switch_knows_where_a_guest_is_that_comes_and_where_it_went(tmp_path: Path) -> None:
    """Each time: whether what another guest sends to it is seen outside, and at its port here."""
    assert run(tmp_path, WIRES + SWITCHED) == [
        "before True True False",
        "resumed False True",
        "announced True False True",  # what its host has said for it comes back by the NIC
        "forgotten True True",  # by the bridge's own name, as for a guest that goes on with a VF
        "left True False True True False",
    ]
