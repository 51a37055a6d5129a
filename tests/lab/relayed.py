"""The relays of the lab's hosts: what an operator does with them, and what no command does yet.

No command puts `relay1` on a relay. For a direct one, the agent is asked for it here, by an operation that
ends with that; on a switched one it is a port that Open vSwitch is given by its own tool.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from subprocess import SubprocessError
from typing import Any

from lab.operator import ANSWER_S, HOSTS, PF, Scene, asked, do, until, vferry
from vferry.controller.hosts import open_host
from vferry.controller.state import find_state
from vferry.controller.stepping import STEP_TIMEOUT_S, look
from vferry.host.api import ClaimResources, JoinRelay, LeaveRelay, Operation, ReleaseClaim, Session, SetVf
from vferry.lab import guests
from vferry.lab.relays import mark, unmark
from vferry.model.host import NO_MAC, VfSettings
from vferry.model.problem import Problem
from vferry.model.relay import RelayKind, RelayPort, RelayVf
from vferry.plan.relay_choice import choose_vf

HOST = HOSTS[0]
"""Where the lab defines its guests."""
GUEST = "relay1"
PORT = "vhu-relay1"
SERVICE = "ovs-vswitchd"
RESTART_S = 120.0
"""systemd starts Open vSwitch anew, DPDK clears its memory, and the guest's port is connected again."""
COUNTED_S = 30.0
"""Open vSwitch writes what it counts every five seconds."""
KEPT = "/var/lib/vferry/relay.json"
PORTS = "/var/lib/vferry/relay-ports.json"
AT_BOOT = "/etc/tmpfiles.d/vferry-relay.conf"
PAGES = "/sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages"
EVIDENCE = f"""exec 2>&1
say() {{ echo "--- $*"; timeout 20 "$@"; }}
say systemctl --no-pager --lines=0 status {SERVICE} vferry-agent
say journalctl --no-pager -o short-monotonic -n 40 -u {SERVICE} -u vferry-agent
say tail -n 40 /var/log/openvswitch/ovs-vswitchd.log
say ovs-vsctl --columns=other_config,dpdk_initialized,dpdk_version,ovs_version list Open_vSwitch
say ovs-vsctl --columns=name,type,ofport,error,link_state,options,statistics list Interface
say ovs-appctl dpif-netdev/pmd-stats-show
say cat {KEPT} {PORTS}
say grep Huge /proc/meminfo
say ip link show {PF}
say virsh list --all
say tail -n 20 /var/log/libvirt/qemu/{GUEST}.log
say tail -n 20 /var/log/libvirt/qemu/{GUEST}.console
say dmesg --notime | tail -n 20
"""
"""What is looked at where a test has failed."""


