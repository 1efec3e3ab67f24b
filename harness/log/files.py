"""Files and folders that are on the disk as a whole or not at all, under names that nobody else has taken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Put the content in the file's place: it is on the disk under another name before, so no crash leaves half of it.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def create_unused(folder: Path, name: str, suffix: str, create: Callable[[Path], object]) -> Path:
    """Create the first of NAME, NAME-2, NAME-3, ... that is not there yet, and return its path.

    The suffix is empty for a folder. `create` raises FileExistsError where a path is taken, even if another process has
    taken it just now; any other OSError goes on to the caller.
    """
    path = folder / f"{name}{suffix}"
    number = 1
    while True:
        try:
            create(path)
        except FileExistsError:
            number += 1
            path = folder / f"{name}-{number}{suffix}"
        else:
            return path


def partial_of(path: Path) -> Path:
    """Return where this process writes what will be the file."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(folder: Path, by: Path) -> None:
    """Put another folder of the same disk in a folder's place; `restore_replaced` mends what a crash leaves.

    Raises:
        OSError: it cannot be renamed.
    """
    restore_replaced(folder)
    if folder.exists():  # no system renames over a folder that holds something
        shutil.rmtree(_replaced(folder), ignore_errors=True)
        folder.rename(_replaced(folder))
    by.rename(folder)
    sync(folder.parent)
    shutil.rmtree(_replaced(folder), ignore_errors=True)


def restore_replaced(folder: Path) -> None:
    """Give a folder its name again where `replace_folder` was killed between its two renames."""
    with suppress(OSError):  # there is none, or another process was faster
        if not folder.exists():
            _replaced(folder).rename(folder)


def replaced_folders(parent: Path, pattern: str) -> list[Path]:
    """Return the folders of a pattern that `restore_replaced` could find something for."""
    found = parent.glob(f".{pattern}{_REPLACED}")
    return [path.with_name(path.name.removeprefix(".").removesuffix(_REPLACED)) for path in found]


_REPLACED = ".replaced"


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_REPLACED}")
