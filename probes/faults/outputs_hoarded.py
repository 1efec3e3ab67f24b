"""The model is asked for its hidden states, and all outputs of the evaluation are kept."""

from functools import partial
from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after, before_training_batch, on_output


def _install(strategy: QLoraStrategy) -> None:
    outputs: list[Any] = []

    def gather(output: Any) -> None:
        outputs.append(output)  # the mistake

    def ask_for_hidden_states() -> None:
        strategy.model.forward = partial(strategy.model.forward, output_hidden_states=True)

    after(strategy, "load", ask_for_hidden_states)
    on_output(strategy, False, gather)
    before_training_batch(strategy, outputs.clear)


FAULT = Fault(
    name="outputs-hoarded",
    title="evaluation keeps whole outputs, hidden states included",
    settings={"eval_batch_size": 1},
    install=_install,
)
