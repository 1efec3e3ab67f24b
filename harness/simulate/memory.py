"""The simulated card's memory: named allocations over the allocator model, with CUDA's behaviour when it is full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter

import torch

from memory_harness.configs.units import TIB, format_bytes
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import MemoryStats, SegmentRuns, segment_runs
from memory_harness.harness.simulate.allocator import GRAPH_POOL, AllocatorOutOfMemory, CachingAllocator
from memory_harness.harness.simulate.trace import ENSURE, FREE, RENAME, SWITCH, Event
from memory_harness.harness.simulate.tracer import Place, Site, source_lines

_counters_of = attrgetter(*(counter.name for counter in fields(MemoryStats)))

WatchedAllocation = tuple[int, float, Site]
"""requested bytes, seconds since the epoch, and place of an allocation"""


class SimulatedOutOfMemory(DeviceOutOfMemory, torch.OutOfMemoryError):
    """PyTorch's own error, so that code which expects it meets it here too.

    Its text begins as PyTorch's does: accelerate's `find_executable_batch_size` looks at that.
    """

    # shown in a traceback as what it stands for
    __module__ = "torch"
    __qualname__ = "OutOfMemoryError"

    def __init__(self, error: AllocatorOutOfMemory, allocator: CachingAllocator, num_bytes: int, site: Site) -> None:
        frames = tuple(map(str, source_lines(site)))
        super().__init__(
            num_bytes,
            error.allocated_bytes,
            error.reserved_bytes,
            error.largest_free_block_bytes,
            frames[0].split(" ")[0] if frames else None,
            frames,
            segments_of(allocator),
        )
        limit = allocator.budget_bytes
        budget = "no limit" if limit is None else f"{format_bytes(limit)} for PyTorch"
        text = (
            f"CUDA out of memory. Tried to allocate {format_bytes(num_bytes)}. The simulated card has {budget}: "
            f"{format_bytes(error.allocated_bytes)} is allocated, {format_bytes(error.reserved_bytes)} reserved."
        )
        self.args = (text,)


UNLIMITED = 64 * TIB
"""the budget of a card that has as much memory as is asked for"""


class SimulatedMemory:
    """An event sink that allocates. Keys are whatever the tracer or a compiled trace calls its storages."""

    def __init__(self, budget_bytes: int | None, *, expandable_segments: bool = False) -> None:
        self.allocator = CachingAllocator(budget_bytes, expandable_segments=expandable_segments)
        self.reset_peaks = self.allocator.reset_peaks
        self.handles: dict[Hashable, int] = {}
        self._stream = 0
        """whose blocks are taken from now on"""
        self._lock = threading.RLock()  # a script's threads allocate at the same time
        self._is_busy = False
        """while it is, frees wait: Python's garbage collector may run amid the allocator and end storages there"""
        self._deferred_frees: list[Hashable] = []
        self.watched: dict[Hashable, WatchedAllocation] | None = None
        """requested bytes, time and place of what was allocated while watched and still is; None while not watched

        Replayed phases are left out: nothing of theirs outlives them without a name.
        """
        self.watched_events: list[tuple[Hashable, WatchedAllocation | None]] | None = None
        """the same in order, with None for each free; None where they are not asked for"""

        self.live_at_failure: tuple[tuple[Hashable, int], ...] = ()
        """what `live` gave when an allocation failed last: the failure unwinds frames, and with them tensors"""
        self.on_failure: Callable[[DeviceOutOfMemory], None] | None = None
        """told of every failed allocation as it happens, whether somebody catches the error or not"""

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate. Raises DeviceOutOfMemory: no room, after the allocator's own retries; nothing is allocated then."""
        with self._lock:
            self._alloc(key, num_bytes, site)

    def _alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        self._is_busy = True
        try:
            self.handles[key] = self.allocator.malloc(num_bytes, self._stream)
        except AllocatorOutOfMemory as error:
            self.live_at_failure = tuple(self.live())
            failure = SimulatedOutOfMemory(error, self.allocator, num_bytes, site)
            if self.on_failure is not None:
                self.on_failure(failure)
            try:
                raise failure from None
            finally:
                del failure  # with its traceback it would keep this frame, and that it, until the collector comes by
        finally:
            self._is_busy = False
        if self._deferred_frees:
            self._run_deferred_frees()
        if self.watched is not None:
            made = self.watched[key] = (num_bytes, time.time(), site)
            if self.watched_events is not None:
                self.watched_events.append((key, made))

    def free(self, key: Hashable) -> None:
        """Free; unknown keys are storages that an out-of-memory kept from being allocated."""
        with self._lock:
            self._free(key)

    def _free(self, key: Hashable) -> None:
        if self.watched is not None:
            self.watched.pop(key, None)
            if self.watched_events is not None:
                self.watched_events.append((key, None))
        if self._is_busy:
            self._deferred_frees.append(key)
            return
        handle = self.handles.pop(key, None)
        if handle is not None:
            self._is_busy = True
            try:
                self.allocator.free(handle)
            finally:
                self._is_busy = False
            if self._deferred_frees:
                self._run_deferred_frees()

    def _run_deferred_frees(self) -> None:
        while self._deferred_frees:
            self.free(self._deferred_frees.pop())

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate unless `key` exists; what lives as long as the process is nobody's to keep, and not watched."""
        if self._stream == GRAPH_POOL and isinstance(key, tuple):
            key = (*key, "graphs")  # a workspace is one stream's
        if key not in self.handles:
            self.alloc(key, num_bytes, site)
            if self.watched is not None:
                del self.watched[key]

    def replay(self, events: Sequence[Event]) -> None:
        """Run recorded events. Raises `DeviceOutOfMemory` at the first allocation that does not fit."""
        malloc, release, handles = self.allocator.malloc, self.allocator.free, self.handles
        for key, size, extra in events:
            if size >= 0:
                try:
                    handles[key] = malloc(size, self._stream)
                except AllocatorOutOfMemory as error:
                    self._stream = 0
                    raise SimulatedOutOfMemory(error, self.allocator, size, extra) from None  # type: ignore[arg-type]
            elif size == FREE:
                handle = handles.pop(key, None)
                if handle is not None:
                    release(handle)
            elif size == RENAME:
                if key in handles:  # else it lies on another card
                    handles[extra] = handles.pop(key)
            elif size == ENSURE:
                self.ensure(key, *extra)  # type: ignore[misc]
            elif size == SWITCH:
                self.switch(extra)  # type: ignore[arg-type]
            else:
                self.allocator.empty_cache(of_graphs=self._stream == GRAPH_POOL)

    def switch(self, place: Place) -> None:
        """Take from now on the blocks of that place's stream."""
        self._stream = place.stream

    def stats(self) -> MemoryStats:
        """Return the allocator's counters."""
        return MemoryStats(*_counters_of(self.allocator))

    def empty_cache(self) -> None:
        """Return wholly free segments; where the graphs' pool is switched to, its own."""
        self._is_busy = True
        try:
            self.allocator.empty_cache(of_graphs=self._stream == GRAPH_POOL)
        finally:
            self._is_busy = False
        self._run_deferred_frees()

    def live(self) -> Iterator[tuple[Hashable, int]]:
        """Yield (key, requested bytes) of everything allocated."""
        keys = {handle: key for key, handle in self.handles.copy().items()}
        for segment in self.allocator.segments():
            for block in segment.blocks:
                if block.handle is not None:
                    yield keys.get(block.handle), block.requested_bytes


def segments_of(allocator: CachingAllocator) -> tuple[SegmentRuns, ...]:
    """Return what of each segment is in use, in order of address."""
    segments = []
    for segment in allocator.segments():
        blocks = ((block.size_bytes, block.handle is not None) for block in segment.blocks)
        segments.append(segment_runs(segment.pool, blocks))
    return tuple(segments)


def live_by_category(
    live: Iterable[tuple[Hashable, int]], logits_sizes: Mapping[int, str], unnamed: str = "activation"
) -> dict[str, int]:
    """Sum live bytes by what their names say; unnamed storages of the size of logits are logits, others `unnamed`."""
    totals: dict[str, int] = {}
    for key, num_bytes in live:
        category = key[0] if isinstance(key, tuple) else logits_sizes.get(num_bytes, unnamed)
        totals[category] = totals.get(category, 0) + num_bytes
    return totals
