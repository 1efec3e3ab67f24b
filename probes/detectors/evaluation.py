"""What evaluation holds that it should not: outputs of earlier batches, a graph, a cache; and what it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import HOST, ModelFacts, Phase, PhaseRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import (
    MIN_GROWTH_BYTES,
    NOISE_BYTES,
    Evaluation,
    Severity,
    blocks,
    called_at,
    evaluations,
    fits_without,
    freed_by,
    kept_after,
    robust_slope,
    settled,
    step_growth,
    survivors_of,
    where_of,
)
from memory_harness.probes.detectors.reading import config_of, is_tight
from memory_harness.probes.findings import Finding

MIN_BATCHES = 3
"""Evaluation batches that must have left something before they are said to hoard."""

KEPT_SHARE = 0.8
"""Share of what an evaluation left that must still be there one step later before it counts as never released."""

SAME_SHARE = 0.02
"""Relative error within which a size counts as the one expected: the allocator's rounding of several tensors."""

ELEMENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}

HOST_NOISE_BYTES = 256 * 1024
"""What a batch may add to the process's resident memory: the C library's arenas grow in steps."""


def logits_hoarded(log: RunLog) -> list[Finding]:
    """Find an evaluation each of whose batches leaves exactly its logits on the device."""
    return _hoarded(log, "logits-hoarded")


def outputs_hoarded(log: RunLog) -> list[Finding]:
    """Find an evaluation each of whose batches leaves hidden states or caches, with or without its logits."""
    return _hoarded(log, "outputs-hoarded")


def metric_never_reset(log: RunLog) -> list[Finding]:
    """Find a state that each evaluation adds to and none gives back."""
    return _hoarded(log, "metric-never-reset")


def _hoarded(log: RunLog, cause: str) -> list[Finding]:
    model = log.run.model
    hoarding = [e for e in evaluations(log) if _hoards(e)]
    if (model is None and not log.run.script) or not hoarding or _steps_leave_too(log):
        return []
    if freed_by(log, settled(step_growth(log)), "gc"):
        return []  # nobody keeps it
    if log.run.script:
        contents = _contents_of_outputs(log, hoarding[0])
    else:
        assert model is not None
        contents = _contents(hoarding[0], model, config_of(log).model.dtype)
    never_released = _never_released(log, hoarding)
    if contents is None:
        named = "metric-never-reset" if never_released and _adds_up(hoarding) else None
    else:
        named = "logits-hoarded" if contents == "logits" else "outputs-hoarded"
    if named != cause:
        return []
    return [_hoarded_finding(log, cause, hoarding, contents or "a state smaller than the outputs", never_released)]


def _hoards(evaluation: Evaluation) -> bool:
    """Whether every batch left something, and nothing of it was let go in between."""
    left = evaluation.left_bytes
    return len(left) >= MIN_BATCHES and min(left) > NOISE_BYTES


def _steps_leave_too(log: RunLog) -> bool:
    """Whether training steps leave memory as well: then it is no matter of the evaluation."""
    left = [g.left_bytes for g in step_growth(log)[2:]]
    return bool(left) and float(np.median(left)) > NOISE_BYTES


def _never_released(log: RunLog, hoarding: Sequence[Evaluation]) -> bool:
    kept = [(kept_after(log, e), e.grown_bytes) for e in hoarding]
    known = [(k, grown) for k, grown in kept if k is not None]
    return len(hoarding) > 1 and bool(known) and all(k >= KEPT_SHARE * grown for k, grown in known)


def _adds_up(hoarding: Sequence[Evaluation]) -> bool:
    """Whether each evaluation begins with what the one before has left: a buffer is emptied in between."""
    return all(b.before_bytes - a.before_bytes >= KEPT_SHARE * a.grown_bytes for a, b in pairwise(hoarding))


def _contents(evaluation: Evaluation, model: ModelFacts, dtype: str) -> str | None:
    """Return what every batch left, by its exact size; None where no output of the model has that size."""
    sizes = [(left, p.batch) for left, p in zip(evaluation.left_bytes, evaluation.batches, strict=True) if p.batch]
    for name, per_token in _outputs(model, dtype):
        if all(
            abs(left - blocks(batch.padded_tokens * per_token)) <= max(NOISE_BYTES, SAME_SHARE * left)
            for left, batch in sizes
        ):
            return name
    return None


