"""Scaled dot-product attention as the target card would run it: which kernel, and what that kernel allocates.

Shapes: B batch, H query heads, G key/value heads, L query length, S key length, D head dimension.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from memory_harness.configs.cards import CUDNN_CAPABILITIES, Card
from memory_harness.harness.simulate.tracer import Tracer, lies_on_meta
from memory_harness.harness.simulate.work import BACKWARD_PRODUCTS, FORWARD_PRODUCTS

_torch_attention = torch.nn.functional.scaled_dot_product_attention  # the original, which the simulation replaces

ANY = "any"
"""instead of a forced kernel: whichever PyTorch takes by itself, cuDNN's too"""

CUDNN_MAX_DIM = 128
"""Source: sdp_utils.cpp, `check_prefer_cudnn_attention` and `check_cudnn_tensor_shapes`; the workspace of its backward
pass was measured on an H200: 6 556 672 bytes for 8 x 16 x 197 x 64, 11 814 912 for 8 x 16 x 355 x 64; of 32 query heads
and 8 of keys, 128 wide, at 2048, 4096 and 16 384 tokens: 64.25, 128.5 and 514 MiB"""

FLASH_BLOCK = 128
"""flash attention's backward rounds the query length up to this many rows"""
EFFICIENT_LSE_BLOCK = 32
"""memory-efficient attention pads its log-sum-exp to this many rows"""
EFFICIENT_BIAS_ALIGNMENT = 8
"""elements to which memory-efficient attention aligns the last dimension of a 16-bit bias"""


def choose_backend(
    card: Card, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, enable_gqa: bool, forced: str
) -> str:
    """Return the kernel that PyTorch's dispatcher takes on the card: `flash`, `cudnn`, `memory_efficient` or `math`.

    Of the forced ones, parted by commas, the first that can run is taken; math can always.

    Source: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (priority order and the `check_*` constraints).
    """
    backends = card.sdpa_backends if forced in ("auto", ANY) else forced.split(",")
    half = query.dtype in (torch.float16, torch.bfloat16)
    grouped = enable_gqa and query.size(1) != key.size(1)
    if mask is not None and mask.stride(-1) != 1:  # as of a bias by position that was permuted
        return "math"
    switches = torch.backends.cuda  # torch.nn.attention.sdpa_kernel turns these
    if forced == ANY and half and not grouped and _has_cudnn(card, query) and switches.cudnn_sdp_enabled():
        return "cudnn"
    runs = {
        "cudnn": half and _has_cudnn(card, query) and switches.cudnn_sdp_enabled(),
        "flash": half and mask is None and query.size(-1) <= 256 and switches.flash_sdp_enabled(),
        "memory_efficient": not grouped and switches.mem_efficient_sdp_enabled(),
        "math": True,
    }
    return next((backend for backend in backends if runs[backend]), "math")


def _has_cudnn(card: Card, query: torch.Tensor) -> bool:
    """Return whether cuDNN's kernel is preferred: on the data centre's cards of the last two generations."""
    return card.capability in CUDNN_CAPABILITIES and query.size(-1) <= CUDNN_MAX_DIM and query.size(-1) % 8 == 0


def scaled_dot_product_attention(
    tracer: Tracer,
    card: Card,
    forced: str,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return what `torch.nn.functional.scaled_dot_product_attention` does of its arguments, allocated as on CUDA."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        value, key, query = value.to(dtype), key.to(dtype), query.to(dtype)  # last argument first, as PyTorch's casts
        with torch.autocast("cpu", enabled=False):
            return scaled_dot_product_attention(
                tracer, card, forced, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
            )
    backend = choose_backend(card, query, key, attn_mask, enable_gqa, forced)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # in every call anew, as PyTorch does
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -math.inf)
    if backend == "math" and dropout_p > 0 and lies_on_meta(query):
        return _math_with_dropout(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if backend == "math":  # plain operators: scores of B·H·L·S elements, in float32 for 16-bit inputs
        with tracer.on_card(tracer.card_of(query) or 0):  # the causal mask too
            return torch.ops.aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
            )[0]
    if attn_mask is not None and backend != "cudnn":
        attn_mask = _aligned_bias(attn_mask).expand(query.size(0), query.size(1), query.size(2), key.size(2))
    needs_grad = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    out: torch.Tensor = _FusedAttention.apply(
        query, key, value, attn_mask, is_causal, scale, enable_gqa, backend, tracer, needs_grad
    )
    return out


def _math_with_dropout(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """Return attention by plain operators; PyTorch's own draws its dropout another way where there is no CUDA.

    Source: aten/src/ATen/native/transformers/attention.cpp, `_scaled_dot_product_attention_math`.
    """
    dtype = query.dtype
    query, key, value = query.float(), key.float(), value.float()
    factor = math.sqrt(abs(scale) if scale is not None else 1 / math.sqrt(query.size(-1)))
    query = query * factor
    if is_causal:
        mask = query.new_ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), -math.inf)
    if enable_gqa:
        repeats = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    scores = torch.matmul(query, key.transpose(-2, -1) * factor)
    if mask is not None:
        scores.add_(mask)
    probabilities = torch._safe_softmax(scores, -1)
    del scores  # as PyTorch's own, which computes in place of what it no longer needs
    weights = torch.native_dropout(probabilities, dropout_p, True)[0]
    return torch.matmul(weights, value).to(dtype)


