"""What saving, resuming and generating cost, and what they leave behind."""

from collections.abc import Sequence
from itertools import pairwise

from memory_harness.configs.cards import load_cards
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.allocator_sizes import block_size
from memory_harness.harness.log.records import (
    ADDED_TO_MODEL,
    ALSO_KEPT,
    GROWING_TENSOR,
    ModelFacts,
    Phase,
    PhaseRecord,
    SurvivorRecord,
    peak_unit,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.distributed import lone_gathering
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.floor import MIN_EVENTS, rises_to_the_end
from memory_harness.probes.detectors.growth_contents import is_collection
from memory_harness.probes.detectors.kept import CACHE_DIMENSIONS, are_caches, is_of_cache
from memory_harness.probes.detectors.optimizer_states import second_states_bytes
from memory_harness.probes.detectors.reading import (
    how_it_is_kept,
    left_bytes,
    line_of,
    line_of_unit,
    main_survivor,
    peak_rise_bytes,
    records_of,
    severity_without,
    survivors_of,
)
from memory_harness.probes.detectors.trends import MIN_GROWTH_BYTES, MIN_STEPS, NOISE_BYTES
from memory_harness.probes.findings import Finding

MULTIPLYING = (Phase.FORWARD, Phase.EVAL, Phase.GENERATE)
"""Phases in which the main thread multiplies matrices, for which cuBLAS makes a workspace once."""
COPY_SHARE = 0.25
"""Share of the model's own bytes that a checkpoint must add at its peak to count as a copy of the state: the adapter
and its optimizer states, which a checkpoint is about, are below 2 % of an 8B model in 4 bits."""
MERGED_RANGE = (0.9, 1.3)
"""Peak of a merge over the base's weights in 16 or 32 bits: all of them, and some for the layer that is being
converted."""
MIN_CALLS = 12
"""Calls of a model before what they leave is said to be kept for good; of texts of several tokens where one grows."""
MIN_ADDITIONS = 3
"""Additions of one size to a model before they are said to accumulate."""
RESTS = 2
"""How many of the longest stretches between two additions may follow the last: a network that is grown in stages, as
some are, has its size long before its training ends."""
RESUME_SLACK = 1.5
"""What resuming may add over the adapter's optimizer states, which it has to make: the states' own rounding and
scalars."""


def save_doubles(evidence: Evidence) -> Finding | None:
    """Find a checkpoint whose peak lies above what was there by a good part of the model."""
    log = evidence.log
    if lone_gathering(evidence) is not None:
        return None  # `rank-gathers-state` says more
    worst = max(records_of(log, Phase.CHECKPOINT), key=peak_rise_bytes, default=None)
    if worst is None or _merged_bits(evidence, worst) is not None:
        return None
    rise, loaded = peak_rise_bytes(worst) + _failed_bytes(log, Phase.CHECKPOINT), _loaded_bytes(log)
    # where loading was not recorded, the model is at most all that is there
    model_bytes = loaded or worst.allocated_before_bytes
    if rise < max(MIN_GROWTH_BYTES, COPY_SHARE * model_bytes):
        return None
    of_model = f"; the model has {format_bytes(loaded)}" if loaded else ""
    return Finding(
        cause="save-doubles",
        severity=severity_without(log, rise, Phase.CHECKPOINT),
        title=f"Writing a checkpoint takes {format_bytes(rise)} more for its time",
        explanation=f"Saving after step {worst.step} adds {format_bytes(rise)} at its peak to the "
        f"{format_bytes(worst.allocated_before_bytes)} that are there{of_model}. The whole state is copied on the "
        "GPU, where only the adapter has changed.",
        phase=Phase.CHECKPOINT,
        steps=(worst.step, worst.step),
        bytes=rise,
        where=line_of_unit(log, peak_unit(Phase.CHECKPOINT)) or _failed_at(log, Phase.CHECKPOINT),
        evidence={"rise_bytes": rise, "model_bytes": model_bytes},
    )


def _failed_bytes(log: RunLog, phase: Phase) -> int:
    """Return what did not fit, where the run died in the phase: the peak would have been that much higher."""
    oom = log.fatal_oom
    return oom.requested_bytes if oom is not None and oom.phase is phase else 0


def _failed_at(log: RunLog, phase: Phase) -> str | None:
    """Return `file:line` that asked for what did not fit, where the run died in the phase."""
    oom = log.fatal_oom
    return oom.where if oom is not None and oom.phase is phase else None


def merge_dequantises(evidence: Evidence) -> Finding | None:
    """Find a checkpoint or a generation whose peak holds the whole base in 16 or 32 bits."""
    log = evidence.log
    records = records_of(log, Phase.CHECKPOINT, Phase.GENERATE)
    merging = [record for record in records if _merged_bits(evidence, record) is not None]
    worst = max(merging, key=peak_rise_bytes, default=None)
    if worst is None:
        return None
    bits, rise, weights = _merged_bits(evidence, worst), peak_rise_bytes(worst), _quantised_weights(evidence)
    assert bits is not None
    return Finding(
        cause="merge-dequantises",
        severity=severity_without(log, rise, worst.phase),
        title=f"The whole base model is dequantised: {format_bytes(rise)}",
        explanation=f"At step {worst.step} {format_bytes(rise)} is added at the peak, which is what the "
        f"quantised layers' {weights} weights take in {bits} bits. Merging the adapter makes all "
        "of them at once.",
        phase=worst.phase,
        steps=(worst.step, worst.step),
        bytes=rise,
        where=line_of_unit(log, peak_unit(worst.phase)),
        evidence={"rise_bytes": rise, "bits": bits, "quantised_weights": weights},
    )


def _loaded_bytes(log: RunLog) -> int:
    """Return what loading the model left allocated, 0 where it was not recorded."""
    loads = records_of(log, Phase.LOAD)
    return left_bytes(loads[0]) if loads else 0


def _quantised_weights(evidence: Evidence) -> int:
    """Return the number of weights in the layers that are quantised, 0 where none is, or where peaks do not tell."""
    model = evidence.log.run.model
    if model is None or not evidence.has_config:
        return 0
    gathers_layers = evidence.config.device.engine == "fsdp"  # which a peak may be of as well
    return 0 if gathers_layers else model.num_quantised_parameters


def _merged_bits(evidence: Evidence, record: PhaseRecord) -> int | None:
    """Return 16 or 32 where the peak rises by all quantised weights in so many bits."""
    weights = _quantised_weights(evidence)
    low, high = MERGED_RANGE
    for bits in (16, 32):
        if weights and low <= peak_rise_bytes(record) / (weights * bits // 8) <= high:
            return bits
    return None


def resume_on_gpu(evidence: Evidence) -> Finding | None:
    """Find a resumed run that keeps on the GPU more than the optimizer states that it had to restore."""
    log, model = evidence.log, evidence.log.run.model
    resumes = records_of(log, Phase.RESUME)
    if log.run.script or not resumes or model is None or second_states_bytes(evidence):
        return None
    resume, left = resumes[0], left_bytes(resumes[0])
    states = 8 * model.num_trainable_parameters
    if left - round(RESUME_SLACK * states) < MIN_GROWTH_BYTES:
        return None
    return Finding(
        cause="resume-on-gpu",
        severity=severity_without(log, left - states, Phase.RESUME, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER),
        title=f"Resuming leaves {format_bytes(left - states)} on the GPU that a fresh run does not have",
        explanation=f"Restoring the checkpoint added {format_bytes(left)} for good. AdamW's two states of "
        f"{model.num_trainable_parameters} trainable parameters take {format_bytes(states)}; the rest is the "
        "checkpoint itself, loaded to the GPU and still referenced.",
        phase=Phase.RESUME,
        steps=(resume.step, resume.step),
        bytes=left - states,
        where=line_of_unit(log, Phase.RESUME),
        evidence={"left_bytes": left, "optimizer_state_bytes": states},
    )


def checkpoints_kept(log: RunLog) -> list[Finding]:
    """Return the checkpoints that a watched script has restored from and keeps on the device."""
    if not log.run.script:
        return []
    return [_checkpoint_kept(log, survivor) for survivor in survivors_of(log, Phase.RESUME)]


def _checkpoint_kept(log: RunLog, survivor: SurvivorRecord) -> Finding:
    num_bytes = survivor.bytes_per_step
    return Finding(
        cause="resume-on-gpu",
        severity=severity_without(log, num_bytes),
        title=f"The checkpoint that was resumed from still takes {format_bytes(num_bytes)}",
        explanation=f"{survivor.num_tensors} tensors of a checkpoint that torch.load put on the device are still there "
        f"at step {survivor.step}, kept by {survivor.holder}, beside what was restored from them. A fresh run does not "
        "have them.",
        phase=survivor.phase,
        steps=(survivor.step, survivor.step),
        bytes=num_bytes,
        where=line_of(survivor),
        evidence={"left_bytes": num_bytes, "num_tensors": survivor.num_tensors},
    )


def adapters_accumulate(evidence: Evidence) -> Finding | None:
    """Find a model whose number of adapters rises in the course of the run."""
    log, model = evidence.log, evidence.log.run.model
    if log.run.script:
        return _parameters_added(log)
    counted = [(record.step, record.forward.num_adapters) for record in log.phases if record.forward is not None]
    if not counted or model is None:
        return None
    (first_step, first_count), (last_step, last_count) = counted[0], counted[-1]
    added = last_count - first_count
    if added < 2:
        return None
    adapter_bytes = block_size(4 * model.num_trainable_parameters)
    severity = severity_without(log, added * adapter_bytes)
    if log.fatal_oom is None and _adds_to_the_end([number for _, number in counted]):
        severity = "error"
    return Finding(
        cause="adapters-accumulate",
        severity=severity,
        title=f"{added} adapters were added to the model and none was deleted",
        explanation=f"The model had {first_count} adapter at the first step and {last_count} at the last; each "
        f"takes {format_bytes(adapter_bytes)}, {model.num_trainable_parameters} parameters in float32.",
        steps=(first_step, last_step),
        bytes=added * adapter_bytes,
        where=line_of_unit(log, Phase.CHECKPOINT),
        evidence={"num_adapters": last_count, "bytes_per_adapter": adapter_bytes},
    )


def _parameters_added(log: RunLog) -> Finding | None:
    """Find parameters of one size that a line of a script adds to its model again and again."""
    added = survivors_of(log, ADDED_TO_MODEL)
    largest = main_survivor(added)
    if largest is None:
        return None
    of_line = [record for record in added if record.site == largest.site]
    alike = [record for record in of_line if record.bytes_per_step == largest.bytes_per_step]
    steps = sorted(record.step for record in alike)
    if len(alike) < MIN_ADDITIONS or not _goes_on(log, steps):
        return None
    num_bytes = len(alike) * largest.bytes_per_step
    is_proved = log.fatal_oom is None and len(alike) >= MIN_STEPS
    return Finding(
        cause="adapters-accumulate",
        severity="error" if is_proved else severity_without(log, num_bytes),
        title=f"{len(alike)} times {format_bytes(largest.bytes_per_step)} of parameters were added to the model",
        explanation=f"Before steps {', '.join(map(str, steps))} {largest.holder} got more parameters, each time of the "
        f"same size, and none has been taken out: {format_bytes(num_bytes)} in all, and as much for gradients and "
        "optimizer states each where they are trained.",
        steps=(steps[0], steps[-1]),
        bytes=num_bytes,
        where=line_of(largest),
        evidence={"num_additions": len(alike), "bytes_per_adapter": largest.bytes_per_step},
    )


def _goes_on(log: RunLog, steps: Sequence[int]) -> bool:
    """Return whether what was added before these steps was to be added again when the run ended."""
    longest = max(after - before for before, after in pairwise(steps))
    last_step = log.steps[-1].step if log.steps else 0
    return last_step - steps[-1] <= RESTS * max(1, longest)


def _adds_to_the_end(numbers: Sequence[int]) -> bool:
    """Return whether a number rises again and again, in the last third of the run too, and never falls."""
    rises = [index for index, (before, after) in enumerate(pairwise(numbers)) if after > before]
    falls = any(after < before for before, after in pairwise(numbers))
    return len(rises) >= MIN_EVENTS and not falls and rises[-1] >= 2 * len(numbers) // 3


def kv_cache_held(evidence: Evidence) -> Finding | None:
    """Find generate calls that leave behind exactly a key/value cache of their prompts."""
    log, model = evidence.log, evidence.log.run.model
    if log.run.script:
        return _left_by_generating(log) or _caches_of_calls(log)
    if model is None:
        return None
    left_something = [record for record in _generate_calls(log) if left_bytes(record) > NOISE_BYTES]
    max_new_tokens = evidence.config.eval.max_new_tokens
    kept = [record for record in left_something if _is_cache(record, model, max_new_tokens)]
    left = sum(left_bytes(record) for record in kept)
    if not kept or len(kept) < len(left_something) or left < MIN_GROWTH_BYTES:
        return None
    return Finding(
        cause="kv-cache-held",
        severity=severity_without(log, left, Phase.GENERATE),
        title=f"{len(kept)} generate calls left their key/value caches behind: {format_bytes(left)}",
        explanation="Each of them ended with more allocated than it began with, and the difference is what the "
        f"keys and values of {model.num_layers} layers take for its prompts and replies: 2 × {model.num_layers} × "
        f"batch × {model.num_kv_heads} heads × tokens × {model.head_dim}. Something still refers to the cache "
        "object.",
        phase=Phase.GENERATE,
        steps=(kept[0].step, kept[-1].step),
        bytes=left,
        where=line_of_unit(log, Phase.GENERATE),
        evidence={"num_calls": len(kept), "left_bytes": left},
    )


def _generate_calls(log: RunLog) -> list[PhaseRecord]:
    """Return the generate calls that know their batch, without those that left what cuBLAS takes.

    The first phase to multiply matrices since the model was loaded makes cuBLAS's workspace.
    """
    workspaces = {card.cublas_workspace_bytes for card in load_cards().values()}
    found, has_multiplied = [], False
    for record in log.phases:
        makes_workspace = not has_multiplied and left_bytes(record) in workspaces
        if record.phase is Phase.GENERATE and record.batch and not makes_workspace:
            found.append(record)
        if record.phase is Phase.LOAD:
            has_multiplied = False
        elif record.phase in MULTIPLYING:
            has_multiplied = True
    return found


def _left_by_generating(log: RunLog) -> Finding | None:
    """Find generate calls of a watched script that leave keys and values, or other things that they return.

    `kv-cache-held` or `outputs-hoarded`, by what survives them.
    """
    calls = records_of(log, Phase.GENERATE)
    steps: list[int] = []
    left = 0
    for call, following in pairwise(calls):
        kept = following.allocated_before_bytes - call.allocated_before_bytes
        if kept > NOISE_BYTES:
            steps.append(call.step)
            left += kept
    survivors = survivors_of(log, Phase.GENERATE)
    largest = next((survivor for survivor in survivors if len(survivor.shape) == CACHE_DIMENSIONS), None)
    held = largest or next(filter(is_collection, survivors), None)
    if len(steps) < max(2, (len(calls) - 1) / 2) or held is None or left < MIN_GROWTH_BYTES:
        return None
    shape = " × ".join(map(str, held.shape))
    contents = f"of {shape}, batch × heads × tokens × head size" if largest else f"of {shape} and others"
    kept_words = "their key/value caches" if largest else "what they return"
    return Finding(
        cause="kv-cache-held" if largest else "outputs-hoarded",
        severity="error" if log.fatal_oom is None else severity_without(log, left, Phase.GENERATE),
        title=f"{len(steps)} generate calls left {kept_words} behind: {format_bytes(left)}",
        explanation=f"After {len(steps)} of {len(calls)} calls more was allocated than before, and it stayed. "
        f"What survives are tensors {contents}, made at {held.site}.{how_it_is_kept(held)}",
        phase=Phase.GENERATE,
        steps=(steps[0], steps[-1]),
        bytes=left,
        where=line_of(held),
        evidence={"num_calls": len(steps), "left_bytes": left, "shape": shape},
    )


def _caches_of_calls(log: RunLog) -> Finding | None:
    """Find calls without gradients after which keys and values stay, through the whole run."""
    calls = records_of(log, Phase.EVAL)
    # at equal points, where there are many: while a text goes on, what it has so far is there too
    texts = [call for call in calls if call.batch is not None and call.batch.padded_length > 1]
    levels = [call.allocated_before_bytes for call in (texts if len(texts) >= MIN_CALLS else calls)]
    survivors = survivors_of(log, Phase.EVAL)
    # an encoder's outputs may look the same, where no text is written token by token
    is_by_tokens = 2 * len(texts) < len(calls)
    by_shape = main_survivor(survivors) if is_by_tokens and are_caches(log, survivors) else None
    held = next((survivor for survivor in survivors if is_of_cache(log, survivor)), by_shape)
    if held is None or len(calls) < MIN_CALLS or not rises_to_the_end(levels, NOISE_BYTES):
        return None
    is_one = held.holder.startswith(GROWING_TENSOR)
    rise = levels[-1] - levels[0]
    if rise < MIN_GROWTH_BYTES or (is_one and not _is_handed_on(calls, held)):
        return None
    what = "One cache of keys and values has got longer" if is_one else "Caches of keys and values are kept"
    return Finding(
        cause="kv-cache-held",
        severity="warning" if is_one or log.fatal_oom is not None else "error",
        title=f"{what}: {format_bytes(rise)} in {len(calls)} calls",
        explanation="What is allocated when the model is called without gradients rises from the first of "
        f"{len(calls)} calls to the last by {format_bytes(rise)}, and keys and values are what stays."
        f"{how_it_is_kept(held)}",
        phase=Phase.EVAL,
        steps=(calls[0].step, calls[-1].step),
        bytes=rise,
        where=line_of(held),
        evidence={"num_calls": len(calls), "left_bytes": rise},
    )


def _is_handed_on(calls: Sequence[PhaseRecord], held: SurvivorRecord) -> bool:
    """Return whether a cache that grows outlives the function that calls the model, again and again.

    That of one text grows as well: token by token, or in a variable of the function that goes through it.
    """
    num_long = sum(call.batch is not None and call.batch.padded_length > 1 for call in calls)
    # no text goes on while the model trains
    num_texts = max(num_long, len({call.step for call in calls}))
    is_local = held.holder.removeprefix(f"{GROWING_TENSOR}: ").startswith("local ") and ALSO_KEPT not in held.holder
    return num_texts >= MIN_CALLS and not is_local and not held.site.endswith("<module>")


def _is_cache(record: PhaseRecord, model: ModelFacts, max_new_tokens: int) -> bool:
    """Return whether a call left the cache of its prompts and of a reply of some length."""
    assert record.batch is not None
    shortest = record.batch.padded_length
    per_token = record.batch.batch_size * model.num_kv_heads * model.head_dim
    for bytes_per_element in (2, 4):
        for tokens in range(shortest, shortest + max_new_tokens + 1):
            cache_bytes = 2 * model.num_layers * block_size(per_token * tokens * bytes_per_element)
            if abs(left_bytes(record) - cache_bytes) <= NOISE_BYTES:
                return True
    return False
