"""The seam under the loop: what a run needs from the place where it happens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from memory_harness.harness.devices.parallel import Group
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import (
    DriverUse,
    MemoryStats,
    OomRecord,
    PeakPart,
    PeakRecord,
    Phase,
    PhaseRecord,
    PoolUse,
    RunRecord,
    SegmentRuns,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.source_lines import SourceLine


@dataclass(frozen=True)
class Allocation:
    """Memory that was allocated while allocations were recorded, and still is."""

    handle: Hashable
    """what `AllocationObserver.handle_of` gives for tensors on it"""
    num_bytes: int
    made_at: float
    """seconds since the epoch"""
    frames: tuple[SourceLine, ...]
    """innermost first, PyTorch's own left out"""
    layer: str = ""
    """of a model that was running, such as `layers.3`, within `AllocationObserver.layers_marked`"""
    category: str = ""
    """where the device itself knows what it is for, as in `live_bytes`"""


HighestRecords = Mapping[Phase, PhaseRecord | OomRecord]
"""of each phase the record with the highest peak"""

AllocationEvent = tuple[Hashable, Allocation | None]
"""an allocation under its handle, or None where what the handle stands for is freed"""


def live_at_peak(events: Sequence[AllocationEvent], begin: int = 0) -> list[Allocation]:
    """Return what lived when the most bytes lived; frees of what the events did not allocate are passed over.

    Args:
        events: in order.
        begin: position of the first event of the time in which that moment is looked for.
    """
    sizes: dict[Hashable, int] = {}
    total, highest, end = 0, -1, begin
    for number, (handle, allocation) in enumerate(events, 1):
        if number == begin + 1:
            highest, end = total, number - 1
        total -= sizes.pop(handle, 0)
        if allocation is not None:
            sizes[handle] = allocation.num_bytes
            total += allocation.num_bytes
        if number > begin and total > highest:
            highest, end = total, number
    last = dict(events[:end])
    return [allocation for allocation in last.values() if allocation is not None]


