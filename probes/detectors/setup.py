"""Offsets from the start or from one event on: checkpointing lost, weights that train, memory of others."""

from __future__ import annotations

import numpy as np

from memory_harness.configs.models import find_model
from memory_harness.configs.strategies import capabilities_of
from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.records import BEFORE_LOAD, OLD_MODEL, Phase, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import (
    MIN_GROWTH_BYTES,
    MIN_STEPS,
    Severity,
    fits_without,
    place,
    robust_slope,
    settled,
    step_growth,
    survivors_of,
    where_of,
)
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.detectors.saving import layer_shapes
from memory_harness.probes.findings import Finding

STATE_SHARE = 0.02
"""Share of the budget from which the optimizer's states are worth a line; a LoRA of rank 8 on an 8B model has 0.4 %."""

FOREIGN_BYTES = 64 * MIB
"""Rise of what others hold on the GPU that is more than a desktop's ups and downs."""

HOST_NOISE_BYTES = MIB
"""Resident memory that a step may add without being said to leak: the C library's arenas and Python's own grow a
little."""

HOST_BURN_IN = 0.25
"""Share of the steps whose resident memory is left out: libraries load lazily, caches fill."""

HOST_MIN_STEPS = 12
"""Steps after that before resident memory is said to grow."""


def checkpointing_lost(log: RunLog) -> list[Finding]:
    """Find training steps without gradient checkpointing although it is configured."""
    if not config_of(log).model.gradient_checkpointing or not has_config(log):
        return []
    forwards = [p for p in log.phases if p.phase is Phase.FORWARD and p.forward is not None]
    without = [p for p in forwards if p.forward is not None and p.forward.num_checkpointed_layers == 0]
    if not without:
        return []
    first = without[0]
    before = [
        p for p in log.phases[: log.phases.index(first)] if p.phase in (Phase.EVAL, Phase.CHECKPOINT, Phase.GENERATE)
    ]
    since = (
        f" after the {before[-1].phase} phase of step {before[-1].step}" if before and forwards[0] is not first else ""
    )
    extra = _graph_growth(log, first.step)
    oom = log.fatal_oom
    dies_of_it = oom is not None and oom.phase in (Phase.FORWARD, Phase.BACKWARD) and oom.step >= first.step
    return [
        Finding(
            cause="checkpointing-lost",
            severity="error" if dies_of_it and fits_without(log, extra) else "warning",
            title=f"From step {first.step} on no layer is checkpointed",
            explanation=f"Gradient checkpointing is configured, but in {len(without)} of {len(forwards)} forward "
            f"passes no layer used it, the first{since}. Every layer keeps its activations then"
            + (f": {format_bytes(extra)} more than a pass with checkpointing kept." if extra > 0 else "."),
            phase=Phase.FORWARD,
            steps=(first.step, without[-1].step),
            bytes=max(0, extra) or None,
            evidence={"num_forwards_without": len(without), "num_forwards": len(forwards), "extra_bytes": extra},
        )
    ]


def _graph_growth(log: RunLog, first_step: int) -> int:
    """Return how much more a forward pass keeps from a step on, for the largest batch; 0 if unknown."""
    kept = [
        (p.step >= first_step, (p.after.allocated_bytes - p.allocated_before_bytes) / p.batch.padded_tokens)
        for p in log.phases
        if p.phase is Phase.FORWARD and p.batch and p.step > 1
    ]
    before, since = [k for late, k in kept if not late], [k for late, k in kept if late]
    tokens = max((p.batch.padded_tokens for p in log.phases if p.phase is Phase.FORWARD and p.batch), default=0)
    return round((float(np.median(since)) - float(np.median(before))) * tokens) if before and since else 0


def head_trainable(log: RunLog) -> list[Finding]:
    """Find trainable embeddings or output head: more parameters train than the adapter has."""
    model, config = log.run.model, config_of(log)
    if model is None or not has_config(log):
        return []
    shape = find_model(config.model.model)
    shapes = layer_shapes(shape)
    adapter = config.lora.lora_rank * sum(sum(shapes[name]) for name in config.lora.target_modules) * shape.num_layers
    extra = model.num_trainable_parameters - adapter
    matrix = model.vocab_size * model.hidden_size
    if extra < matrix:
        return []
    # what a bfloat16 or float32 weight's gradient and two states take beside the weight itself
    num_bytes = extra * 12 if config.train.optimizer == "adamw" else extra * 6
    num = round(extra / matrix)
    which = "The embedding or the output head" if num == 1 else f"{num} matrices of the vocabulary's size"
    oom = log.fatal_oom
    severity: Severity = "error" if oom is not None and fits_without(log, num_bytes) else "warning"
    return [
        Finding(
            cause="head-trainable",
            severity=severity,
            title=f"{extra} parameters outside the adapter are trained",
            explanation=f"{which} ({model.vocab_size} × {model.hidden_size}) trains along with the {adapter} "
            "parameters of the adapter. Gradients and optimizer states of float32 weights take "
            f"{format_bytes(num_bytes)} more.",
            phase=Phase.OPTIMIZER,
            bytes=num_bytes,
            evidence={"adapter_parameters": adapter, "extra_parameters": extra, "num_matrices": num},
        )
    ]


