"""The command line: does what the flags ask for, and shows what came of it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from memory_harness.configs.cli import Command, parse_args
from memory_harness.configs.errors import HarnessError
from memory_harness.configs.flags import flags_between
from memory_harness.configs.models import find_model
from memory_harness.configs.preset import RUN_SUFFIX
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import check_output
from memory_harness.harness.log.errors import disk_refused
from memory_harness.harness.log.files import create_unused
from memory_harness.harness.log.manifest import LOG_FILE, checkpoints
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.harness.log.snapshot import SNAPSHOT_BEGINS, is_snapshot, read_snapshot
from memory_harness.harness.observe.run_script import check_script
from memory_harness.harness.results.experiments import check_artefacts
from memory_harness.harness.results.hub import check_hub
from memory_harness.harness.results.human_sheet import score_lines, score_sheet, write_sheet
from memory_harness.harness.strategies.weights import download_checkpoint
from memory_harness.probes.compare import compare
from memory_harness.probes.detectors import detect
from memory_harness.probes.fault_names import check_fault_name
from memory_harness.probes.session.gate import (
    FORCED,
    Gate,
    check_num_gpus,
    check_trainable,
    find_passing_probe,
    gate_of,
    gate_of_run,
    is_complete,
    run_of,
    source_of,
)
from memory_harness.probes.session.process import OnProgress, RunDied, RunRefused, RunStopped
from memory_harness.probes.session.session import FIRST_LOG, Session, run_session, session_of_folder
from memory_harness.probes.session.train import adapter_in, generate_in_worker, train_in_worker
from memory_harness.reports.comparison import Names, comparison_exit_code, comparison_json, print_comparison
from memory_harness.reports.explain import print_explanation
from memory_harness.reports.files import check_file, write_file
from memory_harness.reports.html import BEGINS as HTML_BEGINS
from memory_harness.reports.html import html_text
from memory_harness.reports.json import BEGINS, json_text
from memory_harness.reports.live import follow
from memory_harness.reports.summary import ProbeResult, exit_code, result_of_log, verdict_of
from memory_harness.reports.terminal import SVG_BEGINS, make_console, print_report, svg_text
from memory_harness.reports.training import (
    TrainingResult,
    artefacts_in,
    print_replies,
    print_training,
    training_exit_code,
    training_to_json,
)

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
    except RunStopped as error:
        print(f"run_probe.py: {error}; {_how_to_go_on(Path(error.run))}", file=sys.stderr)
        return 128 + error.number
    except OSError as error:
        if (refused := disk_refused(error)) is None:
            raise
        print(f"run_probe.py: {refused}", file=sys.stderr)
        return 2
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
    if command.fault is not None:
        check_fault_name(command.fault)
    # a file that cannot be written is better known before the run than after it
    if command.json is not None:
        check_file("--json", command.json, BEGINS)
    if command.svg is not None:
        check_file("--svg", command.svg, SVG_BEGINS)
    if command.html is not None:
        check_file("--html", command.html, HTML_BEGINS)
    if command.snapshot is not None:
        check_file("--snapshot", command.snapshot, SNAPSHOT_BEGINS)
    if command.download:
        download_checkpoint(find_model(command.config.model.model))
    if command.train or command.resume:
        return train(command, arguments)
    if command.generate:
        return generate(command)
    if command.watch is not None:
        return watch(command, command.watch)
    result = replay(command.replay) if command.replay else probe(command, arguments)[0]
    _report(command, result)
    return 3 if result.as_configured.outcome is Outcome.ERROR else exit_code(result.verdict)


def _report(command: Command, result: ProbeResult) -> None:
    print_report(result, make_console())
    _write_files(command, result)


def _write_files(command: Command, result: ProbeResult, training: dict[str, Any] | None = None) -> None:
    if command.json is not None:
        write_file("--json", command.json, json_text(result, training))
    if command.svg is not None:
        write_file("--svg", command.svg, svg_text(result))
    if command.html is not None:
        write_file("--html", command.html, html_text(result))


def compare_logs(paths: Sequence[Path], json: Path | None) -> int:
    """Show what changed from one run to another; a folder stands for its training run, or its run as configured."""
    if json is not None:
        check_file("--json", json, BEGINS)
    logs = [_log_in(path) if path.is_dir() else path for path in paths]
    names = Names(str(logs[0]), str(logs[1]))
    comparison = compare(read_run_log(logs[0], "--compare"), read_run_log(logs[1], "--compare"))
    print_comparison(comparison, names, make_console())
    if json is not None:
        write_file("--json", json, comparison_json(comparison, names))
    return comparison_exit_code(comparison)


def _log_in(folder: Path) -> Path:
    trained = folder / LOG_FILE
    return trained if trained.exists() else folder / FIRST_LOG


def replay(path: Path) -> ProbeResult:
    """Report on the log of an earlier run, on all logs of an earlier probe, or on a memory snapshot of PyTorch's."""
    if (path / LOG_FILE).exists():
        return result_of_log(read_run_log(path / LOG_FILE))
    if path.is_dir():
        session = session_of_folder(path)
        return result_of_log(session.as_configured) if session.as_configured.run.script else _result(session)
    return result_of_log(read_snapshot(path) if is_snapshot(path) else read_run_log(path))


