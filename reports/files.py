"""Report files: checked before a run of a minute, written whole after it, and never in place of something else."""

from __future__ import annotations

import tempfile
from pathlib import Path

from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.files import write_whole


def check_file(flag: str, path: Path, begins: str) -> None:
    """Make sure that a report can be written to `path`; makes the folder where it is missing.

    Args:
        flag: the one that named the file.
        path: where the report goes.
        begins: the first characters of such a report: a file that begins otherwise is not overwritten.

    Raises:
        ConfigError: it cannot be written, or is something else than such a report.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists() and not _is_report(path, begins):
            raise ConfigError(
                f"{flag} {path}: exists and is no report of this program; name another file, or remove it first"
            )
    except OSError as error:
        raise _unwritable(flag, path, error) from None


def write_file(flag: str, path: Path, text: str) -> None:
    """Write the text as a whole or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise _unwritable(flag, path, error) from None


def _is_report(path: Path, begins: str) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(len(begins)) in ("", begins)


def _unwritable(flag: str, path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{flag} {path}: cannot be written ({error.strerror}); name a file in a folder of yours")
