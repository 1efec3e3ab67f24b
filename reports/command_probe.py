"""The command that probes: runs the probe, and says what to run next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from memory_harness.configs.cli import Command
from memory_harness.configs.validation import check_output
from memory_harness.harness.log.errors import DataError
from memory_harness.probes.session.gate import Gate, gate_of
from memory_harness.probes.session.process import RunRefused
from memory_harness.probes.session.session import Session, run_session, write_outcome
from memory_harness.reports.command_estimate import keep_estimate_of
from memory_harness.reports.companion import Follow
from memory_harness.reports.files import new_folder
from memory_harness.reports.next_step import next_step
from memory_harness.reports.progress import progress_bars
from memory_harness.reports.summary import ProbeResult, verdict_of

SAMPLE_COUNTS = (600, 2000, 4000)
"""a failure at the same fraction of the run whatever the number of samples is shown, not claimed"""


def probe(command: Command, arguments: Sequence[str], follow: Follow) -> tuple[ProbeResult, Gate | None]:
    """Run the probe; return what it found, and what it lets train."""
    begin = time.monotonic()
    config = command.config
    folder = new_folder(check_output(config), config.fingerprint())
    follow(folder)
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
    session.seconds = time.monotonic() - begin
    write_outcome(session, folder)
    keep_estimate_of(session)
    result, gate = result_of_session(session), gate_of(session, folder)
    if command.train and gate is not None:
        return replace(result, goes_on=True), gate
    return replace(result, next_step=next_step(result, arguments)), gate


def result_of_session(session: Session) -> ProbeResult:
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
        seconds=session.seconds,
    )
