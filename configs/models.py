"""Model shapes that need no download, from models.toml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from configs.errors import ConfigError
from configs.tables import read_toml, unknown_name

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers inside each block; the same in all architectures of models.toml."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder's sizes and special tokens: enough to build it with random or fake weights."""

    name: str
    """its name in models.toml and for --model"""
    source: str
    """the checkpoint whose config.json it repeats"""
    architecture: Literal["llama", "qwen2", "mistral"]
    """transformers' model type"""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    tie_word_embeddings: bool
    """the output head shares the embedding's weight"""
    attention_bias: bool
    """the attention projections have a bias, as far as the architecture lets them"""
    rms_norm_eps: float
    max_position_embeddings: int
    rope_theta: float
    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    """every id that ends a reply"""
    pad_token_id: int
    """never one of `eos_token_ids`"""
    rope_scaling: Mapping[str, Any] | None = field(default=None, hash=False)
    """transformers' rope_scaling table; None for plain rotary embeddings"""


@functools.cache
def load_models() -> dict[str, ModelShape]:
    """Return the shapes of models.toml by name, in the order in which they are written."""
    tables = read_toml(Path(__file__).with_name("models.toml"))["models"]
    return {
        name: ModelShape(name=name, **values | {"eos_token_ids": tuple(values["eos_token_ids"])})
        for name, values in tables.items()
    }


def find_model(name: str) -> ModelShape:
    """Return the shape of that name.

    Raises:
        ConfigError: there is none.
    """
    models = load_models()
    if name not in models:
        hint = ", or a local directory that holds a checkpoint with its config.json"
        raise ConfigError(unknown_name("--model", name, models) + hint)
    return models[name]


def is_local_checkpoint(name: str) -> bool:
    """Return whether the name is a directory that holds a model's config.json."""
    return Path(name, "config.json").is_file()
