"""A second notebook starts a job on the same GPU."""

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, before_training_batch

TAKEN_PER_STEP_BYTES = 96 * MIB


def _install(strategy: QLoraStrategy) -> None:
    device = strategy.device
    assert isinstance(device, SimulatedDevice), "on a real GPU, start the other process"
    before_training_batch(strategy, lambda: device.take_beside(elsewhere_bytes=TAKEN_PER_STEP_BYTES))


FAULT = Fault(
    name="other-process",
    title="another process takes more and more of the GPU",
    settings={"budget_bytes": GIB, "empty_cache_every": 1},
    install=_install,
    needs_simulation=True,
)
