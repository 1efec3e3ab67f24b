"""Explanations of growth at nearly every step by what it is made of: a graph, what hooks keep, plain tensors."""

import re
from collections.abc import Sequence

import numpy as np

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import AT_EXIT, GROWING_TENSOR, WHEN_GONE, Phase, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence, StepGrowth
from memory_harness.probes.detectors.floor import (
    EXPLAINED_SHARE,
    MIN_EVENTS,
    Explanation,
    floor_rise,
    floors,
    grows_to_the_end,
    growth_events,
    keeps_growing,
    largest_survivor,
    span,
    total_left,
)
from memory_harness.probes.detectors.kept import is_of_hook
from memory_harness.probes.detectors.reading import line_of, main_survivor, survivors_of
from memory_harness.probes.detectors.trends import MIN_GROWTH_BYTES, MIN_STEPS, NOISE_BYTES, robust_slope
from memory_harness.probes.findings import UNEXPLAINED_GROWTH

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
CONSTANT_PER_TOKEN = 0.02
"""Relative spread within which sizes per token count as equal; the allocator's rounding is all there is."""
_TUPLE = re.compile(r"tuple of (\d+)")
COLLECTIONS = ("list", "dict", "deque", "set", "_tee", AT_EXIT, WHEN_GONE)


def every_step(evidence: Evidence) -> Explanation | None:
    """Explain growth at nearly every step: what it is made of decides."""
    growth = evidence.later_steps
    events = growth_events(growth)
    if len(events) < EXPLAINED_SHARE * len(growth) or not grows_to_the_end(evidence):
        return None
    for composition in (_of_hooks, _of_graphs, _of_tensors):
        explanation = composition(evidence, events)
        if explanation is not None:
            return explanation
    return None


def _of_hooks(evidence: Evidence, events: list[StepGrowth]) -> Explanation | None:
    """Explain what a forward pass leaves under no_grad too, or what is held by hooks."""
    log = evidence.log
    held = next((survivor for survivor in survivors_of(log) if is_of_hook(survivor)), None)
    if held is None and (_evaluation_is_kept_elsewhere(log) or not _forwards_leave_in_evaluation(evidence)):
        return None
    total = total_left(events)
    in_evaluation = ", and so did each batch of the evaluation, where no graph is recorded" if held is None else ""
    return Explanation(
        cause="hook-holds-activations",
        title=f"The forward passes of each step leave {format_bytes(total // len(events))} of activations",
        reason=f"{len(events)} of {len(evidence.later_steps)} steps left memory behind, {format_bytes(total)} in all"
        f"{in_evaluation}: a forward hook, or a list that the model's code appends to, keeps what the layers return.",
        grown_bytes=total,
        steps=span(events),
        survivor=held or largest_survivor(log),
        evidence={"grown_bytes": total, "num_events": len(events)},
    )


def _evaluation_is_kept_elsewhere(log: RunLog) -> bool:
    """Return whether another place is known to keep what evaluation batches leave than what steps leave."""
    of_steps, of_batches = _holding_lines(log, "step"), _holding_lines(log, Phase.EVAL)
    return bool(of_steps and of_batches) and of_steps.isdisjoint(of_batches)


def _holding_lines(log: RunLog, unit: str) -> set[str | None]:
    return {line_of(survivor) for survivor in survivors_of(log, unit) if survivor.holder}


def _forwards_leave_in_evaluation(evidence: Evidence) -> bool:
    """Return whether every evaluation batch leaves memory in proportion to its tokens, and none of it is let go."""
    left: list[int] = []
    tokens: list[int] = []
    for evaluation in evidence.evaluations:
        batches = [record.batch for record in evaluation.batches if record.batch]
        if len(batches) < len(evaluation.batches):
            continue
        left += evaluation.left_bytes
        tokens += [batch.padded_tokens for batch in batches]
        kept = evaluation.kept_bytes
        if kept is not None and kept < EXPLAINED_SHARE * evaluation.grown_bytes:
            return False
    if len(left) < MIN_EVENTS or min(left) <= NOISE_BYTES:
        return False
    per_token = np.array(left) / np.array(tokens)
    return bool(np.ptp(per_token) <= CONSTANT_PER_TOKEN * np.median(per_token) + NOISE_BYTES / min(tokens))


def hang_on_graphs(log: RunLog) -> bool:
    """Return whether most of what steps leave carries a graph, or is kept by one."""
    survivors = survivors_of(log)
    graph_bytes = sum(survivor.bytes_per_step for survivor in survivors if survivor.has_grad_fn)
    return 0 < GRAPH_SURVIVORS_SHARE * sum(survivor.bytes_per_step for survivor in survivors) <= graph_bytes


def _of_graphs(evidence: Evidence, events: list[StepGrowth]) -> Explanation | None:
    """Explain what a forward pass makes for the backward pass, left behind."""
    survivors = survivors_of(evidence.log)
    with_graph = [survivor for survivor in survivors if survivor.has_grad_fn]
    seen_bytes = sum(survivor.bytes_per_step for survivor in survivors)
    graph_bytes = sum(survivor.bytes_per_step for survivor in with_graph)
    by_survivors = hang_on_graphs(evidence.log)
    forward_bytes = sum(step.forward_bytes for step in events)
    total = total_left(events)
    share = total / forward_bytes if forward_bytes > 0 else 0.0
    by_size = not survivors and share >= GRAPH_SHARE and _is_graph_sized(evidence.log, events)
    if not by_survivors and not by_size:
        return None
    of_forward = f", {share:.0%} of what their forward passes had added for the backward pass" if share else ""
    grad_fn = ", and the tensors that survive carry a grad_fn" if by_survivors else ""
    return Explanation(
        cause="retained-graph",
        title=f"Each step leaves {format_bytes(total // len(events))} of its computation graph behind",
        reason=f"{len(events)} of {len(evidence.later_steps)} steps left memory behind{of_forward}{grad_fn}: something "
        "refers to a loss, or to another result with a graph, after its step.",
        grown_bytes=total,
        steps=span(events),
        survivor=main_survivor(with_graph),
        evidence={
            "share_of_forward": round(share, 3),
            "survivors_with_graph_bytes": graph_bytes,
            "survivors_bytes": seen_bytes,
            "grown_bytes": total,
        },
    )


