"""Feed-forward blocks over some tokens at a time: their wide inner activations never exist for all of them.

In the forward pass a block computes its chunks one after the other and keeps its input alone. In the backward pass each
chunk is computed again, with its graph, and propagated back before the next one. Within gradient checkpointing this
costs no further computation: a checkpointed layer is computed again only up to the last tensor that was saved. So the
input is saved by an operator that comes before the block, and the block's backward is left to it too.

Shapes: T tokens of the batch, C of them in a chunk, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from memory_harness.harness.techniques.chunks import row_slices

Block = Callable[[torch.Tensor], torch.Tensor]
Chunks = Callable[[bool, int], int]
Autocast = Callable[[], AbstractContextManager[Any]]


def tile_mlp(model: Any, chunks: Chunks, autocast: Autocast) -> None:
    """Let every feed-forward block of a transformers decoder work in chunks.

    Args:
        model: whose feed-forward blocks draw no random numbers.
        chunks: takes whether the model trains, and the tokens of a batch; returns into how many chunks it is cut.
        autocast: what the model's forward pass runs in; the backward pass does not.
    """
    for layer in model.model.layers:
        layer.mlp.forward = partial(_in_chunks, layer.mlp, layer.mlp.forward, chunks, autocast)


def _in_chunks(
    module: torch.nn.Module, block: Block, chunks: Chunks, autocast: Autocast, hidden_BLH: torch.Tensor
) -> torch.Tensor:
    hidden_TH = hidden_BLH.flatten(0, 1)
    number = chunks(module.training, len(hidden_TH))
    if number == 1:
        return block(hidden_BLH)
    trains = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters())
    if trains and not hidden_TH.requires_grad:
        # without a gradient of its own the input would hide from autograd what the block's adapters need
        hidden_TH = hidden_TH.detach().requires_grad_()
    if hidden_TH.requires_grad:
        hidden_TH = _PropagateBack.apply(hidden_TH, block, number, autocast)
    out_TH: torch.Tensor = _Compute.apply(hidden_TH, block, number)
    return out_TH.view_as(hidden_BLH)


class _PropagateBack(torch.autograd.Function):
    """Keeps the block's input; takes the gradient of its output, which `_Compute` hands through."""

    @staticmethod
    def forward(ctx: Any, hidden_TH: torch.Tensor, block: Block, chunks: int, autocast: Autocast) -> torch.Tensor:
        ctx.save_for_backward(hidden_TH)
        ctx.block, ctx.chunks, ctx.autocast = block, chunks, autocast
        return hidden_TH.view_as(hidden_TH)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (hidden_TH,), (grad_out_TH,) = ctx.saved_tensors, grad_outputs
        grad_TH = torch.empty_like(hidden_TH)
        for rows in row_slices(len(hidden_TH), ctx.chunks):
            hidden_CH = hidden_TH[rows].detach().requires_grad_()
            with torch.enable_grad(), ctx.autocast():
                out_CH = ctx.block(hidden_CH)
            torch.autograd.backward(out_CH, grad_out_TH[rows].to(out_CH.dtype))
            grad_TH[rows] = hidden_CH.grad
        return grad_TH, None, None, None


class _Compute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TH: torch.Tensor, block: Block, chunks: int) -> torch.Tensor:
        out_TH: torch.Tensor | None = None
        for rows in row_slices(len(hidden_TH), chunks):
            out_CH = block(hidden_TH[rows])
            if out_TH is None:
                out_TH = torch.empty_like(hidden_TH, dtype=out_CH.dtype)
            out_TH[rows] = out_CH
        assert out_TH is not None, "a batch has tokens"
        return out_TH

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grad_outputs[0], None, None
