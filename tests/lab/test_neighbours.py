"""The guest's neighbours on both hosts reach it before, during and after a migration, wherever it is."""

import contextlib
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from lab.operator import HOSTS, PF, Scene, asked, migrate
from vferry.host.forwarding import parked

pytestmark = [pytest.mark.lab, pytest.mark.matrix]

LOG = "/run/neighbour.log"
LONGEST_S = 10.0
"""Far more than the change of a path takes, and far less than the copy."""


@contextlib.contextmanager
def pinging(scene: Scene) -> Iterator[None]:
    """Each host has an address on its bridge, where its other guests are, and asks for the guest all the time."""
    addresses = {host: f"10.9.0.{200 + number}/24" for number, host in enumerate(HOSTS)}
    try:
        for host, address in addresses.items():
            start = f"timeout 600 ping -D -n -i 0.2 {scene.address} > {LOG} 2>&1 < /dev/null & echo $! > {LOG}.pid"
            scene.run(host, f"ip address add {address} dev br0; {start}")
        yield
    finally:
        for host, address in addresses.items():
            scene.run(host, f"kill -INT $(cat {LOG}.pid); rm {LOG}.pid; ip address del {address} dev br0")


def answers(scene: Scene, host: str) -> list[float]:
    """When the guest answered a host, by its clock, in seconds."""
    said = scene.run(host, f"grep 'bytes from' {LOG}; rm {LOG}").splitlines()
    return [float(line[1:].split("]")[0]) for line in said if line.startswith("[")]


def silences(at: list[float]) -> list[str]:
    """When, by the host's clock, and for how long it was not answered for longer than `LONGEST_S`."""
    gaps = [(before, after - before) for before, after in pairwise(at) if after - before >= LONGEST_S]
    return [f"{time.strftime('%T', time.gmtime(since))}, {length:.1f} s" for since, length in gaps]


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("switch", marks=pytest.mark.guest("guest1")),
        pytest.param("virtio", marks=pytest.mark.guest("guest2")),
        pytest.param("failover", marks=pytest.mark.guest("failover1")),
        pytest.param("macvtap", marks=pytest.mark.guest("macvtap1")),
    ],
)
def test_the_neighbours_on_both_hosts_reach_it_all_the_time(scene: Scene, mode: str) -> None:
    with pinging(scene):
        time.sleep(5)
        for _ in HOSTS:
            report = migrate(scene, "--no-probe")
            assert report["network_mode"] == mode
        time.sleep(5)
    answered = {host: answers(scene, host) for host in HOSTS}
    gaps = {host: silences(at) for host, at in answered.items()}
    assert not any(gaps.values()), (gaps, report)
    assert all(at and at[-1] - at[0] > 2 * report["total_s"] / 3 for at in answered.values()), report


@pytest.mark.guest("macvtap1")
def test_a_macvtaps_vf_has_the_guest_s_mac_only_when_the_guest_runs_there(scene: Scene) -> None:
    (nic,) = asked("guest", "show", scene.guest)["nics"]
    migration = scene.migrate()

    def filters() -> str:
        return scene.run(migration.destination, f"ip link show dev {PF}")

    migration.wait_for("copy")
    migration.wait_until(lambda: parked(nic["mac"]) in filters())
    assert nic["mac"] not in filters()
    code, report = migration.end()
    assert code == 0, report
    assert (nic["mac"] in filters(), parked(nic["mac"]) in filters()) == (True, False)
    scene.assert_whole(migration.destination)
    scene.assert_nothing_left()