def _is_graph_sized(log: RunLog, events: Sequence[StepGrowth]) -> bool:
    """Return whether what steps leave follows their tokens, and is no more than all activations, no logits alone."""
    model = log.run.model
    if model is None or _is_logits(log, events):
        return False
    per_layer = GRAPH_HIDDEN_BYTES * model.hidden_size + GRAPH_WIDE_BYTES * model.intermediate_size
    most = model.num_layers * per_layer + 3 * 4 * model.vocab_size
    per_token = np.array([step.left_bytes / max(1, step.tokens) for step in events])
    return bool(np.ptp(per_token) <= SAME_PER_TOKEN * np.median(per_token) and per_token.max() <= most)


def _is_logits(log: RunLog, events: Sequence[StepGrowth]) -> bool:
    """Return whether each step leaves exactly one logits tensor of its tokens."""
    model = log.run.model
    if model is None:
        return False
    left, tokens = [step.left_bytes for step in events], [step.tokens for step in events]
    for bytes_per_element in (2, 4):
        logits_bytes = np.array(tokens, dtype=np.int64) * model.vocab_size * bytes_per_element
        if np.all(np.abs(np.array(left, dtype=np.int64) - logits_bytes) <= NOISE_BYTES):
            return True
    return False


def _of_tensors(evidence: Evidence, events: list[StepGrowth]) -> Explanation | None:
    """Explain plain tensors that a list or a dictionary collects, one step after another, beyond an epoch's end."""
    log, growth = evidence.log, evidence.later_steps
    # of a watched script one epoch may be all that there is
    beyond_epoch = len({step.epoch for step in growth}) > 1 or bool(log.run.script)
    if not beyond_epoch or not (_collections_survive(log) or _only_logits_are_known(log, events)):
        return None
    total = total_left(events)
    return Explanation(
        cause="tensors-logged",
        title=f"Every step keeps {format_bytes(total // len(events))} of tensors",
        reason=f"{len(events)} of {len(growth)} steps left tensors without a graph, {format_bytes(total)} in "
        "all, which a list or a logger keeps on the device.",
        grown_bytes=total,
        steps=span(events),
        survivor=largest_survivor(log),
        evidence={"interval_steps": 1, "num_events": len(events), "grown_bytes": total},
    )


def _collections_survive(log: RunLog) -> bool:
    """Return whether nearly all that steps leave are plain tensors in collections."""
    survivors = survivors_of(log)
    if survivors and survivors[0].holder.startswith(GROWING_TENSOR):
        # what is computed from a tensor that grows does too
        survivors = [found for found in survivors if found.holder.startswith(GROWING_TENSOR)][:1]
    collected = [survivor for survivor in survivors if not survivor.has_grad_fn and is_collection(survivor)]
    collected_bytes = sum(survivor.bytes_per_step for survivor in collected)
    return 0 < EXPLAINED_SHARE * sum(survivor.bytes_per_step for survivor in survivors) <= collected_bytes


def _only_logits_are_known(log: RunLog, events: Sequence[StepGrowth]) -> bool:
    return not survivors_of(log) and _is_logits(log, events)


def is_collection(survivor: SurvivorRecord) -> bool:
    """Return whether what holds the survivor is a list or the like, which has come to hold several tensors."""
    if survivor.holder.startswith(GROWING_TENSOR):
        return True
    several = survivor.num_tensors > 1 and "at most" not in survivor.holder
    tuples = map(int, _TUPLE.findall(survivor.holder))
    return several and (
        any(word in survivor.holder for word in COLLECTIONS) or max(tuples, default=0) >= survivor.num_tensors
    )


def unknown(evidence: Evidence) -> Explanation | None:
    """Report growth that no other question explains, with the place that it comes from."""
    growth = evidence.later_steps
    rise = floor_rise(growth)
    if rise < MIN_GROWTH_BYTES or len(growth) < MIN_STEPS or not keeps_growing(growth):
        return None
    if rise < sum(step.noise_bytes for step in growth):
        return None
    if total_left([step for step in growth if step.left_bytes > 0]) < EXPLAINED_SHARE * rise:
        return None  # it grows between the steps, in evaluations or checkpoints, whose detectors speak for it
    survivor = largest_survivor(evidence.log)
    source = ""
    if survivor and not survivor.holder:
        source = f" Most of it is made at {survivor.site} and kept by an unknown holder."
    first, last = span(growth)
    return Explanation(
        cause=UNEXPLAINED_GROWTH,
        title=f"Memory grows by {format_bytes(round(robust_slope(floors(growth)).middle))} a step",
        reason=f"What stays allocated between steps rose by {format_bytes(rise)} from step {first} to "
        f"{last}, and no known cause fits its course.{source}",
        grown_bytes=rise,
        steps=(first, last),
        survivor=survivor,
        evidence={"grown_bytes": rise},
    )
