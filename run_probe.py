"""Find out whether a QLoRA fine-tune fits a GPU, why it does not, and what makes it fit.

    python run_probe.py --max-length 2048 --samples 4000

Exit codes: 0 it fits, as configured or with verified fixes; 1 it does not; 2 something given is not usable; 3 the run died.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from configs.cli import Command, flags_between, parse_args
from configs.errors import HarnessError
from configs.validation import check_output
from harness.runlog import read_run_log
from probes import session as probing
from reports.explain import print_explanation
from reports.json_report import write_json
from reports.summary import OtherCount, ProbeResult, exit_code, result_of_log, verdict_of
from reports.terminal import make_console, print_report

SAMPLE_COUNTS = (600, 2000, 4000)
"""a failure at the same fraction of the run whatever the number of samples is shown, not claimed"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse_args(arguments)
        if command.explain is not None:
            print_explanation(command.explain, make_console())
            return 0
        result = replay(command.replay) if command.replay else probe(command, arguments)
        print_report(result, make_console())
        if command.json is not None:
            write_json(result, command.json)
    except probing.RunDied as error:
        print(f"run_probe.py: {error}", file=sys.stderr)
        return 3
    except HarnessError as error:
        for line in str(error).splitlines():
            print(f"run_probe.py: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run_probe.py: stopped", file=sys.stderr)
        return 130
    return exit_code(result.verdict)


def replay(log: Path) -> ProbeResult:
    """Report on the log of an earlier run."""
    return result_of_log(read_run_log(log))


def probe(command: Command, arguments: Sequence[str]) -> ProbeResult:
    """Run the probe and return what it found."""
    begin = time.monotonic()
    config = command.config
    folder = check_output(config) / f"{datetime.now():%Y%m%d-%H%M%S}-{config.fingerprint()}"
    with _progress() as progress:
        session = probing.run_session(
            config, folder, try_fixes=not command.no_fixes, counts=_other_counts(command), progress=progress
        )
    own = OtherCount(*_own_count(session))
    others = [OtherCount(c.samples, c.step, c.total_steps, c.outcome) for c in session.counts]
    return ProbeResult(
        as_configured=session.as_configured,
        findings=session.findings,
        verdict=verdict_of(session.as_configured, session.with_fixes, session.fixes),
        with_fixes=session.with_fixes,
        fixes=session.fixes,
        other_counts=sorted([*others, own]) if others else [],
        next_command=_next_command(session, arguments),
        seconds=time.monotonic() - begin,
    )


def _other_counts(command: Command) -> list[int]:
    """Return the numbers of samples to run besides the one asked for: those that the synthetic corpus can have."""
    config = command.config
    if config.data.data is not None or config.device.tensors == "real" or config.device.device == "cuda":
        return []
    return [count for count in SAMPLE_COUNTS if count != config.data.samples]


def _own_count(session: probing.Session) -> tuple[int, int, int, object]:
    run, log = session.as_configured.run, session.as_configured
    step = log.end.step if log.end else 0
    return run.num_train_samples + run.num_eval_samples, step, run.total_steps, log.outcome


def _next_command(session: probing.Session, arguments: Sequence[str]) -> str:
    """Return the command that runs what passed."""
    flags = flags_between(session.config, session.fixed_config)
    return shlex.join(["python", "run_probe.py", *arguments, *flags]) if flags else ""


@contextmanager
def _progress() -> Iterator[probing.Progress]:
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
        tasks: dict[str, object] = {}

        def show(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=None)
            bars.update(tasks[title], completed=done, total=total or None)  # type: ignore[arg-type]

        yield show


if __name__ == "__main__":
    sys.exit(main())
