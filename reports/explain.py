"""What `--explain` prints: one cause in full, or all of them in a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console, Group
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
    causes = load_causes() | {UNEXPLAINED.id: UNEXPLAINED}
    if cause_id == ALL_CAUSES:
        titles = {cause.id: cause.title for cause in causes.values()}
        show(_grid(titles.items(), "bold", 0), console)
        return
    cause = causes.get(cause_id.lower())
    if cause is None:
        hint = did_you_mean(cause_id, causes)
        raise ConfigError(f"--explain {cause_id}: unknown cause{hint} (--explain lists all {len(causes)})")
    rows = Padding(_grid(_rows(cause), "bright_black", 1), (1, 0, 0, 2))
    show(Group(Text(cause.id, "bold"), Text(cause.title), rows), console)


def _grid(rows: Iterable[tuple[str, str]], style: str, rows_between: int) -> Table:
    table = Table.grid(padding=(0, 2, rows_between, 0))
    table.add_column(no_wrap=True)
    for name, text in rows:
        table.add_row(Text(name, style), text)
    return table


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
