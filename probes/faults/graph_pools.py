"""CUDA graphs are captured for generation before training begins, and their pools stay."""

import torch

from memory_harness.configs.units import MIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import PoolUse
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.probes.faults.base import Fault, after

NUM_GRAPHS, POOL_BYTES = 4, 4 * MIB


def _install(strategy: QLoraStrategy) -> None:
    device = strategy.device
    assert isinstance(device, SimulatedDevice), "on a real GPU, capture the graphs"
    pools: list[torch.Tensor] = []

    def capture() -> None:
        for _ in range(NUM_GRAPHS):
            pools.append(torch.empty(POOL_BYTES, dtype=torch.uint8, device=device.torch_device))
        device.set_aside(PoolUse(NUM_GRAPHS, NUM_GRAPHS * POOL_BYTES))

    after(strategy, "load", capture)


FAULT = Fault(
    name="graph-pools",
    title="CUDA graphs are captured, each with a memory pool of its own",
    settings={"budget_bytes": 96 * MIB},
    install=_install,
    needs_simulation=True,
)
