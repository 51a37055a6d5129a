"""A small bench with the real thing, where there are QEMU and root: its guest, link, gateways and figures."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from vferry.cli.bench import command

QEMU = os.environ.get("VFERRY_TEST_QEMU", "qemu-system-x86_64")
READY = shutil.which(shlex.split(QEMU)[0]) and os.geteuid() == 0
pytestmark = pytest.mark.skipif(not READY, reason="no qemu-system-x86_64 here, or not root")


@pytest.mark.parametrize("tls", [False, pytest.param(True, marks=pytest.mark.matrix)])
def test_plain_and_gateway_are_measured(tmp_path: Path, tls: bool) -> None:  # noqa: FBT001
    results = tmp_path / "transfer.json"
    argv = ["transfer", "--modes", "plain,gateway", "--link", "1000", "--dirty", "2000", "--memory", "64", "--json"]
    argv += ["--runs", "1", "--qemu", QEMU, "--results", str(results), *(["--tls"] if tls else [])]
    done = CliRunner().invoke(command, argv, catch_exceptions=False)
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert printed["rows"] == json.loads(results.read_text())["rows"]
    for row, mode in zip(printed["rows"], ("plain", "gateway"), strict=True):
        assert (row["mode"], row["status"], row["differing_pages"]) == (mode, "completed", 0)
        assert row["wire_bytes"] > row["floor_bytes"] / 2 > 1_000_000
        assert row["total_s"] > 0
        assert row["blackout_ms"] > 0
        assert row["cpu_s"] > 0
        assert 0 < row["pages_a_s_before"] < 2200
    assert results.with_suffix(".png").stat().st_size > 10_000
