"""A checkpoint's optimizer states are loaded to the GPU, copied into the optimizer and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memory_harness.configs.models import LINEAR_LAYERS
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.state import STATE_FILE, read_tensors
from memory_harness.probes.faults.base import Fault, around


def _install(strategy: QLoraStrategy) -> None:
    kept: list[torch.Tensor] = []

    def restore(original: Callable[[Path], None], folder: Path) -> None:
        with strategy.device.on_host():
            states: dict[int, dict[str, Any]] = read_tensors(folder / STATE_FILE)["optimizer"]["state"]
        for values in states.values():
            for value in values.values():
                if value.dim():
                    kept.append(strategy.device.put(value))  # the mistake
        original(folder)

    around(strategy, "restore", restore)


FAULT = Fault(
    name="optimizer-states-twice",
    title="the checkpoint's optimizer states are loaded to the GPU and kept beside the optimizer's",
    settings={"lora_rank": 16, "target_modules": LINEAR_LAYERS},
    install=_install,
    resumes=True,
    needs_values=True,
)
