"""What evaluation holds that it should not: outputs of earlier batches, a graph, a cache; and what it leaves behind."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.allocator_sizes import block_size
from memory_harness.harness.log.records import (
    GROWING_TENSOR,
    HOST,
    LEFT_OUTPUT,
    OF_GENERATOR,
    ModelFacts,
    Phase,
    PhaseRecord,
    SurvivorRecord,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evaluation, Evidence
from memory_harness.probes.detectors.floor import EXPLAINED_SHARE, freed_by
from memory_harness.probes.detectors.kept import (
    are_caches,
    is_of_cache,
    is_of_exception,
    is_of_metric,
    is_of_parameters,
)
from memory_harness.probes.detectors.reading import (
    GRAPH_PHASES,
    LIBRARIES,
    called_at,
    error_at_failure,
    how_it_is_kept,
    is_tight,
    line_of,
    line_of_unit,
    main_survivor,
    peak_rise_bytes,
    records_of,
    setting_at,
    severity_without,
    survivors_at_failure,
    survivors_of,
)
from memory_harness.probes.detectors.setup import checkpointing_lost
from memory_harness.probes.detectors.trends import BURN_IN_STEPS, MIN_GROWTH_BYTES, NOISE_BYTES, robust_slope
from memory_harness.probes.findings import Finding

MIN_BATCHES = 3
"""Evaluation batches that must have left something before they are said to hoard."""
EXCEPTIONS = "what the frames of caught exceptions hold"
KEPT_SHARE = 0.8
"""Share of what an evaluation left that must still be there one step later before it counts as never released."""
STAYING_SHARE = 0.5
"""Least share of what batches leave that must be there when the last one begins; the rest may be a batch's own data."""
SAME_SHARE = 0.02
"""Relative error within which a size counts as the one expected: the allocator's rounding of several tensors."""
ELEMENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}

BATCH_HOST_NOISE_BYTES = 256 * 1024
"""What a batch may add to the process's resident memory: the C library's arenas grow in steps."""
HOST_SHARE_OF_LOGITS = (0.7, 1.5)
"""What a batch adds to resident memory, over its logits, where it is these that are kept."""
HIGHEST_SHARE_OF_HELD = 2.5
"""The same at most where a holder of host memory is known: the process grows by what copies take for a while, too."""

_LIST = re.compile(r"\blist of (\d+)")


def outputs_kept(evidence: Evidence) -> Finding | None:
    """Find an evaluation each of whose batches leaves something, and name it by what that is.

    `logits-hoarded`: exactly its logits. `outputs-hoarded`: hidden states or caches, with or without its logits.
    `metric-never-reset`: a state that each evaluation adds to and none gives back. `exception-holds-frames`: what the
    frames of exceptions hold.
    """
    log, model = evidence.log, evidence.log.run.model
    if _steps_leave_too(evidence) or freed_by(evidence, "gc"):
        return None
    by_holder = _by_holder(evidence)
    if by_holder is not None:
        return by_holder
    held = main_survivor(survivors_of(log, Phase.EVAL))
    if held is not None and is_of_parameters(held):
        return None  # what is added to a model, rather than what it returns
    is_joined = _is_joined(log)
    hoarding = [evaluation for evaluation in evidence.evaluations if _hoards(evaluation, is_joined=is_joined)]
    if is_joined and hoarding and _writes_text(hoarding[0]):
        return None  # what is computed of a text gets longer with it
    if max((evaluation.grown_bytes for evaluation in hoarding), default=0) < MIN_GROWTH_BYTES:
        return None  # what a search keeps until it is over, and the like
    if log.run.script:
        contents = _contents_by_output(log, hoarding[0])
    elif model is not None:
        contents = _contents_by_size(hoarding[0], model, evidence.config.model.dtype)
    else:
        return None
    if contents == "logits" and held is not None and is_of_cache(log, held):
        return None  # keys and values that happen to be as large
    never_released = _never_released(hoarding)
    if held is not None and is_of_metric(held) and not never_released:
        return None  # it is reset, and needs until then what it is computed from
    cause = "outputs-hoarded"
    if contents == "logits":
        cause = "logits-hoarded"
    elif contents is None and held is not None and held.has_grad_fn:
        return None  # a graph, whatever keeps it
    elif contents is None:
        if not never_released or not _adds_up(hoarding) or are_caches(log, survivors_of(log, Phase.EVAL)):
            return None
        cause, contents = "metric-never-reset", "a state smaller than the outputs"
    return _hoarded_finding(log, cause, hoarding, contents, never_released)


