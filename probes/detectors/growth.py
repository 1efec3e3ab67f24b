"""Memory that grows between equal points of the loop: what explains the growth names the cause.

The order of the questions matters. What an experiment decides goes first (a collector that frees it, a cache that held
it), then what the growth coincides with (caught failures, new lengths, ends of epochs, an interval), then what it is
made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import CAUGHT_FAILURE, GROWING_TENSOR, OPTIMIZER_STATE, Phase, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import (
    BURN_IN_STEPS,
    MIN_GROWTH_BYTES,
    MIN_STEPS,
    NOISE_BYTES,
    Severity,
    StepGrowth,
    evaluations,
    forecast,
    forecast_in_words,
    freed_by,
    growth_severity,
    keeps_growing,
    kept_after,
    lasting,
    main_survivor,
    place,
    robust_slope,
    settled,
    step_growth,
    survivors_of,
)
from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Finding

EXPLAINED_SHARE = 0.8
"""Share of the growth that must coincide with something before that is called its reason."""

GRAPH_SHARE = 0.9
"""Least that a step leaves, over what its forward passes add, where a whole graph is kept and nothing else tells."""

GRAPH_SURVIVORS_SHARE = 0.5
"""Share of what survives that must hang on a graph before that is what is kept."""

GRAPH_HIDDEN_BYTES, GRAPH_WIDE_BYTES = 40, 12
"""Most that a layer keeps for each token, per hidden and per intermediate unit, when all its activations are kept: 34
bytes in 16 bits without the attention scores, more for a gated MLP's intermediate units, and some to spare.
Source: Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, equation 1."""

SAME_PER_TOKEN = 0.5
"""Relative spread of what steps of different lengths leave per token, where that follows their tokens: with and without
padding other attention kernels run, which keep a third more or less (1B model, 256 tokens, T4)."""

MIN_EVENTS = 3
"""Steps that grew before they make a pattern."""

NEVER_LONGEST = 2
"""Of the new lengths with growth, so many must be shorter than one before: a buffer that grows with the longest is
none."""

CONSTANT_PER_TOKEN = 0.02
"""Relative spread within which sizes per token count as equal; the allocator's rounding is all there is."""


MAY_END = (UNEXPLAINED_GROWTH, "autocast-cache", "epoch-hoard", "recompile-per-shape", "reference-cycle")
"""Growth that something can end: the collector, the end of the epoch or of a context, the last new length."""


@dataclass(frozen=True)
class Explanation:
    """Why the floor rises."""

    cause: str
    title: str
    reason: str
    grown_bytes: int
    steps: tuple[int, int]
    survivor: SurvivorRecord | None = None
    evidence: dict[str, int | float | str] = field(default_factory=dict)
    ends_training: bool = False
    """whether no step succeeds any more"""


def growth_finding(cause: str, log: RunLog) -> list[Finding]:
    """Return the finding that growth during training has this cause, or none."""
    growth = settled(step_growth(log))
    explanation = _explain(log, growth)
    if explanation is None or explanation.cause != cause:
        return []
    slope = robust_slope([g.floor_bytes for g in growth])
    expected = forecast(log, growth)
    words = [explanation.reason, forecast_in_words(log, growth)]
    return [
        Finding(
            cause=cause,
            severity=_severity(log, explanation, growth),
            title=explanation.title,
            explanation=" ".join(word for word in words if word),
            phase=explanation.survivor.phase if explanation.survivor else None,
            steps=explanation.steps,
            bytes=explanation.grown_bytes,
            where=place(explanation.survivor),
            evidence={
                "bytes_per_step": round(slope.middle),
                "bytes_per_step_low": round(slope.low),
                "bytes_per_step_high": round(slope.high),
                **({} if expected is None else {"budget_from_step": expected[0], "budget_until_step": expected[1]}),
                "burn_in_steps": BURN_IN_STEPS,
                "noise_bytes": NOISE_BYTES,
                **explanation.evidence,
            },
        )
    ]


