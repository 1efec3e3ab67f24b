"""A communicator is made for each batch and never destroyed: its buffers come from the driver, not from PyTorch."""

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, before_training_batch

BUFFERS_BYTES = 16 * MIB


def _install(strategy: QLoraStrategy) -> None:
    device = strategy.device
    assert isinstance(device, SimulatedDevice), "on a real GPU, make the communicators"
    before_training_batch(strategy, lambda: device.take_beside(library_bytes=BUFFERS_BYTES))


FAULT = Fault(
    name="outside-growth",
    title="every batch makes a communicator, whose buffers the driver gives and nobody returns",
    settings={"budget_bytes": GIB},
    install=_install,
    needs_simulation=True,
)
