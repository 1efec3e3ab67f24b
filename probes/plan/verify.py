"""When a fix counts as proved: its cause is gone on a re-run, and the losses agree as its class demands.

`exact`: the same bits where the arithmetic is deterministic, on a CPU; on a GPU, whose attention adds up gradients in
no fixed order, as far as two runs of the same recipe agree. `numerical`: within a tolerance. `reordered`: every step
holds as many samples, and the epochs the same target tokens. `data` promises nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from memory_harness.harness.log.records import AgreementRecord, StepRecord
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

Compare = Callable[[str], AgreementRecord]
"""takes a fix's name; returns how its losses agree on a tiny model"""


def agreement_of(fix: Fix, before: RunLog, after: RunLog, *, on_recipe: bool = True) -> AgreementRecord | None:
    """Return how two runs agree over the steps that both have; None where no loss was computed."""

    def result(agrees: bool, difference: float | None = None, tolerance: float | None = None) -> AgreementRecord:
        return AgreementRecord(fix.name, fix.equivalence, agrees, on_recipe, difference, tolerance)

    if fix.equivalence == "data":
        return result(True)
    if fix.equivalence == "reordered":
        return result(_same_samples(before, after))
    difference = loss_difference(before, after)
    if difference is None:
        return None
    tolerance = _tolerance(fix, after, on_recipe)
    return result(difference <= tolerance, difference, tolerance)


def _tolerance(fix: Fix, log: RunLog, on_recipe: bool) -> float:
    if fix.equivalence == "numerical":
        return NUMERICAL_TOLERANCE if on_recipe else TINY_TOLERANCE
    return GPU_NOISE if log.run.source == "cuda" else 0.0


def loss_difference(before: RunLog, after: RunLog) -> float | None:
    """Return the largest relative difference of two losses of the same step or evaluation; None without a loss."""
    ours, theirs = _losses(before), _losses(after)
    common = ours.keys() & theirs.keys()
    return max((abs(ours[key] - theirs[key]) / abs(ours[key]) for key in common), default=None)


def _losses(log: RunLog) -> dict[tuple[str, int], float]:
    """Return the losses by step; an evaluation's as far as nothing was out of order before it."""
    steps = {("step", record.step): record.loss for record in log.steps}
    evals = {("eval", record.step): record.loss for record in log.evals}
    return {key: loss for key, loss in (steps | evals).items() if loss}


def _same_samples(before: RunLog, after: RunLog) -> bool:
    """Tell whether the steps that both have hold as many samples each; and, over whole epochs, the same tokens."""
    pairs = list(zip(before.steps, after.steps, strict=False))
    if any(len(a.lengths) != len(b.lengths) for a, b in pairs):
        return False
    per_epoch = before.run.steps_per_epoch
    whole = len(pairs) // per_epoch * per_epoch if per_epoch else 0
    return _tokens([a for a, _ in pairs[:whole]]) == _tokens([b for _, b in pairs[:whole]])


def _tokens(steps: list[StepRecord]) -> int:
    return sum(step.target_tokens for step in steps)


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
    ours, theirs = ({step.step: step.seconds for step in log.steps[1:]} for log in (before, after))
    common = ours.keys() & theirs.keys()
    return sum(theirs[s] for s in common) / sum(ours[s] for s in common) if common else None
