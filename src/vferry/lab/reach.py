"""Reaching the hosts: one ssh connection each, which also forwards the agent's socket, and commands over it."""

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from vferry.lab import outer, places
from vferry.lab.topology import AGENT_SOCKET, HOSTS, MGMT, Host
from vferry.model.problem import Exit, Problem

INSTALLED = "/opt/vferry"  # on the hosts


def settings(folder: Path) -> str:
    """ssh's configuration of the lab; `ssh -F .lab/ssh_config host1` works for anybody who is root."""
    common = f"""\
Host *
  User root
  IdentityFile {folder}/key
  IdentitiesOnly yes
  ControlPath {places.RUN}/%n.ssh
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 10
  StreamLocalBindUnlink yes
  ServerAliveInterval 15
  ServerAliveCountMax 8
"""
    return "".join(f"Host {host.name}\n  HostName {host.address}\n" for host in HOSTS) + common


def prepare(folder: Path) -> None:
    """Makes this lab's key and ssh's configuration where they are missing."""
    key = folder / "key"
    if not key.exists():
        outer.call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vferry-lab", "-f", key])
    (folder / "ssh_config").write_text(settings(folder))


def public_key(folder: Path) -> str:
    """The base64 part of the lab's public key."""
    return (folder / "key.pub").read_text().split()[1]


def agent_socket(host: Host) -> Path:
    """Socket on this machine that leads to the host's agent."""
    return places.RUN / f"{host.name}.agent"


def control(host: Host) -> Path:
    return places.RUN / f"{host.name}.ssh"


def connected(host: Host, folder: Path) -> bool:
    """Whether the host's ssh connection answers."""
    argv = ["ssh", "-F", str(folder / "ssh_config"), "-S", str(control(host)), "-O", "check", host.name]
    return control(host).exists() and subprocess.run(argv, capture_output=True, check=False).returncode == 0


def connect(host: Host, folder: Path) -> None:
    """Opens the host's ssh connection, which stays in the background; its messages go to `.lab/HOST.ssh.log`."""
    control(host).unlink(missing_ok=True)
    forward = f"{agent_socket(host)}:{AGENT_SOCKET}"
    argv = ["ip", "netns", "exec", MGMT, "ssh", "-F", str(folder / "ssh_config"), "-S", str(control(host))]
    argv += ["-M", "-N", "-f", "-o", "ExitOnForwardFailure=yes", "-L", forward, host.name]
    log = folder / f"{host.name}.ssh.log"
    with log.open("ab") as out:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
    if done.returncode != 0:
        raise Problem("lab-no-ssh", f"No ssh connection to {host.name}: {log.read_text()[-400:]}", exit=Exit.UNDONE)


def disconnect(host: Host, folder: Path) -> None:
    """Closes the host's ssh connection."""
    argv = ["ssh", "-F", str(folder / "ssh_config"), "-S", str(control(host)), "-O", "exit", host.name]
    subprocess.run(argv, capture_output=True, check=False)


def set_clock(host: Host, folder: Path) -> None:
    """Sets a host's clock: a restored one shows the time at which it was kept."""
    words = command(host, folder, ["date", "-s", f"@{time.time():.3f}"])
    subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def command(host: Host, folder: Path, argv: Sequence[str], *, tty: bool = False) -> list[str]:
    """Argument vector that runs `argv`, word by word as given, on a host; without one, a shell."""
    words = ["ssh", "-F", str(folder / "ssh_config"), "-o", "ControlMaster=no"]
    words += ["-tt"] if tty else ["-T"]
    return [*words, "--", host.name, *([shlex.join(argv)] if argv else [])]


def push(host: Host, folder: Path, product: Path) -> None:
    """Replaces vferry on a running host, with the product layer's files, and restarts its agent."""
    archive = ["tar", "-C", str(product / "tree"), "-cf", "-", "site/vferry", "overlay"]
    script = (
        f"cd {INSTALLED} && rm -rf site/vferry overlay && tar -xf - && cp -a overlay/. / && "
        "systemctl daemon-reload && systemctl restart vferry-agent"
    )
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as packing:
        words = command(host, folder, ["sh", "-c", script])
        done = subprocess.run(words, stdin=packing.stdout, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Problem("lab-push-failed", f"{host.name}: {done.stderr.strip()[-600:]}", exit=Exit.UNDONE)
