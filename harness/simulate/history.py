"""The last allocations of a simulated card, told as `torch.cuda.memory._snapshot()` tells those of a real one.

PyTorch's own viewer (https://pytorch.org/memory_viz, `python -m torch.cuda._memory_viz`) opens what `snapshot` returns.
Source: the docstring of torch.cuda.memory._snapshot, and snapshots of torch 2.11, for the keys and their meaning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.simulate.allocator import Segment
from memory_harness.harness.simulate.memoized import MemoizedMemory, ReplayedChain
from memory_harness.harness.simulate.memory import SimulatedMemory
from memory_harness.harness.simulate.trace import pass_on
from memory_harness.harness.simulate.tracer import Place, Site, source_lines

MAX_ENTRIES = 100_000
"""Entries kept, as `max_entries` of `_record_memory_history`: some nine steps of an 8B model, 8 MB on disk."""

Frames = list[dict[str, Any]]


class MemoryHistory:
    """An event sink that hands everything on to a simulated card's memory and keeps what happened there."""

    def __init__(self, memory: SimulatedMemory, max_entries: int = MAX_ENTRIES) -> None:
        self.memory = memory
        self.entries: deque[dict[str, Any]] = deque(maxlen=max_entries)
        self._frames: dict[Hashable, Frames] = {}
        """of what lives"""
        self._frames_of_site: dict[Site, Frames] = {}
        self._segments = self._reserved_ranges()
        self._known_counts = (memory.allocator.reserved_bytes, memory.allocator.num_alloc_retries)
        self._clock = 0
        self.label = ""
        """what entries are said to belong to, such as a phase"""

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate. Raises `DeviceOutOfMemory` where it does not fit."""
        frames = self._frames_at(site)
        try:
            self.memory.alloc(key, num_bytes, site)
        except DeviceOutOfMemory:
            self._add_segment_entries(frames)
            free = (self.memory.allocator.budget_bytes or 0) - self.memory.allocator.reserved_bytes
            self._add_entry("oom", num_bytes, frames, device_free=max(0, free))
            raise
        self._add_segment_entries(frames)
        self._frames[key] = frames
        address, _ = self._block(key)
        if address:
            self._add_entry("alloc", num_bytes, frames, addr=address)

    def free(self, key: Hashable) -> None:
        """Free."""
        frames = self._frames.pop(key, [])
        if key not in self.memory.handles:
            return
        address, num_bytes = self._block(key)
        self.memory.free(key)
        if address:
            self._add_entry("free_requested", num_bytes, frames, addr=address)
            self._add_entry("free_completed", num_bytes, frames, addr=address)

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate unless `key` exists."""
        if key not in self.memory.handles:
            self.alloc(key, num_bytes, site)

    def empty_cache(self) -> None:
        """Return wholly free segments."""
        self.memory.empty_cache()
        self._add_segment_entries([])

    def switch(self, place: Place) -> None:
        """Take where what follows begins."""
        self.memory.switch(place)

    def rename(self, key: Hashable, name: Hashable) -> None:
        """Let a storage be known as `name`."""
        if key not in self.memory.handles:  # it lies on another card
            return
        self.memory.handles[name] = self.memory.handles.pop(key)
        self._frames[name] = self._frames.pop(key, [])

    def snapshot(self, run: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the memory as it is now and the entries that led here.

        Args:
            run: the run's record as plain data, so that a reader knows that nothing was measured.
        """
        keys = {handle: key for key, handle in self.memory.handles.items()}
        allocator = self.memory.allocator
        return {
            "segments": [self._segment(segment, keys) for segment in allocator.segments()],
            "device_traces": [list(self.entries)],
            "allocator_settings": {"expandable_segments": allocator.expandable_segments},
            "external_annotations": [],
            "harness": {"source": "simulated", "run": run},
        }

    def _segment(self, segment: Segment, keys: dict[int, Hashable]) -> dict[str, Any]:
        used = requested = 0
        blocks = []
        for block in segment.blocks:
            requested += block.requested_bytes
            frames: Frames = []
            if block.handle is not None:
                used += block.size_bytes
                frames = self._frames_of(keys.get(block.handle))
            blocks.append(
                {
                    "address": segment.address + block.offset_bytes,
                    "size": block.size_bytes,
                    "requested_size": block.requested_bytes,
                    "state": block.state,
                    "frames": frames,
                }
            )
        return {
            "device": 0,
            "address": segment.address,
            "total_size": segment.size_bytes,
            "allocated_size": used,
            "active_size": used,
            "requested_size": requested,
            "stream": segment.stream,
            "segment_type": segment.pool,
            "segment_pool_id": (0, 0),
            "is_expandable": self.memory.allocator.expandable_segments,
            "frames": [],
            "blocks": blocks,
        }

    def _frames_of(self, key: Hashable) -> Frames:
        """Return where a live storage was made, after its name where it has one."""
        frames = self._frames.get(key, [])
        if isinstance(key, tuple):
            category, *name = key
            return [_frame(str(category), 0, ".".join(map(str, name))), *frames]
        return frames

    def _frames_at(self, site: Site) -> Frames:
        if site not in self._frames_of_site:
            frames = [_frame(line.path, line.line, line.function) for line in source_lines(site)]
            self._frames_of_site[site] = frames
        return self._frames_of_site[site]

    def _block(self, key: Hashable) -> tuple[int, int]:
        """Return address and requested bytes; 0 and 0 of an empty storage, which has no block."""
        return self.memory.allocator.block_of(self.memory.handles[key])

    def _add_entry(self, action: str, size: int, frames: Frames, **place: int) -> None:
        self._clock += 1
        # no time passes on a card that is not there: microseconds count entries
        time = {"time_us": self._clock, "frames": frames, "user_metadata": self.label}
        self.entries.append({"action": action, **place, "size": size, "stream": 0, **time})

    def _add_segment_entries(self, frames: Frames) -> None:
        """Add what was reserved or released since the last time."""
        allocator = self.memory.allocator
        # a retry may release as much as it then reserves
        now = (allocator.reserved_bytes, allocator.num_alloc_retries)
        if now == self._known_counts:
            return
        before, self._segments, self._known_counts = self._segments, self._reserved_ranges(), now
        added, removed = ("map", "unmap") if allocator.expandable_segments else ("alloc", "free")
        for address, size in _difference(before, self._segments):
            self._add_entry(f"segment_{removed}", size, frames, addr=address)
        for address, size in _difference(self._segments, before):
            self._add_entry(f"segment_{added}", size, frames, addr=address)

    def _reserved_ranges(self) -> list[tuple[int, int]]:
        return [(segment.address, segment.size_bytes) for segment in self.memory.allocator.segments()]


def history_of(
    memory: MemoizedMemory, label: Callable[[Hashable, int], str], max_entries: int = MAX_ENTRIES
) -> MemoryHistory:
    """Return what happened in the last phases that a memory has run, by running them once more.

    Args:
        label: gives a chain's key and a phase's position in it a name.
    """
    chains: list[ReplayedChain] = []  # the newest first
    num_events = 0
    for chain in reversed(memory.recent):
        num_events += sum(map(len, chain.phases))
        if chains and num_events > max_entries:
            break
        chains.append(chain)
    start = chains[-1].start if chains else 0
    history = MemoryHistory(memory.memory_at(start), max_entries)
    with suppress(DeviceOutOfMemory):  # it is the last entry
        for chain in reversed(chains):
            for position, phase in enumerate(chain.phases):
                history.label = label(chain.key, position)
                pass_on(phase, history)
    return history


def _frame(filename: str, line: int, name: str) -> dict[str, Any]:
    return {"filename": filename, "line": line, "name": name}


def _difference(ranges: list[tuple[int, int]], without: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of `ranges` that `without` does not cover; both in order of address, as (address, size)."""
    left = []
    for address, size in ranges:
        start, end = address, address + size
        for other, other_size in without:
            if other + other_size <= start or other >= end:
                continue
            if other > start:
                left.append((start, other - start))
            start = max(start, other + other_size)
        if start < end:
            left.append((start, end - start))
    return left
