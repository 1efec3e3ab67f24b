"""Run any script under observation, and say how it ended."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from memory_harness.configs.cards import Card
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from memory_harness.harness.observe.child_processes import process_patches, settings_of
from memory_harness.harness.observe.notebook import skipped_lines
from memory_harness.harness.observe.own_loop import choose_device
from memory_harness.harness.observe.run_script import message_of, run_script, show_traceback
from memory_harness.harness.observe.script import ScriptObserver
from memory_harness.harness.observe.script_threads import wait_for_threads


def watch_script(
    script: str,
    arguments: Sequence[str],
    log: Path,
    *,
    device: str,
    gpu: str | Card | None,
    budget_bytes: int | None,
    module: str = "",
    report: Callable[[RunLog], int] | None = None,
) -> RunLog:
    """Run the script to its end, its output going where it always goes; return what was recorded.

    An error that ends the script is shown as Python shows it. Where it leaves by `os._exit`, nothing is returned:
    `report` is handed what was recorded, and returns the code to exit with.

    Raises:
        DeviceError: the device is not to be had.
    """
    opened = choose_device(device, gpu, budget_bytes)
    begin = time.perf_counter()
    with LogWriter(log) as writer:
        observer = ScriptObserver(opened, writer.write, Path(script).name)

        def end(outcome: Outcome, message: str) -> RunLog:
            for skipped in skipped_lines(script):
                writer.write(skipped)
            observer.end_log(outcome, message, time.perf_counter() - begin)
            return read_run_log(log)

        def end_at_once(code: int) -> int:
            observer.end_script()
            recorded = end(*_exit(SystemExit(code)))
            sys.stdout.flush()
            return report(recorded) if report is not None else code

        observer.on_exit = end_at_once
        name = gpu.name if isinstance(gpu, Card) else gpu
        settings = settings_of(log.parent, Path(script).name, device, name, budget_bytes)
        threads = threading.enumerate()
        try:
            with observer.running(), ExitStack() as processes:
                for change in process_patches(settings, observer.leave):
                    processes.enter_context(change)
                main = run_script(script, arguments, module)
                wait_for_threads(threads)
            observer.end_script()  # while its variables are alive
            del main
        except BaseException as error:
            outcome, message = end_of(error, opened)
            if outcome is Outcome.COMPLETED:
                observer.end_script()
            return end(outcome, message)
        return end(*(observer.thread_end or (Outcome.COMPLETED, "")))


def watch_cell(
    run: Callable[[], BaseException | None], log: Path, *, device: str, gpu: str | None, budget_bytes: int | None
) -> Outcome:
    """Observe a cell of a notebook in this process, and return how it ended.

    Args:
        run: runs the cell; returns the error that ended it, which it has shown.
        log: where the records go.
        device: one of `auto`, `cuda`, `simulated`; `gpu` and `budget_bytes` as in `watch_script`.

    Raises:
        ConfigError: a value is not usable.
        DeviceError: the device is not to be had.
    """
    opened = choose_device(device, gpu, budget_bytes)
    begin = time.perf_counter()
    outcome, message = Outcome.COMPLETED, ""
    with LogWriter(log) as writer:
        observer = ScriptObserver(opened, writer.write, "the cell")
        try:
            with observer.running():
                error = run()
                if error is not None:
                    raise error
        except BaseException as ended_by:
            outcome, message = _outcome_of(ended_by, opened)
        if outcome is Outcome.COMPLETED:
            observer.end_script()
        observer.end_log(outcome, message, time.perf_counter() - begin)
    return outcome


def end_of(error: BaseException, device: Device) -> tuple[Outcome, str]:
    """Show what ended the script where Python would; return the outcome and why."""
    if isinstance(error, SystemExit):
        return _exit(error)
    show_traceback(error)
    return _outcome_of(error, device)


def _outcome_of(error: BaseException, device: Device) -> tuple[Outcome, str]:
    if isinstance(error, KeyboardInterrupt):
        return Outcome.STOPPED, "the script was interrupted"
    if device.as_out_of_memory(error) is not None:
        return Outcome.OOM, ""
    return Outcome.ERROR, message_of(error)


def _exit(error: SystemExit) -> tuple[Outcome, str]:
    """Return how a script ended that called `sys.exit`: 0 and nothing are success, text is an error message."""
    if error.code is None or error.code == 0:
        return Outcome.COMPLETED, ""
    if not isinstance(error.code, int):
        print(error.code, file=sys.stderr)
        return Outcome.ERROR, f"the script exited with: {error.code}"
    return Outcome.ERROR, f"the script exited with code {error.code}"
