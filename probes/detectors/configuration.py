"""Offsets that the configuration adds from the first step on."""

from __future__ import annotations

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.reading import config_of, is_tight
from memory_harness.probes.findings import Finding


def kbit_upcast(log: RunLog) -> list[Finding]:
    """Find embeddings and output head held in float32 although the run computes in 16 bits."""
    config, model = config_of(log), log.run.model
    applies = config.model.kbit_upcast and config.model.quantization == "nf4" and config.model.dtype != "float32"
    if model is None or not applies:
        return []
    num_tensors = 1 if model.tie_word_embeddings else 2
    extra = num_tensors * model.vocab_size * model.hidden_size * 2
    share = extra / log.run.budget_bytes
    which = "the shared embedding and output head" if num_tensors == 1 else "the embedding and the output head"
    tensors = "1 tensor" if num_tensors == 1 else f"{num_tensors} tensors"
    return [
        Finding(
            cause="kbit-upcast",
            severity="warning" if is_tight(log) else "info",
            title=f"Embeddings in float32 take {format_bytes(extra)} more than in 16 bits",
            explanation=f"prepare_model_for_kbit_training casts {which} to float32: {tensors} × {model.vocab_size} × "
            f"{model.hidden_size} × 2 B more = {format_bytes(extra)}, {share:.0%} of the budget, from loading to the "
            f"end. Under {config.model.dtype} autocast the head is cast back for every product, which costs once more.",
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
    ]
