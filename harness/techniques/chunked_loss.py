"""The language-model loss over a part of the tokens at a time, so that the logits of all of them never exist.

The gradient with respect to the hidden states is computed beside the loss, while a chunk's logits are there; the
backward pass only scales it. Source of the idea: liger-kernel's fused linear cross entropy.

Shapes: T tokens of the batch, C of them in a chunk, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import IGNORE_INDEX
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.techniques.chunks import num_chunks, row_slices

GRADIENT_SCALE = 1024.0
"""Gradients wait for the backward pass in 16 bits, without the loss scale that stock training has there. Unscaled, a
probability below 6e-8 is 0 in float16; 1024 times a gradient (at most 2 x the largest weight) stays far below 65504. A
power of two costs no precision."""


def loss_chunks(config: RunConfig, batch_size: int) -> int:
    """Return into how many chunks the loss of every batch is cut, in batches of at most `batch_size` sequences."""
    return num_chunks(config, batch_size, config.train.loss_chunk_tokens)


def chunked_causal_lm_loss(
    model: Any, inputs: dict[str, torch.Tensor], num_items: float, chunks: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return the summed cross entropy of the next tokens divided by `num_items`, as transformers' causal models do.

    Args:
        model: a transformers causal language model whose output head is frozen.
        inputs: what the model takes; `labels` is int64 (B, L), -100 where a token is no target.
        dtype: of the products with the head's weight; autocast's where that is on.

    Raises:
        ConfigError: the output head is trained.
    """
    weight_VH = frozen_head(model, "chunked")
    hidden_TH, targets_T = hidden_and_targets(model, inputs)
    return cross_entropy_sum(hidden_TH, weight_VH, targets_T, chunks, dtype) / num_items


def frozen_head(model: Any, loss: str) -> torch.Tensor:
    """Return the output head's weight (V, H). Raises ConfigError: it is trained; the loss would give it no gradient."""
    head = model.get_output_embeddings()
    if any(parameter.requires_grad for parameter in head.parameters()):
        raise ConfigError(f"--loss {loss}: needs a frozen output head; take lm_head out of --target-modules")
    weight: torch.Tensor = head.weight
    return weight


def hidden_and_targets(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the model up to its head; return the hidden states (T, H) and each one's next token (T)."""
    hidden_BLH = model.model(**{name: value for name, value in inputs.items() if name != "labels"}).last_hidden_state
    targets_BL = functional.pad(inputs["labels"], (0, 1), value=IGNORE_INDEX)[:, 1:]
    return hidden_BLH.flatten(0, 1), targets_BL.flatten()


def cross_entropy_sum(
    hidden_TH: torch.Tensor, weight_VH: torch.Tensor, targets_T: torch.Tensor, chunks: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return the float32 sum of cross entropies of `hidden @ weight.T`; only `hidden` gets a gradient."""
    total: torch.Tensor = _ChunkedCrossEntropy.apply(hidden_TH, weight_VH, targets_T, chunks, dtype)
    return total


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_T: torch.Tensor,
        chunks: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        weight_VH = weight_VH.to(dtype)  # once, not in every chunk: the copy of an upcast head is 1 GB
        total = hidden_TH.new_zeros((), dtype=torch.float32)
        # evaluation runs without gradients, and then must not pay for them
        grad_TH = torch.empty_like(hidden_TH, dtype=dtype) if ctx.needs_input_grad[0] else None
        for rows in row_slices(len(hidden_TH), chunks):
            grad_CH = None if grad_TH is None else grad_TH[rows]
            total += _chunk_loss(hidden_TH[rows].to(dtype), weight_VH, targets_T[rows], grad_CH)
        if grad_TH is not None:
            ctx.save_for_backward(grad_TH)
        ctx.hidden_dtype = hidden_TH.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_TH,) = ctx.saved_tensors
        # in float32, because the loss scale may exceed what float16 holds
        scaled_TH = grad_TH.float().mul_(grad_outputs[0] / GRADIENT_SCALE)
        return scaled_TH.to(ctx.hidden_dtype), None, None, None, None


def _chunk_loss(
    hidden_CH: torch.Tensor, weight_VH: torch.Tensor, targets_C: torch.Tensor, grad_CH: torch.Tensor | None
) -> torch.Tensor:
    """Return a chunk's summed loss and write its scaled gradient into `grad_CH`; the logits die on return."""
    log_probs_CV = torch.log_softmax(functional.linear(hidden_CH, weight_VH).float(), dim=-1)
    loss = functional.nll_loss(log_probs_CV, targets_C, ignore_index=IGNORE_INDEX, reduction="sum")
    if grad_CH is not None:
        grad_CV = log_probs_CV.exp_()  # in place: probabilities, which are the gradient but for the targets' one
        counts_C1 = (targets_C != IGNORE_INDEX).unsqueeze(1).float()
        grad_CV.scatter_add_(1, targets_C.clamp(min=0).unsqueeze(1), -counts_C1)
        grad_CV.mul_(counts_C1 * GRADIENT_SCALE)
        grad_CH.copy_(grad_CV.to(weight_VH.dtype) @ weight_VH)
    return loss
