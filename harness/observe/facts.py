"""What the objects of any training loop say about their own sizes: batches, models and what models return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from memory_harness.harness.data.batching import IGNORE_INDEX
from memory_harness.harness.log.records import BatchShape, ForwardFacts, ModelFacts

EXPERTS_DIM = 3
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
MAX_OUTPUT_DEPTH = 4  # how deeply an output's tensors are nested: a cache in it is a list of pairs in a tuple


def batch_shape(batch: Any) -> BatchShape | None:
    """Return the shape of a batch, or None where it has none.

    Takes a `BatchShape`, a tensor or array (sequences first, then tokens), a mapping with `input_ids` and, where there
    is padding, `attention_mask`, or a sequence whose first member with a shape counts. A mask or labels on a GPU are
    read back, which waits for it.
    """
    if batch is None or isinstance(batch, BatchShape):
        return batch
    if isinstance(batch, Mapping):
        return _shape_of_fields(batch)
    if hasattr(batch, "shape"):
        return _shape_of_tensor(batch)
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return next(filter(None, map(batch_shape, batch)), None)
    return None


def _shape_of_fields(fields: Mapping[str, Any]) -> BatchShape | None:
    tokens = fields.get("input_ids")
    if tokens is None:
        tokens = fields.get("inputs_embeds")
    shape = batch_shape(list(fields.values()) if tokens is None else tokens)
    if shape is None:
        return None
    # lists, of which a collator may make tensors later, have no shape yet
    mask: Any = fields.get("attention_mask")
    labels: Any = fields.get("labels")
    lengths = shape.lengths
    if hasattr(mask, "shape") and tuple(mask.shape) == (shape.batch_size, shape.padded_length):
        lengths = tuple(map(int, mask.sum(1).tolist()))
    targets = int((labels != IGNORE_INDEX).sum()) if hasattr(labels, "shape") else sum(lengths)
    return BatchShape(shape.batch_size, shape.padded_length, lengths, targets)


def _shape_of_tensor(tensor: Any) -> BatchShape | None:
    sizes = tuple(map(int, tensor.shape))
    if not sizes:
        return None
    # (B,), (B, T) and (B, T, H); beyond that, pictures and the like, every position of the grid counts
    length = prod(sizes[1:2]) if len(sizes) <= 3 else prod(sizes[2:])
    return BatchShape(sizes[0], length, (length,) * sizes[0], sizes[0] * length)


def channels_of(module: torch.nn.Module) -> int:
    """Return the channels that a module's first layer takes where that convolves over one dimension, else 0."""
    first = next((layer for layer in module.modules() if layer._parameters), None)
    return first.in_channels if isinstance(first, torch.nn.Conv1d) else 0


def called_with_shape(values: Sequence[Any], *, with_lengths: bool = False, channels: int = 0) -> BatchShape | None:
    """Return the shape of what a module is called with.

    Args:
        values: the arguments.
        channels: of a sequence, where these may come before its positions; 0 where they do not.
        with_lengths: look for padding too, which reads from the device: in rows of integers that end alike, or by a
            mask among the arguments.
    """
    tensor = first_tensor(values)
    if with_lengths and tensor is not None and tensor.dim() == 2 and not tensor.is_floating_point():
        shape = batch_shape(tensor)
        return shape and dataclasses.replace(shape, lengths=_lengths_without_padding(tensor))
    if tensor is None:
        return None
    if tensor.dim() == 3 and tensor.shape[1] == channels != tensor.shape[2]:
        return batch_shape(tensor.transpose(1, 2))
    if tensor.dim() == 2 and tensor.is_floating_point():  # samples and their features, not tokens
        return BatchShape(len(tensor), 1, (), 0)
    shape = batch_shape(tensor)
    lengths = _lengths_of_masks(values, tensor.shape[:2]) if with_lengths and tensor.dim() == 3 else ()
    return None if shape is None else dataclasses.replace(shape, lengths=lengths)