class Device(Protocol):
    """A CUDA GPU, or the simulation of one: what the loop, strategies and techniques need of it.

    Everything that reads memory or moves data goes through it.
    """

    source: str
    """`cuda` or `simulated`"""
    gpu_name: str
    budget_bytes: int
    torch_device: torch.device
    """where tensors are made"""
    computes: bool
    """whether tensors have values; False on the meta device"""
    group: Group
    """the GPUs of the run, this one among them"""
    gpu_peaks: tuple[int, ...]
    """bytes that each GPU of this process is to reserve, as simulated before; empty where there is one, or no such"""
    mesh: Any
    """those that share layers out, as a `DeviceMesh`; None where each has them whole"""

    def active(self) -> AbstractContextManager[None]:
        """Within, PyTorch code runs on the device."""

    def stats(self) -> MemoryStats:
        """Return the allocator's counters; costs no synchronisation."""

    def other_stats(self) -> list[MemoryStats]:
        """Return those of the further GPUs that this process drives, in order; nothing where there is one."""

    def reset_peaks(self) -> None:
        """Start new peaks at the present values, of all GPUs that this process drives."""

    def empty_cache(self) -> None:
        """Return wholly free segments to the driver."""

    def driver_use(self) -> DriverUse | None:
        """Return what the driver counts on the whole GPU, by process where it says; None where there is no driver."""

    def pool_use(self) -> PoolUse | None:
        """Return what PyTorch has set aside in private pools and in pinned memory, or None where that is not known."""

    def graph_pool(self) -> AbstractContextManager[Any]:
        """Within, what is allocated comes from the pool that CUDA graphs are captured in."""

    def release_graph_pool(self) -> None:
        """Return what the pool holds, to the driver; no graph is left that was captured in it."""

    @property
    def has_flash_attention(self) -> bool:
        """Whether attention may take PyTorch's flash kernel."""

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run something in the graphs' pool; return what runs it again on the same tensors, as a graph on a GPU."""

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Return mixed precision in `dtype`; a null context for float32."""

    def on_host(self) -> AbstractContextManager[Any]:
        """Within, new tensors are ordinary ones: host memory, or the meta device."""

    def on_card(self, number: int) -> AbstractContextManager[Any]:
        """Within, new tensors lie on that one of the GPUs that this process drives."""

    def put(self, array: np.ndarray[Any, Any] | torch.Tensor) -> torch.Tensor:
        """Copy a host array to the device."""

    def read(self, tensor: torch.Tensor) -> float | None:
        """Return a tensor's single value on the host, which waits for the device; None where nothing is computed."""

    def assuming(self, value: float, real_tokens: int | None = None) -> AbstractContextManager[Any]:
        """Within, library code that reads a value from the device reads `value` where nothing is computed.

        A mask marks `real_tokens` there; where that is None, nobody may ask.
        """

    def as_out_of_memory(self, error: BaseException) -> DeviceOutOfMemory | None:
        """Return the error as an out-of-memory of this device, or None when it is something else."""

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes by category; empty where the device does not know them.

        A storage without a name counts as what `logits_sizes` (bytes -> category) says of its size, else as an
        activation.
        """

    def segments_at_peak(self) -> Sequence[SegmentRuns]:
        """Return all that was reserved when most was allocated; empty where the device does not know it."""


class AllocationObserver(Protocol):
    """What tells who allocates the memory of a device."""

    def on_out_of_memory(self, callback: Callable[[DeviceOutOfMemory], None]) -> None:
        """Call back for every allocation that fails from now on, as it happens, whether the error is caught or not."""

    def record_allocations(self, *, with_peak: bool = False) -> None:
        """Record from now on who allocates what; costs time and host memory until `stop_recording_allocations`.

        Args:
            with_peak: record what is freed too, for `live_allocations_at_peak`.
        """

    def live_allocations(self) -> list[Allocation]:
        """Return what has been allocated since `record_allocations` and still is, oldest first."""

    def live_allocations_at_peak(self) -> list[Allocation]:
        """Return what has been allocated since `record_allocations` and lived when the most of that lived.

        The moment is looked for since `begin_peak`, where that was called.
        """

    @property
    def shows_peaks(self) -> bool:
        """Whether what a phase allocates can be recorded while it runs; else `phase_peaks` tells of it afterwards."""

    def begin_peak(self) -> None:
        """Let the highest moment be looked for from here on, for `live_allocations_at_peak`."""

    def phase_peaks(self, highest_records: HighestRecords, vocab_size: int) -> list[PeakRecord]:
        """Return what lived at the peaks of the run's phases, where they were replayed."""

    def stop_recording_allocations(self) -> None:
        """Stop, and forget what was recorded."""

    def layers_marked(self) -> AbstractContextManager[None]:
        """Within, it is followed which layer of a model runs, so that allocations that are recorded can say it."""

    def unobserved(self) -> AbstractContextManager[None]:
        """Within, operators run at full speed, and what they make is not counted where that has a price."""

    def largest_data(self) -> tuple[int, str] | None:
        """Return bytes and `file:line` of the largest tensor of data that counts here and may be the host's."""

    def active_in_thread(self) -> AbstractContextManager[Any]:
        """Let what the present thread, which is not the one that is active, allocates count too."""

    def heap_bytes(self) -> int | None:
        """Return what the process holds by malloc, the device's tensors included, where observing has a price.

        None where it has none, or where it cannot be told.
        """

    def adopt(self, values: Iterable[Any]) -> None:
        """Count the tensors among the values as the device's, where it would not know of them by itself."""

    def handle_of(self, tensor: torch.Tensor) -> Hashable | None:
        """Return the handle of the allocation that holds the tensor's values, or None where it is not the device's."""

    def note_origins(self, *, on: bool) -> None:
        """Keep from now on which line makes each tensor, or no longer, where that has next to no price."""

    def origin_of(self, tensor: torch.Tensor) -> SourceLine | None:
        """Return the user's line that made the tensor's memory, or None where it was not kept."""

    def watch_peak(self) -> None:
        """Remember from now on what lives when most is allocated, for `peak_parts`."""

    def peak_parts(self, log: RunLog) -> list[PeakPart]:
        """Return what lived when a run needed most: at its peak, or when it failed; empty where it is not known."""

    def record_history(self) -> None:
        """Keep the last allocations and frees from now on, for `write_history`."""

    def write_history(self, path: Path, run: RunRecord) -> None:
        """Write a memory snapshot that PyTorch's viewer opens."""


class ObservableDevice(Device, AllocationObserver, Protocol):
    """A device that runs the loop and tells who allocates its memory."""


def params4bit(packed: torch.Tensor, quant_state: Any, module: torch.nn.Module) -> torch.nn.Parameter:
    """Return bitsandbytes' 4-bit weight over packed values, as `module.to(device)` would have made it."""
    from bitsandbytes.nn import Params4bit

    return Params4bit(
        packed,
        requires_grad=False,
        quant_state=quant_state,
        blocksize=quant_state.blocksize,
        compress_statistics=quant_state.nested,
        quant_type=quant_state.quant_type,
        bnb_quantized=True,
        module=module,
    )
