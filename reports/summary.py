"""What a probe found, in one record that the terminal, JSON and other reports show; and its verdict in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import OomRecord, Outcome, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.snapshot_contents import Contents
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.findings import Finding, FixResult, OtherCount, first_error
from memory_harness.probes.plan.choose import Limits, Plan
from memory_harness.probes.traceback.rules import Candidate
from memory_harness.reports.blocks import Banner
from memory_harness.reports.text import of_budget, plural, wording

Verdict = Literal["pass", "pass_with_fixes", "fail"]

STOPPED_CODE = 130
"""exit code of a program that Ctrl-C ended"""


class NextStep(NamedTuple):
    """What to do after the report, in words, and the command that does it."""

    words: str
    command: str


@dataclass(frozen=True)
class ProbeResult:
    """Everything that a report shows."""

    as_configured: RunLog
    findings: list[Finding]
    verdict: Verdict
    with_fixes: RunLog | None = None  # the run with the applied fixes, where fixes were tried
    fixes: list[FixResult] = field(default_factory=list)
    other_counts: list[OtherCount] = field(default_factory=list)
    predicted: RunLog | None = None  # the simulation of the run that was measured last, where one was
    whole_run: RunLog | None = None  # the simulation of all of its steps, of which only a rehearsal was measured
    plan: Plan | None = None
    limits: Limits | None = None  # the fixes that were planned, and the limits, where asked for
    next_step: NextStep | None = None  # None where the report alone says it
    goes_on: bool = False  # what passed trains at once
    seconds: float = 0.0  # time the whole probe took
    contents: Contents | None = None  # of a memory snapshot
    causes: tuple[Candidate, ...] = ()  # that a memory snapshot speaks for
    processes: Sequence[RunLog] = ()  # of a watched script that starts some: its own and theirs; one is reported

    @property
    def runs(self) -> list[tuple[str, RunLog]]:
        """The runs that are shown, with their names; the last is the one that was decided on."""
        runs = [("as configured", self.as_configured)]
        if self.with_fixes is not None:
            runs.append(("with fixes", self.with_fixes))
        return runs


def verdict_of(
    as_configured: RunLog,
    with_fixes: RunLog | None,
    fixes: Sequence[FixResult] = (),
    findings: Sequence[Finding] = (),
) -> Verdict:
    """Return whether the run fits; fixes count only when each applied one was verified.

    A run that ended fits unless one of its findings is an error, it went on without work that found no memory, or
    nothing was seen of what it is about.
    """
    if as_configured.outcome is Outcome.COMPLETED:
        is_in_doubt = first_error(findings) is not None or as_configured.given_up or not was_seen(as_configured)
        return "fail" if is_in_doubt or exceeds_budget(as_configured) else "pass"
    verified = all(fix.verified for fix in fixes if fix.applied)
    if with_fixes is not None and with_fixes.outcome is Outcome.COMPLETED and verified:
        return "pass_with_fixes"
    return "fail"


def exceeds_budget(log: RunLog) -> bool:
    """Return whether more was allocated than the budget, which may be named after the run: of a snapshot."""
    return log.run.budget_is_known and log.peak_allocated_bytes > log.run.budget_bytes


def was_seen(log: RunLog) -> bool:
    """Return whether a watched script was seen to train, to evaluate or to generate; of other runs it is known."""
    return not log.run.script or bool(log.steps) or any(phase.phase in _WORK for phase in log.phases)


_WORK = (Phase.EVAL, Phase.GENERATE)


def is_decided(result: ProbeResult) -> bool:
    """Return whether the run showed if it fits: it did not end by something else, and was seen."""
    log = result.as_configured
    if result.verdict != "fail" or log.given_up or exceeds_budget(log):
        return True
    if log.outcome is Outcome.COMPLETED:
        return was_seen(log) or first_error(result.findings) is not None
    return log.outcome is Outcome.OOM


def exit_code(result: ProbeResult) -> int:
    """Return the process's exit code: 0 where the run fits, with or without fixes, 1 where not, 3 where undecided."""
    if result.as_configured.outcome is Outcome.STOPPED and result.as_configured.run.script:
        return STOPPED_CODE
    if not is_decided(result):
        return 3
    return 1 if result.verdict == "fail" else 0


