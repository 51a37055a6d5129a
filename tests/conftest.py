"""A test that leaves something behind fails: a task, a thread, a process, a namespace, a mount, a file.

What other work on the same machine makes meanwhile, such as a lab that is up, is told apart by its name: a test
puts its own process id into the names of the namespaces that it makes, and its files into `tmp_path` or `tempfile`.
"""

import asyncio
import contextlib
import inspect
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from msgspec import Struct

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("vferry", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vferry")

_GRACE_S = 1.0
"""For how long something that is on its way out may still be there."""

_NAMESPACES = Path("/run/netns")
_LAB = re.compile(r"vferry-(data|mgmt|lab).*")
# A helper that Python starts once and keeps.
_KEPT = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


class Traces(Struct, frozen=True):
    """What there is at one moment, as texts for a failure's message."""

    threads: frozenset[str]
    processes: frozenset[str]
    namespaces: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls) -> "Traces":
        return cls(_threads(), _processes(), _namespaces(), _mounts(), _files())

    def beyond(self, before: "Traces") -> list[str]:
        """What is here and was not there, in words."""
        return [
            *(f"thread {thread}" for thread in self.threads - before.threads),
            *(f"process {pid} ({_words(pid)})" for pid in self.processes - before.processes if not _kept(pid)),
            *(f"network namespace {name}" for name in self.namespaces - before.namespaces),
            *(f"mount {point}" for point in self.mounts - before.mounts),
            *(f"file {path}" for path in self.files - before.files),
        ]


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gives `tempfile`, also that of children, a directory in which only these tests write."""
    tmp_path_factory.getbasetemp()  # pytest's own stays where it is
    directory = Path(tempfile.mkdtemp(prefix=f"vferry-tests-{os.getpid()}-"))
    before, environment = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(directory)
    yield directory
    tempfile.tempdir = before
    if environment is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = environment
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def leaves_nothing(temporary_files: Path) -> Iterator[None]:
    """Fails a test after which there is more than before it."""
    assert temporary_files.is_dir()
    before = Traces.now()
    yield
    until = time.monotonic() + _GRACE_S
    while (left := Traces.now().beyond(before)) and time.monotonic() < until:
        time.sleep(0.02)
    if left:
        pytest.fail("the test has left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
async def leaves_no_task() -> AsyncIterator[None]:
    """Fails a test after which a task of its loop still runs; asked for by every coroutine test, before the rest."""
    before = asyncio.all_tasks()
    yield
    until = time.monotonic() + _GRACE_S
    while (left := asyncio.all_tasks() - before - {asyncio.current_task()}) and time.monotonic() < until:
        await asyncio.sleep(0.01)
    if left:
        pytest.fail("the test has left tasks behind: " + "; ".join(sorted(map(repr, left))), pytrace=False)


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(inspect.unwrap(item.obj)):
        # After the fixture that watches threads, so that the loop is closed before that one looks.
        names = item.fixturenames
        names.insert(names.index("leaves_nothing") + 1 if "leaves_nothing" in names else 0, "leaves_no_task")


def _threads() -> frozenset[str]:
    return frozenset(f"{thread.name} ({thread.ident})" for thread in threading.enumerate())


def _processes() -> frozenset[str]:
    found = set()
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - this runs twice a test
        with contextlib.suppress(OSError):
            found |= set(Path(f"/proc/self/task/{task}/children").read_text().split())
    return frozenset(found)


def _words(pid: str) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return words[:200] or "ended, but nobody has waited for it"
    return "gone"


def _kept(pid: str) -> bool:
    return any(kept in _words(pid) for kept in _KEPT)


def _namespaces() -> frozenset[str]:
    return frozenset(name for name in _names(_NAMESPACES) if not _others(name))


def _mounts() -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = {line.split(" ", 5)[4] for line in lines}
    return frozenset(point for point in points if not point.startswith(("/run/netns", "/run/vferry-lab")))


def _files() -> frozenset[str]:
    found = {f"/run/{name}" for name in _names("/run") if name.startswith("vferry") and not _others(name)}
    found |= {f"/run/vferry/{name}" for name in _names("/run/vferry")}
    found |= {f"{tempfile.tempdir}/{name}" for name in _names(tempfile.gettempdir())}
    return frozenset(found | {f"/tmp/{name}" for name in _names("/tmp") if _stray(name)})


def _stray(name: str) -> bool:
    return name.startswith("vferry") and not name.startswith("vferry-tests-") and not _others(name)


def _others(name: str) -> bool:
    """Whether a name is the lab's, or that of another process that lives."""
    if _LAB.fullmatch(name):
        return True
    pids = re.findall(r"\d{2,}", name)
    return str(os.getpid()) not in pids and any(Path(f"/proc/{pid}").exists() for pid in pids)


def _names(directory: Path | str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - this runs twice a test
    except OSError:
        return []
