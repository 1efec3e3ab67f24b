"""Files and folders that are on the disk as a whole or not at all, under names that nobody else has taken.

What is being written lies beside its place as `.NAME.TOKEN.partial`. No other process can guess the token, no link is
followed, and a lock is held on it: what a killed process has left has none, and goes when its place is written next.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"
_REPLACED = ".replaced"


def write_whole(path: Path, content: str | bytes) -> None:
    """Put the content in the file's place, through a link where there is one; no crash leaves half of it.

    Raises:
        OSError: it cannot be written, or something else than a file is there, which stays.
    """
    target = _behind_links(path)
    mode = _mode_of(target)
    with _partial_file(target) as (partial, handle):
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        if mode is not None:
            os.fchmod(handle, mode)
        os.fsync(handle)
        partial.replace(target)
    with suppress(OSError):  # a folder that cannot be synced holds the file all the same
        sync(target.parent)


def write_new(path: Path, content: str) -> None:
    """Write a file that is not there yet, as a whole or not at all. Raises OSError: FileExistsError where it is."""
    with _partial_file(path) as (partial, handle):
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(content.encode("utf-8", "backslashreplace"))
        os.fsync(handle)
        os.link(partial, path)  # unlike a rename, it never replaces anything


def check_writable(path: Path) -> None:
    """Make sure that `write_whole` could write the file, whose folder is made where it is missing. Raises OSError."""
    target = _behind_links(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _mode_of(target)
    with _partial_file(target):
        pass


def _behind_links(path: Path) -> Path:
    """Return what a path leads to, which need not be there yet. Raises OSError: links lead in a circle."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def _mode_of(target: Path) -> int | None:
    """Return the permissions of a file that is to be replaced, None where there is none. Raises OSError: it may not."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EEXIST, "something else than a file is there", str(target))
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    return stat.S_IMODE(mode)


@contextmanager
def _partial_file(target: Path) -> Iterator[tuple[Path, int]]:
    """Give a new file beside the target and its handle; it is removed unless it has been renamed."""
    sweep(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    partial, handle = _locked(target, lambda path: os.open(path, flags, 0o666))
    try:
        yield partial, handle
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder beside the place of another one, for `replace_folder`; it is removed unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """

    def create(path: Path) -> int:
        path.mkdir()
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    target = _behind_links(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    partial, handle = _locked(target, create)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _locked(target: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """Create what is to be the target under a name of its own, and lock it; return its path and handle."""
    while True:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}{PARTIAL}")
        handle = create(partial)
        with suppress(OSError):  # some network disks have no locks: what is left there stays
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return partial, handle
        os.close(handle)  # another process has taken it for one that was left, before it was locked


def sweep(target: Path) -> None:
    """Remove what killed processes have left of a file or folder that they were writing."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}"):
        with suppress(OSError):  # it is being written, by another process or elsewhere
            _remove_unlocked(path)


def sweep_folder(folder: Path) -> None:
    """Remove all that killed processes have left in a folder which nobody else writes to."""
    for path in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            _remove_unlocked(path)
    for path in replaced_folders(folder, "*"):
        if path.exists():
            shutil.rmtree(_replaced(path), ignore_errors=True)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)


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
    folder = _behind_links(folder)
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
        folder = _behind_links(folder)
        if not folder.exists():
            _replaced(folder).rename(folder)


def replaced_folders(parent: Path, pattern: str) -> list[Path]:
    """Return the folders of a pattern that `restore_replaced` could find something for."""
    found = parent.glob(f".{pattern}{_REPLACED}")
    return [path.with_name(path.name.removeprefix(".").removesuffix(_REPLACED)) for path in found]


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_REPLACED}")
