"""Every step's state remembers the one before it: a leak that no cause of the table describes."""

from __future__ import annotations

import torch

from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after

ROWS = 128


class _State:
    def __init__(self, rows: torch.Tensor, previous: _State | None) -> None:
        self.rows = rows
        self.previous = previous


def _install(strategy: QLoraStrategy) -> None:
    state: _State | None = None

    def advance() -> None:
        nonlocal state
        state = _State(torch.zeros(ROWS, ROWS, device=strategy.device.torch_device), state)  # the mistake

    after(strategy, "optimizer_step", advance)


FAULT = Fault(
    name="unexplained-growth",
    title="a chain of states, each of which refers to the one before",
    install=_install,
)
