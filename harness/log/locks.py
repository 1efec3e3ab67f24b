"""Locks between processes: a wait says after a while who is waited for, and ends."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

SECONDS_IN_SILENCE = 5.0
SECONDS_TO_WAIT = 60.0
"""in all: what is written under these locks takes moments"""
MAX_NOTE = 200


class LockHeld(Exception):
    """Another process holds a lock; the message says which."""


def lock(path: Path, seconds: float = SECONDS_TO_WAIT) -> AcquireReturnProxy:
    """Hold a lock to the end of a `with` or of the process.

    Raises:
        LockHeld: another process has held it all the time.
        OSError: its file cannot be written.
    """
    held = FileLock(path)
    try:
        proxy = held.acquire(timeout=min(seconds, SECONDS_IN_SILENCE))
    except Timeout:
        rest = seconds - SECONDS_IN_SILENCE
        if rest <= 0:
            raise LockHeld(holder_of(path)) from None
        print(f"run_probe.py: waiting for {holder_of(path)}, which holds {path}", file=sys.stderr)
        try:
            proxy = held.acquire(timeout=rest)
        except Timeout:
            raise LockHeld(holder_of(path)) from None
    path.write_text(f"{os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    return proxy


def holder_of(path: Path) -> str:
    """Return who wrote into a lock's file that it holds the lock."""
    try:
        with path.open("rb") as file:
            note = file.read(MAX_NOTE).decode("utf-8", "replace").strip()
    except OSError:
        note = ""
    return f"another process ({note})" if note else "another process"
