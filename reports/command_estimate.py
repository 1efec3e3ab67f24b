"""The command that answers in a line: what a run takes, and whether it fits."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from memory_harness.configs.cli import Command
from memory_harness.configs.printable import printable
from memory_harness.probes.session.estimates import Estimate, estimate_key, keep_estimate, kept_estimate
from memory_harness.probes.session.session import Session, run_session
from memory_harness.reports.progress import progress_bars
from memory_harness.reports.summary import ProbeResult, exit_code, source_in_words, verdict_of, verdict_sentence
from memory_harness.reports.text import of_budget


def estimate(command: Command) -> int:
    """Say what the run takes, simulated now or, as far as nothing has changed since, before; return the exit code."""
    config = command.config.with_fields(device="simulated")
    key = estimate_key(config)
    found = kept_estimate(key)
    if found is None:
        with TemporaryDirectory() as folder, progress_bars() as show:
            session = run_session(config, Path(folder), try_fixes=False, counts=[], progress=show)
        found = estimate_of(session)
        keep_estimate(key, found)
    print(printable(found.sentence))
    return found.exit_code


def keep_estimate_of(session: Session) -> None:
    """Keep what a probe has found of the run as configured, where that was simulated and nothing was planted in it."""
    run = session.as_configured.run
    if run.source == "simulated" and not run.fault:
        keep_estimate(estimate_key(session.config), estimate_of(session))


def estimate_of(session: Session) -> Estimate:
    """Return what a probe has found of the run as configured."""
    log = session.as_configured
    result = ProbeResult(log, session.findings, verdict_of(log, None, findings=session.findings))
    reserved = of_budget(log.peak_reserved_bytes, log.run.budget_bytes)
    sentence = f"{verdict_sentence(result)} PyTorch reserves at most {reserved} ({source_in_words(log)})."
    return Estimate(
        sentence, exit_code(result), log.peak_allocated_bytes, log.peak_reserved_bytes, log.run.budget_bytes
    )
