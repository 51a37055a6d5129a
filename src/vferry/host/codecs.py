"""What a gateway of this host could compress with: looked up and not loaded, since an agent is to stay small."""

import sys
from importlib.util import find_spec
from pathlib import Path

from vferry.model.compression import Codec

SHARED = "numpy"
"""What every codec needs beside its own library."""
MODULES = {
    Codec.LZ4: "lz4",
    Codec.ZSTD: "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
    Codec.DEFLATE: "isal",
}
QATZIP = b"libqatzip.so.3\0"
LOADER = Path("etc/ld.so.cache")
"""Where the system's loader finds libraries."""


def installed_codecs(root: Path = Path("/")) -> tuple[str, ...]:
    """The codecs, by their names, whose libraries are here. A gateway runs in the agent's own Python."""
    if not _importable(SHARED):
        return ()
    found = [codec.value for codec, module in MODULES.items() if _importable(module)]
    return (*found, Codec.QATZIP.value) if _has_qatzip(root) else tuple(found)


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package that it should be in
        return False


def _has_qatzip(root: Path) -> bool:
    try:
        return QATZIP in (root / LOADER).read_bytes()
    except OSError:
        return False
