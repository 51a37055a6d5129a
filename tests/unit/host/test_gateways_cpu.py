"""How gateways are kept from the guests' processors: what systemd is told, and what if it is not there."""

import logging
from pathlib import Path

import pytest

from vferry.host.gateways_cpu import SLICE, confine


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root that systemd runs, and a systemctl that writes down what it is told; returns the file."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    script = tmp_path / "systemctl"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "told"


@pytest.mark.parametrize(
    ("share", "cpus", "quota"), [(0.5, 8, "400%"), (0.5, 1, "100%"), (0.1, 4, "100%"), (1.0, 2, "200%")]
)
def test_the_slice_is_limited(systemd: Path, tmp_path: Path, share: float, cpus: int, quota: str) -> None:
    words = confine(share, tmp_path, cpus=cpus)
    assert systemd.read_text().split() == ["set-property", "--runtime", SLICE, f"CPUQuota={quota}"]
    assert words[:2] == ("systemd-run", "--scope")
    assert words[-1] == "--"


def test_without_systemd_a_gateway_just_starts(tmp_path: Path) -> None:
    assert confine(0.5, tmp_path) == ()


@pytest.mark.parametrize("refusal", ["#!/bin/sh\necho 'Access denied' >&2; exit 1\n", None])
def test_a_refusal_is_told_and_does_not_end_the_agent(
    systemd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, refusal: str | None
) -> None:
    script = systemd.parent / "systemctl"
    script.unlink() if refusal is None else script.write_text(refusal)
    with caplog.at_level(logging.ERROR):
        assert confine(0.5, tmp_path) == ()
    assert ("Access denied" if refusal else "systemctl") in caplog.text
