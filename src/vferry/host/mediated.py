"""Mediated devices (mdevs): which this host has, which it could make, and making and removing them, by sysfs."""

from pathlib import Path

from vferry.host.api import Done, SetMdev
from vferry.host.hypervisor import Hypervisor
from vferry.host.hypervisor_guests import describe_all
from vferry.host.sysfs import read_file
from vferry.model.host import Mdev, MdevType
from vferry.model.problem import Exit, Problem

BUS = "sys/bus/mdev/devices"
PARENTS = "sys/class/mdev_bus"


def read_types(root: Path) -> tuple[MdevType, ...]:
    """The types that the devices of this host offer."""
    paths = sorted((root / PARENTS).glob("*/mdev_supported_types/*"))
    return tuple(map(_type, paths))


def read_mdevs(root: Path) -> tuple[Mdev, ...]:
    """The mediated devices that exist."""
    return tuple(mdev for path in sorted((root / BUS).glob("*")) if (mdev := _mdev(root, path.name)) is not None)


def set_mdev(hypervisor: Hypervisor, root: Path, wanted: SetMdev) -> Done:
    """Makes or removes one; unchanged when it is so. Problems ``mdev-in-use``, ``mdev-differs``, ``mdev-refused``."""
    found = _mdev(root, wanted.uuid)
    if found is None and not wanted.present:
        return Done(changed=False)
    _refuse_use(hypervisor, root, wanted)
    if found is None:
        _write(root / PARENTS / wanted.parent / "mdev_supported_types" / wanted.kind / "create", wanted.uuid, wanted)
        return Done()
    if found.type != wanted.kind:
        raise Problem(
            "mdev-differs",
            f"The mediated device {wanted.uuid} of this host is a {found.type}, not a {wanted.kind}",
            f"Remove it, if it is a leftover: echo 1 > /{BUS}/{wanted.uuid}/remove",
            exit=Exit.REFUSED,
        )
    if wanted.present:
        return Done(changed=False)
    _write(root / BUS / wanted.uuid / "remove", "1", wanted)
    return Done()


def _refuse_use(hypervisor: Hypervisor, root: Path, wanted: SetMdev) -> None:
    """The kernel would wait for a guest that runs to let go of it; another's is not touched at all."""
    for one in describe_all(hypervisor, root):
        runs = one.live is not None and any(device.uuid == wanted.uuid for device in one.live.devices)
        others = one.now.name != wanted.guest and one.has_mdev(wanted.uuid)
        if others or (runs and not wanted.present):
            raise Problem(
                "mdev-in-use",
                f"Guest {one.now.name} has the mediated device {wanted.uuid} on this host",
                f"Look with: vferry guest show {one.now.name}",
                exit=Exit.REFUSED,
            )


def _type(path: Path) -> MdevType:
    available = int(read_file(path / "available_instances") or 0)
    return MdevType(name=path.name, parent=path.parent.parent.name, available=available)


def _mdev(root: Path, uuid: str) -> Mdev | None:
    path = root / BUS / uuid
    try:
        return Mdev(uuid=uuid, type=(path / "mdev_type").readlink().name, parent=path.resolve().parent.name)
    except OSError:
        return None


def _write(path: Path, text: str, wanted: SetMdev) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise Problem(
            "mdev-refused",
            f"The kernel refuses to {'make' if wanted.present else 'remove'} the mediated device {wanted.uuid} "
            f"({wanted.kind} of {wanted.parent}): {error.strerror}",
            f"Look at /{PARENTS} and at dmesg",
            exit=Exit.REFUSED,
        ) from error
