"""Model shapes that need no download, from models.toml."""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.tables import read_toml, unknown_name

Architecture = Literal["llama", "qwen2", "mistral"]

MLP_LAYERS = ("gate_proj", "up_proj", "down_proj")
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", *MLP_LAYERS)
"""Linear layers inside each block; the same in all architectures of models.toml."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder's sizes and special tokens: enough to build it with random or fake weights."""

    name: str
    """its name in models.toml and for --model"""
    source: str
    """the checkpoint whose config.json it repeats"""
    architecture: Architecture
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
    """Return the shape of that name, or of the checkpoint in that folder.

    Raises:
        ConfigError: there is none, or the checkpoint is of an architecture that is not supported.
    """
    if is_local_checkpoint(name):
        return _checkpoint_shape(name)
    models = load_models()
    if name not in models:
        hint = ", or a local directory that holds a checkpoint with its config.json"
        raise ConfigError(unknown_name("--model", name, models) + hint)
    return models[name]


def hub_id(shape: ModelShape) -> str | None:
    """Return the repository on the Hugging Face Hub that `source` names, or None where it names none."""
    repo = shape.source.partition(";")[0]
    return repo if repo.count("/") == 1 and " " not in repo and not is_local_checkpoint(shape.name) else None


def is_local_checkpoint(name: str) -> bool:
    """Return whether the name is a directory that holds a model's config.json."""
    return Path(name, "config.json").is_file()


def _checkpoint_shape(folder: str) -> ModelShape:
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in typing.get_args(Architecture):
            allowed = ", ".join(typing.get_args(Architecture))
            raise ConfigError(f"--model {folder}: model_type {config['model_type']!r} (allowed: {allowed})")
        return _shape_of_config(folder, config)
    except KeyError as error:
        raise ConfigError(f"--model {folder}: its config.json lacks {error}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"--model {folder}: cannot read its config.json ({error})") from None


def _shape_of_config(folder: str, config: dict[str, Any]) -> ModelShape:
    """Return the shape that a config.json describes; transformers 5 keeps rotary settings together, 4 did not."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    heads, stops = config["num_attention_heads"], config.get("eos_token_id")
    eos = tuple(stops) if isinstance(stops, list) else (() if stops is None else (stops,))
    return ModelShape(
        name=folder,
        source=folder,
        architecture=config["model_type"],
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        tie_word_embeddings=config.get("tie_word_embeddings", False),
        attention_bias=config.get("attention_bias", config["model_type"] == "qwen2"),
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
        max_position_embeddings=config["max_position_embeddings"],
        rope_theta=rope.pop("rope_theta", config.get("rope_theta", 10000.0)),
        bos_token_id=config.get("bos_token_id") or 0,
        eos_token_ids=eos,
        # padding is masked everywhere, so that any id does that ends no reply
        pad_token_id=next(i for i in (config.get("pad_token_id"), *range(len(eos) + 1)) if i not in (None, *eos)),
        rope_scaling=rope or None,
    )
