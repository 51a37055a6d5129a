"""agent.toml: what is read, and that every error names the line and what to write."""

from pathlib import Path

import pytest

from vferry.host.configuration import EXAMPLE, Listen, read_configuration
from vferry.model.host import MigrationEndpoint, Network
from vferry.model.problem import Problem


def written(directory: Path, text: str) -> Path:
    path = directory / "agent.toml"
    path.write_text(text)
    return path


def test_the_example_is_read(tmp_path: Path) -> None:
    configuration = read_configuration(written(tmp_path, EXAMPLE))
    assert configuration.name == "host1"
    assert configuration.migration == MigrationEndpoint(address="10.8.0.1", ports=(49200, 49215), slots=2)
    assert configuration.cpu_share == 0.5
    assert configuration.listen == Listen(address="10.8.0.1", port=7443)
    assert configuration.socket == Path("/run/vferry/agent.sock")
    assert configuration.networks == {"physnet1": Network(pf="enp1s0", bridge="br0")}


@pytest.mark.parametrize(
    ("written_as", "network"),
    [
        ('pf = ["enp1s0"]\nbridge = "br0"', Network(pf="enp1s0", bridge="br0")),
        ('pf = ["enp1s0", "enp3s0"]\nbridge = "br0"', Network(pf="enp1s0", more_pfs=("enp3s0",), bridge="br0")),
        ('pf = "enp1s0"', Network(pf="enp1s0")),
    ],
)
def test_a_network_may_have_several_pfs_or_no_bridge(tmp_path: Path, written_as: str, network: Network) -> None:
    text = EXAMPLE.replace('pf = "enp1s0"\nbridge = "br0"', written_as)
    assert read_configuration(written(tmp_path, text)).networks == {"physnet1": network}


def test_what_may_be_left_out(tmp_path: Path) -> None:
    text = 'name = "a"\n[migration]\naddress = "fd00::1"\nports = "49200-49203"\n'
    configuration = read_configuration(written(tmp_path, text))
    assert configuration.migration.slots == 2
    assert configuration.listen is None
    assert configuration.networks == {}


@pytest.mark.parametrize(
    ("old", "new", "line", "says", "remedy"),
    [
        ('name = "host1"', "name = host1", 1, "not valid TOML", "double quotes"),
        ('name = "host1"', "", 1, "name is missing", 'name = "host1"'),
        ('name = "host1"', 'name = "Host_1"', 1, "is not a host's name", 'name = "host1"'),
        ("slots = 2", 'slots = "2"', 6, "migration.slots: Expected `int`", "[migration] slots = 2"),
        ("slots = 2", "slots = 0", 6, "migration.slots: Expected `int` >= 1", "slots = 2"),
        ("slots = 2", "slots = 17", 5, "has fewer ports than there are slots (17)", "ports = "),
        ("cpu_share = 0.5", "cpu_share = 2", 7, "migration.cpu_share: Expected `float` <= 1", "cpu_share = 0.5"),
        ("cpu_share = 0.5", "bandwidth = 2000000", 7, "bandwidth: 2000000 is less than 1 MiB/s for each of 2", ""),
        ("slots = 2", "slot = 2", 6, "there is no setting migration.slot", "Write slots instead"),
        ("49200-49215", "49215-49200", 5, "is empty", 'ports = "49200-49215"'),
        ("49200-49215", "49200", 5, "is not a range", 'ports = "49200-49215"'),
        ('address = "10.8.0.1"', 'address = "host1"', 4, "is not an IP address", 'address = "10.8.0.1"'),
        ('address = "10.8.0.1"', "", 3, "migration.address is missing", 'address = "10.8.0.1"'),
        ("10.8.0.1:7443", "7443", 10, "is not an address and a port", 'listen = "10.8.0.1:7443"'),
        ("/run/vferry/agent.sock", "agent.sock", 11, "is not an absolute path", "socket = "),
        ("[agent]", "[agnet]", 9, "there is no setting agnet", "Write agent instead"),
        ('pf = "enp1s0"', "pf = 3", 14, "networks.physnet1.pf: Expected `str | array`", 'pf = "enp1s0"'),
        ('pf = "enp1s0"', 'pf = "a/b"', 14, "networks.physnet1.pf: 'a/b' is not an interface", 'pf = "enp1s0"'),
        ('pf = "enp1s0"', "", 13, "networks.physnet1.pf is missing", 'pf = "enp1s0"'),
        ('pf = "enp1s0"', "pf = []", 14, "networks.physnet1.pf: there is none", 'pf = "enp1s0"'),
        ('pf = "enp1s0"', 'pf = ["a", "b/c"]', 14, "networks.physnet1.pf: 'b/c' is not an interface", 'pf = "enp1s0"'),
        ('bridge = "br0"', 'bridge = ""', 15, "leave it out where there is none", 'bridge = "br0"'),
        ('bridge = "br0"', 'bridge = "br0', 15, "not valid TOML", "double quotes"),
    ],
)
def test_an_error_names_the_file_the_line_and_what_to_write(
    tmp_path: Path, old: str, new: str, line: int, says: str, remedy: str
) -> None:
    path = written(tmp_path, EXAMPLE.replace(old, new, 1))
    with pytest.raises(Problem) as caught:
        read_configuration(path)
    problem = caught.value
    assert problem.code == "configuration-invalid"
    assert problem.message.startswith(f"{path}, line {line}: ")
    assert says in problem.message
    assert remedy in problem.remedy
    assert problem.attributes == {"file": str(path), "line": line}


def test_the_right_one_of_several_networks_is_named(tmp_path: Path) -> None:
    text = EXAMPLE + '\n[networks."second one"]\npf = "enp2s0"\nbridge = 1\n'
    with pytest.raises(Problem, match=r"line 19: networks\.second one\.bridge"):
        read_configuration(written(tmp_path, text))


def test_a_missing_file_is_shown_an_example(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        read_configuration(tmp_path / "agent.toml")
    assert caught.value.code == "configuration-missing"
    assert EXAMPLE in caught.value.remedy


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Problem, match="cannot be read"):
        read_configuration(tmp_path / "agent.toml")
