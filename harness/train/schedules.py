"""The learning rate of each step: this program's own linear and cosine, and transformers' schedules by their names."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from memory_harness.configs.schedules import OWN, schedule_values
from memory_harness.configs.schema import RunConfig, TrainConfig


def learning_rate(config: RunConfig, step: int, total_steps: int) -> float:
    """Return the rate of a step, counted from 1.

    Linear and cosine rise over the warm-up and then fall to zero after the last step; the others are as transformers'
    Trainer has them, which begins at zero where there is a warm-up.
    """
    train = config.train
    warmup = _warmup_steps(train, total_steps)
    if train.schedule not in OWN:
        share = _share_of(train.schedule, train.schedule_args, train.learning_rate, warmup, total_steps)
        return train.learning_rate * share(step - 1)
    if step <= warmup:
        return train.learning_rate * step / warmup
    left = (total_steps - step + 1) / max(1, total_steps - warmup)
    share_left = left if train.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
    return train.learning_rate * share_left


def _warmup_steps(train: TrainConfig, total_steps: int) -> int:
    if train.warmup_steps is not None:
        return train.warmup_steps
    return round(train.warmup_ratio * total_steps)


@cache
def _share_of(schedule: str, arguments: str | None, peak: float, warmup: int, total: int) -> Callable[[int], float]:
    """Return transformers' function from the steps that are done to the share of the peak."""
    from transformers import get_scheduler

    # a parameter without memory: a schedule asks its optimizer for the peak alone
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.empty(0))], lr=peak)
    scheduler: Any = get_scheduler(schedule, optimizer, warmup, total, schedule_values(arguments))
    share: Callable[[int], float] = scheduler.lr_lambdas[0]
    return share
