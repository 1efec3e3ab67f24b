"""Costs that follow from how long the samples are: padding, the longest sample, a cache carved by varying lengths."""

from __future__ import annotations

from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.allocator_sizes import segment_size
from memory_harness.harness.log.records import BatchShape, OomRecord, Phase, StepRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.reading import (
    FORWARD_PHASES,
    GRAPH_PHASES,
    config_of,
    fatal_finding,
    has_config,
    train_batches,
)
from memory_harness.probes.findings import Finding

PADDED_SHARE = 1 / 3
"""Share of padding from which padding to the maximum is called a cost: a third of the run's time goes into it. Rounding
lengths up and unequal lengths in a batch leave a few percent in any scheme."""

MIN_SAMPLES = 16
"""Samples seen before their lengths are called typical."""

LONGER_BY = 1.1
"""How much larger than any earlier batch the failing one must be. 10 % at 2048 tokens moves the peak by some 0.4 GiB
(4.46 GiB per 2048 tokens, reference measurement); less could as well be growth or a carved cache."""

MIN_EARLIER_BATCHES = 8
"""Earlier micro-batches needed before the failing one can be called unusually large."""

WARM_UP_STEPS = 2
"""Steps after which the floor should stay where it is: optimizer states and workspaces appear in the first two."""

FLAT_FLOOR_BYTES = 64 * MIB
"""Rise of the floor that still counts as flat: two workspaces, far below the activations of one step."""

MIN_LENGTHS = 3
"""Distinct padded lengths before they can be said to vary; one odd last batch makes two."""

CACHED_SHARE = 0.15
"""Share of the budget that lies in the cache unused before it counts as carved: in the measured stock recipe 1.49 of
14.34 GiB reserved at 2048 tokens (10 %) and 2.91 of 20.21 at 4096 (14 %) lay unused without any carving."""

PAGE_BYTES = 2 * MIB
"""The allocator reserves large requests in multiples of this. Source: torch CUDACachingAllocator, kRoundLarge."""


def padding_to_max(log: RunLog) -> list[Finding]:
    """Find a run that pads every sample to the maximum although most samples are much shorter."""
    maximum = _padded_to(log)
    num_samples = sum(len(step.lengths) for step in log.steps)
    if maximum is None or num_samples < MIN_SAMPLES:
        return []
    real, computed = _tokens(log.steps)
    share = 1 - real / computed
    if share < PADDED_SHARE:
        return []
    return [
        Finding(
            cause="padding-to-max",
            severity="warning",
            title=f"{share:.0%} of the tokens computed in training are padding",
            explanation=f"Every sample is padded to {maximum} tokens while the mean is "
            f"{real / num_samples:.0f}: of {computed} tokens computed so far only {real} are text. Each step takes "
            "the time and the memory of the longest sample there could be.",
            phase=Phase.FORWARD,
            steps=(log.steps[0].step, log.steps[-1].step),
            evidence={
                "padded_share": round(share, 4),
                "real_tokens": real,
                "computed_tokens": computed,
                "num_samples": num_samples,
                "max_length": maximum,
            },
        )
    ]


def _padded_to(log: RunLog) -> int | None:
    """Return the length that every sample is padded to, or None where that is not so."""
    if has_config(log):
        data = config_of(log).data
        return data.max_length if data.batching == "padded" else None
    batches = train_batches(log)
    padded = {batch.padded_length for batch in batches}
    # batches padded to their longest would reach that length now and then
    reached = sum(max(batch.lengths, default=0) == batch.padded_length for batch in batches)
    return padded.pop() if len(padded) == 1 and reached < len(batches) / 2 else None


def longest_sample(log: RunLog) -> list[Finding]:
    """Find a training step that fails because its batch is clearly larger than every one before."""
    oom = log.fatal_oom
    if oom is None or oom.batch is None or oom.phase not in GRAPH_PHASES:
        return []
    failed = (oom.step, oom.micro_step)
    forwards = [p for p in log.phases if p.phase in FORWARD_PHASES and (p.step, p.micro_step) != failed]
    earlier = [p.batch for p in forwards if p.batch]
    largest = max((b.padded_tokens for b in earlier), default=0)
    unusual = len(earlier) >= MIN_EARLIER_BATCHES and oom.batch.padded_tokens >= LONGER_BY * largest
    if not unusual or _floor_rise(log.steps) > FLAT_FLOOR_BYTES or _is_carved(log, oom):
        return []
    return [_longest_sample_finding(oom, oom.batch, earlier, largest)]


def _longest_sample_finding(oom: OomRecord, batch: BatchShape, earlier: list[BatchShape], largest: int) -> Finding:
    longest = max(batch.lengths_at_most)
    seen = [length for b in earlier for length in b.lengths_at_most]
    percentile = 100 * sum(length < longest for length in seen) / max(1, len(seen))
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


def fragmentation(log: RunLog) -> list[Finding]:
    """Find a request that fails although enough memory is free, only in pieces; or a cache on the way there."""
    oom = log.fatal_oom
    if oom is not None:
        return [_carved_oom(oom)] if _is_carved(log, oom) else []
    return _carved_cache(log)


def _is_carved(log: RunLog, oom: OomRecord) -> bool:
    """Whether varying lengths left much memory free, enough for the request if it were in one piece.

    A nearly full card fails on a small request too, with a little free memory in pieces: that is no fragmentation.
    """
    needed = -(-oom.requested_bytes // PAGE_BYTES) * PAGE_BYTES
    fits_in_one_piece = oom.allocated_bytes + needed <= oom.budget_bytes
    budget_stopped_it = oom.reserved_bytes + segment_size(oom.requested_bytes) > oom.budget_bytes
    much_unused = oom.reserved_bytes - oom.allocated_bytes >= CACHED_SHARE * oom.budget_bytes
    # else what lies unused was reserved for the very batch that failed
    carved_before = max((s.reserved_bytes for s in log.steps), default=0) >= oom.reserved_bytes / 2
    varied = carved_before and _num_lengths(log) >= MIN_LENGTHS
    return fits_in_one_piece and budget_stopped_it and much_unused and varied


def _num_lengths(log: RunLog) -> int:
    return len({b.padded_length for b in train_batches(log)})


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


def _carved_cache(log: RunLog) -> list[Finding]:
    if not log.phases or not log.steps:
        return []
    worst = max(log.phases, key=lambda p: p.after.peak_reserved_bytes)
    unused = worst.after.peak_reserved_bytes - worst.after.peak_allocated_bytes
    retries = max(p.after.num_alloc_retries for p in log.phases)
    num_lengths = _num_lengths(log)
    if unused < CACHED_SHARE * log.run.budget_bytes or num_lengths < MIN_LENGTHS or retries == 0:
        return []
    return [
        Finding(
            cause="fragmentation",
            severity="warning",
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
    ]


def _tokens(steps: list[StepRecord]) -> tuple[int, int]:
    """Return the real and the computed tokens of these steps; a step's computed tokens follow from its padded share."""
    real = sum(sum(s.lengths) for s in steps)
    computed = sum(round(sum(s.lengths) / (1 - s.padded_share)) for s in steps if s.padded_share < 1)
    return real, max(computed, real, 1)


def _floor_rise(steps: list[StepRecord]) -> int:
    """Return by how much the floor rose from the end of warm-up to the last step, 0 where it fell."""
    settled = steps[WARM_UP_STEPS:]
    return max(0, settled[-1].allocated_bytes - settled[0].allocated_bytes) if settled else 0
