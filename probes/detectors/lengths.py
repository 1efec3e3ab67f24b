"""Costs that follow from how long the samples are: padding, the longest sample, a cache carved by varying lengths."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.allocator_sizes import ROUND_LARGE_BYTES, segment_size
from memory_harness.harness.log.records import CAUGHT_BEFORE, SORTING, BatchShape, OomRecord, Phase, StepRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.peaks import micro_batches
from memory_harness.probes.detectors.reading import (
    FORWARD_PHASES,
    GRAPH_PHASES,
    fatal_finding,
    peak_rise_bytes,
    records_of,
    setting_at,
    severity_without,
    survivors_at_failure,
)
from memory_harness.probes.detectors.trends import BURN_IN_STEPS
from memory_harness.probes.findings import Finding, Severity

PADDED_SHARE = 1 / 3
"""Share of padding from which padding to the maximum is called a cost: a third of the run's time goes into it. Rounding
lengths up and unequal lengths in a batch leave a few percent in any scheme."""
PADDED_BEYOND_DOUBT = 2 / 3
"""The same of a few samples: who pads to a batch's longest does not come to three times the mean."""
MIN_SAMPLES = 16
"""Samples seen before their lengths are called typical."""
LONGER_BY = 1.1
"""How much larger than any earlier batch the failing one must be. 10 % at 2048 tokens moves the peak by some 0.4 GiB
(4.46 GiB per 2048 tokens, reference measurement); less could as well be growth or a carved cache."""
MIN_EARLIER_BATCHES = 8
"""Earlier micro-batches needed before the failing one can be called unusually large."""
MUCH_LONGER_BY = 2
"""The same after a few steps: of lengths that are alike, no batch is twice as large as all the others."""
MIN_STEPS_MUCH_SHORTER = 3
"""Steps needed before that."""
FLAT_FLOOR_BYTES = 64 * MIB
"""Rise of the floor that still counts as flat: two workspaces, far below the activations of one step."""
MIN_LENGTHS = 3
"""Distinct padded lengths before they can be said to vary; one odd last batch makes two."""
CACHED_SHARE = 0.15
"""Share of the budget that lies in the cache unused before it counts as carved: in the measured stock recipe 1.49 of
14.34 GiB reserved at 2048 tokens (10 %) and 2.91 of 20.21 at 4096 (14 %) lay unused without any carving."""


def padding_to_max(evidence: Evidence) -> Finding | None:
    """Find a run that pads every sample to the maximum although most samples are much shorter."""
    log = evidence.log
    maximum = _padded_to(evidence)
    batches = _batches_with_failed(evidence)
    lengths = [length for batch in batches for length in batch.lengths]
    if maximum is None or not lengths:
        return None
    real, computed = sum(lengths), sum(batch.padded_tokens for batch in batches if batch.lengths)
    share = 1 - real / computed
    is_told_by_few = bool(log.run.script) and log.fatal_oom is not None and share >= PADDED_BEYOND_DOUBT
    if share < PADDED_SHARE or (len(lengths) < MIN_SAMPLES and not is_told_by_few):
        return None
    severity, padding_bytes = _padding_at_failure(log, share)
    mean = f"{real / len(lengths):.0f}"
    return Finding(
        cause="padding-to-max",
        severity=severity,
        title=f"{share:.0%} of the tokens computed in training are padding",
        explanation=f"Every sample is padded to {maximum} tokens while the mean is {mean}: of {computed} tokens "
        f"computed so far only {real} are text. Each step takes the time and the memory of the longest sample there "
        "could be.",
        phase=Phase.FORWARD,
        steps=(log.steps[0].step, log.steps[-1].step) if log.steps else None,
        bytes=padding_bytes,
        where=setting_at(log, "padding", "pad_to_max_length") or (log.fatal_oom.batch_at if log.fatal_oom else None),
        evidence={
            "padded_share": round(share, 4),
            "real_tokens": real,
            "computed_tokens": computed,
            "num_samples": len(lengths),
            "max_length": maximum,
        },
    )


def _batches_with_failed(evidence: Evidence) -> list[BatchShape]:
    """Return the training's batches, the one that ran out of memory in its forward pass among them."""
    oom = evidence.log.fatal_oom
    failed = [oom.batch] if oom is not None and oom.batch is not None and oom.phase is Phase.FORWARD else []
    return [*evidence.train_batches, *failed]


def _padding_at_failure(log: RunLog, share: float) -> tuple[Severity, int | None]:
    """Return how bad the padding is, and what it took of the failing pass where that died of it."""
    oom = log.fatal_oom
    # a configured run is told of what the padding costs by the length that it is configured with
    if oom is None or oom.phase not in GRAPH_PHASES or not log.run.script:
        return "warning", None
    before = log.steps[-1].allocated_bytes if log.steps else 0
    padding_bytes = round(share * max(0, oom.allocated_bytes - before + oom.requested_bytes))
    return severity_without(log, padding_bytes, *GRAPH_PHASES), padding_bytes


