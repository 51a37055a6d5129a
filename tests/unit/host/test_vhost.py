"""What vhost-net offers; the real one answers in the lab alone (tests/lab/test_lab.py)."""

import fcntl
import sys
from pathlib import Path

import pytest

from vferry.host.vhost import read_features

VERSION_1, RING_RESET = 32, 40


def test_nothing_is_said_where_there_is_none(tmp_path: Path) -> None:
    assert read_features(tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vhost-net").write_bytes(b"")
    assert read_features(tmp_path) is None


def test_the_kernel_s_answer_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vhost-net").write_bytes(b"")
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: (1 << VERSION_1 | 1 << RING_RESET).to_bytes(8, sys.byteorder))
    assert read_features(tmp_path) == 0x10100000000
