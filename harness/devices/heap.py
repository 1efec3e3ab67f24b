"""How much memory the process holds by malloc, where glibc tells: some microseconds a look."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_CHECKED_BYTES = 2**20


class _MallInfo2(ctypes.Structure):
    """Source: mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def heap_reader() -> Callable[[], int] | None:
    """Return what reads the bytes in use, or None: another C library, an old one, or another allocator before it."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _MallInfo2

    def read() -> int:
        info = mallinfo2()
        return int(info.uordblks + info.hblkhd)

    before = read()
    held = bytearray(_CHECKED_BYTES)
    return read if read() - before >= len(held) else None
