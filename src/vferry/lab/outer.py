"""The outer machine: what must be installed on it, and how commands are run on it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from vferry.model.problem import Exit, Problem

# Program on the path → Debian package that has it.
NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "zstd": "zstd",
    "mke2fs": "e2fsprogs",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "ssh": "openssh-client",
    "unshare": "util-linux",
}


def say(text: str) -> None:
    """Prints a line of progress on standard error; results alone go to standard output."""
    click.echo(text, err=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says what is being done, and afterwards how many seconds it took."""
    say(f"{text} …")
    start = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - start:.1f} s")


def require_root() -> None:
    """Raises `Problem` where the lab cannot be run by this user."""
    if os.geteuid() != 0:
        raise Problem("lab-needs-root", "The lab needs root", "Run the command with sudo")


def launch(argv: Sequence[str], log: Path, pass_fds: Sequence[int] = ()) -> None:
    """Starts a process that outlives this one and is no child of it; what it prints goes to `log`."""
    with log.open("wb") as file:
        subprocess.run(
            ["setsid", "--fork", *argv],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            pass_fds=pass_fds,
            check=True,
        )


def call(
    argv: Sequence[str | Path],
    *,
    what: str = "",
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Runs a command and returns its standard output; a failure is a `Problem` that quotes its last lines."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise Problem(
            "lab-command-failed",
            f"{what or words[0]} failed with status {done.returncode}: {' '.join(words)[:300]}\n{tail}",
            exit=Exit.UNDONE,
        )
    return done.stdout


def missing_packages() -> list[str]:
    """Debian packages that the outer machine lacks."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return sorted({package for program, package in NEEDED.items() if not shutil.which(program, path=path)})


def install_missing() -> None:
    """Installs what the lab needs on the outer machine; needs Debian's apt-get."""
    missing = missing_packages()
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Problem("lab-packages-missing", f"Missing: {', '.join(missing)}", "Install them")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    with step(f"installing {' '.join(missing)} on this machine"):
        try:
            call(install, env=quiet)
        except Problem:  # the package lists are absent or old
            call(["apt-get", "update", "-qq"], env=quiet)
            call(install, env=quiet)


def mirror(targets: str) -> str:
    """The Debian mirror among the lines of `apt-get indextargets`, so that the machine's own choice is used."""
    found = [line.strip() for line in targets.splitlines() if line.strip().rstrip("/").endswith("/debian")]
    if not found:
        raise Problem(
            "lab-no-mirror",
            "apt on this machine knows no Debian mirror (an address that ends in /debian)",
            "Add one to its sources",
        )
    return found[-1]


def debian_mirror() -> str:
    """The mirror this machine's apt uses."""
    return mirror(call(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))
