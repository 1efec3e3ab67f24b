"""Peaks against lengths: what a token costs, where attention's scores begin to count, which lengths do not fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from math import prod

import numpy as np

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import (
    SCORES,
    BatchShape,
    ModelFacts,
    OomRecord,
    Phase,
    PhaseRecord,
    SurvivorRecord,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.reading import (
    FORWARD_PHASES,
    GRAPH_PHASES,
    fatal_finding,
    is_tight,
    made_in_forward,
    main_survivor,
    peak_rise_bytes,
    records_of,
    survivors_at_failure,
)
from memory_harness.probes.findings import Finding

MIN_FITTED_LENGTHS = 4
"""Distinct lengths from which a quadratic term can be told from a linear one: three coefficients and one to check."""
MIN_SPAN = 2.0
"""Longest over shortest length: nearer lengths look linear whatever they are."""
BETTER_FIT = 0.5
"""Share of the linear model's error that must be left at most once the quadratic term is there."""
SCORE_BYTES = 2
"""Least bytes per head and pair of tokens that scores take, one 16-bit copy: a smaller coefficient is something
else."""
CLOSE_FIT = 0.01
"""Mean error of the fit, as a share of the run's peak, up to which it may be continued beyond the lengths seen."""
LOOK_AHEAD = 4
"""How many times the longest sample seen is still tried."""
MULTIHEAD = "`nn.MultiheadAttention` stores and returns them unless it is called with `need_weights=False`."
SCORES_SHARE = 0.1
"""Share of a batch's own peak from which the scores are worth a line."""


@dataclass(frozen=True)
class PeakModel:
    """Peak of a phase above what was there before: constant + linear in its tokens + quadratic in its length."""

    constant_bytes: float
    per_token_bytes: float
    per_pair_bytes: float
    residual_bytes: float
    """root of the mean squared error"""
    num_batches: int

    def rise_of(self, batch_size: int, length: int) -> float:
        """Return the predicted rise of a batch."""
        pairs = batch_size * length * length
        return self.constant_bytes + self.per_token_bytes * batch_size * length + self.per_pair_bytes * pairs

    def longest_within(self, room_bytes: int, batch_size: int, longest: int) -> int:
        """Return the greatest length up to `longest` whose rise fits the room, 0 where none does."""
        for length in range(longest, 0, -1):
            if self.rise_of(batch_size, length) <= room_bytes:
                return length
        return 0


def fit_peaks(records: Iterable[PhaseRecord], *, quadratic: bool) -> PeakModel | None:
    """Fit the peaks of records that have a batch; None where their lengths are too few or too near."""
    points = [(record.batch, peak_rise_bytes(record)) for record in records if record.batch]
    lengths = {batch.padded_length for batch, _ in points}
    if len(lengths) < MIN_FITTED_LENGTHS or max(lengths) < MIN_SPAN * min(lengths):
        return None
    rows = [(1, batch.padded_tokens, _num_pairs(batch), rise) for batch, rise in points]
    table = np.array(rows, dtype=np.float64)
    columns, rises = table[:, : 3 if quadratic else 2], table[:, 3]
    coefficients, *_ = np.linalg.lstsq(columns, rises, rcond=None)
    error = float(np.sqrt(np.mean((columns @ coefficients - rises) ** 2)))
    constant, per_token, per_pair = (*coefficients, 0.0)[:3]
    return PeakModel(float(constant), float(per_token), float(per_pair), error, len(points))


def _num_pairs(batch: BatchShape) -> int:
    return batch.batch_size * batch.padded_length**2


def share_beyond(lengths: Sequence[int], longest_fitting: int) -> float:
    """Return the share of samples that are longer than fits."""
    return sum(length > longest_fitting for length in lengths) / max(1, len(lengths))


