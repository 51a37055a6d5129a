"""Bringing the hosts up and taking everything down: the effects behind `Lab`."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from vferry.lab import booted, cloud, hosts, net, outer, owner, peer, places, processes, reach
from vferry.lab.layers import Layers
from vferry.lab.topology import GUESTS, HOSTS, NETWORKS, Guest, Host
from vferry.model.problem import Problem


def boot_all(lab: Path, layers: Layers) -> bool:
    """Restores both hosts as they were kept, or else boots them; True where they had to boot.

    A failure, or Ctrl-C, takes down what was started.
    """
    remove()  # what a crash may have left
    lab.mkdir(parents=True, exist_ok=True)
    try:
        kept = booted.find(layers)
        if kept is not None and _restored(lab, layers, kept):
            return False
        _booted(lab, layers)
    except BaseException:
        outer.say("taking down what was started")
        remove()
        raise
    return True


def _prepare(lab: Path, layers: Layers) -> None:
    """Networks, guests' disks and the note of whose lab it is."""
    places.RUN.mkdir(mode=0o700, exist_ok=True)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    owner.write(owner.Owner(str(places.clone()), now, layers))
    for host in HOSTS:
        for name in hosts.written(host):
            (lab / name).unlink(missing_ok=True)
    for guest in GUESTS:  # one raw disk each, given to both hosts: a migration need not copy it
        _make_disk(guest, lab / guest.disk)
    net.create(layers.setup.standby)
    peer.start_dhcp()
    peer.start_vlans(NETWORKS[0].bridge)


def _make_disk(guest: Guest, disk: Path) -> None:
    if guest.own_system:
        cloud.blank(guest, disk)
        return
    disk.unlink(missing_ok=True)
    outer.call(["mke2fs", "-q", "-F", "-t", "ext4", disk, f"{guest.disk_mib}M"])


def _booted(lab: Path, layers: Layers) -> None:
    _prepare(lab, layers)
    reach.prepare(lab)
    for host in HOSTS:
        hosts.start(host, layers, lab)
    outer.say("booting host1 and host2; about a minute without KVM")
    hosts.wait(HOSTS, lab)


def _restored(lab: Path, layers: Layers, kept: Path) -> bool:
    """Restores the kept hosts; False where that fails, with everything removed again."""
    theirs = booted.as_kept(layers, kept)
    _prepare(lab, theirs)
    try:
        with outer.step("restoring host1 and host2 as they were when they had booted"):
            booted.place(kept, lab)
            reach.prepare(lab)
            for host in HOSTS:
                hosts.start(host, theirs, lab, kept)
            for host in HOSTS:
                booted.resume(host)
            connect(lab)
    except Problem as problem:
        outer.say(f"note: the hosts are booted anew, for the kept ones are of no use ({problem})")
        remove()
        shutil.rmtree(kept, ignore_errors=True)
        return False
    if not booted.is_current(layers, kept):
        push(lab, layers)
    return True


def boot_one(host: Host, lab: Path) -> None:
    """Boots one host of a lab that is up, with the disk that it had."""
    who = owner.current()
    if who is None or not Path(who.layers.of(host).base).exists():
        raise Problem("lab-down", "The lab is down", "Start it with: vferry lab up")
    hosts.start(host, who.layers, lab)
    outer.say(f"booting {host.name}; about a minute without KVM")
    hosts.wait([host], lab)


def keep(layers: Layers, lab: Path) -> None:
    """Keeps the hosts for the next time, without this machine's connections to them."""
    for host in HOSTS:
        reach.disconnect(host, lab)
    booted.keep(layers, lab)
    connect(lab)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(HOSTS))


def connect(lab: Path) -> bool:
    """Opens the ssh connections that are missing; False where none was. A restored host's clock is set, too."""
    absent = [host for host in HOSTS if hosts.pids(host) and not reach.connected(host, lab)]

    def one(host: Host) -> None:
        reach.connect(host, lab)
        reach.set_clock(host, lab)

    with _pool() as pool:
        list(pool.map(one, absent))
    return bool(absent)


def push(lab: Path, layers: Layers) -> None:
    """Gives the running hosts another vferry, and restarts their agents."""
    with outer.step("giving this vferry to the hosts and restarting their agents"), _pool() as pool:
        list(pool.map(lambda host: reach.push(host, lab, Path(layers.of(host).product)), hosts.running()))


def remove() -> None:
    """Ends every process of the lab and removes its namespaces, sockets and run files."""
    ours = [pid for host in HOSTS for pid in hosts.pids(host)]
    inside = [pid for network in NETWORKS for pid in net.pids(network)]
    processes.end([*processes.find(f"{places.RUN}/"), *inside, *ours], grace=2)
    net.remove()
    shutil.rmtree(places.RUN, ignore_errors=True)
    places.LOCK.write_text("")