def _lengths_of_masks(values: Sequence[Any], size: torch.Size) -> tuple[int, ...]:
    """Return how long each row is by the first mask of that size, rows and positions, among some values; else empty.

    A mask has ones up to the end of each row and zeros from there on, or, where it marks padding, the reverse. A square
    one may be that of causal attention.
    """
    if size[0] == size[1]:
        return ()
    for mask in values:
        if isinstance(mask, torch.Tensor) and mask.shape == size and mask.numel():
            marked = mask != 0
            is_binary = bool((marked == mask).all())
            goes_down = bool((marked[:, :-1] >= marked[:, 1:]).all() and marked[:, 0].all())
            goes_up = bool((marked[:, :-1] <= marked[:, 1:]).all() and not marked[:, 0].any())
            if is_binary and (goes_down or goes_up):
                kept = marked if goes_down else ~marked
                return tuple(kept.sum(1).tolist())
    return ()


def _lengths_without_padding(tokens: torch.Tensor) -> tuple[int, ...]:
    """Return how long each row is without the one number that all shorter rows end with; empty where there is none.

    Rows of one length end as they like; so do two rows that end alike by chance.
    """
    last = tokens[:, -1:]
    length = tokens.shape[1]
    num_same = (tokens.flip(1) == last).long().cumprod(1).sum(1)
    padding = [(int(number), int(value)) for number, value in zip(num_same, last[:, 0], strict=True) if number > 1]
    if not padding or len({value for _, value in padding}) > 1:
        return ()
    value = padding[0][1]
    return tuple(
        length - int(number) if end == value and int(number) < length else length
        for number, end in zip(num_same, last[:, 0].tolist(), strict=True)
    )


def first_tensor(values: Sequence[Any]) -> torch.Tensor | None:
    """Return the first tensor with a dimension, those in dictionaries last."""
    candidates = list(values)
    for value in values:
        if isinstance(value, dict):
            candidates.extend(value.values())
    for candidate in candidates:
        if isinstance(candidate, torch.Tensor) and candidate.dim():
            return candidate
    return None


