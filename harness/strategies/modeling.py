"""Building a quantised causal language model of any size without ever holding it whole in 16 bit.

The model is laid out on the meta device and then made real weight by weight, so that at most one unquantised layer
exists on the device. Random weights and a checkpoint's go the same way and take the same memory, and so does the
simulation. transformers' own loader would not do: it reserves about the model's size at once and lets threads place
the weights, so that neither its peak nor the order of its allocations is the same twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from memory_harness.configs.models import ModelShape, is_local_checkpoint
from memory_harness.harness.devices.base import Device, params4bit
from memory_harness.harness.strategies.weights import open_weights

INIT_STD = 0.02
"""spread of random weights; Source: initializer_range of the Llama configuration"""
UNQUANTISED = ["lm_head"]
"""linear layers that stay in 16 bit, as transformers leaves the output head"""
Initial = Callable[[str, torch.Size], torch.Tensor]
"""takes a parameter's name and shape; returns its value in 16 bit, newly made on the device"""
Embed = Callable[[torch.Tensor], torch.nn.Module]
"""takes the table (V, H) of the input embeddings, on the device; returns the module to take instead of them"""


def transformers_config(shape: ModelShape) -> PreTrainedConfig:
    """Return the transformers configuration of a shape; that of a local checkpoint is its own, with all it says."""
    if is_local_checkpoint(shape.name):
        config = AutoConfig.from_pretrained(shape.name, local_files_only=True)
        config.use_cache = False
        return config
    classes = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": shape.rope_theta}
    config = classes[shape.architecture](
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position_embeddings,
        rms_norm_eps=shape.rms_norm_eps,
        tie_word_embeddings=shape.tie_word_embeddings,
        rope_parameters=rope | dict(shape.rope_scaling or {}),
        use_cache=False,
    )
    if shape.architecture == "llama":
        config.attention_bias = shape.attention_bias
    return config


def quantised_model(
    config: PreTrainedConfig,
    device: Device,
    dtype: torch.dtype,
    quantise: bool,
    double_quant: bool,
    checkpoint: Path | None = None,
    embed: Embed | None = None,
) -> Any:
    """Return the model on the device, its linear layers (but the head) in NF4 when `quantise`.

    Args:
        checkpoint: folder with its weights; random ones without it.
        embed: replaces the input embeddings.

    Raises:
        ConfigError: the checkpoint lacks a weight, or has one of another shape.
    """
    with device.on_host():
        model = _on_meta(config, dtype, quantise, double_quant)
    with _initial_weights(model, device, dtype, checkpoint) as initial:
        _materialise(model, device, initial, double_quant, embed)
    return model


@contextmanager
def _initial_weights(model: Any, device: Device, dtype: torch.dtype, checkpoint: Path | None) -> Iterator[Initial]:
    """Within, weights are random, or read from the checkpoint's files one at a time."""
    if checkpoint is None:
        yield lambda name, shape: random_weight(shape, name, device, dtype)
        return
    with open_weights(checkpoint) as weights:
        # of tied weights, which named_parameters gives once, a checkpoint holds one
        weights.check({name: tuple(parameter.shape) for name, parameter in model.named_parameters()})

        def read(name: str, shape: torch.Size) -> torch.Tensor:
            with device.on_host():
                host = weights.read(name, dtype)
            return device.put(host)

        yield read


def _on_meta(config: PreTrainedConfig, dtype: torch.dtype, quantise: bool, double_quant: bool) -> Any:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    if quantise:
        options = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
        model = replace_with_bnb_linear(model, modules_to_not_convert=UNQUANTISED, quantization_config=options)
        model.is_loaded_in_4bit = True
    return model


def _materialise(model: Any, device: Device, initial: Initial, double_quant: bool, embed: Embed | None) -> None:
    import bitsandbytes

    made: dict[int, torch.nn.Parameter] = {}
    names = {module: name for name, module in model.named_modules()}
    table: torch.nn.Embedding = model.get_input_embeddings()
    for module in _in_load_order(model):
        if embed is not None and module is table:  # in its turn, so that random weights stay what they are
            model.set_input_embeddings(embed(initial(f"{names[table]}.weight", table.weight.shape)))
            continue
        is_quantised = isinstance(module, bitsandbytes.nn.Linear4bit)
        for name, meta in list(module.named_parameters(recurse=False)):
            full_name = f"{names[module]}.{name}"
            if id(meta) in made:  # tied weights are one parameter
                parameter = made[id(meta)]
            elif is_quantised and name == "weight":
                parameter = _quantised_weight(module, initial(full_name, meta.shape), double_quant)
                # on CPUs with AVX512-BF16 an evaluation would else repack the weight for good, for a kernel without
                # gradients that no CUDA card has: the training after it would be another one, and a wrong one
                module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
            else:
                parameter = torch.nn.Parameter(initial(full_name, meta.shape), requires_grad=False)
            made[id(meta)] = parameter
            module._parameters[name] = parameter
    _materialise_rotary(model, device)


def _in_load_order(model: Any) -> list[torch.nn.Module]:
    """Return the modules, decoder layers first: the 16-bit embeddings then never hold room that a layer could use."""
    return list(dict.fromkeys([*model.model.layers.modules(), *model.modules()]))


def random_weight(shape: torch.Size, name: str, device: Device, dtype: torch.dtype) -> torch.Tensor:
    """Return a weight on the device as an untrained model has it: biases zero, norms one, the rest around zero."""
    tensor = torch.empty(shape, dtype=dtype, device=device.torch_device)
    if name.endswith("bias"):
        return tensor.zero_()
    return tensor.fill_(1.0) if len(shape) == 1 else tensor.normal_(std=INIT_STD)


def _quantised_weight(module: torch.nn.Module, weight: torch.Tensor, double_quant: bool) -> torch.nn.Parameter:
    """Return the weight in 4 bits; the caller lets the 16-bit one go."""
    import bitsandbytes

    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=double_quant, quant_type="nf4"
    )
    module.quant_state = state
    return params4bit(packed, state, module)


def _materialise_rotary(model: torch.nn.Module, device: Device) -> None:
    """Recompute the rotary embeddings' frequencies, which no checkpoint holds and meta tensors have lost."""
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            with device.on_host():
                fresh = type(module)(module.config)
            for name, buffer in fresh.named_buffers(recurse=False):
                module._buffers[name] = device.put(buffer)
