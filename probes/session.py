"""A whole probe: run as configured, find out why it fails, try fixes one at a time, each in a fresh process.

A fix counts as verified only when a re-run from nothing no longer shows the cause that the fix addresses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from configs.schema import RunConfig
from harness.records import Outcome
from harness.runlog import RunLog, predicted_log, read_run_log, whole_run_log
from probes.detectors import detect
from probes.detectors.reading import config_of
from probes.findings import Finding, Fix, FixResult, OtherCount
from probes.fixes import propose
from probes.process import OnProgress, start_worker

Run = Callable[[RunConfig, Path, str], RunLog | None]
"""takes a configuration, its log file and a title; returns what the log says, or None where there is no such run"""

FIRST_LOG = "as_configured.jsonl"

LOSS_TOLERANCE = 0.01
"""Relative difference up to which two mean losses agree: rounding moves a loss by less, another computation by more."""


@dataclass
class Session:
    """What a probe has found out so far."""

    config: RunConfig
    as_configured: RunLog
    findings: list[Finding]
    fixed_config: RunConfig
    with_fixes: RunLog | None = None
    fixes: list[FixResult] = field(default_factory=list)
    counts: list[OtherCount] = field(default_factory=list)
    """how the configured run, and those with other numbers of samples, ended"""
    predicted: RunLog | None = None
    """where the run was measured: the simulation of what was measured last"""
    whole_run: RunLog | None = None
    """where the run was measured: the simulation of all of its steps"""


def run_session(
    config: RunConfig,
    folder: Path,
    *,
    try_fixes: bool,
    counts: list[int],
    progress: OnProgress,
    snapshot: Path | None = None,
    fault: str | None = None,
) -> Session:
    """Run the configuration and, where it runs out of memory, the fixes and other numbers of samples.

    Logs go to `folder`, the memory of the configured run to `snapshot`. With a fault planted, nothing else is run: a
    fix would be tried on a run that the fault has configured. The first process runs the other numbers while
    the fixes run in theirs; the one for the first fix gets ready during the first run.

    Raises:
        RunRefused: a value of the configuration or the corpus is not usable.
        RunDied: a run failed for another reason than memory.
    """
    try_fixes, counts = try_fixes and fault is None, counts if fault is None else []
    with ExitStack() as workers:
        first = workers.enter_context(start_worker())
        spares = [workers.enter_context(start_worker())] if try_fixes else []

        def run(config: RunConfig, log: Path, title: str) -> RunLog:
            worker = spares.pop() if spares else workers.enter_context(start_worker())
            return worker.run(config, log, title, progress)

        if config.model.strategy != "unsloth":  # which has to be imported before what a worker warms up with
            for spare in spares:
                spare.warm_up()
        log = first.run(config, folder / FIRST_LOG, "as configured", progress, counts, snapshot, fault)
        session = _begin(config, log)
        if try_fixes:
            find_fixes(session, folder, run)
        others = first.other_counts()
    _read_predictions(session, folder)
    session.counts = sorted([*others, _count_of(session.as_configured)]) if others else []
    return session


def session_of_folder(folder: Path) -> Session:
    """Return what the probe that wrote its logs into `folder` found out; runs nothing.

    Raises:
        LogError: it holds no log of a configured run, or one of another release.
    """

    def run(config: RunConfig, log: Path, title: str) -> RunLog | None:
        return read_run_log(log) if log.exists() else None

    log = read_run_log(folder / FIRST_LOG)
    session = _begin(config_of(log), log)
    find_fixes(session, folder, run)
    _read_predictions(session, folder)
    return session


def _read_predictions(session: Session, folder: Path) -> None:
    applied = [number for number, fix in enumerate(session.fixes, 1) if fix.applied]
    last = folder / (_fix_log(applied[-1], session.fixes[applied[-1] - 1].name) if applied else FIRST_LOG)
    if predicted_log(last).exists():
        session.predicted = read_run_log(predicted_log(last))
    if whole_run_log(last).exists():
        session.whole_run = read_run_log(whole_run_log(last))


def _fix_log(number: int, name: str) -> str:
    return f"{number}_{name}.jsonl"


def _begin(config: RunConfig, log: RunLog) -> Session:
    return Session(config, log, detect(log), config)


def _count_of(log: RunLog) -> OtherCount:
    run, step = log.run, log.end.step if log.end else 0
    samples = config_of(log).data.samples or run.num_train_samples + run.num_eval_samples
    return OtherCount(samples, step, run.total_steps, log.outcome)


def find_fixes(session: Session, folder: Path, run: Run) -> None:
    """Apply the cheapest fix for what fails, re-run, and go on with what fails next, until the run passes.

    A fix that leaves its cause in place is taken back and reported as one that did not help.
    """
    log, findings = session.as_configured, session.findings
    tried: set[str] = set()
    while log.outcome is Outcome.OOM:
        fix = _next_fix(findings, session.fixed_config, tried)
        if fix is None:
            return
        tried.add(fix.name)
        candidate = fix.apply(session.fixed_config)
        assert candidate is not None, "propose offers only fixes that change something"
        rerun = run(candidate, folder / _fix_log(len(tried), fix.name), fix.name)
        if rerun is None:
            return
        found = detect(rerun)
        problem = _why_not_verified(fix, findings, found, log, rerun)
        session.fixes.append(_result(fix, log, rerun, problem))
        if not problem:
            session.fixed_config, session.with_fixes = candidate, rerun
            log, findings = rerun, found


def _next_fix(findings: list[Finding], config: RunConfig, tried: set[str]) -> Fix | None:
    """Return the cheapest fix for the cause that ended the run, else for one that takes memory it needs."""
    for severity in ("error", "warning"):
        relevant = [finding for finding in findings if finding.severity == severity]
        for fix in propose(relevant, config):
            if fix.name not in tried:
                return fix
    return None


def _why_not_verified(fix: Fix, before: list[Finding], after: list[Finding], log: RunLog, rerun: RunLog) -> str:
    """Return why the re-run does not prove the fix; nothing where its cause is gone and the loss is what it was."""
    addressed = {finding.cause for finding in before if finding.severity != "info"} & set(fix.addresses)
    remaining = addressed & {finding.cause for finding in after if finding.severity != "info"}
    if remaining:
        return f"tried, and {', '.join(sorted(remaining))} is still there"
    losses = _mean_losses(log, rerun)
    if fix.equivalence in ("exact", "numerical") and losses and not math.isclose(*losses, rel_tol=LOSS_TOLERANCE):
        return f"tried, and the loss changes: {losses[0]:.4f} before, {losses[1]:.4f} after, over the same steps"
    return ""


def _mean_losses(log: RunLog, rerun: RunLog) -> tuple[float, float] | None:
    """Return both runs' mean loss over the steps that both have, or None where nothing was computed."""
    before, after = ({step.step: step.loss for step in run.steps if step.loss is not None} for run in (log, rerun))
    common = before.keys() & after.keys()
    if not common:
        return None
    return sum(before[step] for step in common) / len(common), sum(after[step] for step in common) / len(common)


def _result(fix: Fix, before: RunLog, after: RunLog, problem: str) -> FixResult:
    return FixResult(
        name=fix.name,
        title=fix.title,
        addresses=fix.addresses,
        equivalence=fix.equivalence,
        verified=not problem,
        before_peak_bytes=before.needed_bytes,
        after_peak_bytes=after.needed_bytes,
        applied=not problem,
        note=problem,
    )
