"""Weights, gradients and optimizer states: what a step needs whatever its batch is."""

from dataclasses import replace

from memory_harness.configs.optimizers import resident_state_bytes
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import MODEL_STATES, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.reading import TRAIN_PHASES, fatal_finding, line_of, records_of, survivors_of
from memory_harness.probes.findings import Finding

STATES_SHARE = 0.25
"""Least share of all that a script's gradients and states are: where weights take nearly all, these are the cause."""


def model_states_exceed_budget(evidence: Evidence) -> Finding | None:
    """Find a run that dies before its first update, where weights, gradients and states do not fit together.

    Gradients grow within the backward pass and states within the first update: that the run did not get as far as to
    hold them all changes nothing. What bitsandbytes has quantised has causes of its own.
    """
    if evidence.log.run.script:
        return _of_script(evidence.log)
    oom, model, config = evidence.log.fatal_oom, evidence.log.run.model, evidence.config
    if oom is None or model is None or not evidence.has_config or config.model.quantization != "none":
        return None
    if oom.phase not in (Phase.LOAD, Phase.DATA, *TRAIN_PHASES) or evidence.log.steps:
        return None
    train, size = config.train, _weight_bytes(evidence)
    trains_all = train.finetuning_type == "full"
    trained = model.num_parameters if trains_all else model.num_trainable_parameters
    trained_size = size if trains_all or config.lora.adapter_dtype == "auto" else 4
    kept = resident_state_bytes(train.optimizer, train.optim_args, trained_size)
    loaded = _loaded_bytes(evidence.log)
    weights, gradients, states = loaded or model.num_parameters * size, trained * trained_size, trained * kept
    if not loaded and not trains_all:
        gradients = states = 0  # how much an adapter has is known once it is there
    total = weights + gradients + states
    if total <= oom.budget_bytes:
        return None
    parts = (
        f"{format_bytes(weights)} of weights as loaded ({model.num_parameters} × {size} B)",
        f"{format_bytes(gradients)} of gradients ({trained} × {trained_size} B)",
        f"{format_bytes(states)} of {train.optimizer}'s states ({trained} × {kept} B)",
    )
    return fatal_finding(
        oom,
        cause="model-states-exceed-budget",
        title=f"Weights, gradients and optimizer states need {format_bytes(total)}, whatever the batch is",
        explanation=f"At the first update there are together {', '.join(parts)}: {format_bytes(total)} of "
        f"{format_bytes(oom.budget_bytes)}. Activations come on top, and a smaller batch changes nothing.",
        num_bytes=total - oom.budget_bytes,
        evidence={
            "parameters": model.num_parameters,
            "trained_parameters": trained,
            "weights_bytes": weights,
            "gradients_bytes": gradients,
            "optimizer_states_bytes": states,
            "total_bytes": total,
        },
    )


def _of_script(log: RunLog) -> Finding | None:
    """Find a script whose weights, with what its optimizers were to have, exceed the budget."""
    oom, coming = log.fatal_oom, survivors_of(log, MODEL_STATES)
    of_optimizers = {survivor.holder: survivor.bytes_per_step for survivor in coming}  # each failure tells of all anew
    loaded, states = _loaded_bytes(log), sum(of_optimizers.values())
    total = loaded + states
    if oom is None or log.steps or not loaded or states < STATES_SHARE * total or total <= oom.budget_bytes:
        return None
    largest = coming[0]
    finding = fatal_finding(
        oom,
        cause="model-states-exceed-budget",
        title=f"Weights, gradients and optimizer states need {format_bytes(total)}, whatever the batch is",
        explanation=f"Before the first step there was {format_bytes(loaded)}. The gradients and states of the "
        f"{largest.num_tensors} tensors that {largest.holder} trains take {format_bytes(states)}: together "
        f"{format_bytes(total)} of {format_bytes(oom.budget_bytes)}. Activations come on top, and a smaller batch "
        "changes nothing.",
        num_bytes=total - oom.budget_bytes,
        evidence={"loaded_bytes": loaded, "gradients_and_states_bytes": states, "total_bytes": total},
    )
    return replace(finding, where=line_of(largest) or finding.where)


def _loaded_bytes(log: RunLog) -> int:
    """Return what loading left allocated; 0 where the run died in it."""
    oom, loads = log.fatal_oom, records_of(log, Phase.LOAD)
    if not loads or (oom is not None and oom.phase is Phase.LOAD):
        return 0
    return loads[-1].after.allocated_bytes


def _weight_bytes(evidence: Evidence) -> int:
    model = evidence.config.model
    dtype = model.dtype if model.weights_dtype == "auto" else model.weights_dtype
    return 4 if dtype == "float32" else 2
