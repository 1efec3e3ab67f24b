"""A variable outside the evaluation function still refers to the last batch's output."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output


def _install(strategy: QLoraStrategy) -> None:
    last: dict[str, Any] = {}

    def remember(output: Any) -> None:
        last["output"] = output  # the mistake

    on_output(strategy, False, remember)


FAULT = Fault(
    name="eval-leftover",
    title="the last output of an evaluation stays referenced while training goes on",
    install=_install,
)
