"""A callback disables checkpointing to evaluate faster."""

from collections.abc import Callable

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    def evaluate(original: Callable[[], float | None]) -> float | None:
        strategy.model.gradient_checkpointing_disable()  # the mistake
        return original()

    around(strategy, "evaluate", evaluate)


FAULT = Fault(
    name="checkpointing-lost",
    title="gradient checkpointing is switched off for an evaluation and not on again",
    install=_install,
)
