"""What a strategy does in any case, in the terms of the settings."""

from __future__ import annotations

from typing import Any

from memory_harness.configs.schema import RunConfig

UNSLOTH: dict[str, Any] = {
    "double_quant": True,
    "kbit_upcast": False,  # its own preparation casts the adapter alone
    "expand_kv": True,  # its attention does, where no kernel takes fewer key heads than query heads
    "loss": "chunked",  # its fused cross-entropy
    "hold_outputs": False,
    "use_cache": False,
    "embeddings_on_host": False,
    "tiled_mlp": False,
}


def settled(config: RunConfig) -> RunConfig:
    """Return the configuration with the settings that its strategy leaves no choice in as the strategy has them.

    Detectors and fixes then take an Unsloth run for what it is.
    """
    if config.model.strategy != "unsloth":
        return config
    # checkpointing by Unsloth means: what is kept goes to host memory
    return config.with_fields(**UNSLOTH, offload_activations=config.model.gradient_checkpointing)
