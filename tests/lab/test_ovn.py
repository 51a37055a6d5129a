"""A guest of QEMU's that is a port of OVN's, by vhost-user and DPDK, migrates: what OVN does for it goes along."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.operator import ANSWER_S, HOSTS, Scene, asked, do, migrate, until, vferry
from lab.ovn import KNOCK, PATIENCE_S, TALK, UPLINKS, Logical, Ovn, Program, known, ovn
from lab.relayed import define, relays
from vferry.controller.state import State
from vferry.host.relay_names import guest_name
from vferry.lab import guests
from vferry.model.relay import RelayKind

pytestmark = [pytest.mark.relay, pytest.mark.guest("guest2")]

GUEST = guests.named("guest2")
WEB = Logical(name="web-0", mac=GUEST.mac, address=GUEST.address)
CALLER = Logical(name="caller", mac="52:54:00:aa:01:01", address="10.9.0.101")
CALLED = Logical(name="called", mac="52:54:00:aa:01:02", address="10.9.0.102")
STRANGER = Logical(name="stranger", mac=CALLER.mac, address=CALLER.address)
"""Another tenant's, as is the guest's double."""
DOUBLE = Logical(name="double", mac=WEB.mac, address=WEB.address)
PLACES = {CALLER: HOSTS[0], CALLED: HOSTS[1], STRANGER: HOSTS[0], DOUBLE: HOSTS[1]}
"""Both of the guest's tenant meet it on their own host, and by Geneve."""
ECHO, SERVICE = 7, 7001
RULES = (
    ("from", 1, f'inport == "{WEB.name}" && ip', "drop"),
    ("to", 1, f'outport == "{WEB.name}" && ip', "drop"),
    ("to", 2, f'outport == "{WEB.name}" && icmp4', "allow-related"),
    ("to", 2, f'outport == "{WEB.name}" && ip4.src == {CALLER.address} && tcp.dst == {ECHO}', "allow-related"),
    ("from", 2, f'inport == "{WEB.name}" && ip4.dst == {CALLED.address} && tcp.dst == {SERVICE}', "allow-related"),
)
"""One of its tenant may open a connection to it, and it may open one to the other, who may open none."""


@pytest.fixture
def net(scene: Scene, controller: State) -> Iterator[Ovn]:
    """OVN on both hosts and on switched relays of theirs, with two tenants, of which one is to have the guest."""
    assert scene.lab.setup().relay, "vferry lab down; vferry lab up --relay"
    with ovn(scene.lab) as made:
        with known(scene.lab, controller), relays(scene, RelayKind.SWITCHED, UPLINKS):
            furnish(made)
            yield made
        left = {host: asked("relay", "show", host)["relay"] for host in HOSTS}
        assert not any(left.values()), left


def furnish(net: Ovn) -> None:
    """All that is there but the guest. What says why there is none is printed: no test has begun yet."""
    try:
        net.join()
        net.add_switch("red", WEB, CALLER, CALLED)
        net.add_switch("blue", STRANGER, DOUBLE)
        for rule in RULES:
            net.filter("red", *rule)
        for machine, host in PLACES.items():
            net.plug(host, machine)
        net.settle()
        until(lambda: reaches(net, CALLED, CALLER.address), PATIENCE_S, "no frame passes by Geneve")
    except AssertionError:
        print(net.evidence())
        raise


def reaches(net: Ovn, machine: Logical, address: str = WEB.address) -> bool:
    return net.reaches(PLACES[machine], machine, address)


def refused(scene: Scene, why: str, *to: str) -> None:
    """What a running guest's NIC is not put on."""
    done = vferry("guest", "nic", scene.guest, WEB.mac, "--to", *to)
    assert (done.returncode, why in done.stderr) == (3, True), (to, done.returncode, done.stderr)


def put_on_port(scene: Scene, net: Ovn) -> None:
    """Starts the guest as OVN's port."""
    define(scene, "relay", "--ovn-port", WEB.name)
    do(scene.lab, scene.host, f"virsh start {scene.guest}")
    until(lambda: reaches(net, CALLER), GUEST.answer_bound, f"{scene.guest} does not answer as {WEB.name}")


def assert_there(scene: Scene, net: Ovn) -> None:
    """The port is where the guest is, and nowhere else; who may reach the guest does, and who may not does not."""
    here = scene.host
    until(lambda: net.places(WEB.name) == [here], PATIENCE_S, f"{WEB.name} is not at {here} alone for OVN")
    found = net.interfaces(WEB.name)
    assert found == {host: [guest_name(WEB.mac)] if host == here else [] for host in HOSTS}, found
    for host in HOSTS:
        view = asked("relay", "show", host)["relay"]
        assert [port["mac"] for port in view["ports"]] == ([WEB.mac] if host == here else []), (host, view)
    for machine in (CALLER, CALLED):
        until(lambda machine=machine: reaches(net, machine), ANSWER_S, f"{machine.name} does not reach {here}")  # type: ignore[misc]
    assert not net.opens(PLACES[CALLED], CALLED, WEB.address, ECHO), f"{CALLED.name} is let in on {here}"


@contextlib.contextmanager
def connected(scene: Scene, net: Ovn, folder: Path) -> Iterator[list[Program]]:
    """Connections that are held open meanwhile, one of either's; each passes bytes, which come back as they were."""
    called = net.run(PLACES[CALLED], CALLED, folder / "called", TALK, str(SERVICE))
    called.says()
    with scene.busy(f"exec nc {CALLED.address} {SERVICE} -e cat"):
        caller = net.run(PLACES[CALLER], CALLER, folder / "caller", TALK, WEB.address, str(ECHO))
        for each in (called, caller):
            each.says(2)
        yield [called, caller]
        for each in (called, caller):
            each.end()


@contextlib.contextmanager
def knocking(net: Ovn, folder: Path) -> Iterator[None]:
    """The other tenant's asks for the guest's address meanwhile, and comes to its own tenant's, who lets nobody in."""
    stranger = net.run(PLACES[STRANGER], STRANGER, folder / "stranger", KNOCK, WEB.address, str(ECHO))
    stranger.says()
    yield
    stranger.end()
    assert "let in" not in stranger.said, stranger.said
    assert "Connection refused" in stranger.said, stranger.said


def test_a_guest_on_a_port_of_ovns_migrates_there_and_back(scene: Scene, net: Ovn, tmp_path: Path) -> None:
    refused(scene, "only while its guest is off", "relay", "--ovn-port", WEB.name)
    before = net.options(WEB.name)
    put_on_port(scene, net)
    assert_there(scene, net)
    scene.await_agent()
    for to in ("vf", "virtio"):
        refused(scene, f"{WEB.name} of OVN's", to)
    with knocking(net, tmp_path), connected(scene, net, tmp_path) as talks:
        for codec in ("none", "zstd"):
            report = migrate(scene, "--codec", codec, "--no-probe")
            assert report["network_mode"] == "relay", report
            assert (report["connections"] or {"taken": 0})["taken"] >= len(talks), report
            for each in talks:
                each.says(3)
            assert_there(scene, net)
            assert net.options(WEB.name) == before
