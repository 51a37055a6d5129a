"""The guests while the lab is up: where they are, starting them, waiting until they answer."""

import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vferry.lab import cloud, guestxml, hosts, kernels, mtty, outer
from vferry.lab.topology import GUESTS, HOSTS, Guest, Host, guest_named
from vferry.model.problem import Exit, Problem

if TYPE_CHECKING:
    from vferry.lab.lab import Lab


SUSPICIOUS_S = 15.0
MOST_RESTARTS = 3
LOOKS = 4
INTERRUPTS_ON = 0x200
"""The flag of the processor's flags register."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A guest as a host's libvirt lists it; `state` in virsh's words (running, shut off, paused, …)."""

    name: str
    host: str
    state: str

    @property
    def on(self) -> bool:
        return self.state != "shut off"


def named(name: str) -> Guest:
    guest = guest_named(name)
    if guest is None:
        names = ", ".join(each.name for each in GUESTS)
        raise Problem("lab-no-such-guest", f"The lab has no guest {name!r}", f"It has {names}")
    return guest


def parse(host: str, listed: str) -> list[Domain]:
    """The lines of `virsh -q list --all`: id or "-", name, state (which may have blanks)."""
    rows = (line.split(None, 2) for line in listed.splitlines() if line.strip())
    return [Domain(row[1], host, row[2].strip()) for row in rows]


def everywhere(lab: "Lab") -> list[Domain]:
    """All guests that any running host defines."""

    def listed(host: Host) -> list[Domain]:
        return parse(host.name, lab.run(host.name, ["virsh", "-q", "list", "--all"]).stdout)

    up = hosts.running()
    if not up:
        return []
    with ThreadPoolExecutor(len(up)) as pool:
        return [domain for domains in pool.map(listed, up) for domain in domains]


def rows(domains: Sequence[Domain]) -> list[dict[str, str]]:
    """The lab's guests as `lab status` prints them; one that runs on a host hides its definition on the other."""
    found = {domain.name: domain for domain in sorted(domains, key=lambda domain: domain.on)}
    return [
        {
            "name": guest.name,
            "address": guest.address,
            "host": found[guest.name].host,
            "state": found[guest.name].state if found[guest.name].on else "off",
        }
        for guest in GUESTS
        if guest.name in found
    ]


def place(domains: Sequence[Domain], name: str) -> Domain:
    """Where a guest runs, or else is defined."""
    found = [domain for domain in domains if domain.name == name]
    if not found:
        raise Problem("lab-guest-undefined", f"No host defines {name}", "Take the lab down and up again")
    return max(found, key=lambda domain: domain.on)


def where(lab: "Lab", name: str) -> Domain:
    """Where a guest is now."""
    return place(everywhere(lab), name)


def start(lab: "Lab", wanted: Sequence[Guest]) -> bool:
    """Starts the wanted guests where they are defined, and waits for them; False if all of them ran."""
    domains = defined(lab, wanted)
    off = [guest for guest in wanted if not place(domains, guest.name).on]
    for guest in off:
        host = place(domains, guest.name).host
        if guest.own_system:
            cloud.provide(guest, lab.folder)
        kernels.provide(lab, guest)
        if guest.serial:
            mtty.provide(lab, guest, host)
        if guest.macvtap:
            _give_interfaces(lab)
        if guest.socket:
            _refuse_without_port(lab, guest, host)
        with outer.step(f"starting {guest.name} on {host}"):
            virsh(lab, host, [f"start {guest.name}"])
    for guest in off:
        answer(lab, guest)
    return bool(off)


def _give_interfaces(lab: "Lab") -> None:
    """Gives each host's own VF an interface. Not when it boots: kept hosts forget how their VFs were set up."""
    for host in hosts.running():
        done = lab.run(host.name, ["vferry-lab-vf-interface", str(host.own_vf)])
        if done.returncode != 0:
            raise Problem("lab-no-vf-interface", f"{host.name}: {done.stderr.strip()}", exit=Exit.UNDONE)


