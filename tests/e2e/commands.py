"""Running the command line as a user does, in a process of its own, and what it took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SECONDS_BETWEEN_SAMPLES = 0.1
HANG_SECONDS = 600
"""after which a test takes something to hang: far more than it takes, however busy the machine is"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak_rss_bytes: int
    """highest resident memory of the process and its children together; pages that they share count for each"""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in another process.

    Raises:
        AssertionError: it hangs.
    """
    end = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < end, "nothing happens any more"
        time.sleep(SECONDS_BETWEEN_SAMPLES)


def run_probe(*arguments: str, folder: Path, environment: dict[str, str] | None = None) -> Ended:
    """Run `run_probe.py` in `folder`, its output piped."""
    begin = time.monotonic()
    out, err = folder / ".stdout", folder / ".stderr"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run_probe.py"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(environment or {})},
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident_bytes(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_BETWEEN_SAMPLES)
    seconds = time.monotonic() - begin
    return Ended(process.returncode, out.read_text("utf-8"), err.read_text("utf-8"), seconds, peak)


def _resident_bytes(pid: int) -> int:
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
