"""The loop keeps each loss for an average, and calls backward with retain_graph, so that nothing is freed."""

from collections.abc import Callable

import torch

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    losses: list[torch.Tensor] = []

    def backward(original: Callable[[], None]) -> None:
        loss = strategy.graph
        assert loss is not None
        strategy.scaler.scale(loss).backward(retain_graph=True)
        losses.append(loss)  # the mistake
        strategy.graph, strategy.inputs = None, {}

    around(strategy, "backward", backward)


FAULT = Fault(
    name="retained-graph",
    title="a loss kept with its graph, which retain_graph leaves whole",
    install=_install,
)
