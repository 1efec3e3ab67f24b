"""What a model is made of, found in the model itself: its class, layers, head; no table of architectures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import peft
import torch
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from memory_harness.configs.errors import CODE_NOT_RUN, ConfigError
from memory_harness.configs.models import ALL_LINEAR, CLASSIFIER, ModelShape
from memory_harness.configs.schema import LoraConfig

KNOWN_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", CLASSIFIER)
"""what the names of classes end in that predict the next token, or the class of a sequence"""


def transformers_config(shape: ModelShape) -> PreTrainedConfig:
    """Return the transformers configuration of a shape; that of a checkpoint is its own, with all it says.

    Raises:
        ConfigError: transformers has no such architecture, refuses a value, or the model has another head.
    """
    model_type = shape.values["model_type"]
    if model_type not in CONFIG_MAPPING:
        needs_code = ", only the checkpoint's own code does, which is not run" if "auto_map" in shape.values else ""
        raise ConfigError(f"--model {shape.name}: transformers has no architecture {model_type!r}{needs_code}")
    try:
        if shape.folder is not None and not shape.is_typed_by_class:
            config = AutoConfig.from_pretrained(shape.folder, local_files_only=True, trust_remote_code=False)
        else:
            config = CONFIG_MAPPING[model_type].from_dict(dict(shape.values))
    except Exception as error:  # transformers' configurations raise whatever their checks raise
        raise ConfigError(f"--model {shape.name}: transformers refuses its config.json: {_one_line(error)}") from error
    _check_is_decoder(shape.name, config)
    config.use_cache = False
    if shape.classifies:  # which looks for a sequence's last token by what is no padding
        config.get_text_config().pad_token_id = shape.pad_token_id
    return config


def _check_is_decoder(name: str, config: PreTrainedConfig) -> None:
    """Refuse what has no decoder with a head that is known, and would be measured as something else."""
    if config.is_encoder_decoder:
        raise ConfigError(
            f"--model {name}: {config.model_type} has an encoder beside its decoder (allowed: decoder-only models)"
        )
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ConfigError(f"--model {name}: {config.model_type} is an encoder (allowed: decoder-only models)")
    heads = config.architectures or []
    if heads and not any(head.endswith(KNOWN_HEADS) for head in heads):
        raise ConfigError(
            f"--model {name}: the checkpoint holds {', '.join(heads)}, which predicts no next token "
            f"(allowed: classes that end in {', '.join(KNOWN_HEADS)})"
        )


def model_on_meta(config: PreTrainedConfig, dtype: torch.dtype, attention: str = "auto") -> Any:
    """Return the model without values, its parameters of the types that transformers would load them in.

    Args:
        attention: transformers' name of it; `auto` is sdpa, or eager for a model that has written out its own.

    Raises:
        ConfigError: transformers has no decoder for the configuration, or cannot build it, or not with this attention.
    """
    auto = auto_class(config)
    try:
        with torch.device("meta"):
            kernel = attention_of(auto, config, attention)
            model = auto.from_config(config, dtype=dtype, attn_implementation=kernel, trust_remote_code=False)
    except ConfigError:
        raise
    except Exception as error:  # a model's constructor raises whatever its parts raise
        raise ConfigError(f"--model: transformers cannot build {config.model_type!r}: {_one_line(error)}") from error
    _keep_wide(model, dtype)
    return model


def auto_class(config: PreTrainedConfig) -> Any:
    """Return transformers' class that builds a model of a configuration. Raises ConfigError: it has none."""
    auto = next((auto for auto in _auto_classes(config) if type(config) in auto._model_mapping), None)
    if auto is None:
        raise ConfigError(f"--model: transformers has no decoder with a head for {config.model_type!r}")
    return auto


def _auto_classes(config: PreTrainedConfig) -> tuple[Any, ...]:
    heads = config.architectures or [""]
    if heads[0].endswith(CLASSIFIER):
        return (AutoModelForSequenceClassification,)
    return (AutoModelForCausalLM, AutoModelForImageTextToText)


def classification_head(model: Any) -> torch.nn.Module | None:
    """Return the layer that gives a sequence its class; None where a model predicts tokens."""
    if not type(model).__name__.endswith(CLASSIFIER):
        return None
    return next(module for name, module in reversed(list(model.named_children())) if is_linear(module))


def class_labels(config: PreTrainedConfig, batch_size: int) -> npt.NDArray[Any]:
    """Return a label for each sequence, of the shape and type that the head's loss takes: (B,), or (B, classes)."""
    if config.problem_type == "multi_label_classification":
        return np.zeros((batch_size, config.num_labels), dtype=np.float32)
    is_regression = config.problem_type == "regression" or config.num_labels == 1
    return np.zeros(batch_size, dtype=np.float32 if is_regression else np.int64)


def attention_of(auto: Any, config: PreTrainedConfig, attention: str) -> str:
    """Return transformers' name of the attention. Raises ConfigError: the model's class has no such one."""
    model_class = auto._model_mapping[type(config)]
    has = {"eager": True, "sdpa": model_class._supports_sdpa, "flash_attention_2": model_class._supports_flash_attn}
    if attention == "auto":
        return "sdpa" if has["sdpa"] else "eager"
    if not has[attention]:
        allowed = ", ".join(["auto", *filter(has.get, has)])
        raise ConfigError(f"--attention: {model_class.__name__} has no {attention} (allowed for it: {allowed})")
    return attention


