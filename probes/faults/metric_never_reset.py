"""A top-k accuracy concatenates its state over all updates and is never reset."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output

TOP_K = 48


def _install(strategy: QLoraStrategy) -> None:
    state: list[Any] = []

    def update(output: Any) -> None:
        state.append(output.logits.topk(TOP_K).indices)  # the mistake

    on_output(strategy, False, update)


FAULT = Fault(
    name="metric-never-reset",
    title="a metric's state grows from evaluation to evaluation",
    settings={"eval_batch_size": 1, "epochs": 3},
    install=_install,
)
