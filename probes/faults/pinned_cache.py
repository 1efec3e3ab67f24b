"""Batches of ever new sizes are pinned, and their blocks are not free again when the next one comes."""

from memory_harness.configs.units import MIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import PoolUse
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, before_training_batch

BLOCK_BYTES = 32 * MIB


def _install(strategy: QLoraStrategy) -> None:
    device = strategy.device
    assert isinstance(device, SimulatedDevice), "on a real GPU, pin the batches"
    owned = 0

    def pin() -> None:
        nonlocal owned
        owned += BLOCK_BYTES
        device.set_aside(PoolUse(pinned_bytes=owned, pinned_active_bytes=BLOCK_BYTES))

    before_training_batch(strategy, pin)


FAULT = Fault(
    name="pinned-cache",
    title="every batch is pinned in a new block of the host's cache, which keeps them all",
    install=_install,
    needs_simulation=True,
)
