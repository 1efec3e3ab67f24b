"""The half-run backward pass leaves its graph and what it had computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import MIB
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around, with_lengths


@contextmanager
def _install(strategy: QLoraStrategy) -> Iterator[None]:
    retry_later: list[Any] = []

    def backward(original: Callable[[], None]) -> None:
        try:
            original()
        except DeviceOutOfMemory:
            retry_later.append(strategy.graph)  # the mistake

    around(strategy, "backward", backward)
    yield


def _configure(config: RunConfig) -> RunConfig:
    return config.with_fields(batching="dynamic", max_length=1024, budget_bytes=48 * MIB)


def _prepare(data: Prepared) -> Prepared:
    return with_lengths(data, [64, 64, 64, 64, 64, 704])


OOM_IN_BACKWARD = Fault(
    name="oom-in-backward",
    cause="oom-in-backward",
    title="batches that go out of memory in backward are put aside with their graph",
    configure=_configure,
    prepare=_prepare,
    install=_install,
)
