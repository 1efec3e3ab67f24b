"""A loader that takes a new staging buffer for each batch and keeps them all."""

import mmap

from memory_harness.configs.units import MIB
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, before_training_batch

BUFFER_BYTES = 4 * MIB


def _install(strategy: QLoraStrategy) -> None:
    buffers: list[mmap.mmap] = []

    def stage() -> None:
        buffer = mmap.mmap(-1, BUFFER_BYTES)  # straight from the system, as pinned memory is
        buffer.write(bytes(BUFFER_BYTES))
        buffers.append(buffer)  # the mistake

    before_training_batch(strategy, stage)


FAULT = Fault(
    name="host-leak",
    title="every batch leaves a buffer in host memory",
    install=_install,
)
