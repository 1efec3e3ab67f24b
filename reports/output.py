"""What is printed: to readers who may leave whenever they like.

A reader that is gone, as `head` is, changes nothing of what a command does, nor of its exit code.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from memory_harness.configs.program import say


class Forgiving:
    """A stream that goes on in silence once nobody reads it any more."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or not."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._leave(error)
            return len(text)

    def flush(self) -> None:
        """Write what was kept back, or not."""
        try:
            self.stream.flush()
        except OSError as error:
            self._leave(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _leave(self, error: OSError) -> None:
        """Let all further output go nowhere. Raises what is no matter of the reader, such as a full disk."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            error.filename = getattr(self.stream, "name", None)
            raise error


@contextmanager
def forgiving_output() -> Iterator[None]:
    """Within, readers of standard output and standard error may leave; closed ones are as if they had."""
    _open_closed()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Forgiving(before[0]), Forgiving(before[1])
    try:
        yield
        _flush()
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def output_as_given() -> Iterator[None]:
    """Within, the streams are those that the process was started with: for code that is not ours."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (getattr(stream, "stream", stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Open what the process was started without: its number would be that of the next file, and get what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")  # for the life of the process


def _flush() -> None:
    """Write what was kept back. Raises SystemExit: there is no room for it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        say(f"standard output: {error.strerror}")
        raise SystemExit(2) from None