def _padded_to(evidence: Evidence) -> int | None:
    """Return the length that every sample is padded to, or None where that is not so."""
    if evidence.has_config:
        data = evidence.config.data
        return data.max_length if data.batching == "padded" else None
    batches = [batch for batch in _batches_with_failed(evidence) if batch.lengths]
    padded = {batch.padded_length for batch in batches}
    # batches padded to their longest would reach that length now and then
    reached = sum(max(batch.lengths, default=0) == batch.padded_length for batch in batches)
    return padded.pop() if len(padded) == 1 and reached < len(batches) / 2 else None


def longest_sample(evidence: Evidence) -> Finding | None:
    """Find a training step that fails because its batch is clearly larger than every one before."""
    log, oom = evidence.log, evidence.log.fatal_oom
    if oom is None or oom.batch is None or oom.phase not in GRAPH_PHASES:
        return None
    if survivors_at_failure(log, CAUGHT_BEFORE):
        return None  # a part of the batch is tried again, while what the whole had made is there
    if len(oom.batch.lengths) > oom.batch.batch_size:
        return None  # packed: many samples together are long
    failed = (oom.step, oom.micro_step)
    forwards = [record for record in records_of(log, *FORWARD_PHASES) if (record.step, record.micro_step) != failed]
    earlier = [record.batch for record in forwards if record.batch]
    largest = max((batch.padded_tokens for batch in earlier), default=0)
    unusual = oom.batch.padded_tokens >= LONGER_BY * largest and _are_enough(log, earlier, oom.batch)
    if not unusual or _rise_after_burn_in(log.steps) > FLAT_FLOOR_BYTES or _is_carved(evidence, oom):
        return None
    finding = _longest_sample_finding(oom, oom.batch, earlier, largest)
    return replace(finding, where=setting_at(log, *_makers_of_batches(earlier)) or oom.batch_at or finding.where)


def _makers_of_batches(batches: Sequence[BatchShape]) -> tuple[str, ...]:
    """Return the settings by which samples of like length come to share a batch."""
    lengths = [batch.padded_length for batch in batches]
    are_sorted = lengths == sorted(lengths) and len(set(lengths)) >= MIN_LENGTHS
    return ("batch_sampler", SORTING) if are_sorted else ("batch_sampler",)


def _are_enough(log: RunLog, earlier: Sequence[BatchShape], batch: BatchShape) -> bool:
    """Return whether the earlier batches can tell of one what is usual: many, or few that are much smaller."""
    largest = max((before.padded_tokens for before in earlier), default=0)
    is_much_larger = batch.padded_tokens >= MUCH_LONGER_BY * max(1, largest)
    return len(earlier) >= MIN_EARLIER_BATCHES or (is_much_larger and len(log.steps) >= MIN_STEPS_MUCH_SHORTER)


def _longest_sample_finding(oom: OomRecord, batch: BatchShape, earlier: list[BatchShape], largest: int) -> Finding:
    """Return the finding; `earlier` are the batches before, `largest` the most padded tokens of one of them."""
    longest = max(batch.lengths_at_most)
    num_seen = num_shorter = 0
    for other in earlier:
        num_seen += len(other.lengths_at_most)
        num_shorter += sum(length < longest for length in other.lengths_at_most)
    percentile = 100 * num_shorter / max(1, num_seen)
    return fatal_finding(
        oom,
        cause="longest-sample",
        title=f"The longest sample so far ({longest} tokens) does not fit",
        explanation=f"The batch at step {oom.step} has {batch.padded_tokens} padded tokens; the largest of "
        f"{len(earlier)} before it had {largest}. Its longest sample, {longest} tokens, exceeds {percentile:.1f}% "
        "of those seen. What stays between steps is flat, so nothing leaks: the run lasts until this sample is "
        f"drawn, which depends on the order. It asked for {format_bytes(oom.requested_bytes)} with "
        f"{format_bytes(oom.allocated_bytes)} of {format_bytes(oom.budget_bytes)} taken.",
        num_bytes=oom.requested_bytes,
        evidence={
            "length": longest,
            "percentile": round(percentile, 2),
            "padded_tokens": batch.padded_tokens,
            "largest_before_tokens": largest,
            "batches_before": len(earlier),
        },
    )


def fragmentation(evidence: Evidence) -> Finding | None:
    """Find a request that fails although enough memory is free, only in pieces; or a cache on the way there."""
    oom = evidence.log.fatal_oom
    if oom is None:
        return _carved_cache(evidence)
    return _carved_oom(oom) if _is_carved(evidence, oom) else None


