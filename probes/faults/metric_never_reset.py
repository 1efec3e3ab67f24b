"""A top-k accuracy concatenates its state over all updates and is never reset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output

TOP_K = 48


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    state: list[Any] = []

    def update(output: Any) -> None:
        state.append(output.logits.topk(TOP_K).indices)  # the mistake

    on_output(strategy, False, update)
    yield


def _configure(config: RunConfig) -> RunConfig:
    return config.with_fields(eval_batch_size=1, epochs=3)


METRIC_NEVER_RESET = Fault(
    name="metric-never-reset",
    cause="metric-never-reset",
    title="a metric's state grows from evaluation to evaluation",
    configure=_configure,
    install=_install,
)
