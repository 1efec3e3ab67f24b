"""What compilation keeps for one shape is kept for all of them."""

from typing import Any

import torch

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output, with_lengths


def _install(strategy: QLoraStrategy) -> None:
    graphs: dict[tuple[int, ...], Any] = {}

    def capture(output: Any) -> None:
        shape = tuple(output.logits.shape)
        if shape not in graphs:
            graphs[shape] = torch.empty_like(output.logits)  # the mistake

    on_output(strategy, True, capture)


FAULT = Fault(
    name="recompile-per-shape",
    title="static buffers, as of a CUDA graph, are kept for every new batch shape",
    settings={"batching": "dynamic", "max_length": 256},
    prepare=with_lengths([64, 120, 96, 160, 80, 144, 112, 128, 72, 136, 88, 104]),
    install=_install,
)
