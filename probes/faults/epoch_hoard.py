"""training_step returns its output, and an epoch-end callback wants all of them."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after, on_output


def _install(strategy: QLoraStrategy) -> None:
    outputs: list[Any] = []

    def collect(output: Any) -> None:
        outputs.append(output.logits.detach())  # the mistake

    on_output(strategy, True, collect)
    after(strategy, "save", outputs.clear)


FAULT = Fault(
    name="epoch-hoard",
    title="training outputs are collected until the epoch ends",
    install=_install,
)
