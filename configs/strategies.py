"""What each strategy can do, and the settings that it leaves no choice in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import KIB, MIB


def _unsloth_settings(config: RunConfig) -> dict[str, Any]:
    return {
        "double_quant": True,
        "kbit_upcast": False,  # its own preparation casts the adapter alone
        "expand_kv": True,  # its attention does, where no kernel takes fewer key heads than query heads
        "loss": "chunked",  # its fused cross-entropy
        "hold_outputs": False,
        "use_cache": False,
        "embeddings_on_host": False,
        "tiled_mlp": False,
        "fast_path": "off",
        "cuda_graphs": "none",
        "recompute": "all",
        # checkpointing by Unsloth means: what is kept goes to host memory
        "offload_activations": config.model.gradient_checkpointing,
    }


@dataclass(frozen=True)
class Capabilities:
    """What the rest of the program has to know of a strategy."""

    title: str
    not_simulated: str = ""
    """what of it a simulated card does not know; empty where all of it can be simulated, and so predicted"""
    is_plantable: bool = True
    """whether a fault can be planted in it"""
    takes_several_gpus: bool = True
    is_imported_first: bool = False
    """whether its package changes others while it is imported, and so must come before them"""
    idle_bytes: int = 256 * KIB
    """What may be allocated before the model is loaded: bitsandbytes' code tables and a random state, a few KiB."""
    fixed_settings: Callable[[RunConfig], dict[str, Any]] = lambda config: {}
    """takes a configuration; returns the fields that the strategy leaves no choice in, as it has them"""


CAPABILITIES = {
    "qlora": Capabilities("QLoRA"),
    "unsloth": Capabilities(
        "Unsloth",
        not_simulated="Triton kernels",
        is_plantable=False,
        takes_several_gpus=False,
        is_imported_first=True,
        # it tries kernels out, which takes cuBLAS' workspace; Source: tests/bench/results/h100_unsloth
        idle_bytes=32 * MIB,
        fixed_settings=_unsloth_settings,
    ),
}
"""by the names that `--strategy` takes"""


def capabilities_of(config: RunConfig) -> Capabilities:
    """Return what the configured strategy can do."""
    return CAPABILITIES[config.model.strategy]


def with_fixed_settings(config: RunConfig) -> RunConfig:
    """Return the configuration with the settings that its strategy leaves no choice in as the strategy has them.

    Detectors and fixes then take an Unsloth run for what it is.
    """
    fixed = capabilities_of(config).fixed_settings(config)
    if config.train.finetuning_type == "full" or config.lora.lora_bias != "none":
        fixed = {**fixed, "compare_base": False}  # there is none any more
    return config.with_fields(**fixed) if fixed else config