def model_facts(model: torch.nn.Module) -> ModelFacts:
    """Return the sizes of a model: from its transformers configuration, else what its layers show; 0 is unknown."""
    config: Any = getattr(_unwrapped(model), "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    vocab_size, hidden_size = _sizes_of_layers(model)
    num_heads = _number(config, "num_attention_heads")
    hidden_size = _number(config, "hidden_size") or hidden_size
    parameters = list({id(p): p for p in model.parameters()}.values())
    experts, wide_experts = _num_4bit_expert_weights(model), _expert_weights(model)
    adapters = [p for name, p in model.named_parameters() if ".lora_" in name]
    return ModelFacts(
        name=str(getattr(config, "_name_or_path", "") or type(_unwrapped(model)).__name__),
        vocab_size=_number(config, "vocab_size") or vocab_size,
        hidden_size=hidden_size,
        intermediate_size=_number(config, "intermediate_size"),
        num_layers=_number(config, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=_number(config, "num_key_value_heads") or num_heads,
        head_dim=_number(config, "head_dim") or hidden_size // max(1, num_heads),
        num_parameters=sum(map(_num_weights, parameters)) + experts // 2,  # which count as packed bytes so far
        num_trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        weights="",
        tie_word_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
        num_quantised_parameters=sum(_num_weights(p) for p in parameters if _is_quantised(p)) + experts,
        num_expert_parameters=sum(parameter.numel() for parameter in wide_experts),
        expert_bytes=sum(parameter.nbytes for parameter in wide_experts) if _is_in_4_bits(parameters) else 0,
        gradient_bucket_bytes=_gradient_bucket_bytes(model, parameters),
        num_adapter_parameters=sum(p.numel() for p in adapters),
        max_positions=_number(config, "max_position_embeddings"),
    )


def sizes_of_scores(model: torch.nn.Module, output: Any) -> tuple[int, int]:
    """Return vocabulary and hidden size of a model that returns a score for each row of one of its embeddings.

    No layer of it need have the vocabulary's size: it may multiply by the embedding itself. Zeros where that is not so.
    """
    widths = {tensor.shape[-1] for tensor in tensors_in(output) if tensor.dim() > 1 and tensor.is_floating_point()}
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    scored = [found for found in embeddings if found.num_embeddings in widths - {found.embedding_dim}]
    largest = max(scored, key=lambda found: found.num_embeddings, default=None)
    return (0, 0) if largest is None else (largest.num_embeddings, largest.embedding_dim)


def _is_in_4_bits(parameters: list[torch.nn.Parameter]) -> bool:
    return any(hasattr(parameter, "quant_state") for parameter in parameters)


def _is_quantised(parameter: torch.nn.Parameter) -> bool:
    return hasattr(parameter, "quant_state") or hasattr(parameter, "SCB")


def forward_facts(
    model: torch.nn.Module, outputs: Iterable[torch.Tensor], cache: Any, layers: Iterable[torch.nn.Module]
) -> ForwardFacts:
    """Return how a forward pass was made.

    `outputs` are what may carry a graph: the loss, or all tensors that the model returned. The cache is transformers'
    or None. Some of the layers may recompute their activations in the backward pass.
    """
    return ForwardFacts(
        has_graph=any(tensor.grad_fn is not None for tensor in outputs),
        cache_bytes=sum(tensor.untyped_storage().nbytes() for tensor in tensors_in(cache)),
        num_checkpointed_layers=sum(map(_is_checkpointed, layers)),
        num_adapters=num_adapters(model),
    )


def num_adapters(model: torch.nn.Module) -> int:
    """Return how many adapters of peft's a model has, 1 where it is not peft's."""
    return max(1, len(getattr(model, "peft_config", ())))


def field_of(output: Any, name: str) -> Any:
    """Return what an output has under a name, as a mapping or as an object; None where it has nothing."""
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def tensors_in(value: Any, depth: int = MAX_OUTPUT_DEPTH) -> list[torch.Tensor]:
    """Return the tensors in an output: nested lists, tuples, dictionaries, and objects such as a cache."""
    if isinstance(value, torch.Tensor):
        return [value]
    if depth == 0:
        return []
    found: list[torch.Tensor] = []
    for member in _members(value):
        found.extend(tensors_in(member, depth - 1))
    return found


def _members(value: Any) -> Sequence[Any]:
    """Return what a container holds; nothing where it is none."""
    if isinstance(value, dict):
        return list(value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return list(vars(value).values())
    if isinstance(value, (list, tuple)):
        return value
    layers = None if isinstance(value, torch.nn.Module) else getattr(value, "layers", None)
    return [getattr(layer, "__dict__", {}) for layer in layers] if isinstance(layers, (list, tuple)) else ()


def _is_checkpointed(module: torch.nn.Module) -> bool:
    """Return whether a layer recomputes its activations; the model that holds the layers has the switch too."""
    if not getattr(module, "gradient_checkpointing", False) or not module.training:
        return False
    return not any(isinstance(child, torch.nn.ModuleList) for child in module.children())


def _number(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else 0


def _num_weights(parameter: torch.nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)  # bitsandbytes packs two 4-bit weights into a byte
    return prod(state.shape) if state is not None else parameter.numel()


def is_expert(module: torch.nn.Module, parameter: torch.Tensor) -> bool:
    """Return whether a weight of a module is that of experts: transformers keeps those of a layer in one weight.

    Its dimensions are experts, outputs, inputs, or experts, inputs, outputs; convolutions have as many.
    """
    return parameter.dim() == EXPERTS_DIM and parameter.is_floating_point() and not isinstance(module, CONVOLUTIONS)


def _expert_weights(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    found: list[torch.nn.Parameter] = []
    for module in model.modules():
        found.extend(p for p in module.parameters(recurse=False) if is_expert(module, p))
    return found


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model that DistributedDataParallel was made of, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _gradient_bucket_bytes(model: torch.nn.Module, parameters: list[torch.nn.Parameter]) -> int:
    """Return what the buckets take beside the gradients; they are made for all parameters that train."""
    if not isinstance(model, DistributedDataParallel) or model.gradient_as_bucket_view:
        return 0
    return sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)


def _num_4bit_expert_weights(model: torch.nn.Module) -> int:
    """Return the number of weights that bitsandbytes has packed outside of linear layers."""
    states = (getattr(module, "quant_state", None) for module in model.modules() if not hasattr(module, "weight"))
    return sum(prod(state.shape) for state in states if state is not None)


def _sizes_of_layers(model: torch.nn.Module) -> tuple[int, int]:
    """Return vocabulary and hidden size where a linear layer maps back to what an embedding maps from, else zeros."""
    embedding_dims: dict[int, int] = {}
    num_outputs: list[int] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            embedding_dims[module.num_embeddings] = module.embedding_dim
        elif isinstance(module, torch.nn.Linear):
            num_outputs.append(module.out_features)
    vocab_size = max((size for size in num_outputs if size in embedding_dims), default=0)
    return vocab_size, embedding_dims.get(vocab_size, 0)
