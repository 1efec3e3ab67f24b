"""Flash attention of the package flash_attn, as `flash_attention_2` calls it, and of PyTorch for packed sequences.

What the kernels allocate on a card. Sequences without padding go through them as they are; those of a padded batch are
cut out and laid end to end first.
Source: flash-attention 2.8, flash_attn/flash_attn_interface.py, and mha_fwd, mha_varlen_fwd, mha_bwd and mha_varlen_bwd
of csrc/flash_attn/flash_api.cpp. Left out: the few KiB with which CUDA sorts indices, and what splitting the keys of a
short query takes.

Shapes: B batch, N tokens of all its sequences, H query heads, G key/value heads, L query length, S key length, D head
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from memory_harness.harness.simulate.attention import FLASH_BLOCK
from memory_harness.harness.simulate.tracer import Tracer, lies_on_meta
from memory_harness.harness.simulate.work import BACKWARD_PRODUCTS, FORWARD_PRODUCTS

MAX_DIM = 256
"""the largest head dimension that its kernels take"""

TOKENS_ALIGNMENT = 64
"""real tokens of a padded batch are counted in steps of so many: a simulation is recorded for each number of them"""


_REMEMBERED = (
    "_loaded_implementation",
    "_flash_fn",
    "_flash_varlen_fn",
    "_process_flash_kwargs_fn",
    "_process_with_kvcache_kwargs_fn",
)
"""what transformers keeps of the package it has found; not all of its releases have all of them"""


class _Call(NamedTuple):
    """What goes with query, key and value."""

    causal: bool
    scale: float | None
    window: int
    """keys that a query sees to its left, -1 for all"""
    softcap: float
    is_of_torch: bool = False


def counted_tokens(real: int, padded: int) -> int:
    """Return how many of a batch's tokens count as real, of so many that are, and so many with padding."""
    return min(padded, math.ceil(real / TOKENS_ALIGNMENT) * TOKENS_ALIGNMENT)


@contextmanager
def flash_attention_2(tracer: Tracer) -> Iterator[None]:
    """Within, transformers finds the package, installed or not, and it allocates what it would on a card."""
    from transformers import modeling_flash_attention_utils as utils

    is_packed = utils._is_packed_sequence

    def is_packed_sequence(position_ids: torch.Tensor | None, batch_size: int) -> Any:
        """No batch of the harness is packed; where there are no values, the question is asked all the same."""
        with patch.object(tracer, "assumed_value", 0.0):
            return bool(is_packed(position_ids, batch_size))

    dense, ragged = partial(_flash_attn, tracer), partial(_flash_attn_varlen, tracer)
    functions = (dense, ragged, None, utils._pad_input, utils._unpad_input)
    remembered = dict.fromkeys([name for name in _REMEMBERED if hasattr(utils, name)])
    with (
        patch.dict(utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2], general_availability_check=lambda: True),
        patch.multiple(utils, _lazy_imports=lambda *_, **__: functions, _is_packed_sequence=is_packed_sequence),
        patch.multiple(utils, **remembered),  # type: ignore[arg-type]
    ):
        yield


