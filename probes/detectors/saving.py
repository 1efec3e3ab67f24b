"""What saving, resuming and generating cost, and what they leave behind."""

from __future__ import annotations

from itertools import pairwise

from memory_harness.configs.cards import load_cards
from memory_harness.configs.models import ModelShape, find_model
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import ModelFacts, Phase, PhaseRecord, SurvivorRecord, peak_unit
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import (
    MIN_GROWTH_BYTES,
    NOISE_BYTES,
    Severity,
    blocks,
    fits_without,
    place,
    survivors_of,
    where_of,
)
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.findings import Finding

MULTIPLYING = (Phase.FORWARD, Phase.EVAL, Phase.GENERATE)
"""phases in which the main thread multiplies matrices, for which cuBLAS makes a workspace once"""

COPY_SHARE = 0.25
"""Share of the model's own bytes that a checkpoint must add at its peak to count as a copy of the state: the adapter
and its optimizer states, which a checkpoint is about, are below 2 % of an 8B model in 4 bits."""

MERGED_RANGE = (0.9, 1.3)
"""Peak of a merge over the base's weights in 16 or 32 bits: all of them, and some for the layer that is being
converted."""

CACHE_DIMENSIONS = 4
"""of keys and of values: batch, heads, tokens, head size"""

RESUME_SLACK = 1.5
"""What resuming may add over the adapter's optimizer states, which it has to make: the states' own rounding and
scalars."""


def save_doubles(log: RunLog) -> list[Finding]:
    """Find a checkpoint whose peak lies above what was there by a good part of the model."""
    worst = _worst_checkpoint(log)
    if worst is None or _merge_factor(log, _rise(worst)) is not None:
        return []
    rise, loaded = _rise(worst), _loaded_bytes(log)
    # where loading was not recorded, the model is at most all that is there
    model_bytes = loaded or worst.allocated_before_bytes
    if rise < max(MIN_GROWTH_BYTES, COPY_SHARE * model_bytes):
        return []
    return [
        Finding(
            cause="save-doubles",
            severity=_phase_severity(log, rise, Phase.CHECKPOINT),
            title=f"Writing a checkpoint takes {format_bytes(rise)} more for its time",
            explanation=f"Saving after step {worst.step} adds {format_bytes(rise)} at its peak to the "
            f"{format_bytes(worst.allocated_before_bytes)} that are there"
            + (f"; the model has {format_bytes(loaded)}" if loaded else "")
            + ". The whole state is copied on the GPU, where only the adapter has changed.",
            phase=Phase.CHECKPOINT,
            steps=(worst.step, worst.step),
            bytes=rise,
            where=where_of(log, peak_unit(Phase.CHECKPOINT)),
            evidence={"rise_bytes": rise, "model_bytes": model_bytes},
        )
    ]


def merge_dequantises(log: RunLog) -> list[Finding]:
    """Find a checkpoint or a generation whose peak holds the whole base in 16 or 32 bits."""
    records = [p for p in log.phases if p.phase in (Phase.CHECKPOINT, Phase.GENERATE)]
    merging = [(p, _merge_factor(log, _rise(p))) for p in records]
    found = [(p, bits) for p, bits in merging if bits is not None]
    if not found:
        return []
    record, bits = max(found, key=lambda item: _rise(item[0]))
    return [
        Finding(
            cause="merge-dequantises",
            severity=_phase_severity(log, _rise(record), record.phase),
            title=f"The whole base model is dequantised: {format_bytes(_rise(record))}",
            explanation=f"At step {record.step} {format_bytes(_rise(record))} is added at the peak, which is what the "
            f"quantised layers' {_quantised_weights(log)} weights take in {bits} bits. Merging the adapter makes all "
            "of them at once.",
            phase=record.phase,
            steps=(record.step, record.step),
            bytes=_rise(record),
            where=where_of(log, peak_unit(record.phase)),
            evidence={"rise_bytes": _rise(record), "bits": bits, "quantised_weights": _quantised_weights(log)},
        )
    ]


def _worst_checkpoint(log: RunLog) -> PhaseRecord | None:
    return max((p for p in log.phases if p.phase is Phase.CHECKPOINT), key=_rise, default=None)


def _rise(record: PhaseRecord) -> int:
    return record.after.peak_allocated_bytes - record.allocated_before_bytes


def _loaded_bytes(log: RunLog) -> int:
    load = next((p for p in log.phases if p.phase is Phase.LOAD), None)
    return 0 if load is None else load.after.allocated_bytes - load.allocated_before_bytes


