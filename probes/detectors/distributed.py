"""What training on several GPUs takes of each, as far as PyTorch's allocator has it."""

from memory_harness.configs.units import format_bytes
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.reading import is_tight, severity_without
from memory_harness.probes.findings import Finding

BUCKET_SHARE = 0.05
"""Share of the budget from which the buckets are worth a line: an adapter's have far less."""


MOVABLE_SHARE = 0.5
"""Share of an even part of the weights that can surely be moved from the GPU that takes most: it may hold fewer of them
than others, beside the head and the logits."""
WEIGHT_BYTES, PACKED_BYTES = 2.0, 0.5
"""of a weight in 16 bits, and in 4"""
LEAST_GAIN = 0.1
"""share of the budget by which the GPU that takes most has to take less, for a word on a run that goes on"""


def device_map_imbalance(evidence: Evidence) -> Finding | None:
    """Find layers that are placed so that one GPU runs full and another has room for what it lacks."""
    log, model, peaks = evidence.log, evidence.log.run.model, evidence.log.run.gpu_peaks
    if model is None or len(peaks) < 2 or not is_tight(log):
        return None
    most, least, budget = max(peaks), min(peaks), log.run.budget_bytes
    packed = model.num_quantised_parameters
    weights = packed * PACKED_BYTES + (model.num_parameters - packed) * WEIGHT_BYTES
    moved = min((most - least) / 2, MOVABLE_SHARE * weights / len(peaks))
    saves = log.fatal_oom is not None and most > budget and most - moved <= budget
    if not saves and moved < LEAST_GAIN * budget:
        return None
    full, free = peaks.index(most), peaks.index(least)
    return Finding(
        cause="device-map-imbalance",
        severity="error" if saves else "warning",
        title=f"GPU {full} is to reserve {format_bytes(most)}, GPU {free} no more than {format_bytes(least)}",
        explanation=f"Layers that hold {format_bytes(round(moved))} could lie on GPU {free} instead, and leave GPU "
        f"{full} with {format_bytes(round(most - moved))} of {format_bytes(budget)}. Write the placement out: "
        "device_map takes a GPU for each layer.",
        bytes=round(moved),
        evidence={"most_bytes": most, "least_bytes": least, "movable_bytes": round(moved)},
    )


def communication_buffers(evidence: Evidence) -> Finding | None:
    """Find buckets of DistributedDataParallel that are a second copy of all gradients."""
    log, model = evidence.log, evidence.log.run.model
    if model is None or model.gradient_bucket_bytes < BUCKET_SHARE * log.run.budget_bytes:
        return None
    num_bytes = model.gradient_bucket_bytes
    return Finding(
        cause="communication-buffers",
        severity=severity_without(log, num_bytes) if is_tight(log) else "info",
        title=f"DistributedDataParallel keeps a second copy of the gradients: {format_bytes(num_bytes)}",
        explanation=f"Its buckets, in which gradients travel between the processes, hold {format_bytes(num_bytes)} for "
        f"{model.num_trainable_parameters} trainable parameters from the begin to the end, beside the gradients "
        "themselves. With gradient_as_bucket_view=True the gradients lie in the buckets.",
        bytes=num_bytes,
        evidence={"bucket_bytes": num_bytes, "trainable_parameters": model.num_trainable_parameters},
    )
