"""Losses are kept for an average after they were backwarded, under gradient checkpointing.

Without checkpointing this costs one block of 512 B a step: backward frees what the graph has saved. With it, the
graph's nodes also hold what they would recompute a layer from, and that is freed with the last reference to the loss
only.
"""

from collections.abc import Callable

import torch

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    losses: list[torch.Tensor] = []

    def backward(original: Callable[[], None]) -> None:
        losses.append(strategy.graph)  # the mistake
        original()

    around(strategy, "backward", backward)


FAULT = Fault(
    name="kept-losses",
    other_cause="retained-graph",
    title="backwarded losses are kept for an average, under gradient checkpointing",
    install=_install,
)
