"""The simulated card's memory: named allocations over the allocator model, with CUDA's behaviour when it is full."""

from __future__ import annotations

from collections.abc import Hashable

from harness.errors import DeviceOutOfMemory
from harness.records import MemoryStats
from harness.simulate.allocator import AllocatorOutOfMemory, CachingAllocator
from harness.simulate.tracer import Site, describe_frame


class SimulatedMemory:
    """An event sink that allocates. Keys are whatever the tracer or a compiled trace calls its storages."""

    def __init__(self, budget_bytes: int | None, *, expandable_segments: bool = False) -> None:
        self.allocator = CachingAllocator(budget_bytes, expandable_segments=expandable_segments)
        self.handles: dict[Hashable, int] = {}
        self.requested: dict[Hashable, int] = {}

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate.

        Raises:
            DeviceOutOfMemory: no room, after the allocator's own retries; nothing has been allocated then.
        """
        try:
            self.handles[key] = self.allocator.malloc(num_bytes)
        except AllocatorOutOfMemory as error:
            frames = tuple(describe_frame(frame) for frame in site)
            where = frames[0].split(" ")[0] if frames else None
            raise DeviceOutOfMemory(
                num_bytes, error.allocated_bytes, error.reserved_bytes, error.largest_free_block_bytes, where, frames
            ) from None
        self.requested[key] = num_bytes

    def free(self, key: Hashable) -> None:
        """Free; unknown keys are storages that an out-of-memory kept from being allocated."""
        handle = self.handles.pop(key, None)
        if handle is not None:
            del self.requested[key]
            self.allocator.free(handle)

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate unless `key` exists."""
        if key not in self.handles:
            self.alloc(key, num_bytes, site)

    def stats(self) -> MemoryStats:
        """Return the allocator's counters."""
        a = self.allocator
        return MemoryStats(
            allocated_bytes=a.allocated_bytes,
            reserved_bytes=a.reserved_bytes,
            active_bytes=a.active_bytes,
            inactive_split_bytes=a.inactive_split_bytes,
            peak_allocated_bytes=a.peak_allocated_bytes,
            peak_reserved_bytes=a.peak_reserved_bytes,
            num_alloc_retries=a.num_alloc_retries,
            num_ooms=a.num_ooms,
        )