class Relayed:
    """The relay of `HOST`, of one kind, which is not there at first, and the guest that may be on it."""

    def __init__(self, scene: Scene, kind: RelayKind) -> None:
        self.scene, self.kind, self.guest = scene, kind, guests.named(GUEST)
        self.words = (HOST, "--uplink", PF, *(("--switched",) if kind is RelayKind.SWITCHED else ()))
        self._marked: int | None = None
        self.before = self.ground()

    # --- looking -------------------------------------------------------------------------------------------

    def do(self, script: str) -> str:
        """What a shell script prints on the host; it must succeed."""
        return do(self.scene.lab, HOST, script)

    def ground(self) -> dict[str, Any]:
        """All that a relay changes on its host, as it is now."""
        shown = asked("host", "show", HOST)
        vfs = {vf["address"]: vf for pf in shown["pfs"] for vf in pf["vfs"]}
        opened = ("trust", "spoof_check")
        return {
            "huge pages": self.do(f"cat {PAGES}"),
            "settings of Open vSwitch": self.do("ovs-vsctl --timeout=60 get Open_vSwitch . other_config"),
            "bridges of Open vSwitch": self.do("ovs-vsctl --timeout=60 list-br").split(),
            "VFs": {at: (vf["driver"], *(vf["settings"][name] for name in opened)) for at, vf in vfs.items()},
            "claims": shown["claims"],
            "files": self.do(f"ls {KEPT} {AT_BOOT} 2>/dev/null || :").split(),
        }

    def show(self) -> dict[str, Any]:
        """`vferry relay show`."""
        return dict(asked("relay", "show", HOST))

    def ports(self) -> dict[str, dict[str, Any]]:
        """The ports of the relay by their type, of each one at most."""
        return {port["type"]: port for port in self.show()["ports"]}

    def evidence(self) -> str:
        """What may say why a test has failed."""
        try:
            return self.scene.lab.run(HOST, ["sh", "-c", EVIDENCE], timeout=300).stdout
        except (Problem, SubprocessError) as error:
            return str(error)

    # --- the relay -----------------------------------------------------------------------------------------

    def enable(self) -> None:
        """`vferry relay enable`."""
        if self.kind is RelayKind.SWITCHED and self._marked is None:
            self._mark()
        done = vferry("relay", "enable", *self.words)
        assert done.returncode == 0, f"relay enable ended with {done.returncode}: {done.stderr}"
        assert done.stdout == f"{HOST} has a {self.kind} relay on {PF}, which forwards on CPU 1\n"

    def disable(self) -> None:
        """`vferry relay disable`."""
        done = vferry("relay", "disable", HOST)
        assert done.returncode == 0, f"relay disable ended with {done.returncode}: {done.stderr}"
        assert self.show()["relay"] is None
        self._unmark()

    def assert_made(self) -> None:
        """It is what was asked for, works, and is found again at the next boot."""
        view, ground = self.show(), self.ground()
        made = view["relay"]
        assert (made["state"], made["kind"], made["uplinks"], made["cores"]) == ("enabled", self.kind, [PF], [1])
        assert (view["dpdk_started"], view["silence"]) == (True, "")
        assert int(ground["huge pages"]) == int(self.before["huge pages"]) + sum(
            pages["count"] - pages["before"] for pages in made["pages"]
        )
        assert ground["files"] == [AT_BOOT, KEPT]
        assert "pmd-cpu-mask" in ground["settings of Open vSwitch"]
        assert [claim["vfs"] for claim in ground["claims"]] == [[vf["address"] for vf in made["vfs"]]]
        if self.kind is RelayKind.SWITCHED:
            more = set(ground["bridges of Open vSwitch"]) - set(self.before["bridges of Open vSwitch"])
            assert more == {bridge["name"] for bridge in made["bridges"]}
            until(lambda: self.ports()["dpdk"]["up"], COUNTED_S, "the uplink is not up")

    def assert_given_back(self) -> None:
        """All is as before. What DPDK has, it keeps until Open vSwitch is started anew."""
        self.do(f"systemctl restart {SERVICE}")
        assert self.ground() == self.before
        macs = [vf["settings"]["mac"] for pf in asked("host", "show", HOST)["pfs"] for vf in pf["vfs"]]
        assert self.guest.mac not in macs

    def kill_switch(self) -> None:
        """`kill -9` of Open vSwitch, which systemd starts again."""
        ask = f"systemctl show --value --property=MainPID {SERVICE}"
        before = self.do(ask)
        assert before != "0", f"{SERVICE} does not run"
        self.do(f"kill -9 {before}")

        def back() -> bool:
            active = self.scene.run(HOST, f"systemctl is-active {SERVICE}").strip() == "active"
            return active and self.do(ask) not in (before, "0")

        until(back, RESTART_S, f"{SERVICE} does not come back")

    def restart_host(self) -> None:
        """Boots the host anew, with what it has on its disk."""
        self.do("sync")
        self.scene.lab.reboot(HOST)
        until(lambda: self.show()["dpdk_started"], RESTART_S, "DPDK does not run after a restart of the host")

    def end(self) -> None:
        """Takes back what a test that has failed leaves, as far as that goes."""
        self.scene.run(HOST, f"virsh destroy {GUEST}")
        with contextlib.suppress(Problem, AssertionError):
            self.leave()
        vferry("relay", "disable", HOST)
        self.scene.run(HOST, f"systemctl restart {SERVICE}")
        with contextlib.suppress(Problem):
            self._unmark()

    def _mark(self) -> None:
        self._marked = mark(self.scene.lab, HOST, self.guest.mac)

    def _unmark(self) -> None:
        if self._marked is not None:
            unmark(self.scene.lab, HOST, self._marked)
            self._marked = None

    # --- its guest -----------------------------------------------------------------------------------------

    def join(self) -> None:
        """Makes the guest's port."""
        if self.kind is RelayKind.DIRECT:
            asyncio.run(self._join_vf())
            return
        (bridge,) = self.show()["relay"]["bridges"]
        self.do(
            f"ovs-vsctl --timeout=60 add-port {bridge['name']} {PORT} -- set Interface {PORT} "
            f"type=dpdkvhostuserclient options:vhost-server-path={self.guest.socket}"
        )
        error = self.do(f"ovs-vsctl --timeout=60 get Interface {PORT} error")
        assert error == "[]", f"Open vSwitch does not make the guest's port: {error}"

    def leave(self) -> None:
        """Removes the guest's port, which may be gone already."""
        if self.kind is RelayKind.DIRECT:
            asyncio.run(self._leave_vf())
        else:
            self.do(f"ovs-vsctl --timeout=60 --if-exists del-port {PORT}")

    def start_guest(self) -> None:
        """Starts the guest, and waits until it answers."""
        self.scene.lab.guest(GUEST)
        assert self.scene.state(HOST) == "running"

    def stop_guest(self) -> None:
        self.do(f"virsh destroy {GUEST}")

    def assert_answers(self, when: str, seconds: float = ANSWER_S) -> None:
        """The guest answers the peer at both its addresses."""
        answers(self.scene, when, seconds)

    def assert_asks(self) -> None:
        """The guest reaches the peer when it has to ask for its MAC, by broadcast, first.

        The emulated NIC gives a VF's broadcasts back to the VF, which a bridge must not take for the guest's place.
        """
        ping = f"for turn in 1 2 3 4 5; do ping -c 1 -W 2 {self.guest.subnet.address4} && exit; done; exit 1"
        self.scene.await_agent()
        self.scene.tell(f"ip -4 neigh flush all; {ping}")

    def assert_passes_by_the_vf(self) -> None:
        """Both ports count frames both ways; the PF has nothing to do with the guest.

        Open vSwitch that was started anew may say of a guest's port that it is down, for good, although it forwards.
        """
        until(self._passes, COUNTED_S, "not both ports pass frames both ways")
        assert self.guest.mac not in self.do(f"bridge fdb show dev {PF} | grep self || :")

    def _passes(self) -> bool:
        ports = self.ports()
        ways = [port["statistics"].get(way, 0) for port in ports.values() for way in ("rx_packets", "tx_packets")]
        return ports.keys() == {"dpdk", "dpdkvhostuserclient"} and all(ways) and ports["dpdk"]["up"]

    async def _join_vf(self) -> None:
        """What a direct relay's guest needs: a VF with its MAC, joined to its socket. The VF is then the guest's."""
        host = await look(find_state(), HOST)
        pf = host.pf(PF)
        assert pf is not None
        vf = choose_vf(host, pf)
        port = RelayPort(guest=GUEST, mac=self.guest.mac, socket=self.guest.socket or "", vf=vf)
        settings = VfSettings(mac=port.mac)
        await _ask(
            vf,
            SetVf(pf=vf.pf, index=vf.index, settings=settings),
            JoinRelay(port=port, settings=settings),
        )
        assert await _owner(vf) == (GUEST, None), f"VF {vf.address} is not {GUEST}'s after it was joined"

    async def _leave_vf(self) -> None:
        """The way back. The VF goes back to its driver, and is nobody's."""
        host = await look(find_state(), HOST)
        port = host.relay.port(self.guest.mac) if host.relay else None
        vf = port.vf if port else None
        if port is None or vf is None:
            return
        await _ask(
            vf,
            LeaveRelay(guest=GUEST, mac=port.mac),
            SetVf(pf=vf.pf, index=vf.index, settings=VfSettings(mac=NO_MAC)),
        )
        assert await _owner(vf) == (None, None), f"VF {vf.address} is not free after it was left"


