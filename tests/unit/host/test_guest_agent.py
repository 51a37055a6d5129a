import base64
import json
from typing import Any

import pytest
from fake_libvirt import FakeAgents, FakeDomain, FakeError, FakeLibvirt
from xml_samples import domain

from vferry.host.api import GuestRun
from vferry.host.guest_agent import OUTPUT_LIMIT, run_in_guest
from vferry.host.guest_agent_network import SCRIPT, read_network
from vferry.host.hypervisor import Hypervisor
from vferry.model.problem import Problem


class Agent:
    """A guest's agent that needs `rounds` questions until a script has ended with `status`."""

    def __init__(self, rounds: int = 2, pid: Any = 17, out: Any = None, err: Any = None, **status: Any) -> None:
        data = {key: value for key, value in (("out-data", out), ("err-data", err)) if value is not None}
        self.rounds, self.pid, self.status = rounds, pid, {**status, **data}
        self.asked: list[dict[str, Any]] = []

    def __call__(self, command: dict[str, Any]) -> Any:
        self.asked.append(command)
        if command["execute"] == "guest-exec":
            return {"pid": self.pid}
        self.rounds -= 1
        return {"exited": False} if self.rounds > 0 else {"exited": True, **self.status}


def host(agent: Any, *, live: bool = True) -> Hypervisor:
    guest = FakeDomain(live=domain() if live else None, persistent=domain())
    guest.agent = agent
    return Hypervisor(library=FakeLibvirt(guest), agent_library=FakeAgents())


def run(agent: Any, timeout_s: float = 1.0) -> GuestRun:
    return run_in_guest(host(agent), "guest1", "echo hi", timeout_s)


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_a_script_runs_and_its_end_is_waited_for() -> None:
    agent = Agent(3, exitcode=4, out=b64(b"hi\n"), err=b64(b"\xff"))
    assert run(agent) == GuestRun(code=4, stdout="hi\n", stderr="�")
    assert agent.asked[0]["arguments"] == {"path": "/bin/sh", "arg": ["-c", "echo hi"], "capture-output": True}
    assert [question["execute"] for question in agent.asked[1:]] == ["guest-exec-status"] * 3


def test_a_killed_script_ends_as_a_shell_says_it() -> None:
    assert run(Agent(signal=9)).code == 137


def test_output_is_cut() -> None:
    assert len(run(Agent(exitcode=0, out=b64(b"x" * 200_000))).stdout) == OUTPUT_LIMIT


def test_a_script_that_does_not_end_is_a_problem() -> None:
    with pytest.raises(Problem) as caught:
        run(Agent(10_000), timeout_s=0.1)
    assert caught.value.code == "guest-run-timeout"


@pytest.mark.parametrize(
    "agent",
    [
        lambda _command: "not JSON",
        lambda _command: "{}",
        lambda _command: '{"return": 5}',
        lambda _command: "[" * 100_000,
        lambda _command: " " * (33 << 20),
        Agent(pid="seventeen"),
        Agent(pid=True),
        Agent(),
        Agent(exitcode="zero"),
        Agent(exitcode=10**30),
        Agent(signal=10**30),
        Agent(exitcode=0, out="§§§"),
        Agent(exitcode=0, out=5),
    ],
)
def test_nonsense_is_said_to_be_nonsense(agent: Any) -> None:
    with pytest.raises(Problem) as caught:
        run(agent)
    assert caught.value.code == "guest-agent-nonsense"


@pytest.mark.parametrize(
    ("number", "message", "code"),
    [
        (86, "Guest agent is not responding: QEMU guest agent is not connected", "guest-agent-silent"),
        (74, "QEMU guest agent is not configured", "guest-agent-silent"),
        (
            1,
            "unable to execute 'guest-exec': The command guest-exec has been disabled for this instance",
            "guest-exec-forbidden",
        ),
        (
            1,
            "unable to execute 'guest-exec': Command guest-exec has been disabled: the command is not allowed",
            "guest-exec-forbidden",
        ),
        (1, "unable to execute 'guest-exec': The command guest-exec has not been found", "guest-exec-forbidden"),
        (1, "Failed to execute child process “/bin/sh” (Permission denied)", "guest-exec-forbidden"),
        (1, "something else", "libvirt-failed"),
    ],
)
def test_refusals_get_codes(number: int, message: str, code: str) -> None:
    def agent(_command: dict[str, Any]) -> Any:
        raise FakeError(number, message)

    with pytest.raises(Problem) as caught:
        run(agent)
    assert caught.value.code == code
    if code == "guest-exec-forbidden":
        assert "/etc/qemu/qemu-ga.conf" in str(caught.value)


