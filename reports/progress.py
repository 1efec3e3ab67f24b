"""How far a probe is, on standard error: bars in a terminal, a line now and then in a notebook or in CI."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from memory_harness.configs.printable import printable
from memory_harness.probes.session.process import OnProgress
from memory_harness.reports.screen import can_redraw, cleaned, in_ci, in_notebook

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Yield what takes how far the probe is."""
    console = cleaned(Console(stderr=True))
    if not can_redraw(console):
        # what reads a pipe, or a file later, is no person who waits
        somebody_waits = console.file.isatty() or in_notebook() or in_ci()
        yield lines(console) if somebody_waits else lambda title, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(title: str, done: int, total: int) -> None:
            if title not in tasks:
                for earlier in tasks.values():
                    bars.stop_task(earlier)
                tasks[title] = bars.add_task(printable(title), total=None, steps="")
            bars.update(tasks[title], completed=done, total=total or None, steps=steps_in_words(done, total))

        yield show


def lines(console: Console, clock: Callable[[], float] = time.monotonic) -> OnProgress:
    """Return what prints a line once some time has passed since the last: nothing of a probe that is short."""
    printed = clock()

    def show(title: str, done: int, total: int) -> None:
        nonlocal printed
        now = clock()
        if now - printed >= SECONDS_BETWEEN_LINES:
            printed = now
            console.file.write(f"{title}: {steps_in_words(done, total)}\n")
            console.file.flush()

    return show


def steps_in_words(done: int, total: int) -> str:
    """Return `12/480 steps`, or that it has yet to begin."""
    return f"{done}/{total} steps" if total else "starting"
