"""What the objects of any training loop say about their own sizes: batches and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch

from memory_harness.harness.log.records import BatchShape, ForwardFacts, ModelFacts

IGNORED_LABEL = -100
"""label of tokens without a loss. Source: torch.nn.functional.cross_entropy, `ignore_index`."""


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
        return next((shape for shape in map(batch_shape, batch) if shape is not None), None)
    return None


def _shape_of_fields(fields: Mapping[str, Any]) -> BatchShape | None:
    first = next((fields[name] for name in ("input_ids", "inputs_embeds") if fields.get(name) is not None), None)
    shape = batch_shape(list(fields.values())) if first is None else batch_shape(first)
    # lists, of which a collator may make tensors later, have no shape yet
    given = (fields.get("attention_mask"), fields.get("labels"))
    mask, labels = (value if hasattr(value, "shape") else None for value in given)
    if shape is None:
        return None
    lengths = shape.lengths
    if mask is not None and tuple(mask.shape) == (shape.batch_size, shape.padded_length):
        lengths = tuple(int(length) for length in mask.sum(1).tolist())
    targets = sum(lengths) if labels is None else int((labels != IGNORED_LABEL).sum())
    return BatchShape(shape.batch_size, shape.padded_length, lengths, targets)


def _shape_of_tensor(tensor: Any) -> BatchShape | None:
    sizes = tuple(int(size) for size in tensor.shape)
    if not sizes:
        return None
    # (B,), (B, T) and (B, T, H); beyond that, pictures and the like, every position of the grid counts
    length = prod(sizes[1:2]) if len(sizes) <= 3 else prod(sizes[2:])
    return BatchShape(sizes[0], length, (length,) * sizes[0], sizes[0] * length)


def model_facts(model: torch.nn.Module) -> ModelFacts:
    """Return the sizes of a model: from its transformers configuration, else what its layers show; 0 is unknown."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    vocab_size, hidden_size = _sizes_of_layers(model)
    num_heads = _number(config, "num_attention_heads")
    hidden_size = _number(config, "hidden_size") or hidden_size
    parameters = {id(p): p for p in model.parameters()}.values()
    return ModelFacts(
        name=str(getattr(config, "_name_or_path", "") or type(model).__name__),
        vocab_size=_number(config, "vocab_size") or vocab_size,
        hidden_size=hidden_size,
        intermediate_size=_number(config, "intermediate_size"),
        num_layers=_number(config, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=_number(config, "num_key_value_heads") or num_heads,
        head_dim=_number(config, "head_dim") or hidden_size // max(1, num_heads),
        num_parameters=sum(_num_weights(p) for p in parameters),
        num_trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        weights="",
        tie_word_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
    )


def forward_facts(model: torch.nn.Module, output: Any) -> ForwardFacts:
    """Return how a forward pass was made that returned `output`, of transformers' kind or a tensor."""
    loss = output if isinstance(output, torch.Tensor) else field_of(output, "loss")
    cache = field_of(output, "past_key_values")
    states = [t for layer in getattr(cache, "layers", ()) for t in (layer.keys, layer.values)]
    return ForwardFacts(
        has_graph=isinstance(loss, torch.Tensor) and loss.requires_grad,
        cache_bytes=sum(t.untyped_storage().nbytes() for t in states if isinstance(t, torch.Tensor)),
        num_checkpointed_layers=sum(_is_checkpointed(m) for m in model.modules()),
        num_adapters=num_adapters(model),
    )


def num_adapters(model: torch.nn.Module) -> int:
    """Return how many adapters of peft's a model has, 1 where it is not peft's."""
    return max(1, len(getattr(model, "peft_config", ())))


def field_of(output: Any, name: str) -> Any:
    """Return what an output has under a name, as a mapping or as an object; None where it has nothing."""
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _is_checkpointed(module: torch.nn.Module) -> bool:
    """Whether a layer recomputes its activations; the model that holds the layers has the switch too."""
    has_layers = any(isinstance(child, torch.nn.ModuleList) for child in module.children())
    return bool(getattr(module, "gradient_checkpointing", False)) and module.training and not has_layers


def _number(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else 0


def _num_weights(parameter: torch.nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)  # bitsandbytes packs two 4-bit weights into a byte
    return prod(state.shape) if state is not None else parameter.numel()


def _sizes_of_layers(model: torch.nn.Module) -> tuple[int, int]:
    """Return vocabulary and hidden size where a linear layer maps back to what an embedding maps from, else zeros."""
    embedded = {m.num_embeddings: m.embedding_dim for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    heads = [m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear)]
    vocab_size = max((size for size in heads if size in embedded), default=0)
    return vocab_size, embedded.get(vocab_size, 0)
