"""The paths of `vferry bench relay`: what each needs of a machine, and the kernel's rules. Laid, they are elsewhere."""

import shutil
from pathlib import Path

import pytest

from vferry.trial import dpdk_switch, kernel_bridge, kernel_switch, relay_paths, switch
from vferry.trial.relay_paths import WAYS, missing
from vferry.trial.relay_rules import RULES


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a file stands for each that a machine may have."""
    places = [
        (dpdk_switch, "DAEMON", "dpdk"),
        (kernel_switch, "DAEMON", "vswitchd"),
        (kernel_switch, "MODULE", "openvswitch"),
        (relay_paths, "VHOST", "vhost"),
        (switch, "SCHEMA", "schema"),
    ]
    for module, name, file in places:
        monkeypatch.setattr(module, name, tmp_path / file)
    tools = {"dpdk-testpmd": "testpmd", "nft": "nft"}
    monkeypatch.setattr(shutil, "which", lambda tool: tool if (tmp_path / tools[tool]).exists() else None)
    monkeypatch.setattr(switch, "find_spec", lambda name: (tmp_path / name).exists() or None)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("direct", {"testpmd", "dpdk", "schema", "ovs"}),
        ("switched", {"testpmd", "dpdk", "schema", "ovs"}),
        ("switched+rules", {"testpmd", "dpdk", "schema", "ovs"}),
        ("bridge", {"testpmd", "vhost"}),
        ("bridge+rules", {"testpmd", "vhost", "nft"}),
        ("openvswitch", {"testpmd", "vhost", "openvswitch", "vswitchd", "schema", "ovs"}),
        ("openvswitch+rules", {"testpmd", "vhost", "openvswitch", "vswitchd", "schema", "ovs"}),
    ],
)
def test_a_path_needs_what_it_needs_and_says_how_to_get_it(there: Path, name: str, needed: set[str]) -> None:
    for file in needed:
        (there / file).touch()
    assert missing(name) == ""
    for file in needed:
        (there / file).unlink()
        assert "apt install" in missing(name) or "modprobe" in missing(name)
        (there / file).touch()


def test_all_paths_are_said() -> None:
    assert set(WAYS) == {each + rules for each in ("switched", "bridge", "openvswitch") for rules in ("", "+rules")} | {
        "direct"
    }


def test_the_rules_of_the_kernels_bridge_allow_the_traffic_last() -> None:
    lines = [line.strip() for line in kernel_bridge.ruleset().splitlines()]
    rules = [line for line in lines if line.startswith("ip saddr")]
    assert len(rules) == RULES
    assert rules[-1] == "ip saddr 198.18.0.1 ip daddr 198.18.0.2 udp dport 9 accept"
    assert "policy drop;" in lines[2]
