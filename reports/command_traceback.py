"""The command that explains a pasted out-of-memory, and simulates the run beside it where it is told which one."""

from __future__ import annotations

from pathlib import Path

from memory_harness.configs.cli import Command
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import check_output
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.traceback_text import OomMessage, read_traceback
from memory_harness.probes.session.session import run_session
from memory_harness.probes.traceback.diagnosis import Diagnosis, diagnose
from memory_harness.reports.files import new_folder, write_file
from memory_harness.reports.html import page_text
from memory_harness.reports.progress import progress_bars
from memory_harness.reports.terminal import make_console, print_sections, sections_svg
from memory_harness.reports.traceback import FROM_TEXT, traceback_banner, traceback_json, traceback_sections

RUN_FLAGS = {"preset", "import_recipe", "model"}
"""What says which run the traceback is of."""
CARD_FLAGS = {"gpu", "gpu_file", "budget_bytes"}
"""What says which card it ran on, where the traceback's own numbers are not to be taken."""


def explain_traceback(command: Command, path: Path) -> int:
    """Explain the out-of-memory in a file; return the exit code, that of a run which does not fit."""
    traceback = read_traceback(path)
    simulated = None
    if not command.given.isdisjoint(RUN_FLAGS):
        is_on_its_card = command.given.isdisjoint(CARD_FLAGS)
        simulated = _simulate(_on_its_card(command.config, traceback.message) if is_on_its_card else command.config)
    diagnosis = diagnose(traceback, simulated)
    _write_files(command, diagnosis)
    print_sections(traceback_sections(diagnosis), make_console())
    return 1


def _on_its_card(config: RunConfig, message: OomMessage) -> RunConfig:
    """Return the configuration with the budget that PyTorch had on the card of the traceback."""
    if message.reserved_bytes is None or message.free_bytes is None:
        return config
    # a limit may be lower, and a driver that does not know what is free says more than there is
    sizes = (message.reserved_bytes + message.free_bytes, message.allowed_bytes, message.total_bytes)
    return config.with_fields(budget_bytes=min(filter(None, sizes), default=None))


def _simulate(config: RunConfig) -> RunLog:
    folder = new_folder(check_output(config), config.fingerprint())
    with progress_bars() as show:
        return run_session(config, folder, try_fixes=False, counts=[], progress=show).as_configured


def _write_files(command: Command, diagnosis: Diagnosis) -> None:
    sections = traceback_sections(diagnosis)
    if command.json is not None:
        write_file("json", command.json, traceback_json(diagnosis))
    if command.svg is not None:
        write_file("svg", command.svg, sections_svg(sections))
    if command.html is not None:
        facts = [diagnosis.reading.family]
        page = page_text(sections, traceback_banner(diagnosis), facts, FROM_TEXT, "traceback")
        write_file("html", command.html, page)
