"""What `--help` shows: tasks with an example each, and the flags that matter; `--help all` shows all by group."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator

from memory_harness.configs.modes import MODES, as_flag
from memory_harness.configs.program import program

MATTERING = {
    "--model": "the base model: a name, a folder, or a repository of the Hub",
    "--gpu": "the card to fit",
    "--budget": 'what PyTorch may use of it, such as "14.4 GiB"',
    "--preset": "a recipe to begin with: as_published, t4, or a TOML file",
    "--data": "your rows: csv, tsv, json, jsonl, txt, parquet, a folder, the Hub",
    "--samples": "how many rows to use",
    "--max-length": "longest sequence, in tokens",
    "--train-batch-size": "sequences in one micro-batch",
    "--quantization": "of the weights: nf4, fp4, int8, none",
    "--goal": "plan the fixes: speed, memory",
    "--html": "write the report as a page",
    "--json": "write the report for programs",
}
"""the flags that `--help` shows, in short; `--help all` says more"""

MAX_WIDTH = 100


def short_help(parser: argparse.ArgumentParser) -> str:
    """Return the help of a page: tasks first, then the flags that matter, then where the rest is."""
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    number = sum(bool(action.option_strings) for action in parser._actions)
    called = " ".join(program())
    lines = [*_wrapped(str(parser.description), width), "", "Tasks, each with an example:"]
    for mode in MODES:
        if mode.is_a_task:
            lines += ["", *_wrapped(f"  {mode.name:<10} {mode.does}", width, 13), f"      {called} {mode.example}"]
    lines += ["", "Flags that matter:", "", *_flags(parser, width), ""]
    lines += _wrapped(f"{called} --help all shows all {number} flags by group. {parser.epilog}", width)
    return "\n".join(lines) + "\n"


def full_help(parser: argparse.ArgumentParser) -> str:
    """Return the help on every flag by group, and which of them exclude each other."""
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    return f"{parser.format_help()}\n" + "\n".join(_exclusions(width)) + "\n"


def _exclusions(width: int) -> Iterator[str]:
    """The table of modes: each excludes all that it does not list."""
    yield from _wrapped("what goes together, beside settings of the run; all else is refused:", width)
    for mode in MODES:
        names = ", ".join(as_flag(option) for option in mode.takes) or "nothing"
        yield from _wrapped(f"  {mode.flag:<16} {names}", width, 19)


def _flags(parser: argparse.ArgumentParser, width: int) -> Iterator[str]:
    defaults = {action.option_strings[0]: _default_of(action) for action in parser._actions if action.option_strings}
    for flag, words in MATTERING.items():
        yield from _wrapped(f"  {flag:<19} {words}{defaults[flag]}", width, 22)


def _default_of(action: argparse.Action) -> str:
    _, begins, default = (action.help or "").rpartition(" (default: ")
    return f" (default: {default}" if begins and default != "none)" else ""


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)
