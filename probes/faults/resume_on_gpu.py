"""A checkpoint is loaded to the GPU and stays referenced."""

from collections.abc import Callable
from pathlib import Path

import torch

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around

MODEL_FILE = "model.pt"


def _install(strategy: QLoraStrategy) -> None:
    checkpoint: dict[str, torch.Tensor] = {}

    def save(original: Callable[[Path], None], folder: Path) -> None:
        original(folder)
        torch.save(strategy.model.state_dict(), folder / MODEL_FILE)

    def restore(original: Callable[[Path], None], folder: Path) -> None:
        with strategy.device.on_host():
            loaded = torch.load(folder / MODEL_FILE, weights_only=True)
        for name, value in loaded.items():
            checkpoint[name] = strategy.device.put(value)  # the mistake
        original(folder)

    around(strategy, "save", save)
    around(strategy, "restore", restore)


FAULT = Fault(
    name="resume-on-gpu",
    title="the checkpoint's weights are loaded to the GPU and the dictionary is kept",
    install=_install,
    resumes=True,
    needs_values=True,
)
