"""What `--explain` prints: one cause in full, or all of them in a line each."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memory_harness.configs.cli import ALL_CAUSES
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import did_you_mean
from memory_harness.probes.detectors import DETECTORS
from memory_harness.probes.detectors.causes import UNEXPLAINED, Cause, load_causes
from memory_harness.probes.fixes import FIXES
from memory_harness.reports.terminal import show


def print_explanation(cause_id: str, console: Console) -> None:
    """Print what a cause is, how it looks, how to test for it and how to fix it; `all` lists the ids.

    Raises:
        ConfigError: no such cause.
    """
    if cause_id == ALL_CAUSES:
        show(_list(), console)
        return
    causes = _causes()
    cause = causes.get(cause_id.lower())
    if cause is None:
        hint = did_you_mean(cause_id, causes)
        raise ConfigError(f"--explain {cause_id}: unknown cause{hint} (--explain lists all {len(causes)})")
    show(_explanation(cause), console)


def _causes() -> dict[str, Cause]:
    return {**load_causes(), UNEXPLAINED.id: UNEXPLAINED}


def _list() -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for cause in _causes().values():
        table.add_row(Text(cause.id, "bold"), cause.title)
    return table


def _explanation(cause: Cause) -> RenderableType:
    table = Table.grid(padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    for name, text in _rows(cause):
        table.add_row(Text(name, "bright_black"), text)
    return Group(Text(cause.id, "bold"), Text(cause.title), Padding(table, (1, 0, 0, 2)))


def _rows(cause: Cause) -> Iterator[tuple[str, str]]:
    yield "how it looks", cause.looks_like
    yield "how to test", cause.decisive_test or "How it looks decides by itself."
    yield "how to fix", cause.fix
    fixes = [f"{fix.name}: {fix.title}" for fix in FIXES.values() if cause.id in fix.addresses]
    if fixes:
        yield "tried for you", "\n".join(fixes)
    if cause.id not in DETECTORS:
        yield "note", "No detector looks for this cause yet: it is never named in a report."
    if cause.known_from:
        yield "known from", ", ".join(cause.known_from)