def optimizer_lazy(log: RunLog) -> list[Finding]:
    """Explain the rise at the first optimizer step where it is large."""
    model = log.run.model
    first = next((p for p in log.phases if p.phase is Phase.OPTIMIZER and p.step == 1), None)
    if model is None or first is None:
        return []
    rise = first.after.allocated_bytes - first.allocated_before_bytes
    if has_config(log):
        states = model.num_trainable_parameters * (8 if config_of(log).train.optimizer == "adamw" else 2)
        rise += 4 * model.num_trainable_parameters  # the gradients die in the same phase
        what = f"AdamW keeps two values for each of {model.num_trainable_parameters} trainable parameters, and makes"
    else:
        states, what = rise, "Most optimizers keep values for each trainable parameter, and make"
    if states < max(MIN_GROWTH_BYTES, STATE_SHARE * log.run.budget_bytes) or rise < states / 2:
        return []
    oom = log.fatal_oom
    died = oom is not None and oom.phase is Phase.OPTIMIZER and oom.step == 1
    return [
        Finding(
            cause="optimizer-lazy",
            severity="error" if died else "info",
            title=f"The optimizer's states take {format_bytes(states)} from the first step on",
            explanation=f"{what} them at the first step: {format_bytes(states)} that are not there before it. It "
            "happens once.",
            phase=Phase.OPTIMIZER,
            steps=(1, 1),
            bytes=states,
            evidence={"trainable_parameters": model.num_trainable_parameters, "rise_bytes": rise},
        )
    ]


def old_model_alive(log: RunLog) -> list[Finding]:
    """Find memory that was taken before the run loaded its model."""
    if log.run.script:
        return [_old_models(log, found) for found in [survivors_of(log, OLD_MODEL)] if found]
    load = next((p for p in log.phases if p.phase is Phase.LOAD), None)
    if load is None or load.allocated_before_bytes <= capabilities_of(config_of(log)).idle_bytes:
        return []
    before = load.allocated_before_bytes
    own = load.after.allocated_bytes - before
    return [
        Finding(
            cause="old-model-alive",
            severity="error" if fits_without(log, before) else "warning",
            title=f"{format_bytes(before)} was taken before the model was loaded",
            explanation=f"The process already held {format_bytes(before)} when loading began, and loading added "
            f"{format_bytes(own)}. An earlier model, or tensors of an earlier cell, are still referenced.",
            phase=Phase.LOAD,
            steps=(0, 0),
            bytes=before,
            where=where_of(log, BEFORE_LOAD),
            evidence={"before_load_bytes": before, "model_bytes": own},
        )
    ]


def _old_models(log: RunLog, survivors: list[SurvivorRecord]) -> Finding:
    """Report models that a script has trained before another one, and keeps."""
    num_bytes = sum(s.bytes_per_step for s in survivors)
    models = "a model that was" if len(survivors) == 1 else f"{len(survivors)} models that were"
    return Finding(
        cause="old-model-alive",
        severity="error" if fits_without(log, num_bytes) else "warning",
        title=f"{format_bytes(num_bytes)} belongs to {models} trained before",
        explanation=f"Another model has been trained since, and nothing has called "
        f"{'it' if len(survivors) == 1 else 'them'}: parameters and gradients are kept by {survivors[0].holder}.",
        phase=survivors[0].phase,
        steps=(survivors[0].step, survivors[0].step),
        bytes=num_bytes,
        where=place(survivors[0]),
        evidence={"num_models": len(survivors), "old_models_bytes": num_bytes},
    )


def other_process(log: RunLog) -> list[Finding]:
    """Find memory on the GPU, outside this process, that grows during the run."""
    measured = [
        (p.step, p.driver_used_bytes - p.after.reserved_bytes) for p in log.phases if p.driver_used_bytes is not None
    ]
    # libraries load their kernels in the first steps
    later = [(step, foreign) for step, foreign in measured if step > 1]
    if not later:
        return []
    rise = max(foreign for _, foreign in later) - later[0][1]
    if rise < FOREIGN_BYTES:
        return []
    since = next(step for step, foreign in later if foreign - later[0][1] >= FOREIGN_BYTES)
    oom = log.fatal_oom
    # the allocator failed below its budget: the card itself was full
    crowded_out = oom is not None and oom.reserved_bytes + oom.requested_bytes <= oom.budget_bytes
    return [
        Finding(
            cause="other-process",
            severity="error" if crowded_out else "warning",
            title=f"Others took {format_bytes(rise)} of the GPU from step {since} on",
            explanation=f"The driver counts {format_bytes(rise)} more as used outside this process's allocator than "
            f"at step {later[0][0]}: another process works on the same GPU.",
            steps=(since, later[-1][0]),
            bytes=rise,
            evidence={"foreign_before_bytes": later[0][1], "foreign_rise_bytes": rise},
        )
    ]


def host_leak(log: RunLog) -> list[Finding]:
    """Find resident memory of the process that climbs from step to step while the GPU is flat."""
    steps = [s for s in log.steps if s.host_rss_bytes > 0]
    steps = steps[round(HOST_BURN_IN * len(steps)) :]
    if len(steps) < HOST_MIN_STEPS or _gpu_grows(log):
        return []
    slope = robust_slope([s.host_rss_bytes for s in steps])
    if slope.low < HOST_NOISE_BYTES:
        return []
    grown = steps[-1].host_rss_bytes - steps[0].host_rss_bytes
    return [
        Finding(
            cause="host-leak",
            severity="warning",
            title=f"Host memory grows by {format_bytes(round(slope.middle))} a step",
            explanation=f"The process's resident memory rose by {format_bytes(grown)} from step {steps[0].step} to "
            f"{steps[-1].step} while allocated on the GPU was flat: data, not tensors of the GPU, piles up.",
            steps=(steps[0].step, steps[-1].step),
            bytes=grown,
            evidence={"host_bytes_per_step": round(slope.middle), "num_steps": len(steps)},
        )
    ]


def _gpu_grows(log: RunLog) -> bool:
    growth = settled(step_growth(log))
    return len(growth) >= MIN_STEPS and growth[-1].floor_bytes - growth[0].floor_bytes >= MIN_GROWTH_BYTES
