"""A whole probe: run as configured, find out why it fails, try fixes one at a time, each in a fresh process.

A fix counts as verified only when a re-run from nothing no longer shows the cause that the fix addresses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from configs.schema import RunConfig
from harness.errors import HarnessError
from harness.records import Outcome
from harness.runlog import RunLog, read_run_log
from probes.detectors import detect
from probes.findings import Finding, Fix, FixResult
from probes.fixes import propose

Progress = Callable[[str, int, int], None]
"""takes what runs, steps done, steps in all"""

ROOT = Path(__file__).resolve().parent.parent


class RunDied(HarnessError):
    """A run ended by an error that is not a lack of memory; its own message has the details."""


class RunRefused(HarnessError):
    """A run could not start: something that the user gave has to change."""


@dataclass(frozen=True)
class Count:
    """How the run ends with another number of samples."""

    samples: int
    step: int
    total_steps: int
    outcome: Outcome


@dataclass
class Session:
    """What a probe has found out so far."""

    config: RunConfig
    as_configured: RunLog
    findings: list[Finding]
    counts: list[Count]
    fixed_config: RunConfig
    with_fixes: RunLog | None = None
    fixes: list[FixResult] = field(default_factory=list)


def run_session(
    config: RunConfig, folder: Path, *, try_fixes: bool, counts: list[int], progress: Progress
) -> Session:
    """Run the configuration and, where it runs out of memory, the fixes; logs go to `folder`.

    Raises:
        RunRefused: a value of the configuration or the corpus is not usable.
        RunDied: a run failed for another reason than memory.
    """
    log, ended = run_in_fresh_process(config, folder / "as_configured.jsonl", counts, "as configured", progress)
    session = Session(config, log, detect(log), ended, config)
    if log.outcome is Outcome.OOM and try_fixes:
        find_fixes(session, folder, progress)
    return session


def find_fixes(session: Session, folder: Path, progress: Progress) -> None:
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
        number = len(tried)
        rerun, _ = run_in_fresh_process(candidate, folder / f"{number}_{fix.name}.jsonl", [], fix.name, progress)
        found = detect(rerun)
        helped = _is_verified(fix, findings, found)
        session.fixes.append(_result(fix, log, rerun, helped))
        if helped:
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


def _is_verified(fix: Fix, before: list[Finding], after: list[Finding]) -> bool:
    """Tell whether what the fix addresses was found before and no longer is."""
    addressed = {f.cause for f in before if f.severity != "info"} & set(fix.addresses)
    remaining = {f.cause for f in after if f.severity != "info"}
    return bool(addressed) and not addressed & remaining


def _result(fix: Fix, before: RunLog, after: RunLog, helped: bool) -> FixResult:
    return FixResult(
        name=fix.name,
        title=fix.title,
        addresses=fix.addresses,
        equivalence=fix.equivalence,
        verified=helped,
        before_peak_bytes=before.needed_bytes,
        after_peak_bytes=after.needed_bytes,
        applied=helped,
        note="" if helped else "tried, and the cause is still there",
    )


def run_in_fresh_process(
    config: RunConfig, log: Path, counts: list[int], title: str, progress: Progress
) -> tuple[RunLog, list[Count]]:
    """Run `probes.worker` on the configuration; return its log and how other numbers of samples end.

    Raises:
        RunRefused: the worker says what the user has to change.
        RunDied: the worker failed; its traceback went to standard error.
    """
    request = json.dumps({"config": config.to_dict(), "log": str(log), "counts": counts})
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "probes.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        last = _follow(process, request, title, progress)
        if "error" in last:
            raise RunRefused(str(last["error"]))
        if process.returncode or "counts" not in last:
            errors.seek(0)
            sys.stderr.write(errors.read())
            raise RunDied(f"the run '{title}' died with exit code {process.returncode}; its log is {log}")
    ended = [Count(samples, step, total, Outcome(end)) for samples, step, total, end in last["counts"]]  # type: ignore[attr-defined]
    return read_run_log(log), ended


def _follow(process: subprocess.Popen[str], request: str, title: str, progress: Progress) -> dict[str, object]:
    """Send the request, report progress until the process ends, return its last message."""
    assert process.stdin is not None and process.stdout is not None
    progress(title, 0, 0)
    last: dict[str, object] = {}
    with process:
        process.stdin.write(request + "\n")
        process.stdin.close()
        for line in process.stdout:
            if not line.startswith("{"):
                continue  # a library's own output
            last = json.loads(line)
            if isinstance(steps := last.get("steps"), list):
                progress(title, *steps)
    return last
