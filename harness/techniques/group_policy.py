"""GRPO over completions that the policy has generated: what it computes of them, with the tensors that TRL makes.

Shapes: B sequences of L tokens, the last C of them generated; T = B·C, H hidden size, V vocabulary.

Source: `_get_per_token_logps_and_entropies` and `_compute_loss` of trl/trainer/grpo_trainer.py. TRL 1.6 holds the
logits of all completions; 1.16 holds tiles of them: `ChunkedLogProbFunction` of trl/kernels/chunked_logprob.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from memory_harness.harness.devices.base import Device

TILE_TOKENS, TILE_WORDS = 4096, 32768
"""most logits that exist at once in tiles; Source: trl 1.16, kernels/chunked_logprob.py and trainer/utils.py"""

ENTROPY_ROWS = 128
"""tokens whose entropy is computed at once; Source: trl 1.6, `entropy_from_logits`"""

CLIP = 0.2
"""how far a ratio of probabilities may move; Source: `epsilon` of trl's GRPOConfig"""


def whole_log_probs(logits_BCV: torch.Tensor, targets_BC: torch.Tensor, *, with_entropy: bool) -> torch.Tensor:
    """Return the logarithm of each token's probability (B, C), of logits that are all there.

    Args:
        logits_BCV: divided in place by the temperature, which is 1.
        targets_BC: the tokens.
        with_entropy: that of each token is computed too, as a metric.
    """
    logits_BCV.div_(1.0)
    index_BC1 = targets_BC.unsqueeze(-1)
    if logits_BCV.dtype is torch.float32:
        sums_BC = torch.stack([torch.logsumexp(row_CV, dim=-1) for row_CV in logits_BCV])
        log_probs_BC = logits_BCV.gather(-1, index_BC1).squeeze(-1) - sums_BC
    else:
        pairs = zip(logits_BCV, index_BC1, strict=True)
        log_probs_BC = torch.stack([F.log_softmax(row, dim=-1).gather(-1, index) for row, index in pairs]).squeeze(-1)
    if with_entropy:
        with torch.no_grad():
            for rows_RV in logits_BCV.reshape(-1, logits_BCV.size(-1)).split(ENTROPY_ROWS):
                scores_RV = F.log_softmax(rows_RV, dim=-1)
                (scores_RV.exp() * scores_RV).sum(-1)
    return log_probs_BC


def tiled_log_probs(
    model: Any, inputs: dict[str, torch.Tensor], num_tokens: int, dtype: torch.dtype, device: Device
) -> torch.Tensor:
    """Return the logarithm of each completion token's probability (B, C), without all logits at once.

    Args:
        model: a transformers causal language model; its output head may be trained.
        inputs: what the model takes.
        num_tokens: C.
        dtype: of the products with the head's weight.
        device: where it runs.
    """
    hidden_BLH = model.model(**inputs).last_hidden_state
    hidden_TH = hidden_BLH[:, -num_tokens - 1 : -1].clone().flatten(0, 1)
    targets_BC = inputs["input_ids"][:, -num_tokens:]
    head = model.get_output_embeddings()
    found: torch.Tensor = _TiledLogProbs.apply(hidden_TH, head.weight, targets_BC.flatten(), dtype, device)
    return found.view_as(targets_BC)