@dataclass(frozen=True)
class LengthLimit:
    """How long a training batch may get before what lives in it exceeds the budget."""

    batch_size: int
    longest: int
    """tokens that still fit"""
    tried_up_to: int
    """tokens; where `longest` is as many, the limit lies beyond"""
    share_beyond: float
    """of the samples seen"""
    num_samples: int


def length_limit(log: RunLog) -> LengthLimit | None:
    """Return the limit by the peaks of the batches seen, None where these do not follow their lengths closely.

    The floor is the highest from the second step on; fragmentation may end a run earlier.
    """
    records = micro_batches(log)
    linear, quadratic = fit_peaks(records, quadratic=False), fit_peaks(records, quadratic=True)
    if linear is None or quadratic is None:
        return None
    fitted = quadratic if quadratic.residual_bytes <= BETTER_FIT * linear.residual_bytes else linear
    if fitted.residual_bytes > CLOSE_FIT * log.peak_allocated_bytes:
        return None
    batches = [record.batch for record in records if record.batch]
    lengths = list(chain.from_iterable(batch.lengths_at_most for batch in batches))
    batch_size = max(batch.batch_size for batch in batches)
    room = log.run.budget_bytes - max(record.allocated_before_bytes for record in records)
    tried_up_to = LOOK_AHEAD * max(lengths)
    longest = fitted.longest_within(room, batch_size, tried_up_to)
    return LengthLimit(batch_size, longest, tried_up_to, share_beyond(lengths, longest), len(lengths))


def micro_batches(log: RunLog) -> list[PhaseRecord]:
    """Return each forward pass with the peak of its backward pass, where that is the higher one."""
    backwards = {(record.step, record.micro_step): record for record in records_of(log, Phase.BACKWARD)}
    if log.fatal_oom:
        backwards.pop((log.fatal_oom.step, log.fatal_oom.micro_step), None)
    forwards: dict[tuple[int, int], PhaseRecord] = {}
    for record in records_of(log, Phase.FORWARD):
        if record.step > 1 and record.batch:
            forwards[record.step, record.micro_step] = record
    found = []
    for key, forward in forwards.items():
        if key in backwards:
            higher = max(forward.after, backwards[key].after, key=lambda stats: stats.peak_allocated_bytes)
            found.append(replace(forward, after=higher))
    return found


def attention_math_fallback(evidence: Evidence) -> Finding | None:
    """Find training peaks that grow with the square of the length: the math kernel stores all attention scores."""
    model, oom = evidence.log.run.model, evidence.log.fatal_oom
    asked_for = main_survivor(survivors_at_failure(evidence.log, SCORES))
    if asked_for is not None and oom is not None and model is not None and not model.num_heads:
        return _scores_seen(evidence, oom, asked_for)
    if model is None or not model.num_heads:
        return None
    if oom is not None and oom.batch is not None and oom.phase in (*GRAPH_PHASES, Phase.EVAL):
        bytes_per_element = _scores_of(oom.requested_bytes, oom.batch, model)
        if bytes_per_element is not None:
            return _scores_oom(evidence, oom, oom.batch, model.num_heads, bytes_per_element)
    return _scores_peak(evidence, model)


def _scores_seen(evidence: Evidence, oom: OomRecord, scores: SurvivorRecord) -> Finding | None:
    """Return the finding about scores whose shape is known of the call that was to make them; as many never fitted.

    Where a batch as large did, something else has taken the room.
    """
    batch_size, num_heads, length, _ = scores.shape
    forwards = records_of(evidence.log, *FORWARD_PHASES)
    before = [record.batch for record in forwards if record.batch and record.step < oom.step]
    shorter = all(batch.padded_tokens < batch_size * length for batch in before)
    if not shorter or scores.bytes_per_step < SCORES_SHARE * oom.budget_bytes:
        return None
    bytes_per_element = scores.bytes_per_step // prod(scores.shape)
    batch = oom.batch or BatchShape(batch_size, length, (), batch_size * length)
    why = MULTIHEAD if scores.site.endswith("multi_head_attention_forward") else None
    return _scores_oom(evidence, oom, replace(batch, padded_length=length), num_heads, bytes_per_element, why)


