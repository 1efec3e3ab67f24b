"""Weights, gradients and optimizer states: what a step needs whatever its batch is."""

from memory_harness.configs.optimizers import resident_state_bytes
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import Phase
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.reading import TRAIN_PHASES, fatal_finding, records_of
from memory_harness.probes.findings import Finding


def model_states_exceed_budget(evidence: Evidence) -> Finding | None:
    """Find a run that dies before its first update, where weights, gradients and states do not fit together.

    Gradients grow within the backward pass and states within the first update: that the run did not get as far as to
    hold them all changes nothing. What bitsandbytes has quantised has causes of its own.
    """
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
    loaded = _loaded_bytes(evidence)
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


def _loaded_bytes(evidence: Evidence) -> int:
    """Return what loading left allocated; 0 where the run died in it."""
    oom, loads = evidence.log.fatal_oom, records_of(evidence.log, Phase.LOAD)
    if not loads or (oom is not None and oom.phase is Phase.LOAD):
        return 0
    return loads[-1].after.allocated_bytes


def _weight_bytes(evidence: Evidence) -> int:
    model = evidence.config.model
    dtype = model.dtype if model.weights_dtype == "auto" else model.weights_dtype
    return 4 if dtype == "float32" else 2
