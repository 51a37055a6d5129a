"""An ISO 9660 image with a few small files in its root: what a cloud hands to cloud-init as a disk.

Written here, since the programs that do it are on few machines. Names are stored as given, which Linux reads.
"""

import struct
from collections.abc import Mapping

SECTOR = 2048
_DESCRIPTOR, _TABLE_LE, _TABLE_BE, _ROOT, _DATA = 16, 18, 19, 20, 21  # sectors
_DATE = bytes((126, 1, 1, 0, 0, 0, 0))  # of every file: 1 January 2026, so that the same files give the same image
_LONG_DATE, _NEVER = b"2026010100000000\0", b"0000000000000000\0"


def image(label: str, files: Mapping[str, str]) -> bytes:
    """The image; `label` (at most 32 ASCII characters) is how it is found. Raises `ValueError` for too many files."""
    records, data = _record(b"\0", _ROOT, SECTOR, folder=True) + _record(b"\1", _ROOT, SECTOR, folder=True), b""
    for name, text in sorted(files.items()):
        content = text.encode()
        records += _record(name.encode("ascii"), _DATA + len(data) // SECTOR, len(content))
        data += _padded(content)
    if len(records) > SECTOR:
        raise ValueError("the names do not fit into one sector")
    sectors = _DATA + len(data) // SECTOR
    head = bytes(_DESCRIPTOR * SECTOR) + _padded(_descriptor(label, sectors)) + _padded(b"\xffCD001\x01")
    return head + _padded(_table("<")) + _padded(_table(">")) + _padded(records) + data


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % SECTOR)


def _both(value: int, size: str = "I") -> bytes:
    """A number as the format has most of them: little-endian, then big-endian."""
    return struct.pack("<" + size, value) + struct.pack(">" + size, value)


def _record(name: bytes, sector: int, length: int, *, folder: bool = False) -> bytes:
    """An entry of a folder; "\\0" is the folder itself, "\\1" the one above."""
    fields = _both(sector) + _both(length) + _DATE + bytes((2 if folder else 0, 0, 0)) + _both(1, "H")
    body = b"\0" + fields + bytes((len(name),)) + name
    body += bytes((len(body) + 1) % 2)
    return bytes((len(body) + 1,)) + body


def _table(order: str) -> bytes:
    """The path table, which names the root only."""
    return struct.pack(order + "BBIH", 1, 0, _ROOT, 1) + bytes(2)


def _descriptor(label: str, sectors: int) -> bytes:
    """The primary volume descriptor."""
    table = len(_table("<"))
    return b"".join(
        (
            b"\x01CD001\x01\0" + b" " * 32,
            label.encode("ascii").ljust(32) + bytes(8) + _both(sectors) + bytes(32),
            _both(1, "H") + _both(1, "H") + _both(SECTOR, "H") + _both(table),
            struct.pack("<II", _TABLE_LE, 0) + struct.pack(">II", _TABLE_BE, 0),
            _record(b"\0", _ROOT, SECTOR, folder=True),
            b" " * (4 * 128 + 3 * 37),
            _LONG_DATE * 2 + _NEVER * 2,
            b"\x01\0",
        )
    )