def _is_carved(evidence: Evidence, oom: OomRecord) -> bool:
    """Return whether varying lengths left much memory free, enough for the request if it were in one piece.

    A nearly full card fails on a small request too, with a little free memory in pieces: that is no fragmentation.
    """
    needed = -(-oom.requested_bytes // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES
    fits_in_one_piece = oom.allocated_bytes + needed <= oom.budget_bytes
    budget_stopped_it = oom.reserved_bytes + segment_size(oom.requested_bytes) > oom.budget_bytes
    much_unused = oom.reserved_bytes - oom.allocated_bytes >= CACHED_SHARE * oom.budget_bytes
    # else what lies unused was reserved for the very batch that failed
    most_reserved = max((step.reserved_bytes for step in evidence.log.steps), default=0)
    varied = most_reserved >= oom.reserved_bytes / 2 and _num_lengths(evidence) >= MIN_LENGTHS
    is_carved = fits_in_one_piece and budget_stopped_it and much_unused and varied
    return is_carved and not _needs_more_than_there_is(evidence, oom)


def _needs_more_than_there_is(evidence: Evidence, oom: OomRecord) -> bool:
    """Return whether the failing batch, by what those before took for a token, needs more than the budget in all.

    Its pass may have failed early on, with most of what it needs still to come.
    """
    log = evidence.log
    passes = [record for record in micro_batches(log) if record.step != oom.step]
    if oom.batch is None or oom.phase not in GRAPH_PHASES or not passes:
        return False
    if not _are_enough(log, [record.batch for record in passes if record.batch], oom.batch):
        return False
    largest = sorted(passes, key=lambda record: record.batch.padded_tokens if record.batch else 0)[-len(passes) // 2 :]
    rates = [peak_rise_bytes(record) / record.batch.padded_tokens for record in largest if record.batch]
    floor = min(step.allocated_bytes for step in log.steps[1:]) if log.steps[1:] else 0
    return floor + float(np.median(rates)) * oom.batch.padded_tokens > oom.budget_bytes


def _num_lengths(evidence: Evidence) -> int:
    return len({batch.padded_length for batch in evidence.train_batches})


def _carved_oom(oom: OomRecord) -> Finding:
    unused = oom.reserved_bytes - oom.allocated_bytes
    return fatal_finding(
        oom,
        cause="fragmentation",
        title=f"{format_bytes(unused)} is free in the cache, but no piece is large enough",
        explanation=f"Live tensors take {format_bytes(oom.allocated_bytes)} and the request is "
        f"{format_bytes(oom.requested_bytes)}: together {format_bytes(oom.allocated_bytes + oom.requested_bytes)}, "
        f"within the budget of {format_bytes(oom.budget_bytes)}. But the allocator holds "
        f"{format_bytes(oom.reserved_bytes)}, and the largest free piece in it is "
        f"{format_bytes(oom.largest_free_block_bytes)}.",
        num_bytes=unused,
        evidence={
            "requested_bytes": oom.requested_bytes,
            "reserved_bytes": oom.reserved_bytes,
            "largest_free_block_bytes": oom.largest_free_block_bytes,
        },
    )


def _carved_cache(evidence: Evidence) -> Finding | None:
    log = evidence.log
    if not log.phases or not log.steps:
        return None
    worst = max(log.phases, key=lambda record: record.after.peak_reserved_bytes)
    unused = worst.after.peak_reserved_bytes - worst.after.peak_allocated_bytes
    retries = max(record.after.num_alloc_retries for record in log.phases)
    num_lengths = _num_lengths(evidence)
    if unused < CACHED_SHARE * log.run.budget_bytes or num_lengths < MIN_LENGTHS or retries == 0:
        return None
    return Finding(
        cause="fragmentation",
        severity="warning" if retries > 1 else "info",  # one, for a new longest batch, is over with it
        title=f"{format_bytes(unused)} lies unused in a cache carved up by varying lengths",
        explanation=f"Reserved reaches {format_bytes(worst.after.peak_reserved_bytes)} while live tensors peak "
        f"at {format_bytes(worst.after.peak_allocated_bytes)}. Each of the {num_lengths} padded lengths cuts the "
        f"cache anew; {retries} times the allocator had to hand memory back to the driver and ask again, which "
        "stalls the GPU.",
        phase=worst.phase,
        steps=(log.steps[0].step, log.steps[-1].step),
        bytes=unused,
        evidence={
            "peak_reserved_bytes": worst.after.peak_reserved_bytes,
            "peak_allocated_bytes": worst.after.peak_allocated_bytes,
            "num_alloc_retries": retries,
            "num_lengths": num_lengths,
            "budget_bytes": log.run.budget_bytes,
        },
    )


def _rise_after_burn_in(steps: list[StepRecord]) -> int:
    """Return by how much the floor rose from the end of the burn-in to the last step, 0 where it fell."""
    later = steps[BURN_IN_STEPS:]
    return max(0, later[-1].allocated_bytes - later[0].allocated_bytes) if later else 0
