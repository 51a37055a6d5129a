"""The way into compression, without its libraries: who does not compress needs none of them and loads none."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from vferry.model.compression import DELTA_MIB, FOR_HARDWARE, Codec
from vferry.model.problem import Problem
from vferry.transfer.codecs import NUMBERS, available, in_hardware
from vferry.transfer.multifd import PAGE_BYTES
from vferry.transfer.place import Place
from vferry.transfer.statistics import Statistics
from vferry.transfer.wire import RESIDENT_LIMIT

if TYPE_CHECKING:
    from vferry.transfer.sessions import ReceiverSessions, SenderSessions

MIB = 1 << 20
# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc's malloc.h, in bytes: more than the buffers of a few channels.
MALLOPT = ((-1, 64 * MIB), (-3, 4 * MIB))


class Compression(NamedTuple):
    """What the sending gateway does with QEMU's stream.

    Page copies take at most `delta_bytes` at each gateway. Each connection is spread over `streams`.
    """

    codec: str = Codec.NONE
    delta_bytes: int = DELTA_MIB * MIB
    streams: int = 1


UNCOMPRESSED = Compression()


def sender_sessions(compression: Compression, statistics: Statistics) -> "SenderSessions | None":
    """What compresses, or nothing for bytes as they are; raises `Problem` codec-missing."""
    codec, delta_bytes, _ = compression
    if codec == Codec.NONE:
        return None
    _prepare_process()
    codecs = available()
    try:
        from vferry.transfer.sessions import SenderSessions
    except ImportError as error:
        raise _missing(error.name or codec) from error
    if codec not in {Codec.AUTO, *codecs}:
        raise _missing(codec)
    fit = (codecs - FOR_HARDWARE) | in_hardware(codecs) if codec == Codec.AUTO else codecs
    return SenderSessions(codec, delta_bytes, statistics.blocks, fit)


def receiver_sessions(delta_bytes: int, statistics: Statistics, resident: Sequence[Place] = ()) -> "ReceiverSessions":
    """What undoes it; raises ImportError where the libraries are missing.

    Of what is `resident` here as much is copied as fits into `delta_bytes`; raises OSError where it is not there.
    """
    _prepare_process()
    from vferry.transfer.resident import Residents
    from vferry.transfer.sessions import ReceiverSessions

    residents = None
    if resident:
        residents = Residents(min(delta_bytes // PAGE_BYTES, RESIDENT_LIMIT))
        residents.gather(resident)
    there = available()
    numbers, hardware = ([NUMBERS[name] for name in names] for names in (there, in_hardware(there)))
    return ReceiverSessions(delta_bytes, statistics.blocks, numbers, hardware, residents)


def _prepare_process() -> None:
    """Set what must be set before numpy is loaded and blocks are allocated."""
    _leave_processors_alone()
    _keep_freed_memory()


def _leave_processors_alone() -> None:
    """Have numpy start no threads for linear algebra, which is not used: at first they keep processors busy waiting."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _keep_freed_memory() -> None:
    """Have glibc keep the buffers of a block for the next one.

    By itself it gives many back to the kernel each time, and then there is a fault for each of their pages again:
    measured, ten times as many faults in the receiver. Another C library is left as it is.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    for parameter, value in MALLOPT:
        mallopt(parameter, value)


def _missing(what: str) -> Problem:
    return Problem("codec-missing", f"{what} is not installed here", "Install vferry[compression], or use --codec none")