@contextmanager
def relays(scene: Scene, kind: RelayKind, uplinks: Mapping[str, str]) -> Iterator[None]:
    """Relays on both hosts, which the guest may be put on; it is on its bridge afterwards, where it was.

    `uplinks`: the MACs of the VFs that are switched ones' uplinks, by host.
    """
    home, marked = scene.host, {}
    words = ("--uplink", PF, *(("--switched",) if kind is RelayKind.SWITCHED else ()))
    try:
        for host in HOSTS:
            if kind is RelayKind.SWITCHED:
                marked[host] = mark(scene.lab, host, uplinks[host])
            done = vferry("relay", "enable", host, *words)
            assert done.returncode == 0, done.stderr
        yield
    finally:
        scene.end_migrations()
        if scene.host != home:
            vferry("migrate", scene.guest, home, "--no-probe")
        for host, vf in marked.items():
            with contextlib.suppress(Problem):
                unmark(scene.lab, host, vf)
        put(scene, "virtio")
        for host in HOSTS:
            vferry("relay", "disable", host)
            scene.run(host, f"systemctl restart {SERVICE}")


def put(scene: Scene, to: str) -> None:
    """Puts the guest on something, started anew."""
    define(scene, to)
    scene.cold_boot(scene.host)
    assert (on_relay(scene) is not None) == (to == "relay")


