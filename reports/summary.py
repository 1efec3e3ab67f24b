"""What a probe found, in one record that the terminal, JSON and other reports show; and its verdict in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import AgreementRecord, OomRecord, Outcome, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.findings import Equivalence, Finding, FixResult, OtherCount
from memory_harness.probes.plan.choose import Limits, Plan
from memory_harness.reports.text import Level, gib, of_budget, plural

Verdict = Literal["pass", "pass_with_fixes", "fail"]

WITHOUT_STEPS = {
    Phase.LOAD: "loading the model",
    Phase.DATA: "preparing the data",
    Phase.RESUME: "resuming from the checkpoint",
    Phase.FORWARD: "the forward pass",
    Phase.BACKWARD: "the backward pass",
    Phase.OPTIMIZER: "the optimizer",
    Phase.STEP: "the training step",
    Phase.EVAL: "the evaluation",
    Phase.CHECKPOINT: "the checkpoint",
    Phase.GENERATE: "generating replies",
}
"""Each phase where nothing says at which step it was."""

MIN_SHOWN_SHARE = 0.001
"""Least share of the live bytes that is worth a number."""

EQUIVALENCE: dict[Equivalence, str] = {
    "exact": "same results, bit for bit",
    "numerical": "same results up to rounding",
    "reordered": "same samples in another order",
    "data": "changes what is learned",
}

WEIGHTS = {
    "none": "none (fake tensors): nothing is computed, so there is no loss",
    "random": "random, so the loss means nothing",
    "checkpoint": "the checkpoint's",
}

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "pass_with_fixes": 0, "fail": 1}


@dataclass(frozen=True)
class ProbeResult:
    """Everything that a report shows."""

    as_configured: RunLog
    findings: list[Finding]
    verdict: Verdict
    with_fixes: RunLog | None = None
    """the run with the applied fixes, where fixes were tried"""
    fixes: list[FixResult] = field(default_factory=list)
    other_counts: list[OtherCount] = field(default_factory=list)
    predicted: RunLog | None = None
    """the simulation of the run that was measured last, where one was"""
    whole_run: RunLog | None = None
    """the simulation of all of its steps, of which only a rehearsal was measured"""
    plan: Plan | None = None
    limits: Limits | None = None
    """the fixes that were planned, and the limits, where asked for"""
    next_command: str = ""
    seconds: float = 0.0
    """time the whole probe took"""


def verdict_of(as_configured: RunLog, with_fixes: RunLog | None, fixes: Sequence[FixResult] = ()) -> Verdict:
    """Return whether the run fits; fixes count only when each applied one was verified."""
    if as_configured.outcome is Outcome.COMPLETED:
        return "pass"
    verified = all(fix.verified for fix in fixes if fix.applied)
    if with_fixes is not None and with_fixes.outcome is Outcome.COMPLETED and verified:
        return "pass_with_fixes"
    return "fail"


def exit_code(verdict: Verdict) -> int:
    """Return the process's exit code: 0 where the run fits, with or without fixes, else 1."""
    return EXIT_CODES[verdict]


def result_of_log(log: RunLog, next_command: str = "") -> ProbeResult:
    """Return the result that a log alone supports: its findings and verdict, no fixes."""
    findings = detect(log)
    verdict = verdict_of(log, None)
    # what grows in a script runs out of memory in a longer run, whatever the budget
    if log.run.script and any(finding.severity == "error" for finding in findings):
        verdict = "fail"
    return ProbeResult(log, findings, verdict, next_command=next_command)


def agreement_in_words(agreement: AgreementRecord) -> str:
    """Return how the losses agree, and what they are losses of."""
    of = "this run" if agreement.on_recipe else "a tiny model on real tensors, as this run computed nothing"
    if agreement.equivalence == "data":
        return "losses not compared, as the samples differ"
    if agreement.difference is None:
        return f"as many samples in each step, the same tokens in an epoch: {of}"
    if agreement.difference == 0:
        return f"losses equal bit for bit: {of}"
    return f"losses differ by {agreement.difference:.1e} of themselves (allowed: {agreement.tolerance:.0e}): {of}"


