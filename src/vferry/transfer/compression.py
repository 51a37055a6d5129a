"""The way into compression, without its libraries: who does not compress needs none of them and loads none."""

from typing import TYPE_CHECKING, NamedTuple

from vferry.model.problem import Problem
from vferry.transfer.codecs import CODECS, NUMBERS, available
from vferry.transfer.statistics import Statistics

if TYPE_CHECKING:
    from vferry.transfer.sessions import ReceiverSessions, SenderSessions

AUTO = "auto"
NONE = "none"
CHOICES = (AUTO, *NUMBERS)
MIB = 1 << 20
DELTA_MIB = 512


class Compression(NamedTuple):
    """What the sending gateway does with QEMU's stream. Page copies take at most `delta_bytes` at each gateway."""

    codec: str = NONE
    delta_bytes: int = DELTA_MIB * MIB


UNCOMPRESSED = Compression()


def sender_sessions(compression: Compression, statistics: Statistics) -> "SenderSessions | None":
    """What compresses, or nothing for bytes as they are; raises `Problem` codec-missing."""
    codec, delta_bytes = compression
    if codec == NONE:
        return None
    codecs = available()
    try:
        from vferry.transfer.sessions import SenderSessions
    except ImportError as error:
        raise _missing(error.name or codec) from error
    if codec not in {AUTO, *codecs}:
        raise _missing(codec)
    return SenderSessions(codec, delta_bytes, statistics.blocks, codecs)


def receiver_sessions(delta_bytes: int, statistics: Statistics) -> "ReceiverSessions":
    """What undoes it; raises ImportError where the libraries are missing."""
    from vferry.transfer.sessions import ReceiverSessions

    there = available()
    numbers = (number for number, name in CODECS.items() if name in there)
    return ReceiverSessions(delta_bytes, statistics.blocks, numbers)


def _missing(what: str) -> Problem:
    return Problem("codec-missing", f"{what} is not installed here", "Install vferry[compression], or use --codec none")
