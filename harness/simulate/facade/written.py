"""What a script writes: files of its own are removed in the end, those that were there before stay as they are.

A run without values has nothing to keep, and must neither spoil nor delete the checkpoints of a real one.
"""

from __future__ import annotations

import builtins
import io
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from memory_harness.harness.log.source_lines import is_harness
from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.values import users_place

Function = Callable[..., Any]

_CACHES = ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "TORCH_HOME")
"""variables that name folders of caches, which libraries keep whole by themselves"""


@contextmanager
def nothing_is_kept(tracer: FacadeTracer) -> Iterator[None]:
    """Within, a script may write what it likes; afterwards its folders are as they were."""
    with tempfile.TemporaryDirectory() as folder:
        written = _Written(tracer, folder)
        try:
            with ExitStack() as stack:
                for owner, name, function in written.replacements():
                    stack.enter_context(patch.object(owner, name, function))
                yield
        finally:
            written.remove()


def _is_asked_by_harness() -> bool:
    """Return whether the harness itself writes, be it by `pathlib`."""
    frame = sys._getframe(3)
    while frame.f_back is not None and frame.f_code.co_filename == pathlib.__file__:
        frame = frame.f_back
    return is_harness(frame.f_code.co_filename)


class _Written:
    """Paths that a run has made, and copies that stand for files it would have changed."""

    def __init__(self, tracer: FacadeTracer, folder: str) -> None:
        self._tracer = tracer
        self._folder = folder
        self._made: set[str] = set()
        self._made_folders: set[str] = set()
        """those of them that `mkdir` made: no other folder is ever removed"""
        self._copies: dict[str, str] = {}
        """path of a file that was there before -> what is written and read in its stead"""
        home = os.path.expanduser("~/.cache")
        self._left_alone = (home, folder, "/dev", "/proc", *filter(None, map(os.environ.get, _CACHES)))

    def replacements(self) -> list[tuple[Any, str, Function]]:
        """Return the functions that write, with what stands in for them."""
        opened = self._open(builtins.open)
        return [
            (builtins, "open", opened),
            (io, "open", opened),
            (os, "open", self._open_descriptor(os.open)),
            (os, "mkdir", self._mkdir(os.mkdir)),
            *((os, name, self._delete(getattr(os, name))) for name in ("remove", "unlink", "rmdir")),
            (shutil, "rmtree", self._delete(shutil.rmtree)),
            *((os, name, self._rename(getattr(os, name))) for name in ("rename", "replace")),
        ]

    def remove(self) -> None:
        """Remove what the run has made and left."""
        for path in sorted(self._made, key=len, reverse=True):
            if not os.path.isdir(path) or os.path.islink(path):
                Path(path).unlink(missing_ok=True)
            elif path in self._made_folders:
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, file: Any) -> str | None:
        """Return a path's full name; None of what is no path, or not ours to watch."""
        if not isinstance(file, (str, os.PathLike)) or _is_asked_by_harness():
            return None
        path = os.path.abspath(os.fspath(file))
        return None if path.startswith(self._left_alone) else path

    def _is_old(self, path: str) -> bool:
        """Return whether something was there before the run."""
        parents = map(str, Path(path).parents)
        return os.path.lexists(path) and path not in self._made and self._made.isdisjoint(parents)

    def _open(self, original: Function) -> Function:
        def open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            path = self._path(file)
            if kwargs.get("opener") is not None or (path is not None and os.path.isdir(path)):
                return original(file, mode, *args, **kwargs)  # of a temporary file, by a descriptor
            if path is None or (path not in self._copies and not set(mode) & set("wax+")):
                return original(file, mode, *args, **kwargs)
            if self._is_old(path) and "x" not in mode:
                return original(self._copy_of(path), mode, *args, **kwargs)
            was_there = os.path.lexists(path)
            opened = original(file, mode, *args, **kwargs)
            if not was_there:
                self._made.add(path)
            return opened

        return open

    def _open_descriptor(self, original: Function) -> Function:
        def open(file: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            path = None if kwargs.get("dir_fd") is not None else self._path(file)
            if path is None or not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) or os.path.isdir(path):
                return int(original(file, flags, *args, **kwargs))  # in a folder: a file without a name
            if self._is_old(path) and not flags & os.O_EXCL:
                return int(original(self._copy_of(path), flags, *args, **kwargs))
            was_there = os.path.lexists(path)
            opened = int(original(file, flags, *args, **kwargs))
            if not was_there:
                self._made.add(path)
            return opened

        return open

    def _copy_of(self, path: str) -> str:
        if path not in self._copies:
            self._note(f"a change of {os.path.basename(path)}, which was there before and stays as it is")
            copy = os.path.join(self._folder, f"{len(self._copies)}-{os.path.basename(path)}")
            shutil.copyfile(path, copy)
            self._copies[path] = copy
        return self._copies[path]

    def _mkdir(self, original: Function) -> Function:
        def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
            made = None if kwargs.get("dir_fd") is not None else self._path(path)
            was_there = made is not None and os.path.lexists(made)
            original(path, *args, **kwargs)  # fails where something is there
            if made is not None and not was_there:
                self._made.add(made)
                self._made_folders.add(made)

        return mkdir

    def _delete(self, original: Function) -> Function:
        def delete(path: Any, *args: Any, **kwargs: Any) -> None:
            old = None if kwargs.get("dir_fd") is not None else self._path(path)
            if old is None or not self._is_old(old):
                original(path, *args, **kwargs)
                return
            self._note(f"the removal of {os.path.basename(old)}, which was there before and stays")

        return delete

    def _rename(self, original: Function) -> Function:
        def rename(source: Any, target: Any, **kwargs: Any) -> None:
            before, after = self._path(source), self._path(target)
            if any(path is not None and self._is_old(path) for path in (before, after)):
                self._note(f"a new name of {os.path.basename(source)}, which is not given")
                return
            was_there = after is not None and os.path.lexists(after)
            original(source, target, **kwargs)
            if after is not None and not was_there:
                self._made.add(after)
                if before in self._made_folders:
                    self._made_folders.add(after)

        return rename

    def _note(self, what: str) -> None:
        self._tracer.stand_ins.add(what, users_place)
