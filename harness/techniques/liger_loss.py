"""liger-kernel's fused linear cross entropy: its kernel on a GPU, elsewhere plain PyTorch with the same buffers.

Source: liger_kernel 0.8.5, ops/fused_linear_cross_entropy.py: chunks of a power of two of rows, so many that one
chunk's logits take no more than all hidden states; a chunk's gradient takes the place of its logits. Its own loop reads
the number of targets back, and cuts short batches so small that each chunk does little but read the head's weight.

Shapes: T tokens of the batch, C of them in a chunk, H hidden size, V vocabulary.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import functional

from memory_harness.harness.data.batching import IGNORE_INDEX
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.techniques.chunked_loss import frozen_head, hidden_and_targets

LEAST_ROWS = 256
"""of a chunk: about as many operations for each byte of the head's weight as a GPU has time for"""
MAX_BLOCK = 65536 // 2
"""columns that the kernel takes at once. Source: MAX_FUSED_SIZE"""


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
    if hidden_TH.is_cuda and find_spec("liger_kernel") is None:
        raise ConfigError(
            "--loss liger: liger-kernel is not installed; pip install liger-kernel, or use --loss chunked"
        )
    with torch.autocast("cuda", enabled=False) if hidden_TH.is_cuda else nullcontext():
        total: torch.Tensor = _FusedCrossEntropy.apply(hidden_TH, weight_VH, targets_T, device)
    return total / num_items


def rows_per_chunk(tokens: int, vocab_size: int, hidden_size: int) -> int:
    """Return the chunk size C: liger-kernel's, but so many rows that the head's weight is not all that is read."""
    num_chunks = -(-vocab_size // hidden_size)
    needed = -(-tokens // num_chunks)
    return min(tokens, max(LEAST_ROWS, 1 << (needed - 1).bit_length()))


class _FusedCrossEntropy(torch.autograd.Function):
    """The gradient is computed with the loss; nothing is read back, so that it can be captured as a CUDA graph."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TH: torch.Tensor, weight_VH: torch.Tensor, targets_T: torch.Tensor, device: Device
    ) -> torch.Tensor:
        rows = rows_per_chunk(len(hidden_TH), *weight_VH.shape)
        needs_grad = ctx.needs_input_grad[0]
        grad_TH = torch.empty_like(hidden_TH) if needs_grad else None
        losses_T = torch.zeros(len(hidden_TH), dtype=torch.float32, device=hidden_TH.device)
        logits_CV = hidden_TH.new_empty(rows, len(weight_VH))
        chunk_into = _chunk_by_liger if hidden_TH.is_cuda else _chunk_into
        with device.on_host():  # a GPU's kernels have registers for the rest
            for start in range(0, len(hidden_TH), rows):
                chunk = slice(start, start + rows)
                found_CV = logits_CV[: len(losses_T[chunk])]
                chunk_into(hidden_TH[chunk], weight_VH, targets_T[chunk], found_CV, losses_T[chunk], needs_grad)
                if grad_TH is not None:
                    torch.mm(found_CV, weight_VH, out=grad_TH[chunk])
        del logits_CV, found_CV
        ctx.save_for_backward(grad_TH)
        return losses_T.sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_TH,) = ctx.saved_tensors
        return grad_TH.mul_(grad_outputs[0]), None, None, None


def _chunk_by_liger(
    hidden_CH: torch.Tensor,
    weight_VH: torch.Tensor,
    targets_C: torch.Tensor,
    logits_CV: torch.Tensor,
    losses_C: torch.Tensor,
    needs_grad: bool,
) -> None:
    """Do the same by liger-kernel's kernel, launched as `fused_linear_cross_entropy_forward` does."""
    from liger_kernel.ops.cross_entropy import liger_cross_entropy_kernel

    torch.mm(hidden_CH, weight_VH.t(), out=logits_CV)
    unused = dict.fromkeys(("weight_ptr", "z_loss_ptr", "token_accuracy_ptr", "predicted_tokens_ptr", "softcap"))
    unused |= dict.fromkeys(("token_accuracy_stride", "predicted_tokens_stride"), 0)
    unused |= dict.fromkeys(("RETURN_Z_LOSS", "RETURN_TOKEN_ACCURACY", "RETURN_PREDICTED_TOKENS"), False)
    unused |= dict.fromkeys(("HAS_WEIGHT", "HAS_SOFTCAPPING"), False)
    liger_cross_entropy_kernel[(len(logits_CV),)](
        X_ptr=logits_CV,
        X_stride=logits_CV.stride(0),
        Y_ptr=targets_C,
        Y_stride=targets_C.stride(0),
        loss_ptr=losses_C,
        loss_stride=losses_C.stride(0),
        n_cols=logits_CV.shape[1],
        n_non_ignore=1,  # of a mean, which this is not
        sum_non_ignore_weight=1,
        weight_sum=0.0,
        ignore_index=IGNORE_INDEX,
        lse_square_scale=0.0,
        label_smoothing=0.0,
        reduction="sum",
        HAS_GRADIENTS=needs_grad,
        BLOCK_SIZE=min(MAX_BLOCK, 1 << (logits_CV.shape[1] - 1).bit_length()),
        num_warps=32,
        **unused,
    )


def _chunk_into(
    hidden_CH: torch.Tensor,
    weight_VH: torch.Tensor,
    targets_C: torch.Tensor,
    logits_CV: torch.Tensor,
    losses_C: torch.Tensor,
    needs_grad: bool,
) -> None:
    """Write a chunk's losses, and the gradient with respect to its logits into the logits' place."""
    log_probs_CV = torch.log_softmax(functional.linear(hidden_CH, weight_VH).float(), dim=-1)
    losses_C.copy_(functional.nll_loss(log_probs_CV, targets_C, ignore_index=IGNORE_INDEX, reduction="none"))
    counts_C1 = (targets_C != IGNORE_INDEX).unsqueeze(1).float()
    grad_CV = log_probs_CV.exp_().scatter_add_(1, targets_C.clamp(min=0).unsqueeze(1), -counts_C1).mul_(counts_C1)
    logits_CV.copy_(grad_CV)
