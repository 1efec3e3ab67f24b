"""Losses that prefer a chosen answer to a rejected one, over what the model says of both.

Shapes: B sequences, L tokens each, V words; sequences stand in pairs, each chosen one before the one that is rejected.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from memory_harness.harness.data.batching import IGNORE_INDEX

BETAS = {"dpo": 0.1, "ipo": 0.1, "simpo": 2.0, "orpo": 0.1, "cpo": 0.1}
"""how strongly an objective prefers where nobody says; Source: trl's DPOConfig, CPOConfig and ORPOConfig, and the
experiments of the paper on SimPO, https://arxiv.org/abs/2405.14734"""


def log_probabilities(logits_BLV: torch.Tensor, labels_BL: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of each token's probability (B, L - 1), float32; 0 of those that have no label."""
    targets = labels_BL[:, 1:]
    logits = logits_BLV[:, :-1].reshape(-1, logits_BLV.size(-1)).float()
    losses = F.cross_entropy(logits, targets.reshape(-1), ignore_index=IGNORE_INDEX, reduction="none")
    return -losses.view_as(targets)


def preference_loss(
    objective: str,
    tokens: torch.Tensor,
    labels_BL: torch.Tensor,
    reference: torch.Tensor | None,
    beta: float,
    margin: float,
) -> torch.Tensor:
    """Return the loss summed over pairs.

    Args:
        objective: `dpo`, `ipo`, `simpo`, `orpo` or `cpo`.
        tokens: what `log_probabilities` returns of the model.
        reference: the same of the model as it was, for the objectives that need it.
        beta: how strongly to prefer.
        margin: by how much SimPO wants the chosen one to be likelier, in units of its score.

    Source: https://arxiv.org/abs/2305.18290 (dpo), 2310.12036 (ipo, per token as in trl), 2405.14734 (simpo),
    2403.07691 (orpo), 2401.08417 (cpo).
    """
    sums = tokens.sum(1)
    if reference is not None:
        sums = sums - reference.sum(1)
    means = sums / (labels_BL[:, 1:] != IGNORE_INDEX).sum(1).clamp(min=1)
    (chosen, rejected), (chosen_mean, rejected_mean) = _in_pairs(sums), _in_pairs(means)
    if objective == "dpo":
        return -F.logsigmoid(beta * (chosen - rejected)).sum()
    if objective == "ipo":
        return ((chosen_mean - rejected_mean - 1 / (2 * beta)) ** 2).sum()
    if objective == "simpo":
        return -F.logsigmoid(beta * (chosen_mean - rejected_mean) - margin).sum()
    if objective == "cpo":
        return (-F.logsigmoid(beta * (chosen - rejected)) - chosen_mean).sum()
    odds = chosen_mean - rejected_mean - _log_of_rest(chosen_mean) + _log_of_rest(rejected_mean)
    return (-beta * F.logsigmoid(odds) - chosen_mean).sum()


def _in_pairs(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return values[0::2], values[1::2]


def _log_of_rest(mean: torch.Tensor) -> torch.Tensor:
    """Return log(1 - p) of a probability's logarithm."""
    return torch.log1p(-mean.exp())
