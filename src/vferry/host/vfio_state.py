"""How much state a guest's VFIO devices would send in its pause, as their drivers in this host's kernel say.

Only QEMU has the devices open, so its descriptors are duplicated; each is asked and closed before the next. What is
asked are two features of VFIO_DEVICE_FEATURE, always by GET, which changes nothing (include/uapi/linux/vfio.h); QEMU
itself asks for both. The duplicates take what reading a process's memory takes: root, and a Yama that lets it.
"""

import ctypes
import errno
import fcntl
import logging
import os
import re
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from vferry.host.hypervisor_domains import qemu_pid
from vferry.model.guest import StateSize

T = TypeVar("T")

log = logging.getLogger("vferry.agent")

DEVICE = re.compile(r"anon_inode:\[vfio-device\]|/dev/vfio/devices/vfio\d+( \(deleted\))?")
"""What /proc/PID/fd calls an open device: of a group, or by its own node."""
PIDFD_GETFD = 438
"""The system call, which `os` has none for; its number is the same on all architectures that have VFIO."""
FEATURE = struct.Struct("=IIQ")
"""struct vfio_device_feature: its size, its flags, and the 64 bits that both features are."""
DEVICE_FEATURE = ord(";") << 8 | 100 + 17
GET = 1 << 16
MIGRATION, DATA_SIZE = 1, 9
PRE_COPY = 1 << 2
"""Of MIGRATION's flags."""

Features = tuple[int | None, int | None]


def read_state(root: Path, guest: str) -> StateSize | None:
    """The state of a running guest's devices; None where none of them migrates itself, or they cannot be asked."""
    try:
        found = ask_each(qemu_pid(root, guest), DEVICE, features)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        log.warning("How much state the devices of %s have is not known: %s", guest, error)
        return None
    return total(found)


def total(found: Iterable[Features]) -> StateSize | None:
    """The sum over devices of which each has said what it can do and how much state it has."""
    migrating = [(flags, size) for flags, size in found if flags is not None]
    if not migrating:
        return None
    return StateSize(
        bytes=sum(size or 0 for _, size in migrating),
        precopy=any(flags & PRE_COPY for flags, _ in migrating),
        silent=sum(size is None for _, size in migrating),
    )


def features(descriptor: int, ioctl: Callable[[int, int, bytearray], int] = fcntl.ioctl) -> Features:
    """A device's flags for migration, None where it has none, and its bytes of state, None where it does not say."""

    def get(number: int) -> int | None:
        asked = bytearray(FEATURE.pack(FEATURE.size, GET | number, 0))
        try:
            ioctl(descriptor, DEVICE_FEATURE, asked)
        except OSError:
            # ENOTTY: it does not migrate itself, or (of its size) Linux is older than 6.2.
            return None
        return int(FEATURE.unpack(asked)[2])

    flags = get(MIGRATION)
    return flags, None if flags is None else get(DATA_SIZE)


def ask_each(pid: int, kind: re.Pattern[str], ask: Callable[[int], T]) -> list[T]:
    """What is answered by a duplicate of each descriptor of a process that is of a kind. Raises OSError."""
    answers = []
    process = os.pidfd_open(pid)
    try:
        for number in [int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir() if _is(link, kind)]:
            descriptor = _duplicate(process, number)
            if descriptor is None:
                continue
            try:
                # It may be something else by now.
                if _is(Path(f"/proc/self/fd/{descriptor}"), kind):
                    answers.append(ask(descriptor))
            finally:
                os.close(descriptor)
    finally:
        os.close(process)
    return answers


def _is(link: Path, kind: re.Pattern[str]) -> bool:
    with suppress(FileNotFoundError):
        return kind.fullmatch(str(link.readlink())) is not None
    return False


def _duplicate(process: int, number: int) -> int | None:
    """None where it has been closed since."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(PIDFD_GETFD, process, number, 0)
    if descriptor >= 0:
        return descriptor
    code = ctypes.get_errno()
    if code == errno.EBADF:
        return None
    raise OSError(code, os.strerror(code))
