"""Training on what the model has generated itself: rollouts that are kept, and the logits of a whole group."""

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.allocator_sizes import block_size
from memory_harness.harness.log.records import DRAWING, OomRecord, Phase, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.floor import (
    EXPLAINED_SHARE,
    MIN_EVENTS,
    floor_rise,
    forecast,
    forecast_in_words,
    growth_severity,
    keeps_growing,
    span,
)
from memory_harness.probes.detectors.kept import are_caches, is_of_cache
from memory_harness.probes.detectors.logits import LogitsSize, logits_size
from memory_harness.probes.detectors.reading import (
    FORWARD_PHASES,
    dies_of_replies,
    fatal_finding,
    line_of,
    main_survivor,
    records_of,
    survivors_of,
)
from memory_harness.probes.detectors.trends import MIN_GROWTH_BYTES
from memory_harness.probes.findings import Finding

ROLLOUT_PHASES = (Phase.GENERATE, Phase.EVAL, Phase.ROLLOUT, Phase.LOGPROBS)
"""Where rollouts are made: replies, and their probabilities under the old and the reference model."""
ROLLOUT_SHARE = 0.5
"""Share of the steps that generate, or calls without training for each with, of a training on rollouts."""


def rollouts_kept(evidence: Evidence) -> Finding | None:
    """Find a floor that climbs by what generating between the steps makes, and something keeps."""
    log, growth = evidence.log, evidence.later_steps
    rise = floor_rise(growth)
    if rise < MIN_GROWTH_BYTES or not keeps_growing(growth) or not _trains_on_rollouts(evidence):
        return None
    survivors = survivors_of(log)
    rollouts = [survivor for survivor in survivors if survivor.phase in ROLLOUT_PHASES]
    main = main_survivor(rollouts)
    if main is None or _bytes_of(rollouts) < EXPLAINED_SHARE * _bytes_of(survivors):
        return None
    if is_of_cache(log, main) or are_caches(log, rollouts):
        return None
    budget_reached = forecast(log, growth)
    per_step = _bytes_of(rollouts)
    return Finding(
        cause="rollouts-kept",
        severity=growth_severity(log, rise, growth, budget_reached),
        title=f"Each step keeps {format_bytes(per_step)} of its rollouts",
        explanation=f"What stays between the steps rose by {format_bytes(rise)}. {format_bytes(per_step)} a step was "
        f"made while generating or scoring, at {main.site}, and is kept by {main.holder or 'an unknown holder'}: "
        "rollouts are collected beyond the steps that train on them. "
        f"{forecast_in_words(log, budget_reached)}".rstrip(),
        phase=main.phase,
        steps=span(growth),
        bytes=rise,
        where=line_of(main),
        evidence={"grown_bytes": rise, "bytes_per_step": per_step},
    )


def _bytes_of(survivors: list[SurvivorRecord]) -> int:
    return sum(survivor.bytes_per_step for survivor in survivors)


def _trains_on_rollouts(evidence: Evidence) -> bool:
    """Return whether the model generates before most of its steps, or acts in turn with them."""
    generating = {record.step for record in records_of(evidence.log, Phase.GENERATE, Phase.ROLLOUT)}
    return len(generating) >= max(MIN_EVENTS, ROLLOUT_SHARE * len(evidence.steps)) or _acts_between_steps(evidence.log)


def _acts_between_steps(log: RunLog) -> bool:
    """Return whether a policy acts and is trained on what it did, by turns.

    A script that draws from probabilities calls its model without training it: before the first step, again and again
    since, and no less than as a part of all calls.
    """
    calls, trained = records_of(log, Phase.EVAL), records_of(log, *FORWARD_PHASES)
    steps = {record.step for record in calls}
    is_often = len(steps) >= MIN_EVENTS and len(calls) >= ROLLOUT_SHARE * len(trained)
    return DRAWING in log.run.settings_at and 0 in steps and is_often


def group_logits(evidence: Evidence) -> Finding | None:
    """Find logits of a whole group of replies that do not fit, right after the replies were generated."""
    log, oom = evidence.log, evidence.log.fatal_oom
    size = group_size(log, oom) if oom is not None and dies_of_replies(log) else None
    if oom is None or size is None:
        return None
    one = size.num_bytes // size.batch_size
    return fatal_finding(
        oom,
        cause="group-logits",
        title=f"The logits of {size.batch_size} replies at once ask for {format_bytes(size.num_bytes)}",
        explanation=f"After generating, the log-probabilities of the replies are computed from {size.dtype} logits of "
        f"all of them at once: {size} (replies × tokens × vocabulary × bytes). One reply at a time takes "
        f"{format_bytes(one)}; a fused loss takes none of it.",
        num_bytes=size.num_bytes,
        evidence=size._asdict(),
    )


def group_size(log: RunLog, oom: OomRecord) -> LogitsSize | None:
    """Return the failed request as logits of the batch's replies, or of their last tokens alone where it says so."""
    whole = logits_size(oom, log.run.model, float32_head=False)
    if whole is not None or oom.batch is None or not log.run.vocab_size:
        return whole
    for bytes_per_element in (4, 2):
        of_one_token = LogitsSize(oom.batch.batch_size, 1, log.run.vocab_size, bytes_per_element)
        length = oom.requested_bytes // of_one_token.num_bytes
        size = of_one_token._replace(padded_length=length)
        is_exact = oom.requested_bytes in (size.num_bytes, block_size(size.num_bytes))
        if is_exact and 1 < length <= oom.batch.padded_length:
            return size
    return None
