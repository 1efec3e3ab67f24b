"""A callback clears the gradients between the backward pass and the optimizer's step."""

from collections.abc import Callable

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    def optimizer_step(original: Callable[[float], object], learning_rate: float) -> object:
        strategy.optimizer.zero_grad()  # the mistake
        return original(learning_rate)

    around(strategy, "optimizer_step", optimizer_step)


FAULT = Fault(
    name="zero-gradient",
    title="the gradients are cleared before the optimizer uses them",
    install=_install,
)
