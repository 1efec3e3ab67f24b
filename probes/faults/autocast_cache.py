"""Autocast keeps its 16-bit copy of every weight until the outermost context is left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, on_output


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    def probe(output: Any) -> None:
        logits = output.logits.detach()
        head = torch.nn.Parameter(logits.new_zeros(128, logits.shape[-1], dtype=torch.float32))  # the mistake
        torch.nn.functional.linear(logits, head)

    on_output(strategy, True, probe)
    with strategy.device.autocast(strategy.dtype):
        yield


FAULT = Fault(
    name="autocast-cache",
    title="one autocast context around the whole training, and new weights in every step",
    settings={"dtype": "bfloat16"},
    install=_install,
)