class _TiledLogProbs(torch.autograd.Function):
    """TRL's kernel keeps a tile's statistics in registers, which are host memory here."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_T: torch.Tensor,
        dtype: torch.dtype,
        device: Device,
    ) -> torch.Tensor:
        sums_T = hidden_TH.new_full((len(hidden_TH),), float("-inf"), dtype=torch.float32)
        found_T = torch.zeros_like(sums_T)
        buffer = hidden_TH.new_empty((min(len(hidden_TH), TILE_TOKENS), TILE_WORDS), dtype=dtype)
        for rows, words in _tiles(hidden_TH, weight_VH):
            tile_RW = _logits(hidden_TH[rows].to(dtype), weight_VH[words].to(dtype), buffer)
            with device.on_host():
                torch.logaddexp(sums_T[rows], tile_RW.float().logsumexp(-1), out=sums_T[rows])
                is_here_R, index_R = _in_tile(targets_T[rows], words)
                found_T[rows] += tile_RW.float().gather(1, index_R.unsqueeze(1)).squeeze(1) * is_here_R
        ctx.save_for_backward(hidden_TH, weight_VH, targets_T, sums_T)
        ctx.dtype, ctx.device = dtype, device
        return found_T - sums_T

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_TH, weight_VH, targets_T, sums_T = ctx.saved_tensors
        wanted, dtype = zip((hidden_TH, weight_VH), ctx.needs_input_grad, strict=False), ctx.dtype
        of_hidden, of_weight = (torch.zeros_like(it, dtype=torch.float32) if needs else None for it, needs in wanted)
        buffer = hidden_TH.new_empty((min(len(hidden_TH), TILE_TOKENS), TILE_WORDS), dtype=dtype)
        grad_T1 = grad_outputs[0].float().contiguous().unsqueeze(1)
        for rows, words in _tiles(hidden_TH, weight_VH):
            hidden_RH, weight_WH = hidden_TH[rows].to(dtype), weight_VH[words].to(dtype)
            tile_RW = _logits(hidden_RH, weight_WH, buffer)
            with ctx.device.on_host():
                is_here_R, index_R = _in_tile(targets_T[rows], words)
                grad_RW = -(tile_RW.float() - sums_T[rows].unsqueeze(1)).exp_()
                grad_RW.scatter_add_(1, index_R.unsqueeze(1), is_here_R.unsqueeze(1).float())
                tile_RW.copy_(grad_RW.mul_(grad_T1[rows]))
                if of_hidden is not None:
                    of_hidden[rows] += (tile_RW @ weight_WH).float()
                if of_weight is not None:
                    of_weight[words] += (tile_RW.t() @ hidden_RH).float()
        grad_hidden = None if of_hidden is None else of_hidden.to(hidden_TH.dtype)
        return grad_hidden, None if of_weight is None else of_weight.to(weight_VH.dtype), None, None, None


def _tiles(hidden_TH: torch.Tensor, weight_VH: torch.Tensor) -> list[tuple[slice, slice]]:
    """Return the rows and the words of each tile."""
    starts = range(0, len(hidden_TH), TILE_TOKENS)
    words = [slice(start, min(start + TILE_WORDS, len(weight_VH))) for start in range(0, len(weight_VH), TILE_WORDS)]
    return [(slice(start, min(start + TILE_TOKENS, len(hidden_TH))), part) for start in starts for part in words]


def _logits(hidden_RH: torch.Tensor, weight_WH: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """Return a tile's logits (R, W), which lie in the buffer."""
    tile_RW = buffer[: len(hidden_RH), : len(weight_WH)]
    return torch.mm(hidden_RH, weight_WH.t(), out=tile_RW)


def _in_tile(targets_R: torch.Tensor, words: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which targets are among the words, and the place of each there; 0 of the others."""
    is_here_R = (targets_R >= words.start) & (targets_R < words.stop)
    return is_here_R, (targets_R - words.start) * is_here_R


def policy_loss(
    log_probs_BC: torch.Tensor, old_BC: torch.Tensor | None, reference_BC: torch.Tensor | None, beta: float
) -> torch.Tensor:
    """Return the clipped loss summed over all tokens, each completion's advantage being 1: rewards are not known here.

    Args:
        log_probs_BC: under the policy that is trained.
        old_BC: under that which generated; None where it is the same.
        reference_BC: under the model as it was; None where straying from it costs nothing.
        beta: what that costs.
    """
    advantages_B1 = torch.ones_like(log_probs_BC[:, :1])
    ratios_BC = (log_probs_BC - (log_probs_BC.detach() if old_BC is None else old_BC)).exp()
    clipped_BC = ratios_BC.clamp(1 - CLIP, 1 + CLIP)
    losses_BC = -torch.min(ratios_BC * advantages_B1, clipped_BC * advantages_B1)
    if reference_BC is not None:
        apart_BC = reference_BC - log_probs_BC
        losses_BC = losses_BC + beta * (apart_BC.exp() - apart_BC - 1)
    return losses_BC.sum()
