"""No causal mask for batches without padding: to find out that there need be none, transformers reads values back."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch


def leave_out_masks(model: Any) -> None:
    """Let a transformers decoder, laid out as Llama's, make no mask in training where nothing is padded.

    Its attention is then causal by itself, as transformers makes it in the end. Windows keep their masks.
    """
    if model.config._attn_implementation == "sdpa":
        model.model.forward = partial(_without_mask, model.model, model.model.forward)


def _without_mask(module: Any, forward: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a decoder whose code finds what makes its mask in its own module: there is no other way to give it one."""
    is_masked = kwargs.get("attention_mask") is not None or kwargs.get("position_ids") is not None  # padded, packed
    if is_masked or not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    modeling: Any = sys.modules[type(module).__module__]
    own = modeling.create_causal_mask
    modeling.create_causal_mask = _no_mask
    try:
        return forward(*args, **kwargs)
    finally:
        modeling.create_causal_mask = own


def _no_mask(*_: Any, **__: Any) -> None:
    return None