def define(scene: Scene, to: str, *options: str) -> None:
    """Puts the guest on something, and leaves it off."""
    scene.run(scene.host, f"virsh destroy {scene.guest}")
    done = vferry("guest", "nic", scene.guest, guests.named(scene.guest).mac, "--to", to, *options)
    assert done.returncode == 0, done.stderr


def answers(scene: Scene, when: str = "", seconds: float = ANSWER_S) -> None:
    """The guest answers the peer at both its addresses."""

    def answered(address: str) -> bool:
        return scene.lab.peer(["busybox", "ping", "-q", "-c", "1", "-W", "1", address]).returncode == 0

    for address in (scene.address, scene.address6):
        until(partial(answered, address), seconds, f"{scene.guest} does not answer at {address} {when}")


def on_relay(scene: Scene) -> str | None:
    """The VF that a relay joins the guest's NIC to, or the bridge that it is a port of."""
    (nic,) = asked("guest", "show", scene.guest)["nics"]
    return nic["relay_bridge"] or (nic["vf"]["address"] if nic["socket"] and nic["vf"] else None)


async def _owner(vf: RelayVf) -> tuple[str | None, str | None]:
    """The guest that has a VF, and the operation that has claimed it."""
    found = (await look(find_state(), HOST)).vf(vf.address)
    assert found is not None
    return found.guest, found.claim


async def _ask(vf: RelayVf, *operations: Operation[Any]) -> None:
    """Asks the agent as an operation that has the guest and the VF, and releases them whatever comes of it."""
    session = Session(operation=f"lab-{uuid.uuid4()}")
    async with open_host(HOST, session, find_state()) as agent:
        await agent.call(ClaimResources(guest=GUEST, vfs=(vf.address,), slot=False))
        try:
            for each in operations:
                await agent.call(each, timeout_s=STEP_TIMEOUT_S)
        finally:
            await agent.call(ReleaseClaim())
