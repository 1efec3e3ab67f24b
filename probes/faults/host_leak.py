"""A data set that caches what it decodes, in every process that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from configs.units import MIB
from harness.strategies.qlora import QLoraStrategy
from probes.faults.base import Fault, before_training_batch

COPY_BYTES = 4 * MIB


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    cache: list[Any] = []

    def copy() -> None:
        cache.append(np.ones(COPY_BYTES, dtype=np.uint8))  # the mistake

    before_training_batch(strategy, copy)
    yield


HOST_LEAK = Fault(
    name="host-leak",
    cause="host-leak",
    title="every batch leaves a copy of its samples in host memory",
    install=_install,
)
