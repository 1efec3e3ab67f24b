"""compute_metrics wants all predictions at once, so every batch's logits stay on the device until then."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, before_training_batch, on_output


def _install(strategy: QLoraStrategy) -> None:
    all_logits: list[Any] = []

    def gather(output: Any) -> None:
        all_logits.append(output.logits)  # the mistake

    on_output(strategy, False, gather)
    before_training_batch(strategy, all_logits.clear)


FAULT = Fault(
    name="logits-hoarded",
    title="evaluation gathers the logits of all batches for its metrics",
    settings={"eval_batch_size": 1},
    install=_install,
)
