"""Opening what somebody named: files only, never a pipe or a device, at which reading would wait for ever."""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 64 * 2**20
"""Largest file of settings that is read: the largest known, a tokenizer's vocabulary, has 35 MB."""
MAX_SOURCE_BYTES = 4 * 2**20
"""Largest program that is read: generated ones have some hundred kilobytes."""
GZIP = b"\x1f\x8b"
"""how a file of gzip begins"""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_input(path: Path) -> BufferedReader:
    """Open a file for reading. Raises OSError with a reason in words: it is missing, no file, or may not be read."""
    try:
        # a pipe is opened at once, where it would wait for somebody to write
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except ValueError as error:  # a path with a NUL
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        check_regular(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(mode: int, path: Path) -> None:
    """Raise OSError where the mode is not that of a regular file."""
    for is_of_kind, name in _KINDS:
        if is_of_kind(mode):
            raise OSError(errno.EINVAL, f"it is {name}, not a file", str(path))


def read_input(path: Path, max_bytes: int | None = None) -> bytes:
    """Return what is in a file. Raises OSError as `open_input`, and where it holds more than `max_bytes`."""
    with open_input(path) as file:
        content = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it holds more than {max_bytes // 2**20} MiB", str(path))
    return content


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return the text of a file of settings. Raises OSError as `read_input`, UnicodeDecodeError: not UTF-8."""
    return read_input(path, max_bytes).decode("utf-8")


def read_json(path: Path) -> Any:
    """Return what a file of JSON holds. Raises OSError as `read_input`, ValueError: it is no JSON, or nested deeply."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None
