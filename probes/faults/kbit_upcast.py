"""prepare_model_for_kbit_training as published recipes call it."""

from memory_harness.probes.faults.base import Fault

FAULT = Fault(
    name="kbit-upcast",
    title="embeddings and output head are cast to float32 before training",
    settings={"kbit_upcast": True, "dtype": "bfloat16", "quantization": "nf4"},
)
