"""The commands and Python blocks of the repository's documents."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("configs", "harness", "probes", "reports", "tests")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"^(?:\.venv/bin/)?(?:python|make|pip|pytest|run-probe)\b")


@dataclass(frozen=True)
class Command:
    """A command that a document gives."""

    document: str
    text: str

    @property
    def words(self) -> list[str]:
        """The command as a shell splits it, without what follows a pipe or a redirection."""
        words = shlex.split(self.text, comments=True)
        ends = [number for number, word in enumerate(words) if word in ("|", "||", "&&", ">")]
        return words[: ends[0]] if ends else words


def documents() -> list[Path]:
    """Return every Markdown file that describes the project; results of runs are not documents."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in FOLDERS:
        paths.extend(path for path in sorted((ROOT / folder).rglob("*.md")) if "results" not in path.parts)
    return paths


def commands() -> list[Command]:
    """Return the commands of all documents, each once per document."""
    found: dict[Command, None] = {}
    for path in documents():
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in _lines_of_code(text):
            if _COMMAND.match(line) and " " in line:
                found[Command(path.relative_to(ROOT).as_posix(), line)] = None
    return list(found)


def _lines_of_code(text: str) -> Iterator[str]:
    for _, block in _FENCED.findall(text):
        yield from map(str.strip, block.splitlines())
    prose = _FENCED.sub("", text)
    for block in _INDENTED.findall(prose):
        yield from map(str.strip, block.splitlines())
    yield from _INLINE.findall(prose)


def python_blocks() -> list[tuple[str, str]]:
    """Return the name of the document and the text of every block of Python."""
    blocks = []
    for path in documents():
        for language, block in _FENCED.findall(path.read_text(encoding="utf-8")):
            if language == "python":
                blocks.append((path.relative_to(ROOT).as_posix(), block))
    return blocks