def _quantised_weights(log: RunLog) -> int:
    """Return the weights of the layers that are quantised, 0 where none is."""
    config = config_of(log)
    if config.model.quantization == "none" or not has_config(log):
        return 0
    shape = find_model(config.model.model)
    return sum(rows * columns for rows, columns in layer_shapes(shape).values()) * shape.num_layers


def layer_shapes(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Return (out_features, in_features) of the linear layers in each block."""
    heads, groups = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    hidden, wide = shape.hidden_size, shape.intermediate_size
    return {
        "q_proj": (heads, hidden),
        "k_proj": (groups, hidden),
        "v_proj": (groups, hidden),
        "o_proj": (hidden, heads),
        "gate_proj": (wide, hidden),
        "up_proj": (wide, hidden),
        "down_proj": (hidden, wide),
    }


def _merge_factor(log: RunLog, rise: int) -> int | None:
    """Return 16 or 32 where the rise is that of all quantised weights in so many bits."""
    weights = _quantised_weights(log)
    low, high = MERGED_RANGE
    return next((size * 8 for size in (2, 4) if weights and low <= rise / (weights * size) <= high), None)


def _phase_severity(log: RunLog, num_bytes: int, *phases: Phase) -> Severity:
    oom = log.fatal_oom
    if oom is not None and oom.phase in phases and fits_without(log, num_bytes):
        return "error"
    return "warning"


def resume_on_gpu(log: RunLog) -> list[Finding]:
    """Find a resumed run that keeps on the GPU more than the optimizer states that it had to restore."""
    if log.run.script:
        return [_checkpoint_kept(log, s) for s in survivors_of(log, Phase.RESUME)]
    resume = next((p for p in log.phases if p.phase is Phase.RESUME), None)
    model = log.run.model
    if resume is None or model is None:
        return []
    left = resume.after.allocated_bytes - resume.allocated_before_bytes
    states = 8 * model.num_trainable_parameters
    extra = left - round(RESUME_SLACK * states)
    if extra < MIN_GROWTH_BYTES:
        return []
    return [
        Finding(
            cause="resume-on-gpu",
            severity=_phase_severity(log, left - states, Phase.RESUME, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER),
            title=f"Resuming leaves {format_bytes(left - states)} on the GPU that a fresh run does not have",
            explanation=f"Restoring the checkpoint added {format_bytes(left)} for good. AdamW's two states of "
            f"{model.num_trainable_parameters} trainable parameters take {format_bytes(states)}; the rest is the "
            "checkpoint itself, loaded to the GPU and still referenced.",
            phase=Phase.RESUME,
            steps=(resume.step, resume.step),
            bytes=left - states,
            where=where_of(log, Phase.RESUME),
            evidence={"left_bytes": left, "optimizer_state_bytes": states},
        )
    ]


def _checkpoint_kept(log: RunLog, survivor: SurvivorRecord) -> Finding:
    """Report a checkpoint that a watched script has restored from and keeps on the device."""
    num_bytes = survivor.bytes_per_step
    return Finding(
        cause="resume-on-gpu",
        severity=_phase_severity(log, num_bytes, *Phase),
        title=f"The checkpoint that was resumed from still takes {format_bytes(num_bytes)}",
        explanation=f"{survivor.num_tensors} tensors that torch.load put on the device were restored into the model, "
        f"and are still there at step {survivor.step}, kept by {survivor.holder}. A fresh run does not have them.",
        phase=survivor.phase,
        steps=(survivor.step, survivor.step),
        bytes=num_bytes,
        where=place(survivor),
        evidence={"left_bytes": num_bytes, "num_tensors": survivor.num_tensors},
    )


def adapters_accumulate(log: RunLog) -> list[Finding]:
    """Find a model whose number of adapters rises in the course of the run."""
    counted = [p for p in log.phases if p.forward is not None]
    counts = [p.forward.num_adapters for p in counted if p.forward is not None]
    model = log.run.model
    if not counts or counts[-1] - counts[0] < 2 or model is None:
        return []
    added = counts[-1] - counts[0]
    num_bytes = added * blocks(4 * model.num_trainable_parameters)
    oom = log.fatal_oom
    return [
        Finding(
            cause="adapters-accumulate",
            severity="error" if oom is not None and fits_without(log, num_bytes) else "warning",
            title=f"{added} adapters were added to the model and none was deleted",
            explanation=f"The model had {counts[0]} adapter at the first step and {counts[-1]} at the last; each takes "
            f"{format_bytes(num_bytes // added)}, {model.num_trainable_parameters} parameters in float32.",
            steps=(counted[0].step, counted[-1].step),
            bytes=num_bytes,
            where=where_of(log, Phase.CHECKPOINT),
            evidence={"num_adapters": counts[-1], "bytes_per_adapter": num_bytes // added},
        )
    ]


def kv_cache_held(log: RunLog) -> list[Finding]:
    """Find generate calls that leave behind exactly a key/value cache of their prompts."""
    if log.run.script:
        return _caches_among_survivors(log)
    model, config = log.run.model, config_of(log)
    calls = [p for p in log.phases if p.phase is Phase.GENERATE and p.batch]
    if model is None or not calls:
        return []
    calls = [p for p in calls if not _makes_workspace(p, log)]
    kept = [p for p in calls if _is_cache(p, model, config.eval.max_new_tokens)]
    left = sum(p.after.allocated_bytes - p.allocated_before_bytes for p in kept)
    if not kept or len(kept) < len([p for p in calls if _left(p) > NOISE_BYTES]) or left < MIN_GROWTH_BYTES:
        return []
    return [
        Finding(
            cause="kv-cache-held",
            severity=_phase_severity(log, left, Phase.GENERATE),
            title=f"{len(kept)} generate calls left their key/value caches behind: {format_bytes(left)}",
            explanation="Each of them ended with more allocated than it began with, and the difference is what the "
            f"keys and values of {model.num_layers} layers take for its prompts and replies: 2 × {model.num_layers} × "
            f"batch × {model.num_kv_heads} heads × tokens × {model.head_dim}. Something still refers to the cache "
            "object.",
            phase=Phase.GENERATE,
            steps=(kept[0].step, kept[-1].step),
            bytes=left,
            where=where_of(log, Phase.GENERATE),
            evidence={"num_calls": len(kept), "left_bytes": left},
        )
    ]


def _makes_workspace(record: PhaseRecord, log: RunLog) -> bool:
    """Whether a call is the first to multiply matrices since the model was loaded, and left what cuBLAS takes then."""
    before = log.phases[: log.phases.index(record)]
    loaded = max((i for i, phase in enumerate(before) if phase.phase is Phase.LOAD), default=-1)
    multiplies = any(phase.phase in MULTIPLYING for phase in before[loaded + 1 :])
    return not multiplies and _left(record) in {card.cublas_workspace_bytes for card in load_cards().values()}


def _caches_among_survivors(log: RunLog) -> list[Finding]:
    """Find generate calls of a watched script that leave keys and values, by the shapes of what survives them."""
    calls = [p for p in log.phases if p.phase is Phase.GENERATE]
    kept = [(p, after.allocated_before_bytes - p.allocated_before_bytes) for p, after in pairwise(calls)]
    growing = [(p, left) for p, left in kept if left > NOISE_BYTES]
    caches = [s for s in survivors_of(log, Phase.GENERATE) if len(s.shape) == CACHE_DIMENSIONS]
    left = sum(size for _, size in growing)
    if len(growing) < max(2, len(kept) / 2) or not caches or left < MIN_GROWTH_BYTES:
        return []
    largest = caches[0]
    shape = " × ".join(map(str, largest.shape))
    return [
        Finding(
            cause="kv-cache-held",
            severity="error" if log.fatal_oom is None else _phase_severity(log, left, Phase.GENERATE),
            title=f"{len(growing)} generate calls left their key/value caches behind: {format_bytes(left)}",
            explanation=f"After {len(growing)} of {len(calls)} calls more was allocated than before, and it stayed. "
            f"What survives are tensors of {shape}, batch × heads × tokens × head size, made at {largest.site} and "
            f"kept by {largest.holder or 'an unknown holder'}.",
            phase=Phase.GENERATE,
            steps=(growing[0][0].step, growing[-1][0].step),
            bytes=left,
            where=place(largest),
            evidence={"num_calls": len(growing), "left_bytes": left, "shape": shape},
        )
    ]


def _left(record: PhaseRecord) -> int:
    return record.after.allocated_bytes - record.allocated_before_bytes


def _is_cache(record: PhaseRecord, model: ModelFacts, max_new_tokens: int) -> bool:
    """Whether a call left the cache of its prompts and of a reply of some length."""
    assert record.batch is not None
    batch, prompt = record.batch.batch_size, record.batch.padded_length
    per_token = batch * model.num_kv_heads * model.head_dim
    tensors = 2 * model.num_layers
    return _left(record) > NOISE_BYTES and any(
        abs(_left(record) - tensors * blocks(per_token * tokens * size)) <= NOISE_BYTES
        for size in (2, 4)
        for tokens in range(prompt, prompt + max_new_tokens + 1)
    )