def _aligned_bias(bias: torch.Tensor) -> torch.Tensor:
    missing = -bias.size(-1) % EFFICIENT_BIAS_ALIGNMENT
    if not missing:
        return bias
    return torch.nn.functional.pad(bias, (0, missing))[..., : bias.size(-1)]


class _FusedAttention(torch.autograd.Function):
    """One fused kernel: outputs and workspaces of CUDA's, values (where tensors are real) of the CPU's math."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        is_causal: bool,
        scale: float | None,
        enable_gqa: bool,
        backend: str,
        tracer: Tracer,
        needs_grad: bool,
    ) -> torch.Tensor:
        batch, heads, length, _ = query.shape
        out = _output_like(query, value.size(-1), backend)
        if backend == "flash":
            lse = query.new_empty(batch, heads, length, dtype=torch.float32)
            random_state = [query.new_empty(2, dtype=torch.int64), query.new_empty((), dtype=torch.int64)]
        elif backend == "cudnn":
            lse = query.new_empty(batch, heads, length, dtype=torch.float32)
            random_state = [query.new_empty((), dtype=torch.int64) for _ in ("seed", "offset")]
        else:
            rows = math.ceil(length / EFFICIENT_LSE_BLOCK) * EFFICIENT_LSE_BLOCK if needs_grad else 0
            lse = query.new_empty(batch, heads, rows, dtype=torch.float32)
            random_state = []
        if not lies_on_meta(query):
            with tracer.paused():
                out.copy_(_torch_attention(query, key, value, bias, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa))
        tracer.note_attention(query, _num_pairs(query, key), FORWARD_PRODUCTS, is_causal=is_causal)
        ctx.save_for_backward(query, key, value, out, lse, bias, *random_state)
        ctx.options = (is_causal, scale, enable_gqa, backend, tracer)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, _out, _lse, bias, *_random_state = ctx.saved_tensors
        is_causal, scale, enable_gqa, backend, tracer = ctx.options
        grads = [_output_like(tensor, tensor.size(-1), backend) for tensor in (query, key, value)]
        tracer.note_attention(query, _num_pairs(query, key), BACKWARD_PRODUCTS, is_causal=is_causal)
        if backend == "flash":
            _allocate_flash_buffers(query, key)
        elif backend == "cudnn":
            query.new_empty(_cudnn_workspace(query, key), dtype=torch.uint8)
        else:  # the delta of each row. Source: attention_backward.cu, _efficient_attention_backward
            query.new_empty(query.shape[:3], dtype=torch.float32)
        if not lies_on_meta(query):
            with tracer.paused(), torch.enable_grad():
                inputs = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
                result = _torch_attention(
                    inputs[0], inputs[1], inputs[2], bias, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
                )
                for grad, computed in zip(grads, torch.autograd.grad(result, inputs, grad_outputs[0]), strict=True):
                    grad.copy_(computed)
        return (*grads, None, None, None, None, None, None, None)


def _num_pairs(query: torch.Tensor, key: torch.Tensor) -> int:
    return query.shape[:-1].numel() * key.size(-2)


def _cudnn_workspace(query: torch.Tensor, key: torch.Tensor) -> int:
    """Return the bytes of one; of grouped heads there are expanded gradients of keys and values in it too."""
    batch, heads, length, dim = query.shape
    accumulator = batch * heads * (length * dim + length + 1) * torch.float32.itemsize
    expanded = 0 if key.size(1) == heads else 2 * batch * heads * key.size(2) * dim * key.itemsize
    return accumulator + expanded


def _allocate_flash_buffers(query: torch.Tensor, key: torch.Tensor) -> None:
    """Allocate as flash attention's backward does; grouped heads get expanded key and value gradients that are summed.

    Source: aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp, mha_bwd.
    """
    batch, heads, length, dim = query.shape
    groups, key_length = key.size(1), key.size(2)
    rows, columns = math.ceil(length / FLASH_BLOCK) * FLASH_BLOCK, math.ceil(dim / 32) * 32
    softmax_d = query.new_empty(batch, heads, rows, dtype=torch.float32)
    accumulator = query.new_empty(batch, rows, heads, columns, dtype=torch.float32)
    expanded = []
    if groups != heads:
        expanded = [query.new_empty(batch, key_length, heads, dim) for _ in ("key", "value")]
    del softmax_d, accumulator, expanded


def _output_like(tensor: torch.Tensor, dim: int, backend: str) -> torch.Tensor:
    """Return an empty (B, H, L, dim) tensor: laid out as the one given, or as (B, L, H, dim) by the efficient kernel.

    Source: mha_fwd and mha_bwd of flash_api.cpp, `empty_like`; `alloc_with_matching_layout` of cudnn/MHA.cpp.
    """
    batch, heads, length, own_dim = tensor.shape
    if backend in ("flash", "cudnn") and dim == own_dim:
        return torch.empty_like(tensor)
    return tensor.new_empty(batch, length, heads, dim).transpose(1, 2)
