"""liger-kernel's fused linear cross entropy: its own kernel on a GPU, elsewhere plain PyTorch with the same buffers.

Source: liger_kernel 0.8.5, ops/fused_linear_cross_entropy.py: chunks of a power of two of rows, so many that one
chunk's logits take no more than all hidden states; a chunk's gradient takes the place of its logits.

Shapes: T tokens of the batch, C of them in a chunk, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from memory_harness.harness.data.batching import IGNORE_INDEX
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.techniques.chunked_loss import frozen_head, hidden_and_targets


def liger_causal_lm_loss(
    model: Any, inputs: dict[str, torch.Tensor], num_items: float, dtype: torch.dtype, device: Device
) -> torch.Tensor:
    """Return the summed cross entropy of the next tokens divided by `num_items`; only hidden states get a gradient.

    Args:
        model: a transformers causal language model whose output head is frozen.
        inputs: what the model takes; `labels` is int64 (B, L), -100 where a token is no target.
        dtype: of the products with the head's weight.
        device: where it runs.

    Raises:
        ConfigError: the output head is trained, or there is a GPU and liger-kernel is not installed.
    """
    weight_VH = frozen_head(model, "liger")
    hidden_TH, targets_T = hidden_and_targets(model, inputs)
    # once, not in every chunk; within autocast each product would cast both again
    hidden_TH, weight_VH = hidden_TH.to(dtype), weight_VH.to(dtype)
    total: torch.Tensor
    if hidden_TH.is_cuda:
        with torch.autocast("cuda", enabled=False):
            total = _liger_sum(hidden_TH, weight_VH, targets_T)
    else:
        total = _PlainFusedCrossEntropy.apply(hidden_TH, weight_VH, targets_T, device)
    return total / num_items


def rows_per_chunk(tokens: int, vocab_size: int, hidden_size: int) -> int:
    """Return liger-kernel's chunk size C."""
    num_chunks = -(-vocab_size // hidden_size)
    needed = -(-tokens // num_chunks)
    return min(tokens, 1 << (needed - 1).bit_length())


def _liger_sum(hidden_TH: torch.Tensor, weight_VH: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
    except ImportError:
        raise ConfigError(
            "--loss liger: liger-kernel is not installed; pip install liger-kernel, or use --loss chunked"
        ) from None
    total: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden_TH, weight_VH, targets_T, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total


class _PlainFusedCrossEntropy(torch.autograd.Function):
    """What liger-kernel computes, with the allocations that it makes; its kernels' registers are host memory here."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TH: torch.Tensor, weight_VH: torch.Tensor, targets_T: torch.Tensor, device: Device
    ) -> torch.Tensor:
        rows = rows_per_chunk(len(hidden_TH), *weight_VH.shape)
        grad_TH = torch.zeros_like(hidden_TH)
        losses_T = torch.zeros(len(hidden_TH), dtype=torch.float32, device=hidden_TH.device)
        (targets_T != IGNORE_INDEX).sum()  # read back by liger-kernel; not needed for a sum
        logits_CV = hidden_TH.new_empty(rows, len(weight_VH))
        needs_grad = ctx.needs_input_grad[0]
        with device.on_host():
            for start in range(0, len(hidden_TH), rows):
                chunk = slice(start, start + rows)
                _chunk_into(hidden_TH[chunk], weight_VH, targets_T[chunk], logits_CV, losses_T[chunk])
                if needs_grad:
                    grad_TH[chunk] = logits_CV[: len(losses_T[chunk])] @ weight_VH
        del logits_CV
        ctx.save_for_backward(grad_TH)
        return losses_T.sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_TH,) = ctx.saved_tensors
        return grad_TH.mul_(grad_outputs[0]), None, None, None


def _chunk_into(
    hidden_CH: torch.Tensor,
    weight_VH: torch.Tensor,
    targets_C: torch.Tensor,
    logits_CV: torch.Tensor,
    losses_C: torch.Tensor,
) -> None:
    """Write a chunk's losses, and the gradient with respect to its logits into the logits' place."""
    log_probs_CV = torch.log_softmax(functional.linear(hidden_CH, weight_VH).float(), dim=-1)
    losses_C.copy_(functional.nll_loss(log_probs_CV, targets_C, ignore_index=IGNORE_INDEX, reduction="none"))
    counts_C1 = (targets_C != IGNORE_INDEX).unsqueeze(1).float()
    grad_CV = log_probs_CV.exp_().scatter_add_(1, targets_C.clamp(min=0).unsqueeze(1), -counts_C1).mul_(counts_C1)
    logits_CV[: len(grad_CV)] = grad_CV.to(logits_CV.dtype)
