"""Several samples in one sequence, each of which attends to itself alone.

Where the card has flash attention, PyTorch's kernel for sequences of different lengths keeps them apart, and there is
no mask. Elsewhere transformers makes one of blocks along the diagonal, from positions that begin anew.

Shapes: N samples, L tokens of all, H query heads, G key/value heads, D head dimension.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache, masking_utils
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import LIKE_LLAMA
from memory_harness.configs.schema import ModelConfig
from memory_harness.harness.devices.base import Device

NAME = "packed_flash"
"""transformers' name of the attention; as it has no masks of that name, it makes none"""

MAX_DIM, DIM_MULTIPLE = 256, 8
"""head dimensions that the kernel takes. Source: mha_varlen_fwd of flash_attn/flash_api.cpp"""


def check_keeps_apart(model: Any, name: str) -> None:
    """Raise ConfigError where a model passes something from one sample of a sequence on to the next.

    Whether its masks keep them apart shows when it makes some, see `masks_keep_apart`.
    """
    config = model.config.get_text_config(decoder=True)
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise ConfigError(f"--batching packed: {name} takes no positions, by which its samples would be told apart")
    others = {type(layer) for layer in DynamicCache(config=config).layers} - {DynamicLayer, DynamicSlidingWindowLayer}
    if others or getattr(model, "_is_stateful", False):
        raise ConfigError(f"--batching packed: {name} has layers with a state, which one sample leaves to the next")
    if getattr(config, "attn_temperature_tuning", None):
        raise ConfigError(f"--batching packed: the attention of {name} counts positions by itself")


def shared_mask_dtype(model: Any, config: ModelConfig) -> torch.dtype | None:
    """Return the type of a mask that all layers can add to their scores; None where each has to be left its own.

    Of booleans PyTorch makes one anew in each layer, which keeps it for the backward pass.
    """
    is_known = model.config.model_type in LIKE_LLAMA and config.autocast != "none"
    return getattr(torch, config.dtype) if is_known and config.attention_implementation != "eager" else None


def takes_kernel(model: Any, config: ModelConfig, device: Device) -> bool:
    """Return whether the kernel for sequences of different lengths can take a model's attention.

    It has to be laid out as Llama's, without windows, and its queries, keys and values of 16 bits.
    """
    heads = model.config
    is_plain = heads.model_type in LIKE_LLAMA and not getattr(heads, "sliding_window", None)
    dim = getattr(heads, "head_dim", None) or heads.hidden_size // heads.num_attention_heads if is_plain else 0
    is_wide = config.autocast == "none" and (config.casts_to_float32 or config.weights_dtype == "float32")
    return (
        is_plain
        and device.has_flash_attention
        and config.attention_implementation in ("auto", "sdpa")
        and config.dtype != "float32"
        and not is_wide
        and dim <= MAX_DIM
        and dim % DIM_MULTIPLE == 0
    )


@contextmanager
def kernel_keeps_apart(model: Any) -> Iterator[None]:
    """Within, a model's attention goes by where samples begin, as `cu_seq_lens_q` and `max_length_q` say."""
    AttentionInterface.register(NAME, _attention)
    own = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = own


def _attention(
    module: torch.nn.Module,
    query_1HLD: torch.Tensor,
    key_1GLD: torch.Tensor,
    value_1GLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: Any,  # the interface's: every layer passes what any attention might want
) -> tuple[torch.Tensor, None]:
    """Return the attention's output (1, L, H, D).

    The operator is the one under `torch.nn.attention.varlen`, whose arguments differ between releases.
    """
    where = query_1HLD.device.type
    dtype = torch.get_autocast_dtype(where) if torch.is_autocast_enabled(where) else value_1GLD.dtype
    query_LHD, key_LGD, value_LGD = (
        states.squeeze(0).transpose(0, 1).to(dtype) for states in (query_1HLD, key_1GLD, value_1GLD)
    )
    starts, longest = cu_seq_lens_q, max_length_q
    out_LHD: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query_LHD, key_LGD, value_LGD, starts, starts, longest, longest, dropout, True, False, scale=scaling
    )[0]
    return out_LHD.unsqueeze(0), None


@contextmanager
def masks_keep_apart(model: Any, name: str, shared: torch.dtype | None = None) -> Iterator[None]:
    """Within, transformers tells samples apart by where positions begin anew, without reading any back.

    Args:
        model: a transformers model.
        name: the configuration's, for what is said of it.
        shared: see `shared_mask_dtype`.

    Raises:
        ConfigError: the model has not asked which sample a token is of.
    """
    asked: list[torch.Size] = []
    masks, attention = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS, model.config._attn_implementation

    def sample_of_each(position_ids: torch.Tensor) -> torch.Tensor:
        asked.append(position_ids.shape)
        return (position_ids == 0).cumsum(-1)

    own = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = sample_of_each
    if shared is not None:
        masks[attention] = partial(_added_to_scores, masks[attention], shared)
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = own
        if shared is not None:
            del masks[attention]
    if not asked:
        raise ConfigError(f"--batching packed: the masks of {name} do not go by positions, so that samples would mix")


def _added_to_scores(make: Any, shared: torch.dtype, /, **options: Any) -> torch.Tensor:
    seen: torch.Tensor = make(**options)
    return torch.zeros_like(seen, dtype=shared).masked_fill_(seen.logical_not(), -inf)
