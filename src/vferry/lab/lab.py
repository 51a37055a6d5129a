"""The lab as a whole: up, down, and what tests do to it while it is up."""

import subprocess
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vferry.lab import bringup, guests, hosts, layers, net, outer, owner, peer, places, processes, reach
from vferry.lab import controller as registry
from vferry.lab.release import DEBIAN12, Release, numbered
from vferry.lab.topology import HOSTS, NETWORKS, STARTED, USUAL, Host, Setup, Standby, host_named, standby_named
from vferry.model.problem import Problem


class Lab:
    """This clone's lab. Every method may be called from any process of root's."""

    def __init__(self) -> None:
        outer.require_root()
        self.folder = places.folder()

    def build(self, debian12: Collection[str] = (), setup: Setup = USUAL) -> layers.Layers:
        """Builds what is missing of the layers for a lab whose hosts named in `debian12` run Debian 12."""
        return layers.ensure(_known_hosts(debian12), setup)

    def alive(self) -> bool:
        """Whether anything of a lab is there, be it this clone's or another's."""
        return bool(hosts.running()) or any(net.exists(network) for network in NETWORKS)

    def up(
        self,
        names: Sequence[str] = STARTED,
        debian12: Collection[str] = (),
        standby: str | None = None,
        *,
        relay: bool = False,
    ) -> bool:
        """Starts what is missing; returns False where everything was there. Hosts that fail to boot are taken down.

        `debian12` are the names of hosts that run it rather than Debian 13, `standby` is the name of the hosts' standby
        path, with `relay` they may have one. A lab that is up stays what it is: without them whatever that is, and
        another choice is refused (``lab-other-release``, ``lab-other-standby``, ``lab-no-relay``).
        """
        wanted, older = [guests.named(name) for name in names], _known_hosts(debian12)
        with owner.changing():
            owner.refuse_another(places.clone(), alive=self.alive())
            missing = [host for host in HOSTS if not hosts.pids(host)]
            if len(missing) == len(HOSTS):
                path = standby_named(standby) if standby else USUAL.standby
                self._boot(older, Setup(path, relay))
                guests.stop_others(self, wanted)
            else:
                if older:
                    refuse_other(older, self.releases())
                if standby:
                    refuse_other_standby(standby, self.standby().name)
                if relay:
                    refuse_without_relay(self.setup())
            for host in missing:
                if not hosts.pids(host):
                    bringup.boot_one(host, self.folder)
            changed = bool(missing) | bringup.connect(self.folder)
            with outer.step("registering the hosts with the controller"):
                registry.add(HOSTS)
            changed |= guests.start(self, wanted)
        return changed

    def down(self) -> bool:
        """Removes everything; returns False where nothing was there."""
        with owner.changing():
            owner.refuse_another(places.clone(), alive=self.alive())
            if not self.alive() and owner.current() is None:
                return False
            registry.remove(HOSTS)
            bringup.remove()
        return True

    def run(
        self,
        host: str,
        argv: Sequence[str],
        input: str | None = None,  # noqa: A002 - subprocess.run's name
        timeout: float | None = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host as root; its status is for the caller to judge. `timeout` in seconds."""
        return subprocess.run(
            self.shell(host, argv), input=input or "", capture_output=True, text=True, timeout=timeout, check=False
        )

    def shell(self, host: str, argv: Sequence[str], *, tty: bool = False) -> list[str]:
        """Argument vector on this machine that runs `argv` on a host."""
        return reach.command(self.host(host), self.folder, argv, tty=tty)

    def peer(self, argv: Sequence[str], timeout: float | None = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command as the peer: on this machine, inside the data network. `timeout` in seconds."""
        return subprocess.run(peer.command(argv), capture_output=True, text=True, timeout=timeout, check=False)

    def host(self, name: str) -> Host:
        """A host that runs; raises `Problem` for another."""
        host = host_named(name)
        if host is None:
            raise _no_host(name)
        if not hosts.pids(host):
            raise Problem("lab-host-down", f"{name} is not running", "Start it with: vferry lab up")
        return host

    def push(self) -> None:
        """Gives the running hosts this clone's vferry, and restarts their agents: faster than down and up."""
        older = [name for name, release in self.releases().items() if release is DEBIAN12]
        bringup.push(self.folder, self.build(older, self.setup()))

    def releases(self) -> dict[str, Release]:
        """Which Debian each host of the lab that is up runs, by name."""
        who = owner.current() if self.alive() else None
        return {name: numbered(each.release) for name, each in who.layers.hosts.items()} if who else {}

    def setup(self) -> Setup:
        """What the hosts of the lab that is up have, or else the usual."""
        who = owner.current() if self.alive() else None
        return who.layers.setup if who else USUAL

    def standby(self) -> Standby:
        """The standby path of the lab that is up, or else the usual one."""
        return self.setup().standby

    def peer_command(self, argv: Sequence[str]) -> list[str]:
        """Argument vector on this machine that runs `argv` as the peer."""
        if not self.alive():
            raise Problem("lab-down", "The lab is down", "Start it with: vferry lab up")
        return peer.command(argv)

    def status(self) -> dict[str, Any]:
        """hosts: names of those that run; guests: those that run; off: those that are only defined.

        releases: by the host's name, such as "Debian 13". standby: the name of the hosts' standby path. relay: whether
        the hosts have what a relay needs.
        """
        rows = guests.rows(guests.everywhere(self))
        who = owner.current() if self.alive() else None
        return {
            "hosts": [host.name for host in hosts.running()],
            "releases": {name: release.name for name, release in self.releases().items()},
            "standby": self.standby().name,
            "relay": self.setup().relay,
            "guests": [row for row in rows if row["state"] != "off"],
            "off": [row for row in rows if row["state"] == "off"],
            "clone": who.clone if who else None,
            "since": who.since if who else None,
        }

    def guest(self, name: str) -> tuple[guests.Domain, str]:
        """Starts a guest if it is off; returns where it is, and its address."""
        guest = guests.named(name)
        self.host(HOSTS[0].name)
        guests.start(self, [guest])
        return guests.where(self, name), guest.address

    def guest_console(self, name: str) -> str:
        """What a guest wrote to its serial console, on the host where it is now."""
        log = f"/var/log/libvirt/qemu/{guests.named(name).name}.console"
        return self.run(guests.where(self, name).host, ["cat", log]).stdout

    def kill_host(self, name: str) -> None:
        """Ends a host at once, as a power cut does."""
        processes.end(hosts.pids(self.host(name)), grace=0)

    def start_host(self, name: str) -> None:
        """Boots a host that was killed, with the disk it had, and connects to it."""
        host = host_named(name)
        if host is not None and not hosts.pids(host):
            bringup.boot_one(host, self.folder)
            bringup.connect(self.folder)

    def reboot(self, name: str) -> None:
        """Power-cycles a host; returns when it answers again."""
        self.kill_host(name)
        self.start_host(name)

    def cut_link(self, host: str, network: str) -> None:
        """Cuts a host's link to the network "data" or "mgmt": frames are lost, both carriers stay."""
        self._carry(host, network, on=False)

    def join_link(self, host: str, network: str) -> None:
        """Undoes `cut_link`."""
        self._carry(host, network, on=True)

    def prefer(self, host: str, pf: str) -> None:
        """Has the peer's end of a host's bond send what is for the host to one PF; for the standby path "lacp"."""
        net.prefer(NETWORKS[0], self.host(host), self.standby(), pf)

    def _carry(self, host: str, network: str, *, on: bool) -> None:
        found = next((each for each in NETWORKS if each.name == network), None)
        if found is None:
            raise Problem("lab-no-such-network", f"The lab has no network {network!r}", "It has data and mgmt")
        for tap in found.taps(self.host(host).name, self.standby()):
            net.carry(found, tap, on=on)

    def _boot(self, debian12: Collection[str], setup: Setup) -> None:
        """Brings both hosts up; hosts that had to boot are kept for the next time.

        They are kept with the guests that have no VF: the emulated igb saves its PF's state, but not the
        configuration of its VFs, so a guest that runs on one loses its network when it is restored.
        """
        wanted = self.build(debian12, setup)
        fresh = bringup.boot_all(self.folder, wanted)
        bringup.connect(self.folder)
        if fresh:
            first = [guests.named(name) for name in STARTED]
            guests.start(self, [guest for guest in first if not guest.vfs])
            bringup.keep(wanted, self.folder)


def _known_hosts(names: Collection[str]) -> Collection[str]:
    """The names, if they are those of hosts."""
    for name in names:
        if host_named(name) is None:
            raise _no_host(name)
    return names


def _no_host(name: str) -> Problem:
    return Problem("lab-no-such-host", f"The lab has no host {name!r}", "It has host1 and host2")


def refuse_other(debian12: Collection[str], running: Mapping[str, Release]) -> None:
    """Raises `Problem` where the lab that is up is not the one asked for."""
    if {name for name, release in running.items() if release is DEBIAN12} != set(debian12):
        shown = ", ".join(f"{name} with {release.name}" for name, release in running.items())
        raise Problem("lab-other-release", f"The lab is up already: {shown}", "Take it down first: vferry lab down")


def refuse_other_standby(asked: str, running: str) -> None:
    """Raises `Problem` where the lab that is up does not have the standby path asked for."""
    if asked != running:
        raise Problem(
            "lab-other-standby",
            f"The lab is up already, with the standby path {running}",
            "Take it down first: vferry lab down",
        )


def refuse_without_relay(running: Setup) -> None:
    """Raises `Problem` where the hosts of the lab that is up cannot have the relay asked for."""
    if not running.relay:
        raise Problem(
            "lab-no-relay",
            "The lab is up already, and its hosts are not made for a relay",
            "Take it down first: vferry lab down",
        )