def phase_levels(log: RunLog) -> dict[Phase, Level]:
    """Return per phase the peaks, in order of first occurrence; the phase that failed with what it asked for."""
    levels = {
        phase: Level(stats.peak_allocated_bytes, stats.peak_reserved_bytes) for phase, stats in log.peaks().items()
    }
    oom = log.fatal_oom
    if oom is not None:
        before = levels.get(oom.phase, Level())
        allocated = max(before.allocated_bytes, oom.allocated_bytes)
        reserved = max(before.reserved_bytes, oom.reserved_bytes)
        levels[oom.phase] = Level(allocated, reserved, oom.requested_bytes, allocated - oom.allocated_bytes)
    return levels


def verdict_title(result: ProbeResult) -> str:
    """Return the verdict in two to four words, in capitals."""
    num_applied = sum(fix.applied for fix in result.fixes)
    undecided = result.as_configured.outcome in (Outcome.STOPPED, Outcome.ERROR)
    return {
        "pass": "FITS",
        "pass_with_fixes": f"FITS WITH {plural(num_applied, 'FIX', 'FIXES')}",
        "fail": "NOT DECIDED" if undecided else "DOES NOT FIT" if result.as_configured.fatal_oom else "GROWS",
    }[result.verdict]


def verdict_sentence(result: ProbeResult) -> str:
    """Return the verdict in one sentence that a newcomer understands."""
    log, fixed = result.as_configured, result.with_fixes
    applied = plural(sum(fix.applied for fix in result.fixes), "fix", "fixes")
    if result.verdict == "pass":
        return f"{'The script fits' if log.run.script else 'Fits as configured'}: {_peak(log)}."
    if log.outcome is Outcome.COMPLETED:
        return f"The script ended within the budget ({_peak(log)}), but what it holds grows with every step."
    if log.fatal_oom is None:
        return _unfinished(log)
    failure = f"Does not fit as configured: {_failure(log, log.fatal_oom)}"
    if result.verdict == "pass_with_fixes" and fixed is not None:
        return f"{failure}; with {applied} it fits ({_peak(fixed, 'peak')})."
    if fixed is not None and fixed.fatal_oom is not None:
        return f"{failure}; even with {applied}, {_failure(fixed, fixed.fatal_oom)}."
    if result.fixes:
        return f"{failure}; no fix that was tried makes it fit."
    return f"{failure}, with {of_budget(log.fatal_oom.allocated_bytes, log.fatal_oom.budget_bytes)} taken."


def _peak(log: RunLog, words: str = "the peak is") -> str:
    return f"{words} {of_budget(log.peak_allocated_bytes, log.run.budget_bytes)}"


def _failure(log: RunLog, oom: OomRecord) -> str:
    return f"{phase_in_words(log, oom.phase, oom.step, oom.epoch)} asks for {format_bytes(oom.requested_bytes)} at once"


def _unfinished(log: RunLog) -> str:
    step = log.steps[-1].step if log.steps else 0
    of_total = f" of {log.run.total_steps}" if log.run.total_steps else ""
    at_step = f"after step {step}{of_total}" if step else ""
    where = ", ".join(filter(None, [at_step, f"in {log.last_phase}" if log.last_phase else ""]))
    if log.outcome is Outcome.STOPPED:
        return f"Not decided: {_stop(log)} {where}; until then {_peak(log)}."
    reason = f": {log.end.message}" if log.end and log.end.message else " without saying why; memory had not run out"
    return f"Not decided: the log ends {where}{reason}."


def _stop(log: RunLog) -> str:
    return log.end.message if log.end and log.end.message else "the run was stopped"


