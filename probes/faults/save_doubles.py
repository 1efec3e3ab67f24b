"""Saving copies every weight on the device although only the adapter has changed."""

from collections.abc import Callable
from pathlib import Path

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    def save(original: Callable[[Path], None], folder: Path) -> None:
        with strategy.device.assuming(0.0):  # bitsandbytes reads a quantisation offset back
            weights = strategy.model.state_dict()
        state = {name: value.clone() for name, value in weights.items()}  # the mistake
        original(folder)
        del state

    around(strategy, "save", save)


FAULT = Fault(
    name="save-doubles",
    title="the whole state_dict is cloned before a checkpoint is written",
    install=_install,
)