def _by_holder(evidence: Evidence) -> Finding | None:
    """Find evaluations that leave what an exception or a metric holds, and of which none is given back."""
    log = evidence.log
    held = main_survivor(survivors_of(log, Phase.EVAL))
    growing = [evaluation for evaluation in evidence.evaluations if _later_batches_left(evaluation) > NOISE_BYTES]
    if held is None or len(growing) < 2 or not _is_lasting(growing):
        return None
    if is_of_exception(held):
        return _hoarded_finding(log, "exception-holds-frames", growing, EXCEPTIONS, never_released=True)
    if is_of_metric(held):
        return _hoarded_finding(log, "metric-never-reset", growing, "the state of a metric", never_released=True)
    return None


def _later_batches_left(evaluation: Evaluation) -> int:
    """Return what the batches but the first left: that may let go what the evaluation before has computed."""
    return sum(evaluation.left_bytes[1:])


def _is_lasting(growing: Sequence[Evaluation]) -> bool:
    """Return whether each evaluation begins with what the one before has left, as much as is worth a report."""
    for before, after in pairwise(growing):
        if after.before_bytes - before.before_bytes < KEPT_SHARE * _later_batches_left(before):
            return False
    return growing[-1].before_bytes - growing[0].before_bytes >= MIN_GROWTH_BYTES


def _is_joined(log: RunLog) -> bool:
    """Return whether batches join what they leave to what is there: a larger tensor each time, and for a while two."""
    survivors = survivors_of(log, Phase.EVAL)
    return bool(survivors) and survivors[0].holder.startswith(GROWING_TENSOR)


def _hoards(evaluation: Evaluation, *, is_joined: bool = False) -> bool:
    """Return whether every batch left something, and nothing of it was let go in between.

    The first may replace the output that training has left. Of batches of several lengths a short one may leave less
    than the last output that it replaces; so may one where what is there `is_joined`.
    """
    left = evaluation.left_bytes
    if len(left) < MIN_BATCHES or not _begins_rise(evaluation):
        return False
    rises = [num_bytes for num_bytes in left if num_bytes > NOISE_BYTES]
    if len(rises) == len(left) or (min(left[1:]) > NOISE_BYTES and len(rises) >= MIN_BATCHES):
        return True
    lengths = {record.batch.padded_length for record in evaluation.batches if record.batch}
    is_lasting = evaluation.grown_bytes >= EXPLAINED_SHARE * sum(rises)
    return (len(lengths) > 1 or is_joined) and is_lasting and len(rises) >= MIN_BATCHES and 2 * len(rises) > len(left)


def _writes_text(evaluation: Evaluation) -> bool:
    """Return whether most batches are the ones before with one more token: a loop of somebody's own generates."""
    batches = [record.batch for record in evaluation.batches if record.batch is not None]
    shapes = [(batch.batch_size, batch.padded_length) for batch in batches]
    longer = [after == (rows, length + 1) for (rows, length), after in pairwise(shapes)]
    return 2 * sum(longer) > len(longer)


def _begins_rise(evaluation: Evaluation) -> bool:
    """Return whether what batches leave is there when later ones begin: it may be let go before the next one."""
    rise = evaluation.batches[-1].allocated_before_bytes - evaluation.before_bytes
    return rise >= STAYING_SHARE * sum(evaluation.left_bytes[:-1])


def _steps_leave_too(evidence: Evidence) -> bool:
    """Return whether training steps leave memory as well: then it is no matter of the evaluation."""
    left = [step.left_bytes for step in evidence.later_steps]
    return bool(left) and float(np.median(left)) > NOISE_BYTES


def _never_released(hoarding: Sequence[Evaluation]) -> bool:
    """Return whether what each of several evaluations left was still there one step later."""
    followed = [evaluation for evaluation in hoarding if evaluation.kept_bytes is not None]
    for evaluation in followed:
        if (evaluation.kept_bytes or 0) < KEPT_SHARE * evaluation.grown_bytes:
            return False
    return len(hoarding) > 1 and bool(followed)


