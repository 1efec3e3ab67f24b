"""The command line: does what the flags ask for, and shows what came of it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from memory_harness.configs.cards import budget_of, bytes_beside, card_of
from memory_harness.configs.cli import Command
from memory_harness.configs.launch import leads
from memory_harness.configs.models import find_model
from memory_harness.configs.printable import printable
from memory_harness.configs.program import say
from memory_harness.configs.validation import check_output
from memory_harness.harness.log.errors import LogError, PeerLost, RunDied
from memory_harness.harness.log.manifest import LOG_FILE
from memory_harness.harness.log.remarks import quiet_imports
from memory_harness.harness.log.runlog import RunLog, read_process_logs, read_run_log
from memory_harness.harness.log.snapshot import is_snapshot, read_snapshot
from memory_harness.harness.observe.run_script import check_script, check_syntax
from memory_harness.harness.results.human_sheet import score_lines, score_sheet, write_sheet
from memory_harness.harness.strategies.weights import download_checkpoint
from memory_harness.probes.compare import compare
from memory_harness.probes.session.process import RunStopped, how_to_go_on
from memory_harness.probes.session.session import FIRST_LOG, session_of_folder
from memory_harness.probes.traceback.held import snapshot_causes
from memory_harness.reports.agents import serve
from memory_harness.reports.command_against import against
from memory_harness.reports.command_estimate import estimate
from memory_harness.reports.command_probe import probe, result_of_session
from memory_harness.reports.command_sharding import compare_shardings
from memory_harness.reports.command_traceback import explain_traceback
from memory_harness.reports.command_train import generate, train
from memory_harness.reports.companion import Follow, following
from memory_harness.reports.comparison import Names, comparison_exit_code, comparison_json, print_comparison
from memory_harness.reports.explain import print_explanation
from memory_harness.reports.files import check_file, check_files, new_folder, write_file, write_report
from memory_harness.reports.next_step import after_comparison, after_replay, next_step
from memory_harness.reports.output import forgiving_output, output_as_given
from memory_harness.reports.recipe import print_recipe
from memory_harness.reports.snapshot import difference_json, difference_of, difference_sections
from memory_harness.reports.summary import ProbeResult, exit_code, result_of_log, result_of_processes
from memory_harness.reports.terminal import make_console, print_sections


def carry_out(command: Command, arguments: Sequence[str]) -> int:
    """Do what the command line asks for, and say how a process ended that was to do it; return the exit code."""
    try:
        with contextlib.nullcontext() if command.watch is not None else _unwinding_at_sigterm():
            return run(command, arguments)
    except RunDied as error:
        print(printable(error.details), end="", file=sys.stderr)
        say(error)
        return 3
    except PeerLost as error:
        say(error)
        return 3
    except RunStopped as error:
        say(f"{error}; {how_to_go_on(Path(error.run))}")
        return 128 + error.number


@contextlib.contextmanager
def _unwinding_at_sigterm() -> Iterator[None]:
    """Within, SIGTERM ends the command as Ctrl-C does: what it has started ends first."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run(command: Command, arguments: Sequence[str]) -> int:
    """Do what the command asks for and show it; return the exit code."""
    if not leads() and not (command.train or command.resume or command.watch or command.dry_run):
        return 0  # the first of the processes that a launcher has started does it for all
    if command.explain is not None:
        print_explanation(command.explain, make_console())
        return 0
    if command.human_sheet is not None:
        print(printable(f"to be filled in: {write_sheet(command.human_sheet, command.config.data.seed)}"))
        return 0
    if command.score_sheet is not None:
        print("\n".join(score_lines(score_sheet(command.score_sheet))))
        return 0
    if command.compare is not None:
        return compare_logs(command.compare, command.json)
    if command.mcp:
        return serve(check_output(command.config))
    check_files(command)
    if command.recipe is not None:
        print_recipe(command.recipe, make_console())
    if command.download:
        needs_weights = bool(command.train or command.resume or command.generate)
        download_checkpoint(find_model(command.config.model.model), weights=needs_weights)
    with following(command) as follow:
        return _run_and_report(command, arguments, follow)


def _run_and_report(command: Command, arguments: Sequence[str], follow: Follow) -> int:
    """Run what is asked for, and report on it; return the exit code."""
    if command.config.device.sharding == "all":
        return compare_shardings(command)
    if command.estimate:
        return estimate(command)
    if command.train or command.resume:
        return train(command, arguments, follow)
    if command.generate:
        return generate(command)
    if command.traceback is not None:
        return explain_traceback(command, command.traceback)
    if command.watch is not None:
        return watch(command, command.watch, arguments, follow)
    if command.against is not None:
        return against(command, command.against)
    if command.dry_run is not None:
        return dry_run(command, command.dry_run, arguments, follow)
    result = replay(command.replay, _named_budget(command)) if command.replay else probe(command, arguments, follow)[0]
    if command.replay:
        result = replace(result, next_step=after_replay(command.replay, result, is_on_a_page=command.html is not None))
    write_report(command, result)
    return exit_code(result)


