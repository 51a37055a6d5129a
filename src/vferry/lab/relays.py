"""What a lab's host and guest are given for as long as something is measured: a relay, and another NIC."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from vferry.controller import guest_nic, nic_driving, relay
from vferry.controller.state import find_state
from vferry.lab import guests
from vferry.lab.lab import Lab
from vferry.lab.topology import PF, Guest
from vferry.model.host import NO_MAC
from vferry.model.problem import Exit, Problem
from vferry.model.relay import RelayKind
from vferry.plan.facts import Finding
from vferry.plan.nic_plan import NicTarget

SWITCH = "ovs-vswitchd"
Tell = Callable[[str], None]
"""Is told each step as it begins, in words."""


@contextmanager
def relayed(lab: Lab, host: str, kind: RelayKind, mac: str, tell: Tell) -> Iterator[None]:
    """A relay of a host meanwhile, for a guest with this MAC; none afterwards, and nothing of DPDK."""
    with marked(lab, host, mac) if kind is RelayKind.SWITCHED else nullcontext():
        try:
            _enable(host, kind, tell)
            yield
        finally:
            _disable(host, tell)
            tell(f"starting {SWITCH} of {host} anew")
            do(lab, host, f"systemctl restart {SWITCH}")


@contextmanager
def marked(lab: Lab, host: str, mac: str) -> Iterator[int]:
    """As `mark`; afterwards the VF has none."""
    vf = mark(lab, host, mac)
    try:
        yield vf
    finally:
        unmark(lab, host, vf)


def mark(lab: Lab, host: str, mac: str) -> int:
    """Gives a MAC to the VF that will be a switched relay's uplink, before DPDK opens it; the VF's index.

    The 82576 lets no VF have what is for a MAC that is not its own: igb refuses it when DPDK asks for that.
    """
    found = asyncio.run(relay.assess(find_state(), host, (PF,), switched=True))
    refuse(found.errors)
    assert found.plan  # noqa: S101 - without errors there is one
    (vf,) = found.plan.relay.vfs
    do(lab, host, f"ip link set {PF} vf {vf.index} mac {mac}")
    return vf.index


def unmark(lab: Lab, host: str, vf: int) -> None:
    """Takes the MAC from the VF again: else it has what is for its guest on a bridge."""
    do(lab, host, f"ip link set {PF} vf {vf} mac {NO_MAC}")


@contextmanager
def put(lab: Lab, host: str, guest: Guest, to: NicTarget, tell: Tell) -> Iterator[None]:
    """The NIC of a guest that is off, and on its bridge, on something else; defined as before afterwards."""
    own = do(lab, host, f"virsh dumpxml --inactive {guest.name}")
    try:
        _move(host, guest, to, tell)
        yield
    finally:
        _move(host, guest, NicTarget.VIRTIO, tell)
        do(lab, host, "cat > /run/vferry-own.xml; virsh define /run/vferry-own.xml; rm /run/vferry-own.xml", own)


@contextmanager
def running(lab: Lab, host: str, guest: Guest) -> Iterator[None]:
    """A guest that is off, started anew, once it answers; off afterwards."""
    try:
        guests.start(lab, [guest])
        yield
    finally:
        do(lab, host, f"virsh destroy {guest.name} || virsh domstate {guest.name} | grep -q 'shut off'")


def do(lab: Lab, host: str, script: str, given: str = "") -> str:
    """What a shell script prints on a host. Problem ``lab-command-failed``."""
    done = lab.run(host, ["sh", "-ec", script], given, timeout=180)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise Problem("lab-command-failed", f"{host}: {script}: {said}", exit=Exit.UNDONE)
    return done.stdout


def refuse(errors: Sequence[Finding]) -> None:
    """Raises `Problem` for what stands in the way, if anything does."""
    if errors:
        message = "; ".join(finding.message for finding in errors)
        raise Problem(errors[0].code, message, errors[0].remedy, exit=Exit.REFUSED)


def _enable(host: str, kind: RelayKind, tell: Tell) -> None:
    found = asyncio.run(relay.assess(find_state(), host, (PF,), switched=kind is RelayKind.SWITCHED))
    refuse(found.errors)
    assert found.plan  # noqa: S101
    asyncio.run(relay.enable(find_state(), host, found.plan, tell))


def _disable(host: str, tell: Tell) -> None:
    refuse(asyncio.run(relay.disable(find_state(), host, tell)).errors)


def _move(host: str, guest: Guest, to: NicTarget, tell: Tell) -> None:
    found = asyncio.run(guest_nic.assess(find_state(), host, guest.name, guest.mac, to))
    refuse(found.errors)
    assert found.plan  # noqa: S101
    asyncio.run(nic_driving.move(find_state(), found.plan, tell))