def _flash_attn(
    tracer: Tracer,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> torch.Tensor:
    """Return attention (B, L, H, D) of sequences that are as long as one another."""
    call = _Call(causal, softmax_scale, window_size[0], softcap)
    out: torch.Tensor = _FlashAttention.apply(q, k, v, None, None, call, tracer)
    return out


def _flash_attn_varlen(
    tracer: Tracer,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: float,
    max_seqlen_k: float,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> torch.Tensor:
    """Return attention (N, H, D) of sequences that lie end to end and begin where `cu_seqlens` say."""
    call = _Call(causal, softmax_scale, window_size[0], softcap)
    out: torch.Tensor = _FlashAttention.apply(q, k, v, cu_seqlens_q, cu_seqlens_k, call, tracer)
    return out


def variable_lengths(
    tracer: Tracer,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    *,
    scale: float | None = None,
) -> tuple[torch.Tensor]:
    """Return what `aten._flash_attention_forward` does first of all: attention (N, H, D).

    Source: mha_varlen_fwd and mha_varlen_bwd of aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
    """
    call = _Call(is_causal, scale, -1, 0.0, is_of_torch=True)
    return (_FlashAttention.apply(query, key, value, starts_q, starts_k, call, tracer),)


class _FlashAttention(torch.autograd.Function):
    """One kernel: outputs and workspaces of CUDA's; values, where tensors are real, by plain operators."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        starts_q: torch.Tensor | None,
        starts_k: torch.Tensor | None,
        call: _Call,
        tracer: Tracer,
    ) -> torch.Tensor:
        query, key, value = _as_kernel_takes(query), _as_kernel_takes(key), _as_kernel_takes(value)
        if query.size(-1) > MAX_DIM:
            raise RuntimeError(f"FlashAttention takes head dimensions of at most {MAX_DIM} (found {query.size(-1)})")
        out = torch.empty_like(query)
        heads = query.size(-2)
        rows = (heads, len(query)) if starts_q is not None else (len(query), heads, query.size(1))
        lse = query.new_empty(rows, dtype=torch.float32)
        random_state = [query.new_empty(2, dtype=torch.int64)]
        if call.is_of_torch:  # which makes something more that it does not use
            random_state.append(query.new_empty((), dtype=torch.int64))
        if not lies_on_meta(query):
            with tracer.paused():
                out.copy_(_attention(query, key, value, starts_q, starts_k, call))
        starts = [tensor for tensor in (starts_q, starts_k) if tensor is not None]
        tracer.note_attention(query, _num_pairs(query, key, starts), FORWARD_PRODUCTS, is_causal=call.causal)
        ctx.save_for_backward(query, key, value, out, lse, *random_state, *starts)
        ctx.options = (call, tracer)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, _lse, _random_state, *starts = ctx.saved_tensors
        call, tracer = ctx.options
        if call.is_of_torch:
            del starts[0]
        tracer.note_attention(query, _num_pairs(query, key, starts), BACKWARD_PRODUCTS, is_causal=call.causal)
        grad_output = grad_outputs[0].contiguous() if call.is_of_torch else _as_kernel_takes(grad_outputs[0])
        out = out.contiguous() if call.is_of_torch else out
        grads = [torch.empty_like(tensor) for tensor in (query, key, value)]
        _allocate_workspace(query, key, num_sequences=len(starts[0]) - 1 if starts else None)
        if not lies_on_meta(query):
            starts_q, starts_k = starts or (None, None)
            with tracer.paused(), torch.enable_grad():
                inputs = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
                result = _attention(inputs[0], inputs[1], inputs[2], starts_q, starts_k, call)
                for grad, computed in zip(grads, torch.autograd.grad(result, inputs, grad_output), strict=True):
                    grad.copy_(computed)
        return (*grads, None, None, None, None)


def _num_pairs(query: torch.Tensor, key: torch.Tensor, starts: Sequence[torch.Tensor]) -> int:
    """Return how many pairs of queries and keys there are, of packed sequences as if they were equally long."""
    pairs = query.shape[:-1].numel() * key.size(-3)
    return pairs // (len(starts[0]) - 1) if starts else pairs


def _as_kernel_takes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _allocate_workspace(query: torch.Tensor, key: torch.Tensor, num_sequences: int | None) -> None:
    """Allocate as the backward pass does; grouped heads get expanded key and value gradients that are summed."""
    *lengths, heads, dim = query.shape
    columns = math.ceil(dim / 32) * 32
    if num_sequences is None:
        rows = lengths[0] * math.ceil(lengths[1] / FLASH_BLOCK) * FLASH_BLOCK
    else:
        rows = lengths[0] + FLASH_BLOCK * num_sequences
    softmax_d = query.new_empty(rows, heads, dtype=torch.float32)
    accumulator = query.new_empty(rows, heads, columns, dtype=torch.float32)
    expanded = []
    if key.size(-2) != heads:
        expanded = [query.new_empty(*key.shape[:-2], heads, dim) for _ in ("key", "value")]
    del softmax_d, accumulator, expanded


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts_q: torch.Tensor | None,
    starts_k: torch.Tensor | None,
    call: _Call,
) -> torch.Tensor:
    """Return what the kernel computes, sequence by sequence."""
    if starts_q is None or starts_k is None:
        return torch.stack([_attention_of_one(q, k, v, call) for q, k, v in zip(query, key, value, strict=True)])
    queries = query.tensor_split(starts_q[1:-1].tolist())
    keys, values = (tensor.tensor_split(starts_k[1:-1].tolist()) for tensor in (key, value))
    return torch.cat([_attention_of_one(q, k, v, call) for q, k, v in zip(queries, keys, values, strict=True)])


def _attention_of_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: _Call) -> torch.Tensor:
    """Return attention (L, H, D) of one sequence; the last query sees the last key."""
    heads, groups, length, keys = query.size(1), key.size(1), len(query), len(key)
    key, value = (tensor.float().repeat_interleave(heads // groups, dim=1) for tensor in (key, value))
    scale = call.scale if call.scale is not None else query.size(-1) ** -0.5
    scores = torch.einsum("lhd,shd->hls", query.float(), key) * scale
    if call.softcap:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    distance = torch.arange(length).unsqueeze(1) + (keys - length) - torch.arange(keys)
    if call.causal:
        scores = scores.masked_fill(distance < 0, -math.inf)
    if call.window >= 0:
        scores = scores.masked_fill(distance > call.window, -math.inf)
    return torch.einsum("hls,shd->lhd", scores.softmax(-1), value).to(query.dtype)
