"""The code of a notebook: its cells in order, without the lines that are for IPython or a shell."""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from memory_harness.configs.inputs import read_json
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.log.records import NOT_RUN, StandInRecord
from memory_harness.harness.log.source_lines import short_path

SUFFIX = ".ipynb"
_NOT_PYTHON = re.compile(r"^\s*([!%]|[\w, ]+=\s*[!%]|[\w.]+\?{1,2}\s*$|\?{1,2}[\w.]+\s*$)")
"""lines such as `!pip install x`, `%matplotlib inline`, `files = !ls`, `torch.nn?`"""
_WHOLE_CELL = re.compile(r"^%%(?!time|capture|prun|watch)")
"""magics whose cell is no Python"""


@dataclass(frozen=True)
class Cell:
    """One cell of code.

    Args:
        name: what tracebacks and reports call its file.
        skipped: its lines that are no Python.
    """

    name: str
    source: str
    skipped: tuple[str, ...]

    def compiled(self) -> CodeType:
        """Return the cell's code, whose lines can be shown."""
        linecache.cache[self.name] = (len(self.source), None, self.source.splitlines(True), self.name)
        return compile(self.source, self.name, "exec")


def cells_of(path: Path) -> list[Cell]:
    """Return the cells of a notebook. Raises ConfigError where the file is none."""
    try:
        cells = read_json(path)["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: not a notebook; give a file that Jupyter opens") from None
    return [_cell(f"{path}#cell{number}", source) for number, source in enumerate(sources, 1)]


def _cell(name: str, source: str) -> Cell:
    lines = source.splitlines()
    if lines and _WHOLE_CELL.match(lines[0]):
        return Cell(name, "", (lines[0],))
    if _is_python(source):  # lines of a text, or of an expression, may begin alike
        return Cell(name, source, ())
    kept, skipped = [], []
    for line in lines:
        if _NOT_PYTHON.match(line):
            skipped.append(line.strip())
            line = re.sub(r"\S.*", "pass", line)  # it may be all that a block has
        kept.append(line)
    return Cell(name, "\n".join(kept), tuple(skipped))


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def skipped_lines(script: str) -> Iterator[StandInRecord]:
    """Yield each line of a notebook that is not run; nothing of another script."""
    for cell in cells_of(Path(script)) if Path(script).suffix == SUFFIX else ():
        for line in cell.skipped:
            yield StandInRecord(f"{NOT_RUN}{line}", short_path(cell.name), 1)
