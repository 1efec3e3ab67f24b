"""Offsets that the configuration adds from the first step on."""

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import Phase
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.reading import is_tight
from memory_harness.probes.findings import Finding


def kbit_upcast(evidence: Evidence) -> Finding | None:
    """Find embeddings and output head held in float32 although the run computes in 16 bits."""
    log, model, settings = evidence.log, evidence.log.run.model, evidence.config.model
    applies = settings.casts_to_float32 and settings.dtype != "float32"
    if model is None or not applies:
        return None
    num_tensors, tensors, which = 2, "2 tensors", "the embedding and the output head"
    if model.tie_word_embeddings:
        num_tensors, tensors, which = 1, "1 tensor", "the shared embedding and output head"
    extra = num_tensors * model.vocab_size * model.hidden_size * 2
    share = extra / log.run.budget_bytes
    return Finding(
        cause="kbit-upcast",
        severity="warning" if is_tight(log) else "info",
        title=f"Embeddings in float32 take {format_bytes(extra)} more than in 16 bits",
        explanation=f"prepare_model_for_kbit_training casts {which} to float32: {tensors} × {model.vocab_size} × "
        f"{model.hidden_size} × 2 B more = {format_bytes(extra)}, {share:.0%} of the budget, from loading to the "
        f"end. Under {settings.dtype} autocast the head is cast back for every product, which costs once more.",
        phase=Phase.LOAD,
        bytes=extra,
        evidence={
            "num_tensors": num_tensors,
            "vocab_size": model.vocab_size,
            "hidden_size": model.hidden_size,
            "extra_bytes_per_element": 2,
            "budget_bytes": log.run.budget_bytes,
        },
    )
