"""Lines of source code: whose they are, how they are shown, and which one stores into a name."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from memory_harness.configs.places import PARTS_FOLDER

_PROJECT = PARTS_FOLDER.as_posix() + "/"
_HARNESS = f"{_PROJECT}harness/"
_OWN_NAMES = ("configs/", "harness/", "probes/", "reports/", "run_probe.py", "memory_harness.py")
OWN_FOLDERS = tuple(f"{_PROJECT}{name}" for name in _OWN_NAMES)
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib")).as_posix() + "/"

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_STORING_METHODS = {"add", "append", "appendleft", "extend", "insert", "put", "setdefault", "update"}


class SourceLine(NamedTuple):
    """Where a frame was."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{short_path(self.path)}:{self.line} {self.function}"


@lru_cache(maxsize=4096)
def is_library(path: str) -> bool:
    """Return whether a file belongs to an installed package, to Python or to the harness, and so not to its user."""
    path = path.replace("\\", "/")
    installed = "/site-packages/" in path or "/dist-packages/" in path or path.startswith(_STANDARD_LIBRARY)
    return installed or path.startswith((_HARNESS, "<"))


def is_harness(path: str) -> bool:
    """Return whether a file is the harness's own."""
    return path.replace("\\", "/").startswith(OWN_FOLDERS)


def short_path(path: str) -> str:
    """Return the path within the project, what follows site-packages, or the last three parts."""
    path = path.replace("\\", "/")
    if path.startswith(_PROJECT):
        return path.removeprefix(_PROJECT)
    if "/site-packages/" in path:
        return path.split("/site-packages/")[-1]
    return "/".join(path.split("/")[-3:])


def users_line(frames: Iterable[SourceLine]) -> SourceLine | None:
    """Return the innermost frame that is the user's, else the innermost of all; the frames are innermost first.

    What calls the harness's loop is not looked at: it asked for the whole run, not for this allocation.
    """
    first = None
    for frame in frames:
        first = first or frame
        if frame.path.replace("\\", "/") == f"{_HARNESS}train/loop.py":
            break
        if not is_library(frame.path):
            return frame
    return first


def storing_line(path: str, name: str, first: int, last: int) -> int | None:
    """Return the line between `first` and `last` of a file that stores something into `name`, or None.

    A line that adds to what is there (`name.append(...)`, `name[...] = ...`, `name += ...`) goes before an assignment,
    and that before a definition.
    """
    # `name = None` and the like hold nothing yet
    assigned = [
        (isinstance(getattr(node, "value", None), ast.Constant), node.lineno)  # type: ignore[attr-defined]
        for node in _nodes(path)
        if first <= getattr(node, "lineno", 0) <= last and any(_is_named(target, name) for target in _targets(node))
    ]
    defined = (n.lineno for n in _nodes(path) if isinstance(n, _DEFINITIONS) and n.name == name)
    found = adding_line(path, name, first, last) or min(assigned, default=(False, 0))[1]
    return found or min((line for line in defined if first <= line <= last), default=None)


def module_lines(path: str, name: str) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a file, first and last line, where `name` is the module's: no function has its own."""
    begin = 1
    for function in sorted(
        (n for n in _nodes(path) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and _has_own(n, name)),
        key=lambda node: node.lineno,
    ):
        if function.lineno >= begin:
            yield begin, function.lineno - 1
            begin = (function.end_lineno or function.lineno) + 1
    yield begin, sys.maxsize


def _has_own(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    """Whether a function takes or assigns a variable of that name that is not the module's."""
    nodes = list(ast.walk(function))
    if any(isinstance(node, ast.Global) and name in node.names for node in nodes):
        return False
    stored = any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for n in nodes)
    return stored or any(isinstance(node, ast.arg) and node.arg == name for node in nodes)


def adding_line(path: str, name: str, first: int, last: int, keys: Collection[str] = ()) -> int | None:
    """Return the first line between `first` and `last` that adds to what is stored in `name`, or None.

    Lines that name one of the keys, given as Python writes them, go before others.
    """
    nodes = [n for n in _nodes(path) if first <= getattr(n, "lineno", 0) <= last and _adds_to(n, name)]
    with_key = [
        n for n in nodes if keys and any(repr(c.value) in keys for c in ast.walk(n) if isinstance(c, ast.Constant))
    ]
    return min((n.lineno for n in with_key or nodes), default=None)  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _nodes(path: str) -> tuple[ast.AST, ...]:
    try:
        return tuple(ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))))
    except (OSError, SyntaxError, ValueError):
        return ()


def _adds_to(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in _STORING_METHODS and _is_named(_without_subscripts(node.func.value), name)
    if isinstance(node, ast.AugAssign):
        return _is_named(_without_subscripts(node.target), name)
    if isinstance(node, ast.Assign):
        into_item = any(isinstance(t, ast.Subscript) and _is_named(_without_subscripts(t), name) for t in node.targets)
        assigned = any(_is_named(target, name) for target in _targets(node))
        return into_item or (assigned and any(_is_named(part, name) for part in ast.walk(node.value)))
    return False


def _targets(node: ast.AST) -> Iterator[ast.AST]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        yield from (part for part in ast.walk(target) if isinstance(part, (ast.Name, ast.Attribute))) if target else ()


def _without_subscripts(node: ast.AST) -> ast.AST:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def _is_named(node: ast.AST, name: str) -> bool:
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)
