"""When a fix counts as proved: its cause is gone on a re-run, and the losses agree as its class demands.

`exact`: the same bits where the arithmetic is deterministic, on a CPU; on a GPU, whose attention adds up gradients in
no fixed order, as far as two runs of the same recipe agree. `numerical`: within a tolerance. `reordered`: every step
holds as many samples, and the epochs the same target tokens. `data` promises nothing.
"""

from memory_harness.harness.log.records import AgreementRecord, EvalRecord, StepRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding, Fix

GPU_NOISE = 1e-3
"""Relative difference up to which losses count as the same on a GPU: fixes that keep every operation changed a loss by
1.1e-5 at most over four steps of the 8B recipe (tests/bench/fixes.py), and what was summed in another order grows."""

NUMERICAL_TOLERANCE = 0.01
"""Relative difference of two losses up to which rounding in 16 bits may have grown over the steps of a run; another
computation differs by more."""

TINY_TOLERANCE = 1e-3
"""The same over the two steps of the tiny run, where the fixes differ by 2.4e-5 at most (expand-kv, no-upcast)."""

NOT_COMPARED = "losses not compared: no run computed them both without the fix and with it"


def agreement_of(fix: Fix, before: RunLog, after: RunLog, *, on_recipe: bool = True) -> AgreementRecord | None:
    """Return how two runs agree over the steps that both have; None where no loss was computed."""
    if fix.equivalence == "data":
        return promises_nothing(fix, on_recipe=on_recipe)
    if fix.equivalence == "reordered":
        agrees = _same_samples(before, after)
        return AgreementRecord(fix.name, fix.equivalence, agrees, on_recipe, difference=None, tolerance=None)
    difference = loss_difference(before, after)
    if difference is None:
        return None
    tolerance = _tolerance(fix, after, on_recipe)
    return AgreementRecord(fix.name, fix.equivalence, difference <= tolerance, on_recipe, difference, tolerance)


def promises_nothing(fix: Fix, *, on_recipe: bool) -> AgreementRecord:
    """Return the agreement of a fix that changes the samples: any losses will do, so none are compared."""
    return AgreementRecord(fix.name, fix.equivalence, True, on_recipe, difference=None, tolerance=None)


def _tolerance(fix: Fix, log: RunLog, on_recipe: bool) -> float:
    if fix.equivalence == "numerical":
        return NUMERICAL_TOLERANCE if on_recipe else TINY_TOLERANCE
    return GPU_NOISE if log.run.source == "cuda" else 0.0


def loss_difference(before: RunLog, after: RunLog) -> float | None:
    """Return the largest relative difference of two losses of the same step or evaluation; None without a loss."""
    ours, theirs = _losses(before), _losses(after)
    common = ours.keys() & theirs.keys()
    return max((abs(ours[key] - theirs[key]) / abs(ours[key]) for key in common), default=None)


def _losses(log: RunLog) -> dict[tuple[type, int], float]:
    """Return the losses other than zero, by kind of record and step."""
    losses: dict[tuple[type, int], float] = {}
    records: list[StepRecord | EvalRecord] = [*log.steps, *log.evals]
    for record in records:
        if record.loss:
            losses[type(record), record.step] = record.loss
    return losses


def _same_samples(before: RunLog, after: RunLog) -> bool:
    """Return whether the steps that both have hold as many samples each; and, over whole epochs, the same tokens."""
    num_common = min(len(before.steps), len(after.steps))
    for ours, theirs in zip(before.steps, after.steps, strict=False):
        if len(ours.lengths) != len(theirs.lengths):
            return False
    per_epoch = before.run.steps_per_epoch
    num_whole = num_common // per_epoch * per_epoch if per_epoch else 0
    return _target_tokens(before, num_whole) == _target_tokens(after, num_whole)


def _target_tokens(log: RunLog, num_steps: int) -> int:
    return sum(step.target_tokens for step in log.steps[:num_steps])


def why_not_verified(fix: Fix, before: list[Finding], after: list[Finding], agreement: AgreementRecord | None) -> str:
    """Return why the re-run does not prove the fix; nothing where its cause is gone and the losses agree."""
    addressed = {finding.cause for finding in before if finding.severity != "info"} & set(fix.addresses)
    remaining = addressed & {finding.cause for finding in after if finding.severity != "info"}
    if remaining:
        return f"tried, and {', '.join(sorted(remaining))} is still there"
    if agreement is None or agreement.agrees:
        return ""
    if agreement.difference is None:
        return "tried, and the steps hold other samples or tokens than before"
    return (
        f"tried, and the loss changes by {agreement.difference:.2g} of itself, over the same steps "
        f"(allowed: {agreement.tolerance:.2g})"
    )


def slowdown_of(before: RunLog, after: RunLog) -> float | None:
    """Return the measured seconds of a step over those before, on steps that both have; None where simulated."""
    if before.run.source != "cuda":
        return None
    seconds_before, seconds_after = _seconds(before), _seconds(after)
    common = seconds_before.keys() & seconds_after.keys()
    if not common:
        return None
    return sum(map(seconds_after.__getitem__, common)) / sum(map(seconds_before.__getitem__, common))


def _seconds(log: RunLog) -> dict[int, float]:
    """Return the seconds of each step but the first, which warms up."""
    return {step.step: step.seconds for step in log.steps[1:]}
