"""The record on file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vferry.probe.record import HEADER_BYTES, ProbeRecord, Recording

HEADER = {"rate": 1000, "address": "192.0.2.1", "method": "icmp", "wall_offset_ns": 5}


@given(count=st.integers(0, 60), batch=st.integers(1, 30), capacity=st.integers(1, 25))
def test_the_newest_probes_are_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, batch: int, capacity: int
) -> None:
    path = tmp_path_factory.mktemp("record") / "probes"
    recording = Recording(path, HEADER, capacity)
    for at in range(count):
        recording.add(1000 + at, at if at % 3 else -1)
        if at % batch == 0:
            recording.flush()
    recording.close()
    record = ProbeRecord.load(path)
    kept = range(max(0, count - capacity), count)
    assert list(record.sent) == [1000 + at for at in kept]
    assert list(record.rtt) == [at if at % 3 else -1 for at in kept]
    assert record.wrapped == (count >= capacity)
    assert (record.rate, record.address, record.wall_offset_ns) == (1000, "192.0.2.1", 5)
    assert path.stat().st_size <= HEADER_BYTES + 16 * capacity


def test_a_row_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "probes", HEADER)
    recording.add(1, 2)
    recording.close()
    with (tmp_path / "probes").open("ab") as file:
        file.write(b"half a row")
    assert list(ProbeRecord.load(tmp_path / "probes").sent) == [1]


@pytest.mark.parametrize("data", [b"", b"{}", b'{"vferry_probe": 99}', b"\xff\xfe", b"[1]"])
def test_what_is_no_record_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "other").write_bytes(data)
    with pytest.raises(ValueError, match="no record of probes"):
        ProbeRecord.load(tmp_path / "other")


def test_a_link_in_the_place_of_the_record_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "probes").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        Recording(tmp_path / "probes", HEADER)
    assert not (tmp_path / "victim").exists()
