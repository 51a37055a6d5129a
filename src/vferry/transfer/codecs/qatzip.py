"""Deflate by Intel QuickAssist through libqatzip 1.3 and later; its own software where there is no device.

Levels 1 to 9. A block is cut into gzip members of 64 KiB, which the library spreads over all instances that this
process was given (`qatmgr` decides how many); the block's memory is handed over as it is, and used in place where the
instance shares the process's address space. The structures are those of `qatzip.h`, filled in by the library.

Without a device the library looks for one at every block, and complains on standard error each time.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

from vferry.transfer.codecs import CodecError

LIBRARY = "libqatzip.so.3"
# QZ_DUPLICATE: another thread was first. The others: no device, driver, instance or memory, so software.
READY = frozenset({0, 1, 11, 12, 13, 14})
SOFTWARE_BIT = 1 << 4
LOG_NOTHING = 0
# Of PCI: a co-processor of Intel's.
VENDOR, CLASS = "0x8086", "0x0b4000"
TRIAL_BYTES = 64 * 1024


class Session(ctypes.Structure):
    """`QzSession_T`."""

    _fields_ = (
        ("hw_session_stat", ctypes.c_long),
        ("thd_sess_stat", ctypes.c_int),
        ("internal", ctypes.c_void_p),
        ("total_in", ctypes.c_ulong),
        ("total_out", ctypes.c_ulong),
    )


class Common(ctypes.Structure):
    """`QzSessionParamsCommon_T`."""

    _fields_ = (
        ("direction", ctypes.c_int),
        ("comp_lvl", ctypes.c_uint),
        ("comp_algorithm", ctypes.c_ubyte),
        ("max_forks", ctypes.c_uint),
        ("sw_backup", ctypes.c_ubyte),
        ("hw_buff_sz", ctypes.c_uint),
        ("strm_buff_sz", ctypes.c_uint),
        ("input_sz_thrshold", ctypes.c_uint),
        ("req_cnt_thrshold", ctypes.c_uint),
        ("wait_cnt_thrshold", ctypes.c_uint),
        ("polling_mode", ctypes.c_int),
        ("is_sensitive_mode", ctypes.c_uint),
        ("fb_error", ctypes.c_void_p),
        ("fb_error_curr", ctypes.c_void_p),
    )


class Parameters(ctypes.Structure):
    """`QzSessionParamsDeflate_T`."""

    _fields_ = (("common", Common), ("huffman_hdr", ctypes.c_int), ("data_fmt", ctypes.c_int))


class QatzipCodec:
    """One session of the library. What it returns is valid until its next call."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.in_software = False
        self._library = library
        self._session = Session()
        self._level = 0
        self._encoded = bytearray()
        self._decoded = bytearray()

    def encode(self, data: memoryview, level: int) -> memoryview:
        self._set_up(level)
        limit = self._library.qzMaxCompressedLength(len(data), ctypes.byref(self._session))
        self._encoded = _at_least(self._encoded, limit)
        taken, made = self._call(self._library.qzCompressExt, data, self._encoded, limit, 1)
        if taken != len(data):
            raise CodecError(f"qatzip: took {taken} bytes of {len(data)}")
        return memoryview(self._encoded)[:made]

    def decode(self, data: memoryview, size: int) -> memoryview:
        self._set_up(self._level or 1)
        self._decoded = _at_least(self._decoded, size)
        taken, made = self._call(self._library.qzDecompressExt, data, self._decoded, size)
        if (taken, made) != (len(data), size):
            raise CodecError(f"qatzip: {made} bytes instead of {size}")
        return memoryview(self._decoded)[:size]

    def _call(
        self, function: Callable[..., int], data: memoryview, out: bytearray, room: int, *last: int
    ) -> tuple[int, int]:
        """Call one of the two; returns how many bytes it took and made."""
        taken, made, more = ctypes.c_uint(len(data)), ctypes.c_uint(room), ctypes.c_uint64()
        source = _address(data)
        target = (ctypes.c_ubyte * room).from_buffer(out)
        lengths = ctypes.byref(taken), target, ctypes.byref(made)
        code = function(ctypes.byref(self._session), source, *lengths, *last, ctypes.byref(more))
        if code != 0:
            raise CodecError(f"qatzip: error {code}")
        self.in_software = bool(more.value & SOFTWARE_BIT) or self._session.hw_session_stat != 0
        return taken.value, made.value

    def _set_up(self, level: int) -> None:
        """Have a session for a level. Not before there is a block: the library looks for devices, and says so."""
        if level == self._level:
            return
        session, parameters = ctypes.byref(self._session), Parameters()
        if self._level:
            self._library.qzTeardownSession(session)
        self._library.qzGetDefaultsDeflate(ctypes.byref(parameters))
        parameters.common.comp_lvl = level
        parameters.common.sw_backup = 1
        begun = self._library.qzInit(session, 1), self._library.qzSetupSessionDeflate(session, ctypes.byref(parameters))
        if not READY.issuperset(begun):
            raise CodecError(f"qatzip: no session: {begun}")
        self._level = level

    def __del__(self) -> None:
        if self._level:
            self._library.qzTeardownSession(ctypes.byref(self._session))


def make() -> QatzipCodec:
    """Make one for a thread; raises OSError if there is no library."""
    library = ctypes.CDLL(LIBRARY)
    library.qzMaxCompressedLength.restype = ctypes.c_uint
    library.qzSetLogLevel(LOG_NOTHING)
    return QatzipCodec(library)


def in_hardware(root: Path = Path("/")) -> bool:
    """Whether a device does the work here. It is tried, but only where there may be one: else the library complains."""
    devices = (root / "sys/bus/pci/devices").glob("*")
    if not any(_read(device / "vendor") == VENDOR and _read(device / "class") == CLASS for device in devices):
        return False
    try:
        codec = make()
        codec.encode(memoryview(bytearray(TRIAL_BYTES)), 1)
    except (OSError, CodecError):
        return False
    return not codec.in_software


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _at_least(buffer: bytearray, size: int) -> bytearray:
    return buffer if len(buffer) >= size else bytearray(size)


def _address(data: memoryview) -> "ctypes.Array[ctypes.c_ubyte] | bytes":
    """What the library reads from: the memory itself, unless Python keeps it from being written."""
    return bytes(data) if data.readonly else (ctypes.c_ubyte * len(data)).from_buffer(data)
