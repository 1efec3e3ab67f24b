"""Snapshots of the adapter are kept inside the model."""

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after


def _install(strategy: QLoraStrategy) -> None:
    def add() -> None:
        model = strategy.model
        model.add_adapter(f"snapshot-{len(model.peft_config)}", model.peft_config["default"])  # the mistake

    after(strategy, "save", add)


FAULT = Fault(
    name="adapters-accumulate",
    title="a new adapter is added at every checkpoint, and none is deleted",
    settings={"save_every": 3, "lora_rank": 32},
    install=_install,
)
