"""What lies outside of PyTorch's tensors over a run: the driver's count by process, private pools, pinned memory."""

from __future__ import annotations

from collections.abc import Callable

from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.records import DriverRecord, DriverUse, Phase, PoolRecord, PoolUse, Record


class OutsideSampler:
    """Writes a `DriverRecord` and a `PoolRecord` where what they tell has changed since the last of them.

    It is asked after each step and each phase outside of steps: a reading of NVML costs more than one of the allocator.
    """

    def __init__(self, device: Device, write: Callable[[Record], None]) -> None:
        self._device = device
        self._write = write
        self._driver: tuple[int, DriverUse] | None = None
        self._pools: PoolUse | None = None

    def sample(self, phase: Phase, step: int, reserved_bytes: int) -> None:
        """Read what there is; `reserved_bytes` are the allocator's at this moment."""
        driver, pools = self._device.driver_use(), self._device.pool_use()
        if driver is not None and (reserved_bytes, driver) != self._driver:
            self._driver = reserved_bytes, driver
            self._write(DriverRecord(phase, step, reserved_bytes, driver))
        if pools is not None and any(pools) and pools != self._pools:
            self._pools = pools
            self._write(PoolRecord(phase, step, reserved_bytes, pools))
