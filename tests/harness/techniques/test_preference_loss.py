"""Objectives that prefer one answer to another, against their papers' formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch

from memory_harness.harness.techniques.preference_loss import BETAS, log_probabilities, preference_loss

LABELS = torch.tensor([[-100, -100, 3, 4, 2], [-100, -100, 1, -100, -100], [-100, 2, 2, 0, -100], [-100, 4, 3, 1, 0]])


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def said(seed: int) -> tuple[torch.Tensor, list[float], list[float]]:
    """Return logits, and of each sequence the summed and the mean logarithm of its labels' probabilities."""
    logits = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed))
    shares = logits.double().log_softmax(-1)
    sums, means = [], []
    for row, labels in enumerate(LABELS.tolist()):
        of_labels = [shares[row, i - 1, label].item() for i, label in enumerate(labels) if i and label >= 0]
        sums.append(sum(of_labels))
        means.append(sum(of_labels) / len(of_labels))
    return logits, sums, means


def expected(objective: str, beta: float) -> float:
    (_, sums, means), (_, reference, _) = said(1), said(2)
    lengths = [total / mean for total, mean in zip(sums, means, strict=True)]
    total = 0.0
    for chosen, rejected in ((0, 1), (2, 3)):
        ratios = [sums[i] - reference[i] for i in (chosen, rejected)]
        if objective == "dpo":
            total -= log_sigmoid(beta * (ratios[0] - ratios[1]))
        elif objective == "ipo":
            total += (ratios[0] / lengths[chosen] - ratios[1] / lengths[rejected] - 1 / (2 * beta)) ** 2
        elif objective == "simpo":
            total -= log_sigmoid(beta * (means[chosen] - means[rejected]) - 0.5)
        elif objective == "cpo":
            total -= log_sigmoid(beta * (sums[chosen] - sums[rejected])) + means[chosen]
        else:
            odds = [means[i] - math.log1p(-math.exp(means[i])) for i in (chosen, rejected)]
            total -= beta * log_sigmoid(odds[0] - odds[1]) + means[chosen]
    return total


@pytest.mark.parametrize("objective", BETAS)
def test_the_loss_is_the_papers(objective):
    tokens = log_probabilities(said(1)[0], LABELS)
    reference = log_probabilities(said(2)[0], LABELS) if objective in ("dpo", "ipo") else None
    beta = BETAS[objective]
    loss = preference_loss(objective, tokens, LABELS, reference, beta, 0.5)
    assert loss.item() == pytest.approx(expected(objective, beta), rel=1e-5)


def test_an_untrained_model_is_undecided():
    tokens = log_probabilities(said(1)[0], LABELS)
    assert preference_loss("dpo", tokens, LABELS, tokens, 0.1, 0.0).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("objective", BETAS)
def test_gradients_raise_the_chosen_answer_above_the_rejected_one(objective):
    logits = said(1)[0].requires_grad_()
    reference = log_probabilities(said(2)[0], LABELS) if objective in ("dpo", "ipo") else None
    tokens = log_probabilities(logits, LABELS)
    preference_loss(objective, tokens, LABELS, reference, BETAS[objective], 0.5).backward()
    with torch.no_grad():
        after = log_probabilities(logits - 0.01 * logits.grad, LABELS)
    gain = (after - tokens).sum(1)
    assert gain[0] > gain[1]
    assert gain[2] > gain[3]
