"""prepare_model_for_kbit_training as published recipes call it."""

from __future__ import annotations

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.faults.base import Fault


def _configure(config: RunConfig) -> RunConfig:
    return config.with_fields(kbit_upcast=True, dtype="bfloat16", quantization="nf4")


KBIT_UPCAST = Fault(
    name="kbit-upcast",
    cause="kbit-upcast",
    title="embeddings and output head are cast to float32 before training",
    configure=_configure,
)
