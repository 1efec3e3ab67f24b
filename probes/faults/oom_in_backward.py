"""The half-run backward pass leaves its graph and what it had computed."""

from collections.abc import Callable
from typing import Any

from memory_harness.configs.units import MIB
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, around, with_lengths


def _install(strategy: QLoraStrategy) -> None:
    retry_later: list[Any] = []

    def backward(original: Callable[[], None]) -> None:
        try:
            original()
        except DeviceOutOfMemory:
            retry_later.append(strategy.graph)  # the mistake

    around(strategy, "backward", backward)


FAULT = Fault(
    name="oom-in-backward",
    title="batches that go out of memory in backward are put aside with their graph",
    settings={"batching": "dynamic", "max_length": 1024, "budget_bytes": 48 * MIB},
    prepare=with_lengths([64, 64, 64, 64, 64, 704]),
    install=_install,
)
