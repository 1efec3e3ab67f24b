"""The magic of a notebook: `%load_ext memory_harness`, then `%%watch` before a cell that trains."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.units import parse_bytes
from memory_harness.harness.log.remarks import quiet_imports
from memory_harness.harness.observe.run_script import hide_own_frames
from memory_harness.reports.files import new_folder
from memory_harness.reports.shown import Report, report_of_log

CELL_LOG = "as_configured.jsonl"


def load(shell: Any) -> None:
    """Make the magic known to an IPython shell."""

    def watch(line: str, cell: str) -> Report | None:
        return watch_and_report(shell, line, cell)

    watch.__doc__ = "Run the cell, and report on its memory: %%watch [--budget SIZE] [--gpu NAME] [--output DIR]"
    shell.register_magic_function(watch, "cell", "watch")


def show_in_cell(report: Report) -> bool:
    """Show a report as a page below the cell that runs; return whether there is one."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # a terminal's IPython shows text
        return False
    ipython.display.display(report)
    return True


def watch_and_report(shell: Any, line: str, cell: str) -> Report | None:
    """Run a cell under observation, in the notebook's own variables; return the report, which shows itself."""
    try:
        asked = _arguments(line)
        folder = new_folder(_made(Path(asked.output)), "cell")
    except ConfigError as error:
        print(f"%%watch: {error}")
        return None
    log = folder / CELL_LOG

    def run() -> BaseException | None:
        with _showing_its_frames_alone(shell):
            done = shell.run_cell(cell, silent=False)
        error: BaseException | None = done.error_before_exec or done.error_in_exec
        return error

    with quiet_imports():
        from memory_harness.probes.session.watch import watch_cell  # importing PyTorch takes seconds

    watch_cell(run, log, device=asked.device, gpu=asked.gpu, budget_bytes=asked.budget)
    print(f"log: {log}")
    return report_of_log(log)


@contextmanager
def _showing_its_frames_alone(shell: Any) -> Iterator[None]:
    """Within, a traceback that the shell shows is that of the cell, without the frames of the harness."""
    show = shell.showtraceback

    def showtraceback(*arguments: Any, **options: Any) -> None:
        hide_own_frames(sys.exception(), set())
        show(*arguments, **options)

    shell.showtraceback = showtraceback
    try:
        yield
    finally:
        shell.showtraceback = show


def _arguments(line: str) -> argparse.Namespace:
    """Return what stands behind the magic. Raises ConfigError: it is not understood."""
    parser = argparse.ArgumentParser(prog="%%watch", exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--budget", type=_size)
    parser.add_argument("--gpu")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", default="runs")
    try:
        asked, unknown = parser.parse_known_args(shlex.split(line))
    except (argparse.ArgumentError, ValueError) as error:
        raise ConfigError(str(error)) from None
    if unknown:
        raise ConfigError(f"{unknown[0]}: unknown (allowed: --budget SIZE, --gpu NAME, --device NAME, --output DIR)")
    return asked


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder}: cannot be made ({error.strerror}); give another folder") from None
    return folder
