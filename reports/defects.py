"""What ends a command though nobody raised it on purpose: a file that cannot be used, or a defect of this program."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from memory_harness.configs.errors import one_line, reason_of
from memory_harness.harness.log.errors import disk_refused

DEFECT_CODE = 4
"""exit code of a defect: neither a verdict nor something that was given"""

REPORT_TO = "see CONTRIBUTING.md, Reporting a defect"


def explain(error: Exception, arguments: Sequence[str]) -> tuple[str, int]:
    """Return the line and the exit code for an exception that nothing else has caught."""
    if isinstance(error, OSError):
        return disk_refused(error) or _os_error(error), 2
    if isinstance(error, RecursionError):
        return "something given is nested too deeply to be read", 2
    if isinstance(error, MemoryError):
        return "this machine has not enough memory for what was asked; give less, or smaller files", 2
    *_, frame = traceback.extract_tb(error.__traceback__)
    what = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {reason_of(error)}"
    return f"a defect of this program, not of what was given ({what}); {_written_down(error, arguments)}", DEFECT_CODE


def _os_error(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return "the folder that this command was started in is gone; change to another one"
    file = f"{error.filename}: " if error.filename else ""
    return f"{file}cannot be used ({error.strerror or error})"


def _has_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _written_down(error: Exception, arguments: Sequence[str]) -> str:
    """Write the traceback to a file, and return what to do with it."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="run_probe-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(f"{sys.version}\n{one_line(' '.join(arguments))}\n\n{text}")
    except OSError:
        return f"please report it: {REPORT_TO}"
    return f"please report it with {file.name}: {REPORT_TO}"