def _scores_of(num_bytes: int, batch: BatchShape, model: ModelFacts) -> int | None:
    """Return the bytes per element where the size is that of all heads' scores and of nothing else, or None."""
    num_scores = model.num_heads * _num_pairs(batch)
    for bytes_per_element in (2, 4):
        if num_scores * bytes_per_element == num_bytes and _is_only_scores(num_bytes, batch, model):
            return bytes_per_element
    return None


def _is_only_scores(num_bytes: int, batch: BatchShape, model: ModelFacts) -> bool:
    for width in (model.vocab_size, model.hidden_size, model.intermediate_size):
        if num_bytes in (batch.padded_tokens * width * 2, batch.padded_tokens * width * 4):
            return False
    return True


def _scores_oom(
    evidence: Evidence,
    oom: OomRecord,
    batch: BatchShape,
    num_heads: int,
    bytes_per_element: int,
    why: str | None = None,
) -> Finding:
    length = batch.padded_length
    finding = fatal_finding(
        oom,
        cause="attention-math-fallback",
        title=f"Attention asks for {format_bytes(oom.requested_bytes)} to store all its scores",
        explanation=f"{batch.batch_size} × {num_heads} heads × {length} × {length} × {bytes_per_element} B = "
        f"{format_bytes(oom.requested_bytes)}: the scores of one layer, which only the math kernel stores. "
        + (why or _why(evidence, batch)),
        num_bytes=oom.requested_bytes,
        evidence={"num_heads": num_heads, "length": length, "bytes_per_element": bytes_per_element},
    )
    return replace(finding, where=made_in_forward(evidence.log, oom.requested_bytes) or finding.where)


def _scores_peak(evidence: Evidence, model: ModelFacts) -> Finding | None:
    """Report a quadratic term that the peaks of whole batches show; batches with padding are looked at apart."""
    for phase, padded in product((Phase.FORWARD, Phase.BACKWARD), (False, True)):
        trained = [record for record in records_of(evidence.log, phase) if record.step > 1 and record.batch]
        records = [record for record in trained if record.batch and _has_padding(record.batch) is padded]
        fitted = fit_peaks(records, quadratic=True)
        if fitted is None or fitted.per_pair_bytes < SCORE_BYTES * model.num_heads:
            continue
        linear = fit_peaks(records, quadratic=False)
        if linear is None or fitted.residual_bytes > BETTER_FIT * linear.residual_bytes:
            continue
        largest = max(records, key=lambda record: record.batch.padded_length if record.batch else 0)
        assert largest.batch is not None
        batch_size, length = largest.batch.batch_size, largest.batch.padded_length
        num_bytes = round(fitted.per_pair_bytes * _num_pairs(largest.batch))
        if num_bytes >= SCORES_SHARE * fitted.rise_of(batch_size, length):
            return _scores_finding(evidence, fitted, linear, largest, num_bytes)
    return None


def _has_padding(batch: BatchShape) -> bool:
    return min(batch.lengths, default=batch.padded_length) < batch.padded_length


def _scores_finding(
    evidence: Evidence, fitted: PeakModel, linear: PeakModel, largest: PhaseRecord, num_bytes: int
) -> Finding:
    log, batch = evidence.log, largest.batch
    assert batch is not None
    return Finding(
        cause="attention-math-fallback",
        severity="warning" if is_tight(log) else "info",
        title=f"Attention stores all its scores: {format_bytes(num_bytes)} at {batch.padded_length} tokens",
        explanation=f"The peak of the {largest.phase.lower()} pass grows with the square of the length, by "
        f"{fitted.per_pair_bytes:.0f} B for each pair of tokens beside {format_bytes(round(fitted.per_token_bytes))} "
        "a token. " + _why(evidence, batch),
        phase=largest.phase,
        steps=(largest.step, largest.step),
        bytes=num_bytes,
        evidence={
            "per_pair_bytes": round(fitted.per_pair_bytes, 1),
            "per_token_bytes": round(fitted.per_token_bytes),
            "residual_bytes": round(fitted.residual_bytes),
            "residual_linear_bytes": round(linear.residual_bytes),
            "num_batches": fitted.num_batches,
            "longest": batch.padded_length,
        },
    )


