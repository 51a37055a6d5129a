"""How much state devices have: what is asked of the kernel, of whom, and that nothing stays open."""

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vferry.host import vfio_state
from vferry.host.vfio_state import DEVICE, Features, ask_each, features, read_state, total
from vferry.model.guest import StateSize

STOP_COPY, P2P, PRE_COPY = 1, 2, 4
MEMFD = re.compile(r"/memfd:state \(deleted\)")


class Device:
    """Answers VFIO_DEVICE_FEATURE as the kernel does, on a little-endian machine."""

    def __init__(self, **values: int) -> None:
        self.values = values
        self.asked: list[bytes] = []

    def ioctl(self, descriptor: int, request: int, argument: bytearray) -> int:
        assert (descriptor, request) == (7, 0x3B75)
        self.asked.append(bytes(argument))
        value = self.values.get({1: "migration", 9: "data_size"}[argument[4]])
        if value is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        argument[8:] = value.to_bytes(8, "little")
        return 0


@pytest.mark.parametrize(
    ("device", "found"),
    [
        (Device(migration=STOP_COPY | P2P | PRE_COPY, data_size=96), (7, 96)),
        (Device(migration=STOP_COPY, data_size=5 << 32), (1, 5 << 32)),
        (Device(migration=STOP_COPY), (1, None)),
        (Device(), (None, None)),
        (Device(data_size=96), (None, None)),
    ],
)
def test_a_device_is_asked_by_get_alone(device: Device, found: Features) -> None:
    assert features(7, device.ioctl) == found
    migration, data_size = "10000000010001000000000000000000", "10000000090001000000000000000000"
    asked = [migration] if found[0] is None else [migration, data_size]
    assert [each.hex() for each in device.asked] == asked


def test_what_is_no_vfio_device_has_no_such_features() -> None:
    reader, writer = os.pipe()
    try:
        assert features(reader) == (None, None)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ([], None),
        ([(None, None)], None),
        ([(STOP_COPY, 96)], StateSize(bytes=96)),
        ([(STOP_COPY, 96), (None, None), (STOP_COPY | PRE_COPY, 4)], StateSize(bytes=100, precopy=True)),
        ([(STOP_COPY, 96), (STOP_COPY, None)], StateSize(bytes=96, silent=1)),
        ([(STOP_COPY, 0)], StateSize(bytes=0)),
    ],
)
def test_the_sum_is_that_of_the_devices_that_migrate_themselves(found: list[Features], state: StateSize | None) -> None:
    assert total(found) == state


@pytest.mark.parametrize(
    ("link", "is_device"),
    [
        ("anon_inode:[vfio-device]", True),
        ("/dev/vfio/devices/vfio12", True),
        ("/dev/vfio/devices/vfio0 (deleted)", True),
        ("/dev/vfio/vfio", False),
        ("/dev/vfio/12", False),
        ("/dev/iommu", False),
        ("anon_inode:kvm-vm", False),
        ("anon_inode:[vfio-device]x", False),
        ("mtty_mig", False),
    ],
)
def test_what_an_open_device_is_called(link: str, is_device: bool) -> None:  # noqa: FBT001
    assert bool(DEVICE.fullmatch(link)) == is_device


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process with three files of the kind, and others."""
    files = [os.memfd_create("state") for _ in range(3)]
    for at, file in enumerate(files):
        os.pwrite(file, bytes([at]), 0)
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, pass_fds=files) as process:
        for file in files:
            os.close(file)
        yield process
        process.kill()


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_another_process_s_descriptors_are_asked_and_closed(other: subprocess.Popen[bytes]) -> None:
    before = opened()
    found = ask_each(other.pid, MEMFD, lambda descriptor: (os.pread(descriptor, 1, 0), opened()))
    # With each of them there is one more than with none: a duplicate; and the process's own.
    assert sorted(found) == [(bytes([at]), before + 2) for at in range(3)]
    assert opened() == before
    assert ask_each(other.pid, DEVICE, features) == []


def test_what_goes_wrong_with_one_leaves_none_open(other: subprocess.Popen[bytes]) -> None:
    before = opened()
    with pytest.raises(ZeroDivisionError):
        ask_each(other.pid, MEMFD, lambda _descriptor: 1 // 0)
    assert opened() == before


def test_a_descriptor_that_is_closed_meanwhile_is_passed_over(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vfio_state._duplicate
    monkeypatch.setattr(vfio_state, "_duplicate", lambda process, number: real(process, number + 1000))
    assert ask_each(other.pid, MEMFD, features) == []


def noted(root: Path, pid: int) -> Path:
    file = root / "run/libvirt/qemu/guest1.pid"
    file.parent.mkdir(parents=True)
    file.write_text(f"{pid}\n")
    return root


def test_a_guest_without_such_a_device_or_that_has_ended_has_none(
    other: subprocess.Popen[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_state(tmp_path, "guest1") is None
    noted(tmp_path, other.pid)
    assert read_state(tmp_path, "guest1") is None
    other.kill()
    other.wait()
    assert read_state(tmp_path, "guest1") is None
    assert not caplog.records


def test_a_guest_s_devices_are_added_up(
    other: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vfio_state, "DEVICE", MEMFD)
    monkeypatch.setattr(vfio_state, "features", lambda descriptor: (STOP_COPY, os.pread(descriptor, 1, 0)[0]))
    assert read_state(noted(tmp_path, other.pid), "guest1") == StateSize(bytes=0 + 1 + 2)


def test_that_they_may_not_be_asked_is_logged(
    other: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def denied(_process: int, _number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(vfio_state, "DEVICE", MEMFD)
    monkeypatch.setattr(vfio_state, "_duplicate", denied)
    assert read_state(noted(tmp_path, other.pid), "guest1") is None
    assert [record.getMessage() for record in caplog.records] == [
        "How much state the devices of guest1 have is not known: [Errno 1] Operation not permitted"
    ]
