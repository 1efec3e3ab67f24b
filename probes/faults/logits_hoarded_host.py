"""Every batch's logits are copied to the host and kept until the metrics are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, before_training_batch, on_output


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    all_logits: list[Any] = []

    def gather(output: Any) -> None:
        with strategy.device.on_host():
            all_logits.append(output.logits.to("cpu", copy=True))  # the mistake

    on_output(strategy, False, gather)
    before_training_batch(strategy, all_logits.clear)
    yield


def _configure(config: RunConfig) -> RunConfig:
    # large enough that the C library does not serve it from what it has cached
    return config.with_fields(eval_batch_size=8, max_length=512, samples=96, eval_fraction=0.9, epochs=1)


LOGITS_HOARDED_HOST = Fault(
    name="logits-hoarded-host",
    cause="logits-hoarded-host",
    title="evaluation gathers the logits of all batches in host memory",
    configure=_configure,
    install=_install,
    needs_values=True,
)
