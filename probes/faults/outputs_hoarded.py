"""The model is asked for its hidden states, and all outputs of the evaluation are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after, before_training_batch, on_output


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    outputs: list[Any] = []

    def gather(output: Any) -> None:
        outputs.append(output)  # the mistake

    def ask_for_hidden_states() -> None:
        strategy.model.forward = partial(strategy.model.forward, output_hidden_states=True)

    after(strategy, "load", ask_for_hidden_states)
    on_output(strategy, False, gather)
    before_training_batch(strategy, outputs.clear)
    yield


def _configure(config: RunConfig) -> RunConfig:
    return config.with_fields(eval_batch_size=1)


OUTPUTS_HOARDED = Fault(
    name="outputs-hoarded",
    cause="outputs-hoarded",
    title="evaluation keeps whole outputs, hidden states included",
    configure=_configure,
    install=_install,
)
