"""What a gateway of this host could compress with: looked up and not loaded, since an agent is to stay small."""

from importlib.util import find_spec
from pathlib import Path

from vferry.model.compression import TRAITS, Codec, Traits

SHARED = "numpy"
"""What every codec needs beside its own library."""
LOADER = Path("etc/ld.so.cache")
"""Where the system's loader finds libraries."""


def installed_codecs(root: Path = Path("/")) -> tuple[str, ...]:
    """The codecs, by their names, whose libraries are here. A gateway runs in the agent's own Python."""
    if not _importable(SHARED):
        return ()
    return tuple(name for name, traits in TRAITS.items() if name != Codec.NONE and _installed(traits, root))


def _installed(traits: Traits, root: Path) -> bool:
    module, library = traits.module, traits.library
    return (module is None or _importable(module)) and (library is None or _loadable(library, root))


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package that it should be in
        return False


def _loadable(library: str, root: Path) -> bool:
    try:
        return library.encode() + b"\0" in (root / LOADER).read_bytes()
    except OSError:
        return False