def phase_in_words(log: RunLog, phase: Phase, step: int, epoch: int) -> str:
    """Return `the evaluation at the end of epoch 1 of 2 (step 1600 of 3200)` and the like."""
    if not step:  # a memory snapshot counts no steps
        return WITHOUT_STEPS[phase]
    of_total = f"{step} of {log.run.total_steps}" if log.run.total_steps else str(step)
    at_end = bool(log.run.steps_per_epoch) and step == epoch * log.run.steps_per_epoch
    of_epochs = f" of {config_of(log).train.epochs}" if has_config(log) else ""
    moment = f"at the end of epoch {epoch}{of_epochs} (step {of_total})" if at_end else f"after step {of_total}"
    words = WITHOUT_STEPS | {
        Phase.FORWARD: f"the forward pass of step {of_total}",
        Phase.BACKWARD: f"the backward pass of step {of_total}",
        Phase.OPTIMIZER: f"the optimizer in step {of_total}",
        Phase.STEP: f"step {of_total}",
        Phase.EVAL: f"the evaluation {moment}",
        Phase.CHECKPOINT: f"the checkpoint {moment}",
        Phase.GENERATE: f"generating replies after step {of_total}",
    }
    return words[phase]


def timeline(log: RunLog, num_columns: int) -> list[Level]:
    """Return the run cut into columns of equally many steps, each with its highest level; not reached is empty."""
    total = max(log.run.total_steps, max((p.step for p in log.phases), default=0), 1)
    num_columns = max(1, num_columns)
    columns = [Level()] * num_columns
    for record in log.phases:
        if record.step > 0:
            i = (record.step - 1) * num_columns // total
            peaks = Level(record.after.peak_allocated_bytes, record.after.peak_reserved_bytes)
            columns[i] = _higher(columns[i], peaks)
    oom = log.fatal_oom
    if oom is not None and oom.step > 0:
        i = min(num_columns - 1, (oom.step - 1) * num_columns // total)
        columns[i] = Level(oom.allocated_bytes, oom.reserved_bytes, oom.requested_bytes)
    return columns


def _higher(a: Level, b: Level) -> Level:
    return Level(max(a.allocated_bytes, b.allocated_bytes), max(a.reserved_bytes, b.reserved_bytes))


def scale_bytes(result: ProbeResult) -> int:
    """Return what the full length of a bar stands for: the budget, or the highest level where that is more."""
    logs = [log for log in (result.as_configured, result.with_fixes) if log is not None]
    levels = [level for log in logs for level in phase_levels(log).values()]
    return max([log.run.budget_bytes for log in logs] + [level.top_bytes for level in levels])


def source_in_words(log: RunLog) -> str:
    """Return where the numbers come from: `simulated on: Tesla T4` or `measured on: ...`."""
    return f"{'measured' if log.run.source == 'cuda' else 'simulated'} on: {log.run.gpu_name}"


def budget_in_words(log: RunLog) -> str:
    """Return what PyTorch may use of the card."""
    return f"{log.run.gpu_name}, {gib(log.run.budget_bytes)} GiB for PyTorch"


def largest(live: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the categories worth a number; the others together."""
    least = MIN_SHOWN_SHARE * sum(size for _, size in live)
    # a snapshot lists lines of code in place of categories
    shown = [(name if ":" in name else name.replace("_", " "), size) for name, size in live if size >= least]
    rest = sum(size for _, size in live) - sum(size for _, size in shown)
    return [*shown, ("other", rest)] if rest >= least > 0 else shown


def basis(result: ProbeResult) -> dict[str, str]:
    """Return what a report rests on, by name; empty where it does not apply."""
    log = result.as_configured
    run = log.run
    how = "measured with CUDA" if run.source == "cuda" else "simulated with a model of PyTorch's allocator; no GPU used"
    return {
        "memory": how,
        "card": budget_in_words(log),
        "script": f"{run.script}, unmodified; its phases and steps are inferred" if run.script else "",
        "model": run.model.name if run.model else "",
        "weights": WEIGHTS.get(run.model.weights, run.model.weights) if run.model else "",
        "slower": "; ".join(run.model.fallbacks) if run.model else "",
        "corpus": f"{run.corpus}: {run.num_train_samples} samples for training, {run.num_eval_samples} for evaluation"
        if run.num_train_samples
        else "",
        "probe": f"took {result.seconds:.0f} s" if result.seconds else "",
        "log": f"{plural(log.num_unreadable_lines, 'line')} could not be read" if log.num_unreadable_lines else "",
    }