class Busy(Agent):
    """An agent that fails `times` times before it answers."""

    def __init__(self, times: int, number: int) -> None:
        super().__init__(exitcode=0)
        self.times, self.number = times, number

    def __call__(self, command: dict[str, Any]) -> Any:
        self.times -= 1
        if self.times >= 0:
            self.asked.append(command)
            raise FakeError(self.number, "guest agent didn't respond")
        return super().__call__(command)


@pytest.mark.parametrize(
    ("number", "silence_s", "asked"),
    [
        (FakeLibvirt.VIR_ERR_AGENT_UNRESPONSIVE, 0.0, 1),
        (FakeLibvirt.VIR_ERR_AGENT_UNRESPONSIVE, 9.0, None),
        (FakeLibvirt.VIR_ERR_AGENT_UNSYNCED, 9.0, None),
        # It may have run: it is not run a second time.
        (FakeLibvirt.VIR_ERR_AGENT_COMMAND_TIMEOUT, 9.0, 1),
    ],
)
def test_an_agent_that_takes_no_command_is_asked_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch, number: int, silence_s: float, asked: int | None
) -> None:
    monkeypatch.setattr("vferry.host.guest_agent.SILENCE_PAUSE_S", 0.001)
    agent = Busy(2, number)
    if asked is None:
        assert run_in_guest(host(agent), "guest1", ":", 10.0, silence_s=silence_s).code == 0
        return
    with pytest.raises(Problem) as caught:
        run_in_guest(host(agent), "guest1", ":", 10.0, silence_s=silence_s)
    assert (caught.value.code, len(agent.asked)) == ("guest-agent-silent", asked)


def test_a_guest_that_is_off_is_not_asked() -> None:
    with pytest.raises(Problem) as caught:
        run_in_guest(host(None, live=False), "guest1", ":", 1)
    assert caught.value.code == "guest-off"


# --- the network -----------------------------------------------------------------------------------------

LINKS = """== links
bond0|52:54:00:aa:00:0b|1500|0x1003|1|||bond active-backup 1
eth0|52:54:00:aa:00:0b|1500|0x1003|1|virtio_net|bond0|
eth1|52:54:00:AA:00:0B|9000|0x1002|0|igbvf|bond0|
lo|00:00:00:00:00:00|65536|0x9|1|||"""
JSON = """== json
[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
 {"ifname":"bond0","linkinfo":{"info_kind":"bond"},"addr_info":[
  {"family":"inet","local":"10.9.0.13","prefixlen":24,"scope":"global","dynamic":true,"valid_life_time":3000},
  {"family":"inet6","local":"fd00:9::13","prefixlen":64,"scope":"global"}, {"label":"odd"}]},
 {}]"""
PLAIN = """== plain
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
3: bond0    inet 10.9.0.13/24 brd 10.9.0.255 scope global dynamic bond0\\       valid_lft 3000sec
3: bond0    inet6 fd00:9::13/64 scope global \\       valid_lft forever preferred_lft forever
4: bond0.5@bond0    inet 10.5.0.1 peer 10.5.0.2/32 scope global bond0.5
garbage"""
END = """== rp_filter
all 0
default 2
bond0 1
eth0
== forwarding
1
== processes
init
systemd-network
== interfaces
auto lo
iface lo inet loopback
== end
"""


@pytest.mark.parametrize("addresses", [f"{JSON}\n{PLAIN}", f"== json\n\n{PLAIN}", f"== json\nUsage: ip…\n{PLAIN}"])
def test_the_network_is_read_whatever_ip_can_do(addresses: str) -> None:
    network = read_network("guest1", GuestRun(code=0, stdout=f"{LINKS}\n{addresses}\n{END}"))
    links = {link.name: link for link in network.links}
    assert list(links) == ["bond0", "eth0", "eth1", "lo"]
    assert [(a.address, a.prefix, a.family, a.scope, a.dynamic) for a in links["bond0"].addresses] == [
        ("10.9.0.13", 24, "inet", "global", True),
        ("fd00:9::13", 64, "inet6", "global", False),
    ]
    assert (links["bond0"].kind, links["bond0"].bond_mode) == ("bond", "active-backup")
    assert (links["eth0"].kind, links["eth0"].bond_mode) == (None, None)
    assert (links["eth0"].driver, links["eth0"].master, links["eth0"].up) == ("virtio_net", "bond0", True)
    assert (links["eth1"].mac, links["eth1"].mtu) == ("52:54:00:aa:00:0b", 9000)
    assert not links["eth1"].up
    assert not links["eth1"].carrier
    assert network.strict_rp_filter == ("bond0",)
    assert network.routes_ipv6
    assert network.configured_by == "networkd"


