"""`vferry guest nic` of a guest that runs, between its VF and the standby path: it answers all the time."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from lab.operator import Scene, asked, other, vferry
from lab.test_neighbours import answers, pinging, silences
from vferry.lab import guests

pytestmark = [pytest.mark.lab, pytest.mark.matrix]


@contextlib.contextmanager
def reached(scene: Scene) -> Iterator[None]:
    """The other host, which is outside, reaches the guest all the time."""
    host = other(scene.host)
    with pinging(scene):
        time.sleep(5)
        yield
        time.sleep(5)
    at = answers(scene, host)
    assert at
    assert not silences(at), host


def put_running(scene: Scene, to: str) -> None:
    """Moves the NIC of the guest while it runs."""
    before = scene.run(scene.host, f"virsh domid {scene.guest}")
    done = vferry("guest", "nic", scene.guest, guests.named(scene.guest).mac, "--to", to)
    assert done.returncode == 0, (to, done.stderr)
    assert (on(scene), scene.run(scene.host, f"virsh domid {scene.guest}")) == (to, before)


def on(scene: Scene) -> str:
    """What the guest's NIC is on."""
    (nic,) = asked("guest", "show", scene.guest)["nics"]
    if nic["socket"]:
        return "relay"
    return "vf" if nic["model"] == "hostdev" else "virtio"


def assert_alone(scene: Scene, ports: list[str] | None = None, given: int | None = None) -> None:
    """Who has the guest's MAC on its host: one VF at most, or the PF's filter; and no claim is left.

    `given`: the VF that has it by hand, as the uplink of a switched relay.
    """
    mac, shown = guests.named(scene.guest).mac, asked("host", "show", scene.host)
    have = [vf for pf in shown["pfs"] for vf in pf["vfs"] if vf["settings"]["mac"] == mac]
    vfs = [vf["address"] for vf in have if vf["index"] != given]
    forwarded = [pf["name"] for pf in shown["pfs"] if mac in pf["forwarding"]]
    owned = {"virtio": (0, 1), "vf": (1, 0), "relay": (1, 0) if given is None else (0, 0)}[on(scene)]
    assert (len(vfs), len(forwarded)) == owned, (vfs, forwarded)
    assert not [claim for claim in shown["claims"] if claim["guest"]], shown["claims"]
    if ports is not None:
        assert [port["mac"] for port in asked("relay", "show", scene.host)["relay"]["ports"]] == ports


@pytest.mark.parametrize(
    "guest", [pytest.param(name, marks=pytest.mark.guest(name)) for name in ("guest1", "cloud1", "nm1")]
)
def test_a_running_guest_leaves_its_vf_and_gets_one_again(scene: Scene, guest: str) -> None:
    assert scene.guest == guest
    with scene.defined_as(lambda xml: xml):
        scene.await_agent()
        with reached(scene):
            for to in ("virtio", "vf"):
                put_running(scene, to)
                assert_alone(scene)
        scene.assert_whole(scene.host)
        scene.assert_boots_anew()


def test_a_dry_run_says_the_steps_and_changes_nothing(scene: Scene) -> None:
    scene.await_agent()
    shown = asked("guest", "show", scene.guest)
    done = vferry("guest", "nic", scene.guest, guests.named(scene.guest).mac, "--to", "virtio", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "plug a virtio NIC" in done.stdout
    assert asked("guest", "show", scene.guest) == shown


def test_without_memory_that_is_shared_no_relay_is_had_while_it_runs(scene: Scene) -> None:
    done = vferry("guest", "nic", scene.guest, guests.named(scene.guest).mac, "--to", "relay")
    assert done.returncode == 3
    assert "Shut the guest down" in done.stderr
