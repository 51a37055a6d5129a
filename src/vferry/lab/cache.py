"""The machine's cache of built layers: folders named after the content they were built from."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vferry.lab import places

KEPT = 2  # folders of a layer that stay, the newest ones


def digest(*parts: str | bytes) -> str:
    """A short content key; parts are delimited by their length, so that ("ab", "c") differs from ("a", "bc")."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()[:16]


def digest_files(root: Path, files: Iterable[Path]) -> str:
    """Content key of files: their paths below `root`, whether they are executable, and their bytes."""
    parts: list[str | bytes] = []
    for file in sorted(files):
        parts += [str(file.relative_to(root)), str(os.access(file, os.X_OK)), file.read_bytes()]
    return digest(*parts)


def stale(folders: Iterable[Path], current: Path) -> list[Path]:
    """The folders to remove: all but the newest `KEPT`, never `current`."""
    others = sorted((f for f in folders if f != current), key=lambda f: f.stat().st_mtime, reverse=True)
    return others[KEPT - 1 :]


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Holds the cache's lock: two builders at the same time would build the same thing twice."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def layer(name: str, key: str, build: Callable[[Path], None], root: Path | None = None) -> Path:
    """Folder of the layer `name` with this content key; `build(folder)` fills a new one where it is missing.

    A folder that exists is complete: it is built under another name and renamed.
    """
    root = root or places.CACHE
    target = root / f"{name}-{key}"
    if not target.exists():
        with locked(root):
            if not target.exists():
                _build(name, target, build)
    os.utime(target)
    return target


def _build(name: str, target: Path, build: Callable[[Path], None]) -> None:
    for leftover in target.parent.glob(f".{name}-*"):
        shutil.rmtree(leftover)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    work.chmod(0o755)
    try:
        build(work)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    layers = [f for f in target.parent.glob(f"{name}-*") if len(f.name) == len(target.name)]
    for old in stale(layers, target):
        shutil.rmtree(old)
