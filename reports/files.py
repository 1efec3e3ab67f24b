"""Report files: checked before a run of a minute, written whole after it, and never in place of something else."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from memory_harness.configs.cli import Command
from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.files import create_unused, write_whole
from memory_harness.harness.log.snapshot import SNAPSHOT_BEGINS
from memory_harness.reports.contents import FOLDED_BEGINS, folded_text
from memory_harness.reports.html import BEGINS as HTML_BEGINS
from memory_harness.reports.html import html_text
from memory_harness.reports.json import BEGINS as JSON_BEGINS
from memory_harness.reports.json import json_text
from memory_harness.reports.perfetto import BEGINS as PERFETTO_BEGINS
from memory_harness.reports.perfetto import perfetto_text
from memory_harness.reports.recipe import recipe_json
from memory_harness.reports.snapshot import contents_json
from memory_harness.reports.summary import ProbeResult
from memory_harness.reports.terminal import SVG_BEGINS, make_console, print_report, svg_text
from memory_harness.reports.traceback import causes_json

FIRST_CHARACTERS = {
    "json": JSON_BEGINS,
    "svg": SVG_BEGINS,
    "html": HTML_BEGINS,
    "snapshot": SNAPSHOT_BEGINS,
    "folded": FOLDED_BEGINS,
    "perfetto": PERFETTO_BEGINS,
}
"""of the files that a command can ask for"""


def check_files(command: Command) -> None:
    """Check every file that the command asks for: better before the run than after it.

    Raises:
        ConfigError: one cannot be written.
    """
    for name, begins in FIRST_CHARACTERS.items():
        path = getattr(command, name)
        if path is not None:
            check_file(f"--{name}", path, begins)


def write_report(command: Command, result: ProbeResult) -> None:
    """Print the report, and write the files that the command asks for."""
    print_report(result, make_console())
    write_files(command, result)


def write_files(
    command: Command, result: ProbeResult, training: dict[str, Any] | None = None, page: str | None = None
) -> None:
    """Write the reports that the command asks for.

    Args:
        command: the command.
        result: what they are about.
        training: a section of the one for programs.
        page: what to write as the page, where it is about something else.
    """
    if command.json is not None:
        recipe = None if command.recipe is None else recipe_json(command.recipe)
        snapshot = None
        if result.contents is not None:
            snapshot = {"causes": causes_json(result.causes), **contents_json(result.contents)}
        write_file("--json", command.json, json_text(result, recipe=recipe, training=training, snapshot=snapshot))
    if command.svg is not None:
        write_file("--svg", command.svg, svg_text(result))
    if command.html is not None:
        write_file("--html", command.html, page or html_text(result))
    if command.folded is not None:
        write_file("--folded", command.folded, folded_text(result.as_configured))
    if command.perfetto is not None:
        write_file("--perfetto", command.perfetto, perfetto_text(result.as_configured))


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


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder named after this second and `name` that no other run writes to, whenever it began."""
    return create_unused(parent, f"{datetime.now():%Y%m%d-%H%M%S}-{name}", "", Path.mkdir)