def compare_logs(paths: Sequence[Path], json: Path | None) -> int:
    """Show what changed from one run to another; a folder stands for its training run, or its run as configured."""
    if json is not None:
        check_file("json", json)
    are_snapshots = [is_snapshot(path) for path in paths]
    if all(are_snapshots):
        return compare_snapshots(paths, json)
    if any(are_snapshots):
        snapshot, other = paths if are_snapshots[0] else reversed(paths)
        raise LogError(f"--compare: {snapshot} is a memory snapshot and {other} is none; give two of one kind")
    logs = [_log_in(path) if path.is_dir() else path for path in paths]
    names = Names(str(logs[0]), str(logs[1]))
    comparison = compare(read_run_log(logs[0], "--compare"), read_run_log(logs[1], "--compare"))
    step = after_comparison(paths[1])
    if json is not None:
        write_file("json", json, comparison_json(comparison, names, step))
    print_comparison(comparison, names, step, make_console())
    return comparison_exit_code(comparison)


def compare_snapshots(paths: Sequence[Path], json: Path | None) -> int:
    """Show by line of code what is in use in one snapshot and not in the other; return the exit code."""
    difference, step = difference_of(paths), after_comparison(paths[1])
    if json is not None:
        write_file("json", json, difference_json(difference, step))
    print_sections(difference_sections(difference, step), make_console())
    return int(difference.verdict == "worse")


def _named_budget(command: Command) -> int | None:
    """Return what PyTorch may use of the card, where the command line says so."""
    if not command.gpu_is_named and "budget_bytes" not in command.given:
        return None
    return budget_of(command.config.device)


def _log_in(folder: Path) -> Path:
    trained = folder / LOG_FILE
    return trained if trained.exists() else folder / FIRST_LOG


def replay(path: Path, budget_bytes: int | None = None) -> ProbeResult:
    """Report on the log of an earlier run, on all logs of an earlier probe, or on a memory snapshot of PyTorch's.

    The budget is that of a snapshot, which may not say it.
    """
    if (path / LOG_FILE).exists():
        return result_of_log(read_run_log(path / LOG_FILE))
    if path.is_dir():
        session = session_of_folder(path)
        if session.as_configured.run.script:
            return result_of_processes(session.as_configured, read_process_logs(path))
        return result_of_session(session)
    if not is_snapshot(path):
        return result_of_log(read_run_log(path))
    found = read_snapshot(path, budget_bytes)
    return replace(result_of_log(found.log), contents=found.contents, causes=snapshot_causes(found))


def watch(command: Command, script: str, arguments: Sequence[str], follow: Follow) -> int:
    """Run a script that knows nothing of this project, and report on what it did; return the exit code."""
    check_script(script)
    device = command.config.device
    log = new_folder(check_output(command.config), Path(script).stem) / FIRST_LOG
    follow(log.parent)
    # importing PyTorch takes seconds: only after everything else has proved usable
    with quiet_imports():
        from memory_harness.probes.session.watch import watch_script

    gpu = card_of(device) if command.gpu_is_named else None

    @forgiving_output()
    def report(recorded: RunLog) -> int:
        return _report_on_script(command, result_of_processes(recorded, read_process_logs(log.parent)), arguments)

    with output_as_given():
        recorded = watch_script(
            script,
            command.script_arguments,
            log,
            device=device.device,
            gpu=gpu,
            budget_bytes=device.budget_bytes,
            module=command.module,
            report=report,
        )
    return report(recorded)


def dry_run(command: Command, script: str, arguments: Sequence[str], follow: Follow) -> int:
    """Run a script on a card that is not there, and report on what it would do on it; return the exit code."""
    check_script(script, "--dry-run")
    check_syntax(script, "--dry-run")
    device = command.config.device
    # importing PyTorch takes seconds: only after everything else has proved usable
    from memory_harness.harness.observe.knobs import read_knobs
    from memory_harness.probes.session.dry_run import DryRun, try_settings

    changes = read_knobs(command.override)
    log = new_folder(check_output(command.config), Path(script).stem) / FIRST_LOG
    follow(log.parent)
    asked = DryRun(
        script,
        command.script_arguments,
        card_of(device),
        budget_of(device),
        expandable_segments=device.expandable_segments,
        max_steps=command.steps,
        worst_first=command.worst_first,
        changes=changes,
        snapshot=command.snapshot,
        num_gpus=device.num_gpus,
        beside_bytes=bytes_beside(device),
    )
    recorded = asked.run(log)
    result = result_of_log(recorded)
    if not command.no_fixes:
        result = replace(result, fixes=try_settings(asked, recorded, log.parent))
    return _report_on_script(command, result, arguments)


def _report_on_script(command: Command, result: ProbeResult, arguments: Sequence[str]) -> int:
    """Report on what a script did; return the exit code."""
    write_report(command, replace(result, next_step=next_step(result, arguments)))
    return exit_code(result)
