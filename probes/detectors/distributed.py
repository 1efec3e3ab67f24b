"""What training on several processes takes of the card, as far as PyTorch's allocator has it."""

from memory_harness.configs.units import format_bytes
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.reading import is_tight, severity_without
from memory_harness.probes.findings import Finding

BUCKET_SHARE = 0.05
"""Share of the budget from which the buckets are worth a line: an adapter's have far less."""


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
