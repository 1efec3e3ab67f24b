"""A consistency loss from a second pass is added to a running total with its graph."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after


def _install(strategy: QLoraStrategy) -> None:
    total: list[Any] = [0.0]

    def consistency() -> None:
        with strategy.model_context():
            total[0] = total[0] + strategy.model(**strategy.inputs).loss  # the mistake

    after(strategy, "forward", consistency)


FAULT = Fault(
    name="unbackwarded-loss",
    other_cause="retained-graph",
    title="a second loss is summed up for a log and never backwarded",
    install=_install,
)
