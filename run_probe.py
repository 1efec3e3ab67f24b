"""Find out whether a QLoRA fine-tune fits a GPU, why it does not, and what makes it fit.

    python run_probe.py --max-length 2048 --samples 4000

Exit codes: 0 it fits, as configured or with verified fixes; 1 it does not; 2 something given is not usable;
3 the run died.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from configs.cli import Command, flags_between, parse_args
from configs.errors import HarnessError
from configs.validation import check_output
from harness.human_sheet import score_lines, score_sheet, write_sheet
from harness.records import Outcome
from harness.runlog import read_run_log
from harness.snapshot import SNAPSHOT_BEGINS, is_snapshot, read_snapshot
from probes.compare import compare
from probes.process import OnProgress, RunDied, RunRefused
from probes.session import FIRST_LOG, Session, run_session, session_of_folder
from reports.comparison import Names, comparison_exit_code, comparison_json, print_comparison
from reports.explain import print_explanation
from reports.files import check_file, write_file
from reports.html import BEGINS as HTML_BEGINS
from reports.html import html_text
from reports.json_report import BEGINS, json_text
from reports.summary import ProbeResult, exit_code, result_of_log, verdict_of
from reports.terminal import SVG_BEGINS, make_console, print_report, svg_text

SAMPLE_COUNTS = (600, 2000, 4000)
"""a failure at the same fraction of the run whatever the number of samples is shown, not claimed"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return run(parse_args(arguments), arguments)
    except RunDied as error:
        print(f"{error.details}run_probe.py: {error}", file=sys.stderr)
        return 3
    except HarnessError as error:
        for line in str(error).splitlines():
            print(f"run_probe.py: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run_probe.py: stopped", file=sys.stderr)
        return 130


def run(command: Command, arguments: Sequence[str]) -> int:
    """Do what the command asks for and show it; return the exit code."""
    if command.explain is not None:
        print_explanation(command.explain, make_console())
        return 0
    if command.human_sheet is not None:
        print(f"to be filled in: {write_sheet(command.human_sheet, command.config.data.seed)}")
        return 0
    if command.score_sheet is not None:
        print("\n".join(score_lines(score_sheet(command.score_sheet))))
        return 0
    if command.compare is not None:
        return compare_logs(command.compare, command.json)
    # a file that cannot be written is better known before the run than after it
    if command.json is not None:
        check_file("--json", command.json, BEGINS)
    if command.svg is not None:
        check_file("--svg", command.svg, SVG_BEGINS)
    if command.html is not None:
        check_file("--html", command.html, HTML_BEGINS)
    if command.snapshot is not None:
        check_file("--snapshot", command.snapshot, SNAPSHOT_BEGINS)
    result = replay(command.replay) if command.replay else probe(command, arguments)
    print_report(result, make_console())
    if command.json is not None:
        write_file("--json", command.json, json_text(result))
    if command.svg is not None:
        write_file("--svg", command.svg, svg_text(result))
    if command.html is not None:
        write_file("--html", command.html, html_text(result))
    return 3 if result.as_configured.outcome is Outcome.ERROR else exit_code(result.verdict)


def compare_logs(paths: Sequence[Path], json: Path | None) -> int:
    """Show what changed from one run to another; a probe's folder stands for the run as configured."""
    if json is not None:
        check_file("--json", json, BEGINS)
    logs = [path / FIRST_LOG if path.is_dir() else path for path in paths]
    names = Names(str(logs[0]), str(logs[1]))
    comparison = compare(read_run_log(logs[0], "--compare"), read_run_log(logs[1], "--compare"))
    print_comparison(comparison, names, make_console())
    if json is not None:
        write_file("--json", json, comparison_json(comparison, names))
    return comparison_exit_code(comparison)


def replay(path: Path) -> ProbeResult:
    """Report on the log of an earlier run, on all logs of an earlier probe, or on a memory snapshot of PyTorch's."""
    if path.is_dir():
        return _result(session_of_folder(path))
    return result_of_log(read_snapshot(path) if is_snapshot(path) else read_run_log(path))


def probe(command: Command, arguments: Sequence[str]) -> ProbeResult:
    """Run the probe and return what it found."""
    begin = time.monotonic()
    config = command.config
    folder = _new_folder(check_output(config), f"{datetime.now():%Y%m%d-%H%M%S}-{config.fingerprint()}")
    counts = [count for count in SAMPLE_COUNTS if count != config.data.samples]
    try:
        with _progress() as show:
            session = run_session(
                config,
                folder,
                try_fixes=not command.no_fixes,
                counts=counts,
                progress=show,
                snapshot=command.snapshot,
            )
    except RunRefused:
        with suppress(OSError):  # kept where something has run
            folder.rmdir()
        raise
    return _result(session, _next_command(session, arguments), time.monotonic() - begin)


def _result(session: Session, next_command: str = "", seconds: float = 0.0) -> ProbeResult:
    return ProbeResult(
        as_configured=session.as_configured,
        findings=session.findings,
        verdict=verdict_of(session.as_configured, session.with_fixes, session.fixes),
        with_fixes=session.with_fixes,
        fixes=session.fixes,
        other_counts=session.counts,
        predicted=session.predicted,
        whole_run=session.whole_run,
        next_command=next_command,
        seconds=seconds,
    )


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder that no other probe writes to, not even one that began in the same second."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _next_command(session: Session, arguments: Sequence[str]) -> str:
    """Return the command that runs what passed; nothing where that is the command given, or nothing passed."""
    passed = session.with_fixes is not None and session.with_fixes.outcome is Outcome.COMPLETED
    flags = flags_between(session.config, session.fixed_config) if passed else []
    return shlex.join([_python(), "run_probe.py", *arguments, *flags]) if flags else ""


def _python() -> str:
    """Return what to type for this interpreter: its path where it is in a `.venv` here that is not activated."""
    python = Path(sys.executable)
    inside = python.is_relative_to(Path.cwd()) and "VIRTUAL_ENV" not in os.environ
    return str(python.relative_to(Path.cwd())) if inside else "python"


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Show what runs and how far it is, on standard error, where that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(title: str, done: int, total: int) -> None:
            if title not in tasks:
                for earlier in tasks.values():
                    bars.stop_task(earlier)
                tasks[title] = bars.add_task(title, total=None)
            bars.update(tasks[title], completed=done, total=total or None)

        yield show


if __name__ == "__main__":
    sys.exit(main())
