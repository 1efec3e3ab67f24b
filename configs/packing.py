"""Which configurations cannot train on several samples in one sequence, and why."""

from __future__ import annotations

from memory_harness.configs.models import ModelShape, find_model
from memory_harness.configs.schema import RunConfig


def packing_problems(config: RunConfig) -> list[str]:
    """Return one line for each reason against --batching packed. Raises ConfigError: there is no such model."""
    if config.data.batching != "packed":
        return []
    model, train, shape = config.model, config.train, find_model(config.model.model)
    original = _original_positions(shape)
    reasons = {
        f"--objective {train.objective} is of whole sequences (allowed with it: sft)": train.objective != "sft",
        "--strategy unsloth makes its own masks; use qlora": model.strategy == "unsloth",
        "--attention flash_attention_2: PyTorch's own kernel is taken for it where the card has one (allowed with it: "
        "auto, eager, sdpa)": model.attention == "flash_attention_2",
        "--use-cache: a cache keeps no samples apart; leave it out": model.use_cache,
        f"--neftune-noise-alpha {train.neftune_noise_alpha}: goes by the length of a sequence; leave it "
        "out": train.neftune_noise_alpha is not None,
        f"{shape.name} classifies whole sequences": shape.classifies,
        f"the rotary embedding of {shape.name} goes by the longest sample beyond {original} tokens; lower --max-length "
        f"{config.data.max_length}": shape.reading_rope is not None and config.data.max_length > original,
    }
    return [f"--batching packed: {reason}" for reason, holds in reasons.items() if holds]


def _original_positions(shape: ModelShape) -> int:
    """Return up to how many tokens a rotary embedding that reads lengths is as it was trained."""
    name = "original_max_position_embeddings"
    return shape.rope.get(name) or shape.values.get(name) or shape.max_position_embeddings or 0
