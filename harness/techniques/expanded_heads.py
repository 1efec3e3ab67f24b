"""Keys and values repeated for every query head, so that cards without flash attention take a fused kernel.

An unpadded batch has no mask; transformers then leaves grouped heads to PyTorch (`enable_gqa`). Only flash attention
takes those, from compute capability 8.0 on; elsewhere the math kernel runs, whose scores grow with L².

Shapes: B batch, H query heads, G key/value heads, L query length, S key length, D head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_expanded_heads"


def expand_heads(model: Any) -> None:
    """Let every attention layer of a transformers model repeat its keys and values."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _attention(
    module: torch.nn.Module,
    query_BHLD: torch.Tensor,
    key_BGSD: torch.Tensor,
    value_BGSD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,  # the interface's: every layer passes what any attention might want
) -> tuple[torch.Tensor, None]:
    """Return the attention's output (B, L, H, D); a single query, whose scores are linear in S, goes the usual way."""
    if query_BHLD.size(2) == 1:
        return sdpa_attention_forward(
            module, query_BHLD, key_BGSD, value_BGSD, attention_mask, dropout, scaling, **others
        )
    groups = query_BHLD.size(1) // key_BGSD.size(1)
    out_BHLD = functional.scaled_dot_product_attention(
        query_BHLD,
        repeat_kv(key_BGSD, groups),
        repeat_kv(value_BGSD, groups),
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=attention_mask is None,
    )
    return out_BHLD.transpose(1, 2).contiguous(), None