def _contents_of_outputs(log: RunLog, evaluation: Evaluation) -> str | None:
    """Return what every batch left, by the sizes of what the model returned in it; None where none of them fits."""
    forward = evaluation.batches[0].forward
    left = sorted(evaluation.left_bytes)[len(evaluation.left_bytes) // 2]
    kept = sum(s.bytes_per_step for s in survivors_of(log, Phase.EVAL))
    if forward is None:
        return None
    sizes = {"logits": forward.logits_bytes, "all that the model returns": forward.output_bytes}
    for name, size in sizes.items():
        for found in (left, kept):
            if size and abs(found - size) <= max(NOISE_BYTES, SAME_SHARE * size):
                return name
    # beside its logits, and more than they take
    beyond = 0 < forward.logits_bytes < left < forward.output_bytes
    return "a part of what the model returns" if beyond else None


def _outputs(model: ModelFacts, dtype: str) -> list[tuple[str, int]]:
    """Return bytes per token of what a model can return, alone and together, in the compute type and in float32."""
    found = []
    for size in {ELEMENT_BYTES[dtype], 4}:
        logits = model.vocab_size * size
        # the last hidden state is also the layers' last output, normalised: layers + 1 tensors
        hidden = (model.num_layers + 1) * model.hidden_size * size
        cache = 2 * model.num_layers * model.num_kv_heads * model.head_dim * size
        found += [
            ("logits", logits),
            ("logits and hidden states", logits + hidden),
            ("logits, hidden states and cache", logits + hidden + cache),
            ("logits and cache", logits + cache),
            ("hidden states", hidden),
            ("cache", cache),
            ("the last hidden state", model.hidden_size * size),
        ]
    return found


def _hoarded_finding(
    log: RunLog, cause: str, hoarding: Sequence[Evaluation], contents: str, never_released: bool
) -> Finding:
    largest = max(hoarding, key=lambda e: e.grown_bytes)
    slope = robust_slope([p.after.allocated_bytes for p in largest.batches])
    until = "and none is ever released" if never_released else "until it ends"
    return Finding(
        cause=cause,
        severity="error" if log.run.script and never_released else _severity(log, largest.grown_bytes),
        title=f"Each evaluation batch leaves {format_bytes(round(slope.middle))} on the GPU, {until}",
        explanation=f"Allocated climbs with every batch of the evaluation after step {largest.step}: "
        f"{len(largest.batches)} batches left {format_bytes(largest.grown_bytes)}. By its size this is {contents}.",
        phase=Phase.EVAL,
        steps=(hoarding[0].step, hoarding[-1].step),
        bytes=largest.grown_bytes,
        where=where_of(log, Phase.EVAL),
        evidence={
            "bytes_per_batch": round(slope.middle),
            "num_batches": len(largest.batches),
            "num_evaluations": len(hoarding),
            "contents": contents,
            "released": "never" if never_released else "after the evaluation",
        },
    )


def _severity(log: RunLog, num_bytes: int, *phases: Phase) -> Severity:
    """Return `error` where the run died in one of the phases (EVAL by default), and only for these bytes."""
    oom = log.fatal_oom
    if oom is not None and oom.phase in (phases or (Phase.EVAL,)) and fits_without(log, num_bytes):
        return "error"
    return "warning"


def logits_hoarded_host(log: RunLog) -> list[Finding]:
    """Find an evaluation whose batches add their logits to the process's resident memory while the GPU is flat."""
    model = log.run.model
    candidates = [e for e in evaluations(log) if len(e.batches) >= 2 * MIN_BATCHES and not _hoards(e)]
    if model is None or not candidates:
        return []
    evaluation = max(candidates, key=lambda e: len(e.batches))
    # the first batches grow the process for reasons of their own
    batches = evaluation.batches[MIN_BATCHES - 1 :]
    tokens = np.array([p.batch.padded_tokens if p.batch else 0 for p in batches])
    slope = robust_slope([p.host_rss_bytes for p in batches])
    expected = [int(np.median(tokens)) * model.vocab_size * size for size in (2, 4)]
    if slope.low <= HOST_NOISE_BYTES or not any(0.7 * e <= slope.middle <= 1.5 * e for e in expected):
        return []
    grown = batches[-1].host_rss_bytes - batches[0].host_rss_bytes
    return [
        Finding(
            cause="logits-hoarded-host",
            severity="warning",
            title=f"Each evaluation batch adds {format_bytes(round(slope.middle))} to host memory",
            explanation=f"Resident memory rises with every batch of the evaluation after step {evaluation.step}, by "
            f"{format_bytes(grown)} over {len(batches)} batches, about the size of the batch's logits, while "
            "allocated on the GPU is flat. The host runs out instead of the GPU.",
            phase=Phase.EVAL,
            steps=(evaluation.step, evaluation.step),
            bytes=grown,
            where=where_of(log, HOST),
            evidence={
                "host_bytes_per_batch": round(slope.middle),
                "num_batches": len(batches),
                "logits_bytes": min(expected, key=lambda size: abs(size - slope.middle)),
            },
        )
    ]


def eval_with_grad(log: RunLog) -> list[Finding]:
    """Find evaluation batches whose loss carries a graph."""
    batches = [p for p in _eval_records(log) if p.forward and p.forward.has_graph]
    if not batches:
        return []
    worst, extra = _worst_excess(log, batches)
    return [
        Finding(
            cause="eval-with-grad",
            severity=_severity(log, extra),
            title="Evaluation records a computation graph that nothing uses",
            explanation=f"The loss of {len(batches)} evaluation batches has a grad_fn: without torch.no_grad every "
            f"layer keeps what a backward pass would need. The largest batch added {format_bytes(extra)} at its peak.",
            phase=Phase.EVAL,
            steps=(batches[0].step, batches[-1].step),
            bytes=extra,
            where=called_at(batches),
            evidence={"num_batches": len(batches), "eval_peak_bytes": worst.after.peak_allocated_bytes},
        )
    ]


def eval_use_cache(log: RunLog) -> list[Finding]:
    """Find evaluation batches whose output holds a key/value cache."""
    batches = [p for p in _eval_records(log) if p.forward and p.forward.cache_bytes > 0]
    if not batches:
        return []
    largest = max(batches, key=lambda p: p.forward.cache_bytes if p.forward else 0)
    assert largest.forward is not None
    num_bytes, tokens = largest.forward.cache_bytes, largest.batch.padded_tokens if largest.batch else 0
    per_token = f", {num_bytes // tokens} B for each of its {tokens} tokens" if tokens else ""
    severity = _severity(log, num_bytes)
    return [
        Finding(
            cause="eval-use-cache",
            severity=severity if severity == "error" or is_tight(log) else "info",
            title=f"Each evaluation forward builds a key/value cache of up to {format_bytes(num_bytes)}",
            explanation=f"The model's output carries past_key_values in {len(batches)} evaluation batches"
            f"{per_token}. No token is generated there; in training gradient checkpointing switches the cache off, in "
            "evaluation nothing does.",
            phase=Phase.EVAL,
            steps=(batches[0].step, batches[-1].step),
            bytes=num_bytes,
            where=called_at(batches),
            evidence={"cache_bytes": num_bytes, "padded_tokens": tokens, "num_batches": len(batches)},
        )
    ]


def _eval_records(log: RunLog) -> list[PhaseRecord]:
    return [p for p in log.phases if p.phase is Phase.EVAL]


def _worst_excess(log: RunLog, batches: Sequence[PhaseRecord]) -> tuple[PhaseRecord, int]:
    worst = max(batches, key=lambda p: p.after.peak_allocated_bytes)
    return worst, worst.after.peak_allocated_bytes - worst.allocated_before_bytes


def eval_leftover(log: RunLog) -> list[Finding]:
    """Find what evaluation leaves allocated once, and replaces in the next one."""
    found = [e for e in evaluations(log) if _leaves_last(e)]
    if not found or _steps_leave_too(log):
        return []
    kept = kept_after(log, found[0])
    oom = log.fatal_oom
    dies_next = oom is not None and oom.phase in (Phase.FORWARD, Phase.BACKWARD) and oom.step == found[-1].step + 1
    stays = kept is not None and kept >= KEPT_SHARE * found[0].grown_bytes
    accumulates = sum(e.grown_bytes > NOISE_BYTES for e in evaluations(log)) > 1 and len(found) > 1
    if accumulates or not (stays or dies_next):
        return []
    num_bytes = found[0].grown_bytes
    return [
        Finding(
            cause="eval-leftover",
            severity=_severity(log, num_bytes, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER),
            title=f"Evaluation leaves {format_bytes(num_bytes)} behind for the training that follows",
            explanation=f"After the evaluation at step {found[0].step} {format_bytes(num_bytes)} more is allocated "
            "than before it, and stays: its first batch added them and the later ones only took their place. The last "
            "output is still referenced, so the next training step has that much less.",
            phase=Phase.EVAL,
            steps=(found[0].step, found[0].step + 1),
            bytes=num_bytes,
            where=where_of(log, Phase.EVAL) or called_at(found[0].batches),
            evidence={"left_bytes": num_bytes, "kept_one_step_later_bytes": kept or 0},
        )
    ]


def _leaves_last(evaluation: Evaluation) -> bool:
    """Whether the first batch left something, and the others together no more than their difference in size."""
    left = evaluation.left_bytes
    enough = evaluation.grown_bytes >= MIN_GROWTH_BYTES and left[0] > NOISE_BYTES
    return (
        enough
        and len(left) > 1
        and evaluation.grown_bytes <= max(np.cumsum(left)[:2].max(), left[0]) * (1 + SAME_SHARE)
    )