def _why(evidence: Evidence, batch: BatchShape) -> str:
    """Return why the math kernel runs."""
    if not evidence.has_config:
        return "Either no fused kernel takes this call, or the attention is written out in operators of its own."
    asked_for, kernels = evidence.config.model.attention, evidence.config.model.sdpa_backends
    if asked_for == "math" or kernels[:1] == ("math",):
        return "The math kernel is asked for by the configuration."
    if asked_for == "eager":
        return "Attention written out in plain operators is asked for by the configuration (--attention eager)."
    if not _has_padding(batch):
        return (
            "A batch without padding has no mask; the model then leaves grouped heads to PyTorch (enable_gqa), which "
            "no fused kernel of this card takes."
        )
    return "No fused kernel of this card takes this call."


def truncation_missing(evidence: Evidence) -> Finding | None:
    """Find batches with more tokens than the configured maximum length allows."""
    if not evidence.has_config:
        return None
    limit, oom = evidence.config.data.max_length, evidence.log.fatal_oom
    failed = oom.batch if oom is not None else None
    batches = [*evidence.train_batches, failed] if failed else list(evidence.train_batches)
    lengths = chain.from_iterable(batch.lengths for batch in batches)
    longer = [length for length in lengths if length > limit]
    if not longer:
        return None
    dies_of_it = failed is not None and max(failed.lengths, default=0) > limit
    return Finding(
        cause="truncation-missing",
        severity="error" if dies_of_it else "warning",
        title=f"Samples of up to {max(longer)} tokens, where {limit} is the maximum",
        explanation=f"{len(longer)} samples in the batches so far are longer than the configured maximum of "
        f"{limit} tokens. It is not applied, so that the longest sample alone decides what the run needs.",
        phase=oom.phase if dies_of_it and oom is not None else Phase.FORWARD,
        bytes=None,
        evidence={"max_length": limit, "longest": max(longer), "num_longer": len(longer)},
    )


def bucketing_raises_peak(evidence: Evidence) -> Finding | None:
    """Find bucketed batches with more padded tokens than batches of the configured size could ever have."""
    config, oom = evidence.config, evidence.log.fatal_oom
    in_training = oom is not None and oom.phase in (Phase.FORWARD, Phase.BACKWARD)
    failed = oom.batch if oom is not None and in_training else None
    batches = [*evidence.train_batches, failed] if failed else list(evidence.train_batches)
    if config.data.batching != "bucketed" or not batches or not evidence.has_config:
        return None
    largest = max(batches, key=lambda batch: batch.padded_tokens)
    size = config.train.train_batch_size * config.train.sequences_per_sample
    without = size * max(batch.padded_length for batch in batches)
    if largest.padded_tokens <= without:
        return None
    dies_of_it = failed is not None and failed.padded_tokens > without
    ratio = largest.padded_tokens / without
    return Finding(
        cause="bucketing-raises-peak",
        severity="error" if dies_of_it else "warning",
        title=f"Bucketing makes batches of {largest.padded_tokens} tokens, {ratio:.1f} times what they had",
        explanation=f"Samples of like length share a batch: the largest holds {largest.batch_size} × "
        f"{largest.padded_length} = {largest.padded_tokens} padded tokens, where a batch of "
        f"{size} would have at most {without}. No cap on the tokens of a batch holds it "
        "back.",
        phase=Phase.FORWARD,
        evidence={"largest_tokens": largest.padded_tokens, "without_bucketing_tokens": without},
    )
