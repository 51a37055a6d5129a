"""What can fail while a guest migrates: how it is made to, and how it is put right again."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.operator import PF, Migration, Scene, vferry
from vferry.lab.topology import VFS

LINK_CUT_S = 10
ORDER_IS_OUT_S = 5

Act = Callable[[Scene, Migration], None]


def nothing(_scene: Scene, _migration: Migration) -> None:
    """Nothing has to be put right."""


@dataclass(frozen=True)
class Fault:
    """`strike` makes something fail in a phase; `heal` puts right what does not come back by itself."""

    name: str
    strike: Act
    heal: Act = nothing


def _abort(_scene: Scene, migration: Migration) -> None:
    assert vferry("operation", "abort", migration.operation).returncode == 0


def _kill_controller(_scene: Scene, migration: Migration) -> None:
    migration.kill()


def _kill_agent(host: str) -> Act:
    def strike(scene: Scene, migration: Migration) -> None:
        scene.run(getattr(migration, host), "systemctl kill -s KILL vferry-agent")

    return strike


def _kill_gateway(host: str) -> Act:
    def strike(scene: Scene, migration: Migration) -> None:
        scene.run(getattr(migration, host), "pkill -9 -f '[v]ferry.*gateway'")

    return strike


def _cut_link(scene: Scene, migration: Migration) -> None:
    scene.lab.cut_link(migration.destination, "mgmt")
    migration.wait(LINK_CUT_S)
    scene.lab.join_link(migration.destination, "mgmt")


def _kill_destination(scene: Scene, migration: Migration) -> None:
    scene.lab.kill_host(migration.destination)


def _boot_destination(scene: Scene, migration: Migration) -> None:
    scene.lab.start_host(migration.destination)


def _take_vfs_away(scene: Scene, migration: Migration) -> None:
    scene.run(migration.destination, f"echo 0 > /sys/class/net/{PF}/device/sriov_numvfs")


def _give_vfs_back(scene: Scene, migration: Migration) -> None:
    scene.run(migration.destination, f"echo {VFS} > /sys/class/net/{PF}/device/sriov_numvfs")


def _stop_libvirt(scene: Scene, migration: Migration) -> None:
    """The destination's libvirt takes the order to let the guest go on, and neither obeys nor answers.

    Once the guest has been paused at the source for longer than its last memory takes, the order is out, and the wire
    breaks as well: nobody can tell what became of it.
    """
    copied = f"virsh domjobinfo {scene.guest} | grep 'Memory processed'"
    migration.wait_until(lambda: " 0.000 B" not in (scene.run(migration.source, copied) or " 0.000 B"))
    scene.run(migration.destination, "pkill -STOP -x libvirtd")
    migration.wait_until(lambda: _paused_for(scene, migration.source, ORDER_IS_OUT_S))
    RECEIVING.strike(scene, migration)


def _paused_for(scene: Scene, host: str, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while scene.state(host) == "paused":
        if time.monotonic() > until:
            return True
    return False


def _let_libvirt_go_on(scene: Scene, migration: Migration) -> None:
    scene.run(migration.destination, "pkill -CONT -x libvirtd")


ABORT = Fault("abort asked for", _abort)
CONTROLLER = Fault("controller killed", _kill_controller)
SOURCE_AGENT = Fault("source's agent killed", _kill_agent("source"))
DESTINATION_AGENT = Fault("destination's agent killed", _kill_agent("destination"))
SENDING = Fault("sending gateway killed", _kill_gateway("source"))
RECEIVING = Fault("receiving gateway killed", _kill_gateway("destination"))
LINK = Fault("link cut for 10 s", _cut_link)
DESTINATION = Fault("destination dies", _kill_destination, _boot_destination)
NO_VF = Fault("no VF to be had", _take_vfs_away, _give_vfs_back)
UNKNOWN = Fault("nobody can tell", _stop_libvirt, _let_libvirt_go_on)
