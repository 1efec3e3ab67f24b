"""A whole probe: run as configured, find out why it fails, try fixes one at a time.

A fix that leaves the model as it is runs, from empty memory, in a process that has recorded it; others each in a fresh
one. A fix counts as verified only when a re-run from nothing no longer shows the cause that the fix addresses and
the losses agree as its class demands, see `probes.plan.verify`. With a goal, a plan says which fixes are tried, see
`probes.plan.choose`: they are proved together, and one at a time only where that fails.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import capabilities_of
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.records import AgreementRecord, OomRecord, Outcome
from memory_harness.harness.log.runlog import LogWriter, RunLog, predicted_log, read_run_log, whole_run_log
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.reading import config_of
from memory_harness.probes.findings import Finding, Fix, FixResult, OtherCount, first_error
from memory_harness.probes.fixes import propose
from memory_harness.probes.plan.choose import (
    Goal,
    Limits,
    Plan,
    Prediction,
    apply_all,
    planned_fix,
    read_plan,
    write_plan,
)
from memory_harness.probes.plan.pool import limits_of, plan_fixes, start_comparison, start_processes
from memory_harness.probes.plan.recorded import recording_of
from memory_harness.probes.plan.verify import NOT_COMPARED, agreement_of, slowdown_of, why_not_verified
from memory_harness.probes.session.fork_server import can_fork, process_context
from memory_harness.probes.session.process import OnProgress, Worker, start_probing_worker

Rerun = Callable[[RunConfig, Path, str], RunLog | None]
"""takes a configuration, its log file and a title; returns what the log says, or None where there is no such run"""

FIRST_LOG = "as_configured.jsonl"

TOGETHER = "together"
"""in the name of the log of a run that proves several fixes"""

PLAN_FILE = "plan.json"

OUTCOME_FILE = "outcome.json"
"""what no log of the probe says: how the run ended with other numbers of samples, and what time all of it took"""

NUM_PREDICTING_PROCESSES = 2

StartComparison = Callable[[str], Callable[[], AgreementRecord | None]]
"""takes a fix's name, begins to compare losses on a tiny model, returns what waits for the result: None says that
nothing was compared"""


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
    plan: Plan | None = None
    """where a goal was given"""
    limits: Limits | None = None
    """the largest that fit with the fixes, where that was asked for"""
    seconds: float = 0.0
    """that the probe took"""


def run_session(
    config: RunConfig,
    folder: Path,
    *,
    try_fixes: bool,
    counts: list[int],
    progress: OnProgress,
    snapshot: Path | None = None,
    fault: str | None = None,
    goal: Goal | None = None,
    headroom_bytes: int = 0,
    limits: bool = False,
) -> Session:
    """Run the configuration and, where it runs out of memory, the fixes and other numbers of samples.

    Logs go to `folder`, the memory of the configured run to `snapshot`. `progress` is told of an out-of-memory and its
    cause as soon as they are known, long before the fixes are verified. With a fault planted, nothing else is run: a
    fix would be tried on a run that the fault has configured. The process for the first fix that needs one gets ready
    during the first run.

    Args:
        goal: plan which fixes to try; without one, those for the causes that were found are tried, cheapest first.
        headroom_bytes: what a plan and the limits leave free of the budget.
        limits: find the largest batch, length and token cap that fit with the fixes.

    Raises:
        RunRefused: a value of the configuration is not usable.
        DataError: the corpus is not.
        RunDied: a run failed for another reason than memory.
    """
    if fault is not None:
        try_fixes, counts = False, []
    data = None
    if can_fork() and not capabilities_of(config).is_imported_first:
        process_context()  # begins to import PyTorch, which takes longer
        data = prepare(config)
    num_predicting = NUM_PREDICTING_PROCESSES if goal or limits else 1
    with ExitStack() as stack:
        planner = stack.enter_context(ThreadPoolExecutor(1))  # ends last: what it waits for has ended by then
        runners = _Runners(stack, config, progress, data)
        pool = stack.enter_context(start_processes(num_predicting, process_context()))
        if try_fixes:
            runners.prepare(config)
        plan: Future[Plan] | None = None
        if try_fixes and goal:
            make = partial(plan_fixes, config, pool, goal, headroom_bytes, runners.fewest_recomputed)
            if config.device.device != "cuda":  # whose speeds are measured while nothing else runs there
                plan = planner.submit(make)
        log = runners.first.run(config, folder / FIRST_LOG, "as configured", progress, snapshot, fault)
        session, last_log = _begin(config, log), folder / FIRST_LOG
        if log.fatal_oom is not None:
            progress(first_answer(log.fatal_oom, session.findings), log.fatal_oom.step, log.run.total_steps)
        # what was recorded for a snapshot belongs to one run
        runners.is_recorded = log.run.source == "simulated" and config.device.tensors == "fake" and snapshot is None
        others = runners.first.other_counts(config, counts)
        if try_fixes:
            if goal:
                session.plan = (plan or planner.submit(make)).result()
            last_log = find_fixes(session, folder, runners.run, partial(start_comparison, pool))
        if limits:
            session.limits = limits_of(session.fixed_config, pool, headroom_bytes)
        if session.plan or session.limits:
            write_plan(folder / PLAN_FILE, session.plan, session.limits)
    _read_predictions(session, last_log)
    if others:
        session.counts = sorted([*others, _count_of(session.as_configured)])
    return session


class _Runners:
    """Workers, each of which runs what replays the model that it has recorded.

    Args:
        stack: ends them.
        config: of the first run.
        progress: told of the steps.
        data: of the first run, where they are prepared.
    """

    def __init__(self, stack: ExitStack, config: RunConfig, progress: OnProgress, data: Prepared | None) -> None:
        self._stack = stack
        self._progress = progress
        self.first = stack.enter_context(start_probing_worker(config, data))
        self._spares: list[Worker] = []
        self._by_recording = {recording_of(config): self.first}
        self.is_recorded = False
        """whether one serves further runs"""

    def prepare(self, config: RunConfig) -> None:
        """Let another one get ready."""
        worker = self._stack.enter_context(start_probing_worker(config))
        if not capabilities_of(config).is_imported_first:  # it warms up with what it would have to come before
            worker.warm_up()
        self._spares.append(worker)

    def run(self, config: RunConfig, log: Path, title: str) -> RunLog:
        """Implement `Rerun`."""
        worker = self._by_recording.get(recording_of(config)) if self.is_recorded else None
        return (worker or self._take(config)).run(config, log, title, self._progress)

    def fewest_recomputed(self, config: RunConfig, headroom_bytes: int) -> tuple[str, Prediction | None]:
        """Implement `FewestRecomputed`; what is recorded for it serves the run that proves it."""
        return self._take(config).fewest_recomputed(config, headroom_bytes)

    def _take(self, config: RunConfig) -> Worker:
        worker = self._spares.pop() if self._spares else self._stack.enter_context(start_probing_worker(config))
        self._by_recording[recording_of(config)] = worker
        return worker


def first_answer(oom: OomRecord, findings: list[Finding]) -> str:
    """Return where the configured run went out of memory, and why, for people who wait for its fixes."""
    error = first_error(findings)
    why = "" if error is None else f": {error.cause}"
    return f"out of memory in {oom.phase}{why}"


def session_of_folder(folder: Path) -> Session:
    """Return what the probe that wrote its logs into `folder` found out; runs nothing.

    Raises:
        LogError: it holds no log of a configured run, or one of another release.
    """

    def run(config: RunConfig, log: Path, title: str) -> RunLog | None:
        return read_run_log(log) if log.exists() else None

    log = read_run_log(folder / FIRST_LOG)
    session = _begin(config_of(log), log)
    session.plan, session.limits = read_plan(folder / PLAN_FILE)
    _read_predictions(session, find_fixes(session, folder, run))
    _read_outcome(session, folder / OUTCOME_FILE)
    return session


def write_outcome(session: Session, folder: Path) -> None:
    """Write what no log says into the folder of the logs, for `session_of_folder`."""
    counts = [count._asdict() for count in session.counts]
    write_whole(folder / OUTCOME_FILE, json.dumps({"seconds": session.seconds, "counts": counts}, indent=1) + "\n")


def _read_outcome(session: Session, file: Path) -> None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        for count in content["counts"]:
            session.counts.append(OtherCount(**{**count, "outcome": Outcome(count["outcome"])}))
        session.seconds = float(content["seconds"])
    except FileNotFoundError:  # of a probe that was cut off
        return
    except (OSError, ValueError, KeyError, TypeError):
        raise LogError(
            f"{file}: damaged, or of another release; without it the rest of the probe can be read"
        ) from None


def _read_predictions(session: Session, last: Path) -> None:
    if predicted_log(last).exists():
        session.predicted = read_run_log(predicted_log(last))
    if whole_run_log(last).exists():
        session.whole_run = read_run_log(whole_run_log(last))


def _begin(config: RunConfig, log: RunLog) -> Session:
    return Session(config, log, detect(log), config)


def _count_of(log: RunLog) -> OtherCount:
    run, step = log.run, log.end.step if log.end else 0
    samples = config_of(log).data.samples or run.num_train_samples + run.num_eval_samples
    return OtherCount(samples, step, run.total_steps, log.outcome)


def find_fixes(session: Session, folder: Path, run: Rerun, compare: StartComparison | None = None) -> Path:
    """Try fixes, each on top of those that held: the plan's together, else the cheapest for what fails next.

    A fix that leaves its cause in place, or changes the losses, is taken back and reported as one that did not help.

    Args:
        session: takes the results.
        folder: of the logs.
        run: runs a configuration, or reads what such a run wrote.
        compare: compares losses where a run computes none; without it, what a log says of them counts.

    Returns:
        The log of the last run that is part of the result.
    """
    trial = _Trial(session, folder, run, compare)
    with suppress(_NoSuchRun):
        for fixes in _planned(session):
            if not trial.holds(fixes) and len(fixes) > 1:
                for fix in fixes:
                    trial.holds([fix])
        while next_fix := _next_fix(trial):
            trial.holds([next_fix])
    return trial.path


class _NoSuchRun(Exception):
    """A folder that is read holds no log of a run that would come next."""


class _Trial:
    """Proves fixes by running again, each on top of those that held.

    Args:
        as for `find_fixes`.
    """

    def __init__(self, session: Session, folder: Path, run: Rerun, compare: StartComparison | None) -> None:
        self.session = session
        self.log = session.as_configured
        """of the last run that is part of the result"""
        self.findings = session.findings
        """in it"""
        self.path = folder / FIRST_LOG
        self._folder = folder
        self._run = run
        self._compare = compare
        self._num_runs = 0

    def holds(self, fixes: Sequence[Fix]) -> bool:
        """Return whether these fixes together, of which one alone is reported in any case, do what they are for.

        Raises:
            _NoSuchRun: there is no such run.
        """
        session, before, findings = self.session, self.log, self.findings
        candidate = apply_all(session.fixed_config, fixes)
        if candidate == session.fixed_config:  # what it needs did not hold
            return False
        comparisons: dict[str, Callable[[], AgreementRecord | None]] = {}
        if self._compare is not None and not _computes(before):
            comparisons = {fix.name: self._compare(fix.name) for fix in fixes}
        self._num_runs += 1
        name = fixes[0].name if len(fixes) == 1 else TOGETHER
        path = self._folder / f"{self._num_runs}_{name}.jsonl"
        rerun = self._run(candidate, path, name)
        if rerun is None:
            raise _NoSuchRun
        found, results = detect(rerun), []
        agreements = {record.fix: record for record in rerun.agreements}
        for fix in fixes:
            agreement = agreements.get(fix.name)
            if agreement is None:
                wait = comparisons.get(fix.name)
                agreement = wait() if wait is not None else agreement_of(fix, before, rerun)
                if self._compare is not None:  # a folder that is only read stays as it is
                    _keep(agreement, path)
            problem = why_not_verified(fix, findings, found, agreement)
            results.append(_result(fix, before, rerun, problem, agreement, session.plan))
        is_proved = all(result.verified for result in results)
        if is_proved:
            session.fixed_config, session.with_fixes = candidate, rerun
            self.log, self.findings, self.path = rerun, found, path
        if is_proved or len(fixes) == 1:
            names = tuple(fix.name for fix in fixes)
            for result in results:
                others = tuple(name for name in names if name != result.name)
                session.fixes.append(replace(result, proved_with=others))
        return is_proved


def _planned(session: Session) -> list[list[Fix]]:
    """Return the plan's fixes in the order of their proofs.

    Where losses are computed, each proof is of neighbours of one class alone, by which the losses are judged.
    """
    fixes, config = [], session.fixed_config
    for name in session.plan.chosen.fixes if session.plan else ():
        fix = planned_fix(session.plan, name)
        changed = fix.apply(config)
        if changed is not None:
            fixes.append(fix)
            config = changed
    if not fixes or not _computes(session.as_configured):
        return [fixes] if fixes else []
    return [list(group) for _, group in groupby(fixes, key=lambda fix: fix.equivalence)]


def _next_fix(trial: _Trial) -> Fix | None:
    """Return the cheapest fix for the cause that ended the last run, or for one that takes memory."""
    if trial.log.outcome is not Outcome.OOM:
        return None
    tried = {result.name for result in trial.session.fixes}
    for severity in ("error", "warning"):
        relevant = [finding for finding in trial.findings if finding.severity == severity]
        for fix in propose(relevant, trial.session.fixed_config):
            if fix.name not in tried:
                return fix
    return None


def _computes(log: RunLog) -> bool:
    return any(step.loss is not None for step in log.steps)


def _keep(agreement: AgreementRecord | None, log: Path) -> None:
    """Write what the comparison gave to the log of the run that it is about."""
    if agreement is not None:
        with LogWriter(log) as writer:
            writer.write(agreement)


def _result(
    fix: Fix, before: RunLog, after: RunLog, problem: str, agreement: AgreementRecord | None, plan: Plan | None
) -> FixResult:
    note = NOT_COMPARED if not problem and agreement is None else problem
    return FixResult(
        name=fix.name,
        title=fix.title,
        addresses=fix.addresses,
        equivalence=fix.equivalence,
        verified=not problem,
        before_peak_bytes=before.needed_bytes,
        after_peak_bytes=after.needed_bytes,
        applied=not problem,
        note=note,
        slowdown=slowdown_of(before, after),
        agreement=agreement,
        reason=plan.reasons.get(fix.name, "") if plan else "",
    )