def _severity(log: RunLog, explanation: Explanation, growth: Sequence[StepGrowth]) -> Severity:
    """Return how bad the growth is; a watched script that ended may have been about to end it too."""
    if explanation.ends_training:
        return "error"
    may_end = log.run.script and log.fatal_oom is None and explanation.cause in MAY_END
    return "warning" if may_end else growth_severity(log, explanation.grown_bytes, growth)


def _explain(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """Return the first explanation that holds."""
    survivors = survivors_of(log)
    if survivors and all(OPTIMIZER_STATE in s.holder for s in survivors):
        return None  # it keeps as much as it is configured to
    for question in QUESTIONS:
        explanation = question(log, growth)
        if explanation is not None:
            return explanation
    return None


def _events(growth: Sequence[StepGrowth]) -> list[StepGrowth]:
    return [g for g in growth if g.left_bytes > g.noise_bytes]


def _total(growth: Sequence[StepGrowth]) -> int:
    return sum(g.left_bytes for g in growth)


def _after_failures(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """A floor that rises where somebody caught an out-of-memory."""
    events = _events(growth)
    failed = [g for g in events if g.failed_phases]
    total = _total(failed)
    if total < max(MIN_GROWTH_BYTES, EXPLAINED_SHARE * _total(events)):
        return None
    if growth[-1].step == failed[0].step and (log.fatal_oom is None or log.fatal_oom.step <= failed[0].step):
        return None  # no step has followed that could show whether it stays
    kept = min(g.floor_bytes for g in growth if g.step >= failed[0].step) - failed[0].floor_bytes + failed[0].left_bytes
    if kept <= NOISE_BYTES:
        return None
    in_backward = all(Phase.BACKWARD in g.failed_phases for g in failed)
    where = "backward" if in_backward else "forward"
    return Explanation(
        cause="oom-in-backward" if in_backward else "exception-holds-frames",
        title=f"Each out-of-memory that was caught in {where} leaves {format_bytes(total // len(failed))} behind",
        reason=f"At {len(failed)} steps an allocation failed in {where} and the run went on; after each of them the "
        f"floor was higher, by {format_bytes(total)} in all, and at no other step did it rise so. "
        + (
            "What the interrupted backward pass had computed is still referenced, with its graph."
            if in_backward
            else "An exception that is kept, or handled inside its except block, keeps its traceback, and that "
            "every frame with its tensors."
        ),
        grown_bytes=total,
        steps=(failed[0].step, failed[-1].step),
        survivor=main_survivor(survivors_of(log, CAUGHT_FAILURE)),
        evidence={"num_failures": len(failed), "grown_bytes": total},
    )


def _never_recovered(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """An out-of-memory that is kept, and after which no step has ended: whatever is tried then fails as well."""
    survivor = main_survivor(survivors_of(log, CAUGHT_FAILURE))
    first = next(iter(log.ooms), None)
    if not log.run.script or survivor is None or first is None or len(log.ooms) < MIN_EVENTS:
        return None
    if any(step.step >= first.step for step in log.steps):
        return None
    return Explanation(
        cause="exception-holds-frames",
        title=f"A caught out-of-memory keeps {format_bytes(survivor.bytes_per_step)}, and no step ended after it",
        reason=f"At step {first.step} an allocation failed and the run went on; {len(log.ooms) - 1} more have failed "
        f"since. The first one's exception is kept by {survivor.holder}: its traceback keeps every frame with its "
        "tensors.",
        grown_bytes=survivor.bytes_per_step,
        steps=(first.step, log.ooms[-1].step),
        survivor=survivor,
        evidence={"num_failures": len(log.ooms), "grown_bytes": survivor.bytes_per_step},
        ends_training=True,
    )


def _in_cycles(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """Garbage that one run of the collector frees."""
    freed = freed_by(log, growth, "gc")
    if not freed or not growth:
        return None
    return Explanation(
        cause="reference-cycle",
        title=f"{format_bytes(freed)} waited for Python's garbage collector",
        reason=f"One gc.collect() after the run lowered allocated by {format_bytes(freed)}: objects that refer to "
        "each other in a circle keep their tensors until the collector comes by, which counts objects, not bytes.",
        grown_bytes=freed,
        steps=(growth[0].step, growth[-1].step),
        survivor=_largest(log) or main_survivor(survivors_of(log, Phase.EVAL)),
        evidence={"freed_by_gc_bytes": freed, "floor_rise_bytes": lasting(growth)},
    )


def _in_autocast(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """Copies of weights that autocast keeps until its context is left."""
    freed = freed_by(log, growth, "autocast_cache")
    if not freed or not growth:
        return None
    return Explanation(
        cause="autocast-cache",
        title=f"Autocast's cache held {format_bytes(freed)} of cast weights",
        reason=f"Clearing autocast's weight cache after the run lowered allocated by {format_bytes(freed)}. The cache "
        "is emptied when the outermost autocast context is left; one that stays open for the whole run never is.",
        grown_bytes=freed,
        steps=(growth[0].step, growth[-1].step),
        survivor=_largest(log),
        evidence={"freed_by_clearing_bytes": freed, "floor_rise_bytes": lasting(growth)},
    )


def _at_new_lengths(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """Growth at lengths not seen before, and only there."""
    events = [g for g in _events(step_growth(log)[1:]) if g.step > 1]
    fresh = [g for g in events if g.has_new_length]
    total, repeats = _total(fresh), [g for g in growth if not g.has_new_length]
    enough = len(fresh) >= MIN_EVENTS and len(repeats) >= MIN_EVENTS and total >= MIN_GROWTH_BYTES
    shorter = sum(not g.has_new_longest for g in fresh)
    if not enough or total < EXPLAINED_SHARE * _total(events) or shorter < NEVER_LONGEST:
        return None
    if not _stays(growth, total):
        return None
    return Explanation(
        cause="recompile-per-shape",
        title=f"Each new length leaves {format_bytes(total // len(fresh))} behind for good",
        reason=f"The floor rose at {len(fresh)} steps that brought a padded length not seen before, by "
        f"{format_bytes(total)} in all, and at none of {len(repeats)} steps whose lengths were known: something is "
        "compiled, captured or cached for each shape.",
        grown_bytes=total,
        steps=(fresh[0].step, fresh[-1].step),
        survivor=_largest(log),
        evidence={"num_new_lengths": len(fresh), "num_repeated": len(repeats), "grown_bytes": total},
    )


def _stays(growth: Sequence[StepGrowth], num_bytes: int) -> bool:
    """Whether the floor ends higher than it began by about as much."""
    return lasting(growth) >= 0.5 * num_bytes or not growth


def _by_falls(log: RunLog, growth: list[StepGrowth]) -> list[StepGrowth]:
    """Return the steps with epochs told by the floor's falls, of a script whose epochs nothing else tells.

    As many steps from fall to fall, and a list that grew from one step to the next: else the epochs are as they were.
    """
    survivor = _largest(log)
    if not log.run.script or growth[-1].epoch > 1 or survivor is None or not _is_collection(survivor):
        return growth
    epoch, lowest, falls, found = 1, growth[0].floor_bytes, [], [growth[0]]
    for before, g in pairwise(growth):
        if before.floor_bytes - g.floor_bytes >= EXPLAINED_SHARE * max(MIN_GROWTH_BYTES, before.floor_bytes - lowest):
            epoch, lowest = epoch + 1, g.floor_bytes
            falls.append(g.step)
        found.append(replace(g, epoch=epoch))
    periods = {b - a for a, b in pairwise(falls)}
    return found if len(periods) == 1 else growth


def _until_epoch_ends(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """A floor that climbs through each epoch and falls at its end."""
    growth = _by_falls(log, growth) if growth else growth
    by_epoch: dict[int, list[StepGrowth]] = {}
    for g in growth:
        by_epoch.setdefault(g.epoch, []).append(g)
    ended = [steps for epoch, steps in by_epoch.items() if epoch + 1 in by_epoch]
    rises = [_climb(steps) for steps in ended]
    falls = [_fall(steps, by_epoch[steps[0].epoch + 1][0]) for steps in ended]
    if not ended or min(rises) < MIN_GROWTH_BYTES or len(_events(growth)) < len(growth) / 2:
        return None
    if any(fall < EXPLAINED_SHARE * rise for rise, fall in zip(rises, falls, strict=True)):
        return None
    per_step = sum(rises) // sum(len(steps) for steps in ended)
    return Explanation(
        cause="epoch-hoard",
        title=f"Each step leaves {format_bytes(per_step)} until its epoch ends",
        reason=f"The floor climbs by {format_bytes(max(rises))} within an epoch and falls back at its end: outputs "
        "are kept for an end-of-epoch summary. The peak is at the end of each epoch, so the run dies at the same "
        "fraction of an epoch only where the epochs are long enough.",
        grown_bytes=max(_climb(steps) for steps in by_epoch.values()),
        steps=(growth[0].step, growth[-1].step),
        survivor=_largest(log),
        evidence={"num_epochs_ended": len(ended), "rise_per_epoch_bytes": max(rises)},
    )


def _climb(steps: Sequence[StepGrowth]) -> int:
    """Return by how much an epoch's floor climbs to its end, 0 where it falls in between.

    What its first step lets go may be what the epoch before has kept.
    """
    first, later = max(0, steps[0].left_bytes), [g.left_bytes for g in steps[1:]]
    in_one_go = sum(later) >= EXPLAINED_SHARE * sum(max(0, left) for left in later)
    return first + sum(later) if in_one_go else 0


def _fall(steps: Sequence[StepGrowth], following: StepGrowth) -> int:
    """Return by how much the floor fell when an epoch ended, before the next one's first step or within it."""
    usual = round(float(np.median([g.left_bytes for g in steps])))
    left = following.left_bytes if following.left_bytes >= 0 else max(0, usual)
    return steps[-1].floor_bytes - following.floor_bytes + left


def _at_interval(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """Growth every k steps, k of at least 2."""
    events = _events(growth)
    gaps = {b.step - a.step for a, b in pairwise(events)}
    if len(events) < MIN_EVENTS or len(gaps) != 1 or gaps == {1} or not keeps_growing(growth):
        return None
    (interval,) = gaps
    survivor = _largest(log)
    if log.run.script and survivor is None:
        return None  # a loop of one's own may do anything every so many steps
    total = _total(events)
    return Explanation(
        cause="tensors-logged",
        title=f"Every {interval} steps {format_bytes(total // len(events))} of tensors is kept",
        reason=f"The floor rises every {interval} steps and at no other: {len(events)} times, {format_bytes(total)} "
        "in all. That is the beat of a logger, which keeps tensors of the device where it should keep numbers.",
        grown_bytes=total,
        steps=(events[0].step, events[-1].step),
        survivor=survivor,
        evidence={"interval_steps": interval, "num_events": len(events), "grown_bytes": total},
    )


def _every_step(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """Growth at nearly every step: what it is made of decides."""
    events = _events(growth)
    if len(events) < EXPLAINED_SHARE * len(growth) or not keeps_growing(growth):
        return None
    for composition in (_of_hooks, _of_graphs, _of_tensors):
        explanation = composition(log, growth, events)
        if explanation is not None:
            return explanation
    return None


def _of_hooks(log: RunLog, growth: list[StepGrowth], events: list[StepGrowth]) -> Explanation | None:
    """What a forward pass leaves under no_grad too, or what is held by hooks."""
    survivors = survivors_of(log)
    held = next((s for s in survivors if "hook" in s.holder), None)
    if held is None and (_evaluation_is_kept_elsewhere(log) or not _forwards_leave_in_evaluation(log)):
        return None
    per_step = _total(events) // len(events)
    return Explanation(
        cause="hook-holds-activations",
        title=f"The forward passes of each step leave {format_bytes(per_step)} of activations",
        reason=f"{len(events)} of {len(growth)} steps left memory behind, {format_bytes(_total(events))} in all"
        + (", and so did each batch of the evaluation, where no graph is recorded" if held is None else "")
        + ": a forward hook, or a list that the model's code appends to, keeps what the layers return.",
        grown_bytes=_total(events),
        steps=(events[0].step, events[-1].step),
        survivor=held or _largest(log),
        evidence={"grown_bytes": _total(events), "num_events": len(events)},
    )


def _evaluation_is_kept_elsewhere(log: RunLog) -> bool:
    """Whether another place is known to keep what evaluation batches leave than what steps leave."""
    of_steps, of_batches = ({place(s) for s in survivors_of(log, unit) if s.holder} for unit in ("step", Phase.EVAL))
    return bool(of_steps and of_batches) and of_steps.isdisjoint(of_batches)


def _forwards_leave_in_evaluation(log: RunLog) -> bool:
    """Whether every evaluation batch leaves memory in proportion to its tokens, and none of it is let go."""
    found = [e for e in evaluations(log) if all(p.batch for p in e.batches)]
    left = [(b, p.batch.padded_tokens) for e in found for b, p in zip(e.left_bytes, e.batches, strict=True) if p.batch]
    if len(left) < MIN_EVENTS or min(b for b, _ in left) <= NOISE_BYTES:
        return False
    kept = [(kept_after(log, e), e.grown_bytes) for e in found]
    if any(k is not None and k < EXPLAINED_SHARE * grown for k, grown in kept):
        return False
    per_token = np.array([b / tokens for b, tokens in left])
    return bool(np.ptp(per_token) <= CONSTANT_PER_TOKEN * np.median(per_token) + NOISE_BYTES / min(t for _, t in left))


def _of_graphs(log: RunLog, growth: list[StepGrowth], events: list[StepGrowth]) -> Explanation | None:
    """What a forward pass makes for the backward pass, left behind."""
    survivors = survivors_of(log)
    with_graph = sum(s.bytes_per_step for s in survivors if s.has_grad_fn)
    seen = sum(s.bytes_per_step for s in survivors)
    forward = sum(g.forward_bytes for g in events)
    share = _total(events) / forward if forward > 0 else 0.0
    by_survivors = seen > 0 and with_graph >= GRAPH_SURVIVORS_SHARE * seen
    by_size = not survivors and share >= GRAPH_SHARE and _is_graph_sized(log, events)
    if not by_survivors and not by_size:
        return None
    per_step = _total(events) // len(events)
    return Explanation(
        cause="retained-graph",
        title=f"Each step leaves {format_bytes(per_step)} of its computation graph behind",
        reason=f"{len(events)} of {len(growth)} steps left memory behind"
        + (f", {share:.0%} of what their forward passes had added for the backward pass" if share else "")
        + (", and the tensors that survive carry a grad_fn" if by_survivors else "")
        + ": something refers to a loss, or to another result with a graph, after its step.",
        grown_bytes=_total(events),
        steps=(events[0].step, events[-1].step),
        survivor=main_survivor([s for s in survivors if s.has_grad_fn]),
        evidence={
            "share_of_forward": round(share, 3),
            "survivors_with_graph_bytes": with_graph,
            "survivors_bytes": seen,
            "grown_bytes": _total(events),
        },
    )


def _is_graph_sized(log: RunLog, events: list[StepGrowth]) -> bool:
    """Whether what the steps leave follows their tokens, and is no more than all activations and no logits alone."""
    model = log.run.model
    if model is None or _is_logits(log, events):
        return False
    per_layer = GRAPH_HIDDEN_BYTES * model.hidden_size + GRAPH_WIDE_BYTES * model.intermediate_size
    most = model.num_layers * per_layer + 3 * 4 * model.vocab_size
    per_token = np.array([g.left_bytes / max(1, g.tokens) for g in events])
    return bool(np.ptp(per_token) <= SAME_PER_TOKEN * np.median(per_token) and per_token.max() <= most)


def _is_logits(log: RunLog, events: list[StepGrowth]) -> bool:
    """Whether each step leaves exactly one logits tensor of its tokens."""
    model = log.run.model
    return model is not None and any(
        all(abs(g.left_bytes - g.tokens * model.vocab_size * size) <= NOISE_BYTES for g in events) for size in (2, 4)
    )


def _of_tensors(log: RunLog, growth: list[StepGrowth], events: list[StepGrowth]) -> Explanation | None:
    """Plain tensors that a list or a dictionary collects, one step after another, beyond the end of an epoch."""
    survivors = survivors_of(log)
    largest = main_survivor(survivors)
    collected = largest is not None and not largest.has_grad_fn and _is_collection(largest) and len(survivors) == 1
    # of a watched script one epoch may be all that there is
    beyond_epoch = len({g.epoch for g in growth}) > 1 or bool(log.run.script)
    if not beyond_epoch or not (collected or (not survivors and _is_logits(log, events))):
        return None
    per_step = _total(events) // len(events)
    return Explanation(
        cause="tensors-logged",
        title=f"Every step keeps {format_bytes(per_step)} of tensors",
        reason=f"{len(events)} of {len(growth)} steps left tensors without a graph, {format_bytes(_total(events))} in "
        "all, which a list or a logger keeps on the device.",
        grown_bytes=_total(events),
        steps=(events[0].step, events[-1].step),
        survivor=largest,
        evidence={"interval_steps": 1, "num_events": len(events), "grown_bytes": _total(events)},
    )


def _is_collection(survivor: SurvivorRecord) -> bool:
    if survivor.holder.startswith(GROWING_TENSOR):
        return True
    several = survivor.num_tensors > 1 and "at most" not in survivor.holder
    return several and any(word in survivor.holder for word in ("list", "dict", "deque", "set"))


def _unknown(log: RunLog, growth: list[StepGrowth]) -> Explanation | None:
    """Growth that none of the questions before explains."""
    total = lasting(growth)
    if total < MIN_GROWTH_BYTES or len(growth) < MIN_STEPS or not keeps_growing(growth):
        return None
    in_steps = sum(max(0, g.left_bytes) for g in growth)
    if total < sum(g.noise_bytes for g in growth):
        return None
    if in_steps < EXPLAINED_SHARE * total:
        return None  # it grows between the steps, in evaluations or checkpoints, whose detectors speak for it
    survivor = _largest(log)
    return Explanation(
        cause=UNEXPLAINED_GROWTH,
        title=f"Memory grows by {format_bytes(round(robust_slope([g.floor_bytes for g in growth]).middle))} a step",
        reason=f"What stays allocated between steps rose by {format_bytes(total)} from step {growth[0].step} to "
        f"{growth[-1].step}, and no known cause fits its course."
        + (
            f" Most of it is made at {survivor.site} and kept by {survivor.holder or 'an unknown holder'}."
            if survivor
            else ""
        ),
        grown_bytes=total,
        steps=(growth[0].step, growth[-1].step),
        survivor=survivor,
        evidence={"grown_bytes": total},
    )


def _largest(log: RunLog) -> SurvivorRecord | None:
    return main_survivor(survivors_of(log))


Question = Callable[[RunLog, list[StepGrowth]], Explanation | None]

QUESTIONS: tuple[Question, ...] = (
    _never_recovered,
    _after_failures,
    _in_cycles,
    _in_autocast,
    _at_new_lengths,
    _until_epoch_ends,
    _at_interval,
    _every_step,
    _unknown,
)

GROWTH_CAUSES = (
    "exception-holds-frames",
    "oom-in-backward",
    "reference-cycle",
    "autocast-cache",
    "recompile-per-shape",
    "epoch-hoard",
    "hook-holds-activations",
    "retained-graph",
    "tensors-logged",
)


def unexplained_growth(log: RunLog) -> list[Finding]:
    """Find growth that fits no cause, with the place that it comes from."""
    return growth_finding(UNEXPLAINED_GROWTH, log)