def result_of_log(log: RunLog, processes: Sequence[RunLog] = ()) -> ProbeResult:
    """Return the result that a log alone supports, or beside those of its run's processes: findings and verdict."""
    findings = detect(log, processes)
    return ProbeResult(log, findings, verdict_of(log, None, findings=findings))


def result_of_processes(main: RunLog, others: Sequence[RunLog]) -> ProbeResult:
    """Return the result on that process of a watched script which decides: one that does not fit, else the longest.

    Processes that were not seen to work, and in which no allocation failed, decide nothing where another one did.
    """
    processes = [log for log in (main, *others) if was_seen(log) or log.ooms]
    if not others or not processes:
        return result_of_log(main)
    results = [result_of_log(log, processes) for log in processes]
    return replace(max(results, key=_weight), processes=processes)


def _weight(result: ProbeResult) -> tuple[bool, int, int]:
    """Return what orders processes: not to fit weighs most, then not to be decided, then steps."""
    code = exit_code(result)
    return code == 1, code, len(result.as_configured.steps)


def verdict_banner(result: ProbeResult) -> Banner:
    """Return the verdict in two to four words and in a sentence."""
    sentence, source = verdict_sentence(result), source_in_words(result.as_configured)
    if result.verdict == "pass" and _was_cut_short(result.as_configured):
        return Banner("FITS SO FAR", sentence, "warning", source)
    if result.verdict == "pass":
        return Banner("FITS", sentence, "good", source)
    if result.verdict == "pass_with_fixes":
        num_applied = sum(fix.applied for fix in result.fixes)
        return Banner(f"FITS WITH {plural(num_applied, 'FIX', 'FIXES')}", sentence, "good", source)
    if not is_decided(result):
        return Banner("NOT DECIDED", sentence, "warning", source)
    log = result.as_configured
    does_not_fit = log.fatal_oom or log.given_up or exceeds_budget(log)
    return Banner("DOES NOT FIT" if does_not_fit else "GROWS", sentence, "bad", source)


def verdict_sentence(result: ProbeResult) -> str:
    """Return the verdict in one sentence that a newcomer understands."""
    log, fixed = result.as_configured, result.with_fixes
    applied = plural(sum(fix.applied for fix in result.fixes), "fix", "fixes")
    if result.verdict == "pass" and _was_cut_short(log) and log.end is not None:
        return f"Fits as far as it ran ({_peak(log)}); it was ended {log.end.message}. What comes later was not run."
    if result.verdict == "pass":
        who = "The script fits" if log.run.script else "Fits as configured"
        return f"{who}: {_peak(log)}{_limits_of_the_pass(log)}."
    if log.given_up and log.fatal_oom is None:
        return _gave_up(log)
    if log.fatal_oom is None and exceeds_budget(log):
        return f"Does not fit: {_peak(log)}."
    if log.outcome is Outcome.COMPLETED and first_error(result.findings) is None:
        return (
            "Not decided: no training step was seen, no evaluation and nothing that generates. The script may do its "
            f"work where nobody watches; of what was seen {_peak(log)}."
        )
    if log.outcome is Outcome.COMPLETED:
        who = "The script" if log.run.script else "The run"
        return f"{who} ended within the budget ({_peak(log)}), but what it holds grows with every step."
    if log.fatal_oom is None:
        return _unfinished(log)
    failure = f"Does not fit as configured: {_failure(log, log.fatal_oom)}"
    if result.verdict == "pass_with_fixes" and fixed is not None:
        return f"{failure}; with {applied} it fits ({_peak(fixed, 'peak')})."
    if fixed is not None and fixed.fatal_oom is not None:
        return f"{failure}; even with {applied}, {_failure(fixed, fixed.fatal_oom)}."
    helpful = [fix.name for fix in result.fixes if fix.verified]
    if helpful and log.run.script:
        return f"{failure}; it would fit with: {helpful[0]}."
    if result.fixes:
        return f"{failure}; no fix that was tried makes it fit."
    return f"{failure}, with {of_budget(log.fatal_oom.allocated_bytes, log.fatal_oom.budget_bytes)} taken."