def _keep_wide(model: Any, dtype: torch.dtype) -> None:
    """Give the parameters that transformers loads in float32, whatever the type asked for, that type.

    Source: transformers/modeling_utils.py, `_get_dtype_plan`.
    """
    for pattern, wide in model._get_dtype_plan(dtype).items():
        for name, parameter in model.named_parameters():
            if re.search(pattern.replace("*", ".*"), name):
                parameter.data = parameter.data.to(wide)


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """Return the stack of layers that tokens pass through.

    Raises:
        ConfigError: the model holds no list of as many layers as its configuration says.
    """
    decoder = model.get_decoder()
    num_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    for module in decoder.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == num_layers:
            return module
    raise ConfigError(f"--model: no list of {num_layers} layers in {type(model).__name__}")


def linear_layers(model: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the decoder's linear layers, those that an adapter can stand beside, with their names."""
    layers = decoder_layers(model)
    inside = set(layers.modules())
    for name, module in model.named_modules():
        if module in inside and is_linear(module):
            yield name, module


def is_linear(module: torch.nn.Module) -> bool:
    """Return whether a module multiplies by one matrix: PyTorch's, bitsandbytes' and GPT-2's layers."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D))


def adapter_targets(model: Any, names: tuple[str, ...]) -> list[str] | str:
    """Return what peft takes as `target_modules`: layers by the end of their name, or a pattern of whole names.

    The default names are Llama's. A model without them gets peft's choice for it, else its attention's linear layers,
    else every one.

    Raises:
        ConfigError: the decoder has no linear layer of such a name.
    """
    suffixes = list(dict.fromkeys(name.rpartition(".")[2] for name, _ in linear_layers(model)))
    if names == LoraConfig().target_modules and not set(names) <= set(suffixes):
        names = _peft_choice(model, suffixes)
    if names == (ALL_LINEAR,):
        names = tuple(name for name in suffixes if not _refused_by_peft(model, name))
    unknown = set(names) - set(suffixes)
    if unknown or not names:
        given = ",".join(names) or "(empty)"
        raise ConfigError(
            f"--target-modules {given}: not layers of this {model.config.model_type} "
            f"(allowed: {','.join(suffixes)}, or {ALL_LINEAR})"
        )
    if _only_in_decoder(model, names):
        return list(names)
    decoder = next(name for name, module in model.named_modules() if module is decoder_layers(model))
    return rf"{re.escape(decoder)}\..*\.({'|'.join(map(re.escape, names))})"


def check_names(model: Any, lora: LoraConfig) -> None:
    """Raise ConfigError where no layer has a name that the configuration says."""
    names = [name for name, _ in model.named_modules()]
    for saved in lora.modules_to_save:
        if not any(name.split(".")[-1] == saved for name in names):
            raise ConfigError(f"--modules-to-save {saved}: no layer of this {model.config.model_type} has that name")
    for flag, patterns in (("--rank-pattern", lora.ranks), ("--alpha-pattern", lora.alphas)):
        for pattern in patterns:  # as peft looks for them
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                raise ConfigError(f"{flag} {pattern}: no layer of this {model.config.model_type} has such a name")


def _peft_choice(model: Any, suffixes: list[str]) -> tuple[str, ...]:
    choice = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)
    if isinstance(choice, list) and set(choice) <= set(suffixes):
        return tuple(choice)
    attention = {name.rpartition(".")[2] for name, _ in linear_layers(model) if "attn" in name or "attention" in name}
    # attention alone, as peft's own choices: experts' names stand for more than their linear layers
    return tuple(name for name in suffixes if name in attention) or (ALL_LINEAR,)


def _refused_by_peft(model: Any, name: str) -> bool:
    try:
        _check_lora_target_modules_mamba(peft.LoraConfig(), model, name)
    except ValueError:
        return True
    return False


def _only_in_decoder(model: Any, names: tuple[str, ...]) -> bool:
    """Return whether no layer outside the decoder, as in a vision tower, has one of the names."""
    inside = {name for name, _ in linear_layers(model)}
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in names}
    return named <= inside


def attention_windows(model: Any) -> tuple[int, ...]:
    """Return the lengths from which on layers with sliding or chunked attention see a part of the sequence only."""
    config = model.config.get_text_config(decoder=True)
    values = {getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")}
    return tuple(sorted(value for value in values if isinstance(value, int)))


def check_positions(model: Any, name: str, max_length: int) -> None:
    """Raise ConfigError where a model has a table of positions, as GPT-2 has, and sequences are longer than that."""
    positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions is None or max_length <= positions:
        return
    for module_name, module in model.named_modules():
        is_of_positions = module_name.endswith(("wpe", "embed_positions", "position_embeddings"))
        if is_of_positions and isinstance(module, torch.nn.Embedding):
            raise ConfigError(f"--max-length {max_length}: {name} has a table of {positions} positions; lower it")


def cache_name(model: Any) -> str:
    """Return under which name a model takes and returns its cache; state-space models have one of their own."""
    return next(iter(takes(model, "cache_params")), "past_key_values")


def takes(model: Any, *names: str) -> set[str]:
    """Return which of these a model's forward pass takes by name."""
    return set(inspect.signature(model.forward).parameters).intersection(names)


def divides_loss(model: Any) -> bool:
    """Return whether a model divides its summed loss by `num_items_in_batch`; others take the batch's mean.

    Source: transformers/trainer.py, `model_accepts_loss_kwargs`.
    """
    kinds = {parameter.kind for parameter in inspect.signature(model.forward).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds and getattr(model, "accepts_loss_kwargs", True)


def _one_line(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return CODE_NOT_RUN
    return " ".join((str(error).strip() or type(error).__name__).split())
