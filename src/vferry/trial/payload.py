"""What the guest runs: a program of its own, assembled here, that changes pages at a set rate and counts them.

It is a multiboot kernel in 32-bit mode without paging. At each tick of the timer it takes its share of the rate; for
each page it draws one of the hot ones and writes 64 random bytes into it, at one of 64 places. The random numbers
repeat after 2³² draws, 17 for a page: after an hour and a half at 40,000 pages a second. Between ticks it sleeps, and
a tick that is lost, because the guest was held up, is not made up for: so its count over time is its own speed.

Before it writes to a page it has the processor forget the page's translation. QEMU before 9.0 needs that without KVM:
it does not notice a second write to a page whose translation it still knows (docs/gateway.md). For the same reason it
is interrupted at one place only, with the same flags: an interrupt leaves always the same on the stack.
"""

import struct
from typing import NamedTuple

LOAD_AT = 1 << 20
COUNTER_AT = 2 << 20
STACK_AT = 0x80000
TICKS = 250
READY = 0x59525246

_TIMER_HZ = 1_193_182
_MAGIC = 0x1BADB002
_OWN_ADDRESSES = 1 << 16
_HEADER = struct.Struct("<8I")
_VECTOR = 0x20
# Interrupt controllers: vectors from 0x20, nothing but the timer; then the timer's mode.
_PORTS = (
    (0x20, 0x11), (0xA0, 0x11), (0x21, _VECTOR), (0xA1, _VECTOR + 8), (0x21, 4), (0xA1, 2), (0x21, 1), (0xA1, 1),
    (0x21, 0xFE), (0xA1, 0xFF), (0x43, 0x34), (0x40, _TIMER_HZ // TICKS & 255), (0x40, _TIMER_HZ // TICKS >> 8),
)  # fmt: skip
# A flat code and a flat data segment, for interrupts to return to.
_SEGMENTS = struct.pack("<QQQ", 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF)
# eax = ebx; shift eax; ebx ^= eax, three times: xorshift32.
_DRAW = bytes.fromhex("89d8 c1e00d 31c3 89d8 c1e811 31c3 89d8 c1e005 31c3")


class Work(NamedTuple):
    """What the guest changes: `pages` hot pages from the physical address `at`, `rate` of them a second."""

    at: int
    pages: int
    rate: int


def kernel(work: Work) -> bytes:
    """The program as a multiboot image, to be loaded at `LOAD_AT`."""
    base = LOAD_AT + _HEADER.size
    data, start = _tables(base)
    code = _prepare(base) + _loop(work)
    end = base + len(data) + len(code)
    checksum = -(_MAGIC + _OWN_ADDRESSES) % 2**32
    header = _HEADER.pack(_MAGIC, _OWN_ADDRESSES, checksum, LOAD_AT, LOAD_AT, end, end, start)
    return header + data + code


def _tables(base: int) -> tuple[bytes, int]:
    """Segments, interrupts and what points to them, then the interrupt's handler; and where the program starts."""
    handler = bytes.fromhex("b020 e620 cf")  # mov al, 0x20; out 0x20, al; iret
    gates_at = base + len(_SEGMENTS)
    handler_at = gates_at + 8 * (_VECTOR + 1) + 12
    gate = struct.pack("<HHHH", handler_at & 0xFFFF, 8, 0x8E00, handler_at >> 16)
    pointers = struct.pack("<HIHI", len(_SEGMENTS) - 1, base, 8 * (_VECTOR + 1) - 1, gates_at)
    data = _SEGMENTS + bytes(8 * _VECTOR) + gate + pointers + handler
    return data, base + len(data)


def _prepare(base: int) -> bytes:
    """Stack, segments, interrupts, timer; then say that the guest is up."""
    pointers_at = base + len(_SEGMENTS) + 8 * (_VECTOR + 1)
    code = bytes.fromhex("fa bc") + _word(STACK_AT)  # cli; mov esp, stack
    code += bytes.fromhex("0f0115") + _word(pointers_at) + bytes.fromhex("0f011d") + _word(pointers_at + 6)
    code += bytes.fromhex("b810000000 8ed8 8ec0 8ed0")  # ds, es, ss: the data segment
    code += bytes.fromhex("6808000000 e800000000 83042405 cb")  # to the next instruction, in the code segment
    for port, value in _PORTS:
        code += bytes([0xB0, value, 0xE6, port])
    code += bytes.fromhex("bb") + _word(0x2545F491) + bytes.fromhex("31ed")  # mov ebx, seed; xor ebp, ebp
    return code + bytes.fromhex("c705") + _word(COUNTER_AT + 4) + _word(READY)


def _loop(work: Work) -> bytes:
    """Sleep until the next tick, change as many pages as are due, add them to the count, for ever."""
    page = _page(work)
    due = bytes.fromhex("81fd") + _word(TICKS)  # next: cmp ebp, ticks
    due += bytes.fromhex("0f82") + _word(7 + len(page) + 5)  # jb done
    due += bytes.fromhex("81ed") + _word(TICKS) + b"\x41" + page  # sub ebp, ticks; inc ecx
    due += b"\xe9" + struct.pack("<i", -len(due) - 5)  # jmp next
    # xor eax, eax, for flags that are always the same; sti; hlt; cli; add ebp, rate; xor ecx, ecx
    code = bytes.fromhex("31c0 fb f4 fa 81c5") + _word(work.rate) + bytes.fromhex("31c9")
    code += due
    # done: mov edi, counter; invlpg [edi]; add [edi], ecx
    code += b"\xbf" + _word(COUNTER_AT) + bytes.fromhex("0f013f 010f")
    return code + b"\xe9" + struct.pack("<i", -len(code) - 5)


def _page(work: Work) -> bytes:
    """Draw a page and a place in it, and write 64 random bytes there, all of them in one piece of code."""
    code = _DRAW + b"\xb8" + _word(work.pages) + bytes.fromhex("f7e3")  # mov eax, pages; mul ebx: edx is one of them
    code += bytes.fromhex("89d7 c1e70c 81c7") + _word(work.at)  # edi = at + edx * 4096
    code += bytes.fromhex("89d8 25c00f0000 01c7 0f013f")  # edi += ebx & 0xfc0; invlpg [edi]
    return code + b"".join(_DRAW + bytes([0x89, 0x5F, at]) for at in range(0, 64, 4))  # mov [edi + at], ebx


def _word(value: int) -> bytes:
    return struct.pack("<I", value)
