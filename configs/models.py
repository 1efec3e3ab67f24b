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
    models = {}
    for name, values in tables.items():
        values["eos_token_ids"] = tuple(values["eos_token_ids"])
        models[name] = ModelShape(name=name, **values)
    return models


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
    if repo.count("/") != 1 or " " in repo or is_local_checkpoint(shape.name):
        return None
    return repo


def hub_cache_folder(shape: ModelShape, *file_names: str) -> Path | None:
    """Return the folder of the local Hugging Face cache that holds one of the model's files; None without any."""
    from huggingface_hub import try_to_load_from_cache

    repo = hub_id(shape)
    if repo is None:
        return None
    for name in file_names:
        file = try_to_load_from_cache(repo, name)
        if isinstance(file, str):
            return Path(file).parent
    return None


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
    heads = config["num_attention_heads"]
    eos_token_ids = _token_ids(config.get("eos_token_id"))
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
        eos_token_ids=eos_token_ids,
        pad_token_id=_pad_token_id(config.get("pad_token_id"), eos_token_ids),
        rope_scaling=rope or None,
    )


def _token_ids(value: Any) -> tuple[int, ...]:
    """Return the ids that a config.json gives as a list, as a number, or not at all."""
    if isinstance(value, list):
        return tuple(value)
    return () if value is None else (value,)


def _pad_token_id(own: int | None, eos_token_ids: tuple[int, ...]) -> int:
    """Return an id that ends no reply: any does, as padding is masked everywhere."""
    if own is not None and own not in eos_token_ids:
        return own
    return next(i for i in range(len(eos_token_ids) + 1) if i not in eos_token_ids)