def watch(command: Command, script: str) -> int:
    """Run a script that knows nothing of this project, and report on what it did; return the exit code."""
    check_script(script)
    device = command.config.device
    log = _new_folder(check_output(command.config), f"{datetime.now():%Y%m%d-%H%M%S}-{Path(script).stem}") / FIRST_LOG
    # importing PyTorch takes seconds: only after everything else has proved usable
    from memory_harness.probes.session.watch import watch_script

    gpu = device.gpu if command.gpu_is_named else None
    recorded = watch_script(
        script, command.script_arguments, log, device=device.device, gpu=gpu, budget_bytes=device.budget_bytes
    )
    result = result_of_log(recorded)
    _report(command, result)
    if recorded.outcome is Outcome.STOPPED:
        return 130
    return 3 if recorded.outcome is Outcome.ERROR else exit_code(result.verdict)


def probe(command: Command, arguments: Sequence[str]) -> tuple[ProbeResult, Gate | None]:
    """Run the probe; return what it found, and what it lets train."""
    begin = time.monotonic()
    config, headroom_bytes = command.config, command.headroom_bytes
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
                fault=command.fault,
                goal=None if command.goal == "none" else command.goal,
                headroom_bytes=headroom_bytes,
                limits=command.limits,
            )
    except RunRefused:
        with suppress(OSError):  # kept where something has run
            folder.rmdir()
        raise
    next_command = "" if command.train else _next_command(session, arguments)
    return _result(session, next_command, time.monotonic() - begin), gate_of(session, folder)


def train(command: Command, arguments: Sequence[str]) -> int:
    """Train what a probe lets in, or go on with what was let in before, and report on it; return the exit code."""
    config = command.config
    if command.resume is not None:  # its results go beside it, wherever it lay when it began
        config = config.with_fields(output=str(run_of(command.resume).parent))
    # first: what cannot be gone on with is no matter of weights
    resumed = None if command.resume is None else gate_of_run(command.resume, config)
    source = _check_before_training("--train" if command.resume is None else "--resume", config)
    check_num_gpus(config, source)
    if config.model.random_weights:
        print("run_probe.py: --random-weights: the loss and the replies will mean nothing", file=sys.stderr)
    before: ProbeResult | None = None
    gate: Gate | None
    if command.resume is not None and resumed is not None:
        gate, run = resumed, run_of(command.resume)
        if not command.allow_changes and is_complete(command.resume, config):
            _say(f"{run}: complete, nothing is left to do; --generate {run} answers more questions with it")
            return _report_training(command, run)
    else:
        before, gate = _let_in(command, arguments, source)
        if before is not None:
            _report(command, before)
        if gate is None:
            print("run_probe.py: not trained: the probe did not pass; --force trains all the same", file=sys.stderr)
            return exit_code("fail")
        name = f"{datetime.now():%Y%m%d-%H%M%S}-{gate.config.fingerprint()}{RUN_SUFFIX}"
        run = _new_folder(Path(config.output.output), name)
    with follow(run / LOG_FILE, make_console()) as watch:
        train_in_worker(gate, run, watch, _say, resume=command.resume, allow_changes=command.allow_changes)
    return _report_training(command, run, before)


def _report_training(command: Command, run: Path, before: ProbeResult | None = None) -> int:
    """Report on a training run; `before` is the probe that let it in, where there was one now."""
    log = read_run_log(run / LOG_FILE)
    predicted = (before.with_fixes or before.as_configured).peak_reserved_bytes if before is not None else None
    trained = TrainingResult(log, detect(log), artefacts_in(run), predicted)
    print_training(trained, make_console())
    _write_files(command, before or result_of_log(log), training_to_json(trained))
    if log.outcome is Outcome.STOPPED:
        _say(_how_to_go_on(run))
    return training_exit_code(log)


def _how_to_go_on(run: Path) -> str:
    if not checkpoints(run):
        return "there was no checkpoint yet: start it anew"
    return f"go on with: {shlex.join([_python(), 'run_probe.py', '--resume', str(run)])}"


def _say(line: str) -> None:
    print(f"run_probe.py: {line}", file=sys.stderr)


def _check_before_training(flag: str, config: RunConfig) -> str:
    """Make sure that training is possible and its results can be written, before minutes go into a probe.

    Returns:
        Where it would run: `cuda` or `simulated`.
    """
    source = source_of(config)
    check_trainable(flag, config, source == "cuda" or config.device.tensors == "real")
    check_artefacts(check_output(config))
    if config.output.push_to_hub is not None:
        check_hub(config.output.push_to_hub)
    return source


def _let_in(command: Command, arguments: Sequence[str], source: str) -> tuple[ProbeResult | None, Gate | None]:
    """Return the probe that decides whether to train, one of before or a new one, and what it lets in."""
    if command.force:
        return None, Gate(command.config, FORCED)
    # a snapshot is of a probe's memory: one is made
    if command.snapshot is None and (found := find_passing_probe(command.config, source)):
        gate, evidence = found
        return _result(evidence) if isinstance(evidence, Session) else result_of_log(evidence), gate
    return probe(command, arguments)


def generate(command: Command) -> int:
    """Answer prompts with the adapter of a training run; return the exit code."""
    assert command.generate is not None
    config = command.config
    adapter = adapter_in(command.generate)
    _check_before_training("--generate", config)
    folder = _new_folder(Path(config.output.output), f"{datetime.now():%Y%m%d-%H%M%S}-generate")
    log = generate_in_worker(config, adapter, folder / LOG_FILE)
    result = result_of_log(log)
    if log.outcome is Outcome.COMPLETED:
        print_replies(Path(config.output.output), log.run, make_console())
    else:
        _report(command, result)
    return training_exit_code(log)


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
        plan=session.plan,
        limits=session.limits,
        next_command=next_command,
        seconds=seconds,
    )


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder that no other probe writes to, not even one that began in the same second."""
    return create_unused(parent, name, "", Path.mkdir)


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
