"""Bytes that this process has in use of the C library's heap: arrays, long texts and tensors, no small Python objects.

Resident memory tells of them late: what was freed before is used first.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

READ_SECONDS = 0.01  # from one reading to the next: one takes 0.1 ms with libraries, whose free blocks are walked
_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Mallinfo2(ctypes.Structure):
    """Source: mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


class HeapInUse:
    """Reads it at most once in `READ_SECONDS`; 0 where the C library does not tell (glibc does, since 2.33)."""

    def __init__(self) -> None:
        self._read: Any = getattr(ctypes.CDLL(None), "mallinfo2", None)
        if self._read is not None:
            self._read.restype = _Mallinfo2
        self._num_bytes = 0
        self._read_at = -READ_SECONDS

    def num_bytes(self) -> int:
        """Return what was in use when it was read last."""
        now = time.perf_counter()
        if self._read is not None and now - self._read_at >= READ_SECONDS:
            info = self._read()
            self._num_bytes, self._read_at = info.uordblks + info.hblkhd, now
        return self._num_bytes
