"""Lines of source code around a place that a log names, where that file is here and is the one that ran."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from memory_harness.configs.inputs import read_text
from memory_harness.configs.places import PARTS_FOLDER

LINES_AROUND = 3  # lines shown before and after the one that is meant
MAX_FILE_BYTES = 2 * 2**20


class Excerpt(NamedTuple):
    """Consecutive lines of a file."""

    first: int  # number of the first line
    marked: int  # number of the line that is meant
    lines: tuple[str, ...]


def excerpt(where: str, functions: Iterable[str], versions: Mapping[str, str]) -> Excerpt | None:
    """Return the lines around `file:line`, or None where they cannot be told for sure.

    Args:
        where: `file:line`; the path as `harness.log.source_lines.short_path` writes it.
        functions: names of which one must enclose the line, where they are known.
        versions: of packages, as the log has them: the lines of another version would be others.
    """
    path, _, number = where.rpartition(":")
    if not number.isdecimal() or not _is_same_version(path, versions):
        return None
    line = int(number)
    for file in _candidates(path):
        source = _read(file)
        if source is not None and _encloses(source, line, set(functions)):
            lines = source.splitlines()
            first = max(1, line - LINES_AROUND)
            return Excerpt(first, line, tuple(lines[first - 1 : line + LINES_AROUND]))
    return None


def _candidates(path: str) -> Iterator[Path]:
    """Yield the files that a shortened path may stand for: of this project, installed, or below the current folder.

    A log says what it likes: only Python files are opened, and none outside these folders.
    """
    parts = Path(path.replace("\\", "/")).parts
    if not path.endswith(".py") or not parts or ".." in parts or Path(path).is_absolute():
        return
    here = Path.cwd().resolve()
    installed = (Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))
    files = [folder / path for folder in (PARTS_FOLDER, *installed, here)]
    # a path shortened to its last parts may begin above the current folder
    for known in range(1, len(parts)):
        if here.parts[-known:] == parts[:known]:
            files.append(here.joinpath(*parts[known:]))
    yield from filter(Path.is_file, files)


def _is_same_version(path: str, versions: Mapping[str, str]) -> bool:
    """Tell whether the package that a path is of is installed in the version that ran; true for other files."""
    package = path.replace("\\", "/").partition("/")[0]
    if package not in versions:
        return True
    try:
        return metadata.version(package) == versions[package]
    except metadata.PackageNotFoundError:
        return False


def _read(file: Path) -> str | None:
    try:
        return read_text(file, MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError):
        return None


def _encloses(source: str, line: int, names: set[str]) -> bool:
    """Tell whether the line exists and, where names are given, lies in a function or class of one of them."""
    if not 1 <= line <= len(source.splitlines()):
        return False
    if not names or any(name.startswith("<") for name in names):
        return True
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    scopes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    around = (n for n in ast.walk(tree) if isinstance(n, scopes) and n.lineno <= line <= (n.end_lineno or n.lineno))
    return any(scope.name in names for scope in around)
