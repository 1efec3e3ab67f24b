"""Report files: checked before a run of a minute, written whole after it, and never in place of something else."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from memory_harness.configs.cli import Command
from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.files import check_writable, create_unused, write_whole
from memory_harness.harness.log.marks import Kind, is_marked, marked
from memory_harness.reports.contents import folded_text
from memory_harness.reports.html import html_text
from memory_harness.reports.json import json_text
from memory_harness.reports.perfetto import perfetto_text
from memory_harness.reports.recipe import recipe_json
from memory_harness.reports.snapshot import contents_json
from memory_harness.reports.summary import ProbeResult
from memory_harness.reports.terminal import make_console, print_report, svg_text
from memory_harness.reports.traceback import causes_json


def check_files(command: Command) -> None:
    """Check every file that the command asks for: better before the run than after it.

    Raises:
        ConfigError: one cannot be written.
    """
    for kind in get_args(Kind):
        path = getattr(command, kind)
        if path is not None:
            check_file(kind, path)


def write_report(command: Command, result: ProbeResult) -> None:
    """Write the files that the command asks for, and print the report, also where a file could not be written."""
    try:
        write_files(command, result)
    finally:
        print_report(result, make_console())


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
        write_file("json", command.json, json_text(result, recipe=recipe, training=training, snapshot=snapshot))
    if command.svg is not None:
        write_file("svg", command.svg, svg_text(result))
    if command.html is not None:
        write_file("html", command.html, page or html_text(result))
    if command.folded is not None:
        write_file("folded", command.folded, folded_text(result.as_configured))
    if command.perfetto is not None:
        write_file("perfetto", command.perfetto, perfetto_text(result.as_configured))


def check_file(kind: Kind, path: Path) -> None:
    """Make sure that a report can be written to `path`; makes the folder where it is missing.

    Args:
        kind: of the report, and the flag that named the file.
        path: where it goes; an empty file, or such a report that nobody has changed, may be there.

    Raises:
        ConfigError: it cannot be written, or is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_ours(kind, path)
        check_writable(path)
    except OSError as error:
        raise _unwritable(kind, path, error) from None


def write_file(kind: Kind, path: Path, text: str) -> None:
    """Write the report with its mark, as a whole or not at all.

    Raises:
        ConfigError: it cannot be written, or something else is there by now.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_ours(kind, path)
        write_whole(path, marked(kind, text))
    except OSError as error:
        raise _unwritable(kind, path, error) from None


def _check_ours(kind: Kind, path: Path) -> None:
    """Make sure that nothing of somebody else's is where a report goes. Raises ConfigError or OSError."""
    if path.is_file() and (path.stat().st_size == 0 or is_marked(kind, path)):
        return
    if path.exists():
        raise ConfigError(
            f"--{kind} {path}: exists and is no report of this program, or was changed since; name another file, or"
            " remove it first"
        )


def _unwritable(kind: Kind, path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--{kind} {path}: cannot be written ({error.strerror}); name a file in a folder of yours")


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder named after this second and `name` that no other run writes to, whenever it began."""
    return create_unused(parent, f"{datetime.now():%Y%m%d-%H%M%S}-{name}", "", Path.mkdir)
