"""Snapshots of the adapter are kept inside the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    def add() -> None:
        model = strategy.model
        model.add_adapter(f"snapshot-{len(model.peft_config)}", model.peft_config["default"])  # the mistake

    after(strategy, "save", add)
    yield


def _configure(config: RunConfig) -> RunConfig:
    return config.with_fields(save_every=3, lora_rank=32)


ADAPTERS_ACCUMULATE = Fault(
    name="adapters-accumulate",
    cause="adapters-accumulate",
    title="a new adapter is added at every checkpoint, and none is deleted",
    configure=_configure,
    install=_install,
)