def _adds_up(hoarding: Sequence[Evaluation]) -> bool:
    """Return whether each evaluation begins with what the one before has left: a buffer is emptied in between."""
    for before, after in pairwise(hoarding):
        if after.before_bytes - before.before_bytes < KEPT_SHARE * before.grown_bytes:
            return False
    return True


def _contents_by_size(evaluation: Evaluation, model: ModelFacts, dtype: str) -> str | None:
    """Return what every batch left, by its exact size; None where no output of the model has that size."""
    for name, per_token in _outputs(model, dtype):
        if _leaves_so_much(evaluation, per_token):
            return name
    return None


def _leaves_so_much(evaluation: Evaluation, bytes_per_token: int) -> bool:
    """Return whether every batch left so many bytes for each of its tokens."""
    for left, record in zip(evaluation.left_bytes, evaluation.batches, strict=True):
        if record.batch:
            expected = block_size(record.batch.padded_tokens * bytes_per_token)
            if abs(left - expected) > max(NOISE_BYTES, SAME_SHARE * left):
                return False
    return True


def _contents_by_output(log: RunLog, evaluation: Evaluation) -> str | None:
    """Return what every batch left, by the sizes of what the model returned in it; None where none of them fits."""
    forward = evaluation.batches[0].forward
    if forward is None:
        return None
    if _has_all_logits(evaluation, is_joined=_is_joined(log)):
        return "logits"
    left = sorted(evaluation.left_bytes)[len(evaluation.left_bytes) // 2]
    survivors = [survivor.bytes_per_step for survivor in survivors_of(log, Phase.EVAL)]
    kept = sum(survivors)
    sizes = {"logits": forward.logits_bytes, "all that the model returns": forward.output_bytes}
    for name, size in sizes.items():
        error = min(abs(left - size), abs(kept - size))
        if size and error <= max(NOISE_BYTES, SAME_SHARE * size):
            return name
    # beside its logits, and more than they take
    beyond = 0 < forward.logits_bytes < left < forward.output_bytes
    if beyond:
        return "a part of what the model returns"
    # labels and the like may be kept along, which the model has not returned
    largest = max(survivors, default=0)
    is_logits = largest > 0 and abs(largest - forward.logits_bytes) <= SAME_SHARE * largest
    return "logits" if is_logits else None


def _has_all_logits(evaluation: Evaluation, *, is_joined: bool) -> bool:
    """Return whether an evaluation of several lengths, or one that joins them, left the logits of all batches.

    They may be padded to the longest.

    The last one's may be there twice.
    """
    sizes: list[int] = []
    lengths: list[int] = []
    for record in evaluation.batches:
        if record.batch is None or record.forward is None:
            return False
        sizes.append(record.forward.logits_bytes)
        lengths.append(record.batch.padded_length)
    if (min(lengths) == max(lengths) and not is_joined) or min(sizes) == 0:
        return False
    least = sum(sizes)
    padded = sum(size * max(lengths) / length for size, length in zip(sizes, lengths, strict=True))
    slack = max(NOISE_BYTES, SAME_SHARE * least, max(sizes) if is_joined else 0)
    return least - slack <= evaluation.grown_bytes <= padded + max(sizes) + slack


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
    largest = max(hoarding, key=lambda evaluation: evaluation.grown_bytes)
    slope = robust_slope([record.after.allocated_bytes for record in largest.batches])
    held = main_survivor(survivors_of(log, Phase.EVAL))
    until = "and none is ever released" if never_released else "until it ends"
    severity = severity_without(log, largest.grown_bytes, Phase.EVAL)
    if never_released and log.fatal_oom is None:
        severity = "error"
    return Finding(
        cause=cause,
        severity=severity,
        title=f"Each evaluation batch leaves {format_bytes(round(slope.middle))} on the GPU, {until}",
        explanation=f"Allocated climbs with every batch of the evaluation after step {largest.step}: "
        f"{len(largest.batches)} batches left {format_bytes(largest.grown_bytes)}. This is {contents}."
        f"{how_it_is_kept(held)}",
        phase=Phase.EVAL,
        steps=(hoarding[0].step, hoarding[-1].step),
        bytes=largest.grown_bytes,
        where=_where(log, held, largest),
        evidence={
            "bytes_per_batch": round(slope.middle),
            "num_batches": len(largest.batches),
            "num_evaluations": len(hoarding),
            "contents": contents,
            "released": "never" if never_released else "after the evaluation",
        },
    )


def _where(log: RunLog, held: SurvivorRecord | None, evaluation: Evaluation) -> str | None:
    """Return `file:line` of what keeps outputs, what asks `Trainer` for it, or the call that made them."""
    is_of_library = held is not None and (line_of(held) or "").startswith(LIBRARIES)
    if held is not None and (is_of_library or "of evaluation_loop()" in held.holder):
        return setting_at(log, "compute_metrics") or called_at(evaluation.batches) or line_of(held)
    is_known = held is not None and bool(held.holder)
    return line_of(held) if is_known else called_at(evaluation.batches) or line_of(held)


def logits_hoarded_host(evidence: Evidence) -> Finding | None:
    """Find an evaluation whose batches add their logits to the process's resident memory while the GPU is flat."""
    log = evidence.log
    long = [evaluation for evaluation in evidence.evaluations if len(evaluation.batches) >= 2 * MIN_BATCHES]
    candidates = [evaluation for evaluation in long if not _hoards(evaluation)]
    if not candidates:
        return None
    evaluation = max(candidates, key=lambda evaluation: len(evaluation.batches))
    # the first batches grow the process for reasons of their own
    batches = evaluation.batches[MIN_BATCHES - 1 :]
    levels = [record.host_rss_bytes for record in batches]
    slope = robust_slope(levels)
    logits_sizes = _logits_sizes(log, batches)
    held = main_survivor(survivors_of(log, HOST))
    high = HIGHEST_SHARE_OF_HELD if held is not None and log.run.script else HOST_SHARE_OF_LOGITS[1]
    per_batch = round(slope.middle)
    if not _rises_by_logits(levels, logits_sizes, high):
        if not _is_list_of_logits(held, logits_sizes):
            return None
        per_batch = max(logits_sizes)
    where = None if held is None else _where(log, held, evaluation)
    if where is None and log.run.script and log.run.source == "simulated":
        return None  # the card's tensors lie in resident memory too: it may grow by what was freed
    grown = levels[-1] - levels[0]
    return Finding(
        cause="logits-hoarded-host",
        severity="warning",
        title=f"Each evaluation batch adds {format_bytes(per_batch)} to host memory",
        explanation=f"Resident memory rises with every batch of the evaluation after step {evaluation.step}, by "
        f"{format_bytes(grown)} over {len(batches)} batches, about the size of the batch's logits, while "
        "allocated on the GPU is flat. The host runs out instead of the GPU.",
        phase=Phase.EVAL,
        steps=(evaluation.step, evaluation.step),
        bytes=grown,
        where=where,
        evidence={
            "host_bytes_per_batch": per_batch,
            "num_batches": len(batches),
            "logits_bytes": min(logits_sizes, key=lambda size: abs(size - per_batch)),
        },
    )


def _rises_by_logits(levels: Sequence[int], logits_sizes: Sequence[int], high: float) -> bool:
    """Return whether resident memory rises with most batches, by about what a batch's logits take.

    Now and then it rises for other reasons, as where the adapter is first switched off.
    """
    if 2 * sum(later > earlier for earlier, later in pairwise(levels)) < len(levels):
        return False
    slope, low = robust_slope(levels), HOST_SHARE_OF_LOGITS[0]
    return slope.low > BATCH_HOST_NOISE_BYTES and any(low * s <= slope.middle <= high * s for s in logits_sizes)


def _is_list_of_logits(held: SurvivorRecord | None, logits_sizes: Sequence[int]) -> bool:
    """Return whether a list in host memory has so many tensors as the process has grown by logits.

    The first of them may lie where others were freed before.
    """
    several = None if held is None else _LIST.search(held.holder)
    if held is None or several is None:
        return False
    low, high = HOST_SHARE_OF_LOGITS
    each = held.bytes_per_step / int(several[1])
    return any(max(BATCH_HOST_NOISE_BYTES, low * size) <= each <= high * size for size in logits_sizes)


def _logits_sizes(log: RunLog, batches: Sequence[PhaseRecord]) -> list[int]:
    """Return what the logits of a batch may take on the host: as they were returned, else in 16 and in 32 bits."""
    returned = [record.forward.logits_bytes for record in batches if record.forward is not None]
    if log.run.script:
        return [int(np.median(returned))] if returned else []
    tokens = int(np.median([record.batch.padded_tokens if record.batch else 0 for record in batches]))
    vocab_size = 0 if log.run.model is None else log.run.model.vocab_size
    return [tokens * vocab_size * bytes_per_element for bytes_per_element in (2, 4)]


def eval_with_grad(evidence: Evidence) -> Finding | None:
    """Find evaluation batches whose loss carries a graph."""
    log = evidence.log
    batches = [record for record in records_of(log, Phase.EVAL) if record.forward and record.forward.has_graph]
    # a pass whose layers checkpointed before has been to train; `checkpointing_lost` speaks for it
    if not batches or (len(batches) == 1 and checkpointing_lost(evidence) is not None):
        return None
    worst = max(batches, key=lambda record: record.after.peak_allocated_bytes)
    extra = peak_rise_bytes(worst)
    return Finding(
        cause="eval-with-grad",
        severity=severity_without(log, extra, Phase.EVAL),
        title="Evaluation records a computation graph that nothing uses",
        explanation=f"The loss of {len(batches)} evaluation batches has a grad_fn: without torch.no_grad every "
        f"layer keeps what a backward pass would need. The largest batch added {format_bytes(extra)} at its peak.",
        phase=Phase.EVAL,
        steps=(batches[0].step, batches[-1].step),
        bytes=extra,
        where=called_at(batches),
        evidence={"num_batches": len(batches), "eval_peak_bytes": worst.after.peak_allocated_bytes},
    )


def eval_use_cache(evidence: Evidence) -> Finding | None:
    """Find evaluation batches whose output holds a key/value cache."""
    log = evidence.log
    batches = [record for record in records_of(log, Phase.EVAL) if record.forward and record.forward.cache_bytes > 0]
    if not batches:
        return None
    largest = max(batches, key=lambda record: record.forward.cache_bytes if record.forward else 0)
    assert largest.forward is not None
    num_bytes, tokens = largest.forward.cache_bytes, largest.batch.padded_tokens if largest.batch else 0
    per_token = f", {num_bytes // tokens} B for each of its {tokens} tokens" if tokens else ""
    severity = severity_without(log, num_bytes, Phase.EVAL)
    return Finding(
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


def eval_leftover(evidence: Evidence) -> Finding | None:
    """Find what evaluation leaves allocated once, and replaces in the next one."""
    log = evidence.log
    settled = [evaluation for evaluation in evidence.evaluations if evaluation.step >= BURN_IN_STEPS]
    # what the first steps make for good comes after an evaluation before them: only a holder tells it apart
    known = settled if log.run.script and not survivors_of(log, Phase.EVAL) else evidence.evaluations
    found = [evaluation for evaluation in known if _leaves_last(evaluation)]
    if not found or _steps_leave_too(evidence):
        return _output_at_failure(evidence) or _suspended_at_failure(log) or _kept_at_failure(evidence)
    first, oom = found[0], log.fatal_oom
    dies_next = oom is not None and oom.phase in (Phase.FORWARD, Phase.BACKWARD) and oom.step == found[-1].step + 1
    stays = first.kept_bytes is not None and first.kept_bytes >= KEPT_SHARE * first.grown_bytes
    num_growing = sum(evaluation.grown_bytes > NOISE_BYTES for evaluation in evidence.evaluations)
    accumulates = num_growing > 1 and len(found) > 1
    if accumulates or not (stays or dies_next):
        return None
    num_bytes = first.grown_bytes
    return Finding(
        cause="eval-leftover",
        severity=severity_without(log, num_bytes, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER),
        title=f"Evaluation leaves {format_bytes(num_bytes)} behind for the training that follows",
        explanation=f"After the evaluation at step {first.step} {format_bytes(num_bytes)} more is allocated "
        "than before it, and stays: its first batch added them and the later ones only took their place. The last "
        "output is still referenced, so the next training step has that much less.",
        phase=Phase.EVAL,
        steps=(first.step, first.step + 1),
        bytes=num_bytes,
        where=line_of_unit(log, Phase.EVAL) or called_at(first.batches),
        evidence={"left_bytes": num_bytes, "kept_one_step_later_bytes": first.kept_bytes or 0},
    )


def _output_at_failure(evidence: Evidence) -> Finding | None:
    """Find an evaluation's output that was there when what came after it ran out of memory, and took the room.

    A model that is called without gradients for many of the steps is a part of them.
    """
    log = evidence.log
    left = main_survivor(survivors_at_failure(log, LEFT_OUTPUT))
    if left is None or _looks_in_most_steps(log):
        return None
    return error_at_failure(
        log,
        left,
        left.bytes_per_step,
        cause="eval-leftover",
        title=f"An output of the evaluation, {format_bytes(left.bytes_per_step)}, is still there when it is over",
        explanation=f"It is kept by {left.holder} `{left.kept_by}`, and what came after it ran out of "
        "memory, which would have had room without it. Deleting it when the evaluation is over gives that back.",
        evidence={"left_bytes": left.bytes_per_step},
    )


def _looks_in_most_steps(log: RunLog) -> bool:
    return 2 * len({record.step for record in records_of(log, Phase.EVAL)}) > len(log.steps)


def _suspended_at_failure(log: RunLog) -> Finding | None:
    """Find what a generator that evaluates holds where it waits, when the training step after it ran out of memory."""
    oom = log.fatal_oom
    if oom is None or oom.phase not in GRAPH_PHASES:
        return None
    held = [found for found in survivors_of(log, Phase.EVAL) if found.step == oom.step and OF_GENERATOR in found.holder]
    num_bytes = sum(found.bytes_per_step for found in held)
    if not held or severity_without(log, num_bytes) != "error":
        return None
    return Finding(
        cause="eval-leftover",
        severity="error",
        title=f"An evaluation that waits to go on holds {format_bytes(num_bytes)} while the model trains",
        explanation=f"The largest of it is made at {held[0].site} and kept by {held[0].holder}. A generator keeps its "
        "variables until it has run to its end, is closed, or nothing refers to it any more.",
        phase=Phase.EVAL,
        steps=(oom.step, oom.step),
        bytes=num_bytes,
        where=line_of(held[0]),
        evidence={"left_bytes": num_bytes, "num_variables": len(held)},
    )


def _kept_at_failure(evidence: Evidence) -> Finding | None:
    """Find the largest of what the last evaluation has left, without which the training step after it would fit."""
    log, oom = evidence.log, evidence.log.fatal_oom
    if oom is None or oom.phase not in GRAPH_PHASES or not evidence.evaluations or _looks_in_most_steps(log):
        return None
    held = max(survivors_of(log, Phase.EVAL), key=lambda found: found.bytes_per_step, default=None)
    last = [record for record in records_of(log, *GRAPH_PHASES) if record.step == oom.step]
    if held is None or held.step != oom.step or not last or not held.holder:
        return None
    is_there = (
        last[0].allocated_before_bytes - evidence.evaluations[-1].before_bytes >= KEPT_SHARE * held.bytes_per_step
    )
    if not is_there or severity_without(log, held.bytes_per_step) != "error":
        return None
    return Finding(
        cause="eval-leftover",
        severity="error",
        title=f"What the evaluation has left, {format_bytes(held.bytes_per_step)}, is there while the model trains",
        explanation=f"It is made at {held.site} and kept by {held.holder} `{held.kept_by}`. The training step after it "
        "would have had room without it: what is only needed until the evaluation is over can be let go there.",
        phase=Phase.EVAL,
        steps=(oom.step, oom.step),
        bytes=held.bytes_per_step,
        where=line_of(held),
        evidence={"left_bytes": held.bytes_per_step},
    )


def _leaves_last(evaluation: Evaluation) -> bool:
    """Return whether the first batch left something, and the others together no more than they differ in size."""
    left = evaluation.left_bytes
    if len(left) < 2 or left[0] <= NOISE_BYTES or evaluation.grown_bytes < MIN_GROWTH_BYTES:
        return False
    most_of_first_two = max(left[0], left[0] + left[1])
    return evaluation.grown_bytes <= most_of_first_two * (1 + SAME_SHARE)
