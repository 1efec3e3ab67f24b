"""One tensor that grows: a leak that no cause of the table describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.strategies.qlora import QLoraStrategy
from probes.faults.base import Fault, after

ROWS = 128


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    buffer: dict[str, Any] = {}

    def extend() -> None:
        rows = torch.zeros(ROWS, ROWS, device=strategy.device.torch_device)
        buffer["rows"] = torch.cat([buffer["rows"], rows]) if buffer else rows  # the mistake

    after(strategy, "optimizer_step", extend)
    yield


UNEXPLAINED_GROWTH = Fault(
    name="unexplained-growth",
    cause="unexplained-growth",
    title="a replay buffer is concatenated to in every step",
    install=_install,
)
