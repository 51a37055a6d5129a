"""The ways to an agent, to a host of the lab: the system's ssh, and mutual TLS with the controller's own CA."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.operator import VFERRY
from vferry.controller.state import find_state
from vferry.lab.lab import Lab
from vferry.lab.topology import HOSTS, MGMT

pytestmark = pytest.mark.lab


@pytest.fixture
def elsewhere(lab: Lab, tmp_path: Path) -> dict[str, str]:
    """The environment of another controller with the same CA, whose operator's ssh knows the lab's hosts."""
    state, programs = tmp_path / "state", tmp_path / "bin"
    shutil.copytree(find_state().pki, state / "pki-controller")
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {lab.folder}/ssh_config "$@"\n')
    ssh.chmod(0o755)
    return {**os.environ, "VFERRY_STATE": str(state), "PATH": f"{programs}:{os.environ['PATH']}"}


def there(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the management network."""
    argv = ["ip", "netns", "exec", MGMT, *VFERRY, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_a_host_is_added_over_ssh_and_then_reached_over_mutual_tls(elsewhere: dict[str, str]) -> None:
    host = HOSTS[0]
    for uri in (f"ssh://root@{host.name}", f"https://{host.address}:7443"):
        added = there(elsewhere, "host", "add", host.name, uri)
        assert added.returncode == 0, added.stderr
        shown = there(elsewhere, "host", "show", host.name, "--json")
        assert shown.returncode == 0, shown.stderr
        assert [pf["name"] for pf in json.loads(shown.stdout)["pfs"]] == ["enp1s0"]


def test_a_controller_with_another_ca_is_refused(elsewhere: dict[str, str]) -> None:
    shutil.rmtree(Path(elsewhere["VFERRY_STATE"]) / "pki-controller")
    refused = there(elsewhere, "host", "add", HOSTS[0].name, f"https://{HOSTS[0].address}:7443")
    assert refused.returncode == 2, refused.stdout
    assert "Traceback" not in refused.stderr
