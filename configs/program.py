"""How this program is to be called here: as it is installed, and from where it was started."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from memory_harness.configs.places import IMPORT_FOLDER
from memory_harness.configs.printable import printable

SCRIPT = "run_probe.py"
"""starts the program in a checkout"""
INSTALLED = "run-probe"
"""starts it where a wheel is installed"""
MODULE = "memory_harness"
"""starts it with `python -m`"""


def command_line(arguments: Sequence[str]) -> str:
    """Return what to type for these arguments, quoted for a shell."""
    return shlex.join([*program(), *arguments])


def program() -> list[str]:
    """Return what starts this program: as it was started, else what this installation has."""
    started = Path(sys.argv[0])
    if started.name == SCRIPT:
        return [python_command(), _short(started)]
    if started.name == f"{MODULE}.py":
        return [python_command(), "-m", MODULE]
    if started.stem != INSTALLED and (IMPORT_FOLDER / SCRIPT).is_file():  # a test, a notebook, a script of one's own
        return [python_command(), _short(IMPORT_FOLDER / SCRIPT)]
    return [_command(INSTALLED, Path(sys.executable).with_name(INSTALLED))]


def program_name() -> str:
    """Return the program's name, as its messages begin."""
    return Path(program()[-1]).name


def say(words: object) -> None:
    """Print lines for the person at the terminal, with the program's name, where they do not mix with a report."""
    for line in str(words).splitlines():
        print(f"{program_name()}: {printable(line)}", file=sys.stderr)


def python_command() -> str:
    """Return what to type for this interpreter: `python` where that is the one, else its path."""
    return _command("python", Path(sys.executable))


def _command(name: str, path: Path) -> str:
    """Return the name where the shell finds that very file by it; else the path."""
    found = shutil.which(name)
    return name if found is not None and Path(found).absolute() == path.absolute() else _short(path)


def _short(path: Path) -> str:
    """Return a path as it is typed from here."""
    try:
        absolute, here = path.absolute(), Path.cwd()
    except FileNotFoundError:  # the folder that this was started in is gone
        return str(path)
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
