"""The ways of moving memory that are compared."""

from collections.abc import Mapping
from typing import NamedTuple

from vferry.model.compression import DELTA_MIB
from vferry.trial.content import MIB

CHANNELS = 2
"""Of multifd: QEMU's default."""
CACHE_BYTES = DELTA_MIB * MIB
"""Of XBZRLE: as much as the gateway has for its copies of pages."""


class Mode(NamedTuple):
    """What is asked of both QEMUs, and with which codec a gateway pair carries the stream, if one does."""

    capabilities: tuple[str, ...] = ()
    parameters: Mapping[str, object] = {}
    codec: str | None = None


_MULTIFD = {"multifd-channels": CHANNELS}
MODES = {
    "plain": Mode(),
    "multifd": Mode(("multifd",), _MULTIFD),
    "auto-converge": Mode(("auto-converge",)),
    "xbzrle": Mode(("xbzrle",), {"xbzrle-cache-size": CACHE_BYTES}),
    "multifd+zlib": Mode(("multifd",), {**_MULTIFD, "multifd-compression": "zlib"}),
    "multifd+zstd": Mode(("multifd",), {**_MULTIFD, "multifd-compression": "zstd"}),
    "gateway": Mode(("multifd",), _MULTIFD, codec="auto"),
    "gateway+none": Mode(("multifd",), _MULTIFD, codec="none"),
}
USUAL = tuple(name for name in MODES if name != "gateway+none")
"""Those that are compared where nobody says which."""