@pytest.mark.parametrize(
    ("processes", "interfaces", "expected"),
    [
        ("NetworkManager\nsystemd-network", "", "NetworkManager"),
        ("udhcpc", "", "dhcp"),
        ("udhcpc", "iface eth0 inet dhcp", "ifupdown"),
        ("init", "iface lo inet loopback", None),
    ],
)
def test_what_configures_the_network(processes: str, interfaces: str, expected: str | None) -> None:
    output = f"{LINKS}\n== processes\n{processes}\n== interfaces\n{interfaces}\n== end\n"
    network = read_network("guest1", GuestRun(code=0, stdout=output))
    assert (network.configured_by, network.routes_ipv6) == (expected, False)


def with_address(fields: str) -> str:
    return f'{LINKS}\n== json\n[{{"ifname": "eth0", "addr_info": [{{"family": "inet", {fields}}}]}}]\n== end'


@pytest.mark.parametrize(
    "output",
    [
        "",
        "== links\n== json",
        "== links\neth0|52:54:00:aa:00:0b\n== end",
        "== links\neth0|m|many|0x1|1|||\n== end",
        f"{LINKS}\n== json\n[5]\n== end",
        f"{LINKS}\n== json\n[{{\n== end",
        f"{LINKS}\n== json\n{'[' * 60_000}\n== end",
        f'{LINKS}\n== json\n[{{"ifname": {"[" * 60_000}\n== end',
        with_address('"local": "10.9.0.13", "prefixlen": Infinity'),
        with_address('"local": "10.9.0.13", "prefixlen": 33'),
        with_address('"local": "over there"'),
        f"== links\neth0|m|{10**30}|0x1|1|||\n== end",
        "== links\neth0|m|-5|0x1|1|||\n== end",
    ],
)
def test_a_network_that_makes_no_sense_is_a_problem(output: str) -> None:
    with pytest.raises(Problem) as caught:
        read_network("guest1", GuestRun(code=0, stdout=output))
    assert caught.value.code == "guest-agent-nonsense"


ESC = "\x1b]0;owned\x07\u202e"
"""It names a terminal's window and turns what follows round."""


def test_what_is_on_top_of_a_nic_is_told() -> None:
    names = ("eth0", "eth0.5", "veth1")
    links = "\n".join(f"{name}|52:54:00:aa:00:0b|1500|0x1003|1|||" for name in names)
    told = [
        {"ifname": "eth0.5", "link": "eth0", "linkinfo": {"info_kind": "vlan"}},
        {"ifname": "veth1", "link": "veth0", "linkinfo": {"info_kind": "veth"}},
    ]
    network = read_network("guest1", GuestRun(code=0, stdout=f"== links\n{links}\n== json\n{json.dumps(told)}\n== end"))
    assert [link.over for link in network.links] == [None, "eth0", None]


def test_what_a_guest_says_cannot_steer_a_terminal() -> None:
    links = f"== links\n{ESC}|52:54:00:aa:00:0b|1500|0x1003|1|{ESC}|{ESC}|\neth1|m{ESC}|1500|0x1|1||{'x' * 50_000}|"
    told = json.dumps([{"ifname": "eth1", "linkinfo": {"info_kind": ESC}}])
    run = run_in_guest(host(Agent(exitcode=0, out=b64(f"{links}\n== json\n{told}\n== end".encode()))), "guest1", ":", 1)
    network = read_network("guest1", run)
    words = [word for link in network.links for word in (link.name, link.mac, link.driver, link.master, link.kind)]
    assert all((word or "").isprintable() and len(word or "") <= 60 for word in words)
    assert network.links[0].name == network.links[0].master
    assert [link.kind for link in network.links] == [None, "�]0;owned��"]


def test_nor_can_what_it_fails_with() -> None:
    assert run(Agent(exitcode=1, err=b64(f"a\n\t{ESC}".encode()))).stderr == "a\n\t�]0;owned��"
    nonsense = GuestRun(code=1, stderr=ESC + "x" * 1000)
    for agent in (lambda _: read_network("guest1", nonsense), refused(1, ESC), refused(74, f"{ESC}{'x' * 10_000}")):
        with pytest.raises(Problem) as caught:
            run(agent)
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 500


def refused(number: int, message: str) -> Any:
    def agent(_command: dict[str, Any]) -> Any:
        raise FakeError(number, message)

    return agent


def test_the_script_runs_here() -> None:
    import subprocess

    run = subprocess.run(["/bin/sh", "-c", SCRIPT], capture_output=True, text=True, check=False)
    network = read_network("here", GuestRun(code=run.returncode, stdout=run.stdout, stderr=run.stderr))
    lo = next(link for link in network.links if link.name == "lo")
    assert lo.mac == "00:00:00:00:00:00"
    assert lo.mtu > 0
