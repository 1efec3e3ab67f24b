"""Runs a script as `python SCRIPT ARGS` would, in this process."""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from memory_harness.configs.inputs import MAX_SOURCE_BYTES, read_input
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.log.source_lines import is_harness
from memory_harness.harness.observe.notebook import SUFFIX, cells_of

_MAIN = ("__main__", "__mp_main__")
"""Names of the script's module; multiprocessing takes the second one when it is imported, for what spawned processes
send back."""

_CALLS_OPERATORS = os.path.join("torch", "_ops.py")
"""End of the path by which the tracer calls operators: its frames are the tracer's."""


def check_script(script: str, flag: str = "--watch") -> None:
    """Raise ConfigError where there is no such script, or a notebook is none."""
    path = Path(script)
    if not path.is_file():
        problem = "not a file" if path.exists() else "no such file"
        raise ConfigError(f"{flag} {script}: {problem}; give a Python script")
    if script.endswith(SUFFIX):
        try:
            cells_of(path)
        except ConfigError as error:
            raise ConfigError(f"{flag} {error}") from None


def check_syntax(script: str, flag: str) -> None:
    """Raise ConfigError where a script is no Python; the cells of a notebook are compiled as they are reached."""
    if script.endswith(SUFFIX):
        return
    try:
        compile(read_input(Path(script), MAX_SOURCE_BYTES), script, "exec")
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigError(f"{flag} {script}{line}: cannot be compiled, {reason}; give a Python script") from None


def run_script(script: str, arguments: Sequence[str], module: str = "") -> ModuleType:
    """Run the script as `__main__`, with its own arguments and import path; return it, its variables still alive.

    Args:
        script: its file.
        arguments: its own.
        module: its name where it is run as `python -m MODULE` does: in its package, imports from the current folder.

    Raises:
        Whatever the script raises, `SystemExit` included, and SyntaxError where it cannot be compiled.
    """
    path = os.path.abspath(script)
    main = ModuleType("__main__")
    vars(main).update(
        __file__=path, __builtins__=builtins, __cached__=None, __loader__=SourceFileLoader("__main__", path)
    )
    if path.endswith(SUFFIX):
        vars(main)["display"] = print  # which every notebook has
    with _as_started_by_python(main, path if module else script, arguments, os.getcwd() if module else None):
        if module:
            spec = importlib.util.find_spec(module)
            vars(main).update(__spec__=spec, __package__=module.rpartition(".")[0])
        for code in _codes(path):
            exec(code, vars(main))
    return main


def _codes(path: str) -> Iterator[CodeType]:
    """Yield a script's code, or that of a notebook's cells, each compiled once those before have run."""
    if path.endswith(SUFFIX):
        for cell in cells_of(Path(path)):
            yield cell.compiled()
        return
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec")
    yield code


@contextmanager
def _as_started_by_python(
    main: ModuleType, script: str, arguments: Sequence[str], folder: str | None
) -> Iterator[None]:
    """Within, the script finds its own arguments, and that folder, else its own, first in the import path."""
    before = (sys.argv, sys.path[:], {name: sys.modules[name] for name in _MAIN if name in sys.modules})
    started_in = os.getcwd()
    sys.argv = [script, *arguments]
    # in place of the folder of what was started, as Python does
    sys.path[0] = folder or os.path.dirname(os.path.realpath(script))
    sys.modules.update(dict.fromkeys(before[2], main))
    try:
        yield
    finally:
        sys.argv, sys.path[:], _ = before
        sys.modules.update(before[2])
        os.chdir(started_in)


def show_traceback(error: BaseException) -> None:
    """Print what Python prints when an error ends a script, without the frames of the harness."""
    hide_own_frames(error, set())
    sys.excepthook(type(error), error, error.__traceback__)


def message_of(error: BaseException) -> str:
    """Return what an error is and says, in one line: the first of its text, with the next where that only leads to it.

    A syntax error says last what it is, after the line that it is in.
    """
    lines = [line.strip() for line in "".join(traceback.format_exception_only(error)).splitlines() if line.strip()]
    if isinstance(error, SyntaxError):
        return lines[-1]
    leads_on = lines[0].endswith(":") and len(lines) > 1
    return f"{lines[0]} {lines[1]}" if leads_on else lines[0]


def hide_own_frames(error: BaseException | None, seen: set[int]) -> None:
    """Take the frames of the harness out of the traceback of an error, and of those before it that are not `seen`."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    kept: list[TracebackType] = []
    trace = error.__traceback__
    follows_own = False
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        follows_own = is_harness(path) or (follows_own and path.endswith(_CALLS_OPERATORS))
        if not follows_own:
            kept.append(trace)
        trace = trace.tb_next
    chain: TracebackType | None = None
    for trace in reversed(kept):
        chain = TracebackType(chain, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    error.__traceback__ = chain
    hide_own_frames(error.__cause__, seen)
    hide_own_frames(error.__context__, seen)
