"""What a Trainer does to a model and its loss when asked: noise on the embeddings, smoothed labels; by its own code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers.integrations.neftune import activate_neftune
from transformers.trainer_pt_utils import LabelSmoother


def add_embedding_noise(model: Any, alpha: float | None) -> None:
    """Let the embeddings of a peft model, or any other, add noise in training; nothing without a strength.

    Source: transformers/integrations/neftune.py.
    """
    if alpha is not None:
        activate_neftune(model, alpha)


def smoothed_loss(
    model: Any, inputs: Mapping[str, torch.Tensor], factor: float, num_items: float, num_targets: int, *, shifts: bool
) -> tuple[Any, torch.Tensor]:
    """Return the model's output without its own loss, and the loss over smoothed labels, summed, over `num_items`.

    Args:
        num_targets: target tokens of the batch, whose mean older releases of transformers take.
        shifts: whether each position predicts the next one's label.

    Source: transformers/trainer.py, `compute_loss`; transformers/trainer_pt_utils.py, `LabelSmoother`.
    """
    labels = inputs["labels"]
    output = model(**{name: tensor for name, tensor in inputs.items() if name != "labels"})
    smoother = LabelSmoother(epsilon=factor)
    if "num_items_in_batch" in inspect.signature(LabelSmoother.__call__).parameters:
        loss = smoother(output, labels, shift_labels=shifts, num_items_in_batch=num_items)
    else:
        loss = smoother(output, labels, shift_labels=shifts) * (num_targets / num_items)
    output["loss"] = loss
    return output, loss