def _refuse_without_port(lab: "Lab", guest: Guest, host: str) -> None:
    """Raises `Problem` where no relay would connect to a guest: its QEMU would wait for that, and libvirt for QEMU."""
    find = ["ovs-vsctl", "--timeout=10", "--no-headings", "--columns=name", "find", "Interface"]
    done = lab.run(host, [*find, "type=dpdkvhostuserclient", f"options:vhost-server-path={guest.socket}"])
    if done.returncode != 0 or not done.stdout.strip():
        raise Problem(
            "lab-no-relay-port",
            f"No relay of {host} has a port for {guest.name}, at {guest.socket} {done.stderr.strip()}".rstrip(),
            "Make one first; docs/lab.md has how, in a lab that is up with --relay",
        )


def defined(lab: "Lab", wanted: Sequence[Guest]) -> list[Domain]:
    """All guests, once the wanted ones are among them: those that are off make room for one that no host defines."""
    domains = everywhere(lab)
    missing = [guest for guest in wanted if guest.name not in {domain.name for domain in domains}]
    if not missing:
        return domains
    needed = {guest.name for guest in wanted} | {domain.name for domain in domains if domain.on}
    for host in hosts.running():
        virsh(lab, host.name, [f"undefine {d.name}" for d in domains if d.host == host.name and d.name not in needed])
    virsh(lab, HOSTS[0].name, [f"define {guestxml.LAB}/{guestxml.file_name(guest)}" for guest in missing])
    return everywhere(lab)


def stop_others(lab: "Lab", wanted: Sequence[Guest]) -> None:
    """Ends the guests that run because kept hosts had them, but are not wanted this time."""
    names = {guest.name for guest in wanted}
    for domain in everywhere(lab):
        if domain.on and domain.name not in names:
            virsh(lab, domain.host, [f"destroy {domain.name}"])


def virsh(lab: "Lab", host: str, commands: Sequence[str]) -> None:
    """Runs virsh commands in one process, which is much faster than one each in an emulated CPU."""
    if not commands:
        return
    done = lab.run(host, ["virsh", "-q", "; ".join(commands)], timeout=180)
    if done.returncode != 0:
        raise Problem("lab-virsh-failed", f"virsh on {host}: {done.stderr.strip()}", exit=Exit.UNDONE)


def answer(lab: "Lab", guest: Guest) -> None:
    """Waits until the peer gets an answer from a guest; one that the emulator loses meanwhile is started again."""
    start_time, told, restarts = time.monotonic(), 0.0, 0
    while lab.peer(["busybox", "ping", "-q", "-c", "1", "-W", "1", guest.address]).returncode != 0:
        elapsed = time.monotonic() - start_time
        if elapsed - told > 10:
            told = elapsed
            outer.say(f"waiting for {guest.name} to answer at {guest.address}: {elapsed:.0f} s")
            if elapsed > SUSPICIOUS_S and restarts < MOST_RESTARTS and _rescue(lab, guest.name):
                start_time, told, restarts = time.monotonic(), 0.0, restarts + 1
        if elapsed > guest.answer_bound:
            raise Problem(
                "lab-guest-silent",
                f"{guest.name} does not answer at {guest.address} after {guest.answer_bound:.0f} s",
                f"Read its console with: vferry lab guest {guest.name} --console",
                exit=Exit.UNDONE,
            )
    outer.say(f"{guest.name} answers at {guest.address} after {time.monotonic() - start_time:.0f} s")


def _rescue(lab: "Lab", name: str) -> bool:
    """Starts a guest again if the emulator has lost it; whether it had."""
    host = where(lab, name).host
    if not is_lost(lab, name, host):
        return False
    outer.say(f"QEMU without KVM has lost {name} (docs/lab.md): it is started again")
    virsh(lab, host, [f"destroy {name}", f"start {name}"])
    return True


def is_lost(lab: "Lab", name: str, host: str) -> bool:
    """Whether a guest's CPU stays at one instruction of its kernel, with interrupts off, and so for ever."""
    look = f"virsh qemu-monitor-command {name} --hmp 'info registers' | grep -o 'RIP=.*CPL=[0-3]'; sleep 0.5"
    return stays([lab.run(host, ["sh", "-c", look]).stdout for _ in range(LOOKS)])


def stays(looks: Sequence[str]) -> bool:
    """The same, from what was seen of its registers."""
    found = re.fullmatch(r"RIP=\w+ RFL=(\w+) .*CPL=0\n", looks[0])
    return len(set(looks)) == 1 and found is not None and not int(found[1], 16) & INTERRUPTS_ON