def _was_cut_short(log: RunLog) -> bool:
    """Return whether a script that was run dry was ended before its own end."""
    return bool(log.run.script) and log.outcome is Outcome.COMPLETED and log.end is not None and bool(log.end.message)


def _peak(log: RunLog, words: str = "the peak is") -> str:
    if not log.run.budget_is_known:
        return f"{words} {format_bytes(log.peak_allocated_bytes)}, of a budget that is not known"
    return f"{words} {of_budget(log.peak_allocated_bytes, log.run.budget_bytes)}"


def _limits_of_the_pass(log: RunLog) -> str:
    """Return what else is to be said of a script that fits."""
    tries = len(log.caught_ooms)
    words = f"; {plural(tries, 'try', 'tries')} before had asked for more than there is" if tries else ""
    return words + ("" if log.steps or not log.run.script else "; no training step was seen")


def _gave_up(log: RunLog) -> str:
    """Return what a script or a loop went on without, or died of in its own words."""
    failed = log.given_up
    largest = max(failed, key=lambda oom: oom.requested_bytes)
    times = plural(len(failed), "allocation")
    who = "script" if log.run.script else "loop"
    asked = f"{times} failed ({format_bytes(largest.requested_bytes)} at once in {largest.phase})"
    if log.outcome is Outcome.ERROR:
        message = log.end.message.rstrip(".") if log.end else "the log ends"
        return f"Does not fit: {asked}, and then the {who} died: {message}."
    return f"Does not fit: {asked}, and nothing shows that their work was done again; the {who} went on without it."


def _failure(log: RunLog, oom: OomRecord) -> str:
    return f"{phase_in_words(log, oom.phase, oom.step, oom.epoch)} asks for {format_bytes(oom.requested_bytes)} at once"


def _unfinished(log: RunLog) -> str:
    step = log.last_step
    of_total = f" of {log.run.total_steps}" if log.run.total_steps else ""
    at_step = f"after step {step}{of_total}" if step else ""
    in_phase = f"in {log.last_phase}" if log.last_phase else ""
    where = ", ".join(filter(None, (at_step, in_phase)))
    message = log.end.message if log.end else ""
    if log.outcome is Outcome.STOPPED:
        words = " ".join(filter(None, (message or "the run was stopped", where)))
        return f"Not decided: {words}; until then {_peak(log)}." if log.phases else f"Not decided: {words}."
    reason = f": {message.rstrip('.')}" if message else " without saying why; memory had not run out"
    return f"Not decided: the log ends {where}{reason}."


def phase_in_words(log: RunLog, phase: Phase, step: int, epoch: int) -> str:
    """Return `the evaluation at the end of epoch 1 of 2 (step 1600 of 3200)` and the like."""
    if not step:  # a memory snapshot counts no steps
        return wording("phases")[phase]
    of_total = f"{step} of {log.run.total_steps}" if log.run.total_steps else str(step)
    at_end = bool(log.run.steps_per_epoch) and step == epoch * log.run.steps_per_epoch
    of_epochs = f" of {config_of(log).train.epochs}" if has_config(log) else ""
    moment = f"at the end of epoch {epoch}{of_epochs} (step {of_total})" if at_end else f"after step {of_total}"
    return wording("phases_at_step")[phase].format(step=of_total, moment=moment)


def source_in_words(log: RunLog) -> str:
    """Return where the numbers come from: `simulated on: Tesla T4` or `measured on: ...`."""
    return f"{'measured' if log.run.source == 'cuda' else 'simulated'} on: {log.run.gpu_name}"
