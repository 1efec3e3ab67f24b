"""The command that probes: runs the probe, shows how far it is, and says what to run next."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from memory_harness.configs.cli import Command
from memory_harness.configs.flags import flags_between
from memory_harness.configs.printable import printable
from memory_harness.configs.validation import check_output
from memory_harness.harness.log.errors import DataError
from memory_harness.harness.log.records import Outcome
from memory_harness.probes.session.gate import Gate, gate_of
from memory_harness.probes.session.process import OnProgress, RunRefused
from memory_harness.probes.session.session import Session, run_session
from memory_harness.reports.files import new_folder
from memory_harness.reports.output import cleaned
from memory_harness.reports.summary import ProbeResult, verdict_of

SAMPLE_COUNTS = (600, 2000, 4000)
"""a failure at the same fraction of the run whatever the number of samples is shown, not claimed"""


def probe(command: Command, arguments: Sequence[str]) -> tuple[ProbeResult, Gate | None]:
    """Run the probe; return what it found, and what it lets train."""
    begin = time.monotonic()
    config = command.config
    folder = new_folder(check_output(config), config.fingerprint())
    counts = [count for count in SAMPLE_COUNTS if count != config.data.samples]
    try:
        with progress_bars() as show:
            session = run_session(
                config,
                folder,
                try_fixes=not command.no_fixes,
                counts=counts,
                progress=show,
                snapshot=command.snapshot,
                fault=command.fault,
                goal=None if command.goal == "none" else command.goal,
                headroom_bytes=command.headroom_bytes,
                limits=command.limits,
            )
    except (RunRefused, DataError):
        with suppress(OSError):  # kept where something has run
            folder.rmdir()
        raise
    next_command = "" if command.train else _next_command(session, arguments)
    return result_of_session(session, next_command, time.monotonic() - begin), gate_of(session, folder)


def result_of_session(session: Session, next_command: str = "", seconds: float = 0.0) -> ProbeResult:
    """Return what a report on a probe shows."""
    return ProbeResult(
        as_configured=session.as_configured,
        findings=session.findings,
        verdict=verdict_of(session.as_configured, session.with_fixes, session.fixes, session.findings),
        with_fixes=session.with_fixes,
        fixes=session.fixes,
        other_counts=session.counts,
        predicted=session.predicted,
        whole_run=session.whole_run,
        plan=session.plan,
        limits=session.limits,
        next_command=next_command,
        seconds=seconds,
    )


def _next_command(session: Session, arguments: Sequence[str]) -> str:
    """Return the command that runs what passed; nothing where that is the command given, or nothing passed."""
    passed = session.with_fixes is not None and session.with_fixes.outcome is Outcome.COMPLETED
    flags = flags_between(session.config, session.fixed_config) if passed else []
    return shlex.join([python_command(), "run_probe.py", *arguments, *flags]) if flags else ""


def python_command() -> str:
    """Return what to type for this interpreter: its path where it is in a `.venv` here that is not activated."""
    python = Path(sys.executable)
    inside = python.is_relative_to(Path.cwd()) and "VIRTUAL_ENV" not in os.environ
    return str(python.relative_to(Path.cwd())) if inside else "python"


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Show what runs and how far it is, on standard error, where that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = cleaned(Console(stderr=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(title: str, done: int, total: int) -> None:
            if title not in tasks:
                for earlier in tasks.values():
                    bars.stop_task(earlier)
                tasks[title] = bars.add_task(printable(title), total=None)
            bars.update(tasks[title], completed=done, total=total or None)

        yield show
