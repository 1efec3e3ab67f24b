"""Every batch's logits are copied to the host and kept until the metrics are computed."""

from typing import Any

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, before_training_batch, on_output


def _install(strategy: QLoraStrategy) -> None:
    all_logits: list[Any] = []

    def gather(output: Any) -> None:
        with strategy.device.on_host():
            all_logits.append(output.logits.to("cpu", copy=True))  # the mistake

    on_output(strategy, False, gather)
    before_training_batch(strategy, all_logits.clear)


FAULT = Fault(
    name="logits-hoarded-host",
    title="evaluation gathers the logits of all batches in host memory",
    # large enough that the C library does not serve it from what it has cached
    settings={"eval_batch_size": 8, "max_length": 512, "samples": 96, "eval_fraction": 0.9, "epochs": 1},
    install=_install,
    needs_values=True,
)
