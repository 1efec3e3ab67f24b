"""The simulated card's memory: named allocations over the allocator model, with CUDA's behaviour when it is full.

`SimulatedMemory` takes events as they happen. `replay` runs a recorded phase through it; whole chains of phases are
remembered, because a training step that starts from the same state of the allocator ends in the same state.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import MemoryStats, SegmentRuns, segment_runs
from memory_harness.harness.simulate.allocator import AllocatorOutOfMemory, AllocatorState, CachingAllocator
from memory_harness.harness.simulate.trace import EMPTY_CACHE, ENSURE, FREE, RENAME, Event
from memory_harness.harness.simulate.tracer import Site, describe_frame

_EMPTY_CACHE = "empty_cache"

NUM_RECENT = 64
"""Chains that are remembered: some twenty optimizer steps."""


Made = tuple[int, float, Site]
"""requested bytes, seconds since the epoch, and place of an allocation"""


class SimulatedOutOfMemory(DeviceOutOfMemory, torch.OutOfMemoryError):
    """PyTorch's own error, so that code which expects it meets it here too.

    Its text begins as PyTorch's does: accelerate's `find_executable_batch_size` looks at that.
    """

    # shown in a traceback as what it stands for
    __module__ = "torch"
    __qualname__ = "OutOfMemoryError"

    def __init__(self, error: AllocatorOutOfMemory, allocator: CachingAllocator, num_bytes: int, site: Site) -> None:
        frames = tuple(describe_frame(frame) for frame in site)
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


class SimulatedMemory:
    """An event sink that allocates. Keys are whatever the tracer or a compiled trace calls its storages."""

    def __init__(self, budget_bytes: int | None, *, expandable_segments: bool = False) -> None:
        self.allocator = CachingAllocator(budget_bytes, expandable_segments=expandable_segments)
        self.handles: dict[Hashable, int] = {}
        self._is_busy = False
        self._freed_meanwhile: list[Hashable] = []
        self.watched: dict[Hashable, Made] | None = None
        """requested bytes, time and place of what was allocated while watched and still is; None while not watched

        Replayed phases are left out: nothing of theirs outlives them without a name.
        """
        self.watched_events: list[tuple[Hashable, Made | None]] | None = None
        """the same in order, with None for each free; None where they are not asked for"""

        self.live_at_failure: tuple[tuple[Hashable, int], ...] = ()
        """what `live` gave when an allocation failed last: the failure unwinds frames, and with them tensors"""
        self.on_failure: Callable[[DeviceOutOfMemory], None] = _ignore
        """told of every failed allocation as it happens, whether somebody catches the error or not"""

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate.

        Raises:
            DeviceOutOfMemory: no room, after the allocator's own retries; nothing has been allocated then.
        """
        self._is_busy = True  # spelled out, not `_undisturbed`: this and `free` run for every tensor
        try:
            self.handles[key] = self.allocator.malloc(num_bytes)
        except AllocatorOutOfMemory as error:
            self.live_at_failure = tuple(self.live())
            failure = SimulatedOutOfMemory(error, self.allocator, num_bytes, site)
            self.on_failure(failure)
            try:
                raise failure from None
            finally:
                del failure  # with its traceback it would keep this frame, and that it, until the collector comes by
        finally:
            self._is_busy = False
        if self._freed_meanwhile:
            self._free_waiting()
        if self.watched is not None:
            made = self.watched[key] = (num_bytes, time.time(), site)
            if self.watched_events is not None:
                self.watched_events.append((key, made))

    def free(self, key: Hashable) -> None:
        """Free; unknown keys are storages that an out-of-memory kept from being allocated."""
        if self.watched is not None:
            self.watched.pop(key, None)
            if self.watched_events is not None:
                self.watched_events.append((key, None))
        if self._is_busy:
            self._freed_meanwhile.append(key)
            return
        handle = self.handles.pop(key, None)
        if handle is not None:
            self._is_busy = True
            try:
                self.allocator.free(handle)
            finally:
                self._is_busy = False
            if self._freed_meanwhile:
                self._free_waiting()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Within, frees wait: Python's garbage collector may run amid the allocator and end storages there."""
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False
        self._free_waiting()

    def _free_waiting(self) -> None:
        while self._freed_meanwhile:
            self.free(self._freed_meanwhile.pop())

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate unless `key` exists; what lives as long as the process is nobody's to keep, and not watched."""
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
                    handles[key] = malloc(size)
                except AllocatorOutOfMemory as error:
                    raise SimulatedOutOfMemory(error, self.allocator, size, extra) from None  # type: ignore[arg-type]
            elif size == FREE:
                handle = handles.pop(key, None)
                if handle is not None:
                    release(handle)
            elif size == RENAME:
                handles[extra] = handles.pop(key)
            elif size == ENSURE:
                self.ensure(key, *extra)  # type: ignore[misc]
            else:
                self.allocator.empty_cache()

    def stats(self) -> MemoryStats:
        """Return the allocator's counters."""
        allocator = self.allocator
        return MemoryStats(
            allocated_bytes=allocator.allocated_bytes,
            reserved_bytes=allocator.reserved_bytes,
            active_bytes=allocator.active_bytes,
            inactive_split_bytes=allocator.inactive_split_bytes,
            peak_allocated_bytes=allocator.peak_allocated_bytes,
            peak_reserved_bytes=allocator.peak_reserved_bytes,
            num_alloc_retries=allocator.num_alloc_retries,
            num_ooms=allocator.num_ooms,
        )

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        self.allocator.reset_peaks()

    def empty_cache(self) -> None:
        """Return wholly free segments."""
        with self._undisturbed():
            self.allocator.empty_cache()

    def live(self) -> Iterator[tuple[Hashable, int]]:
        """Yield (key, requested bytes) of everything allocated."""
        keys = {handle: key for key, handle in self.handles.copy().items()}
        for segment in self.allocator.segments():
            for block in segment.blocks:
                if block.handle is not None:
                    yield keys.get(block.handle), block.requested_bytes


def _ignore(error: DeviceOutOfMemory) -> None:
    """Nobody has asked."""


def segments_of(allocator: CachingAllocator) -> tuple[SegmentRuns, ...]:
    """Return what of each segment is in use, in order of address."""
    return tuple(
        segment_runs(segment.pool, ((block.size_bytes, block.handle is not None) for block in segment.blocks))
        for segment in allocator.segments()
    )


@dataclass(frozen=True)
class _Transition:
    """What a chain does to one state: counters after each phase, and the state after the last."""

    phase_stats: tuple[MemoryStats, ...]
    end: int


class MemoizedMemory:
    """`SimulatedMemory` that runs chains of recorded phases and remembers their outcome by the state they start from.

    A chain runs as `begin(key, phases)`, then `next_phase()` once for each of its phases.
    """

    def __init__(self, memory: SimulatedMemory) -> None:
        self.memory = memory
        self._states: list[tuple[AllocatorState, dict[Hashable, int]]] = []
        self._ids: dict[Hashable, int] = {}
        self._transitions: dict[tuple[int, Hashable], _Transition] = {}
        self._loaded: int | None = None
        """the state that `memory` is in, None when it is in none of the saved ones"""
        self._state = self._save()
        self._stats = memory.stats()
        self._peaks = (0, 0)
        self._chain: _Chain | None = None
        self._highest: tuple[int, int, list[Sequence[Event]]] = (0, self._state, [])
        """the highest allocated bytes so far, the state before that chain, and its phases up to there"""
        self.recent: deque[tuple[int, Hashable, list[Sequence[Event]]]] = deque(maxlen=NUM_RECENT)
        """the last chains: the state before, for `memory_at`, the key, and the phases that have begun since"""

    def begin(self, key: Hashable, phases: Sequence[Sequence[Event] | None]) -> None:
        """Start a chain; a phase that is None has to be passed to `next_phase`."""
        known = self._transitions.get((self._state, key))
        if known is None and self._loaded != self._state:
            self._load(self._state)
        self._chain = _Chain(key, list(phases), known)
        self.recent.append((self._state, key, []))

    def next_phase(self, events: Sequence[Event] | None = None) -> None:
        """Run the chain's next phase. Raises `DeviceOutOfMemory` where it does not fit."""
        chain = self._chain
        assert chain is not None, "no chain has begun"
        phase = events if events is not None else chain.phases[chain.position]
        assert phase is not None, "a phase that is not known yet has to be passed"
        self.recent[-1][2].append(phase)
        if chain.known is not None:
            self._advance(self._absolute(chain.known.phase_stats[chain.position]))
        else:
            chain.stats.append(self._replay(phase))
        chain.position += 1
        if chain.position == len(chain.phases):
            self._finish(chain)

    def _replay(self, phase: Sequence[Event]) -> MemoryStats:
        self._loaded = None
        self.memory.reset_peaks()
        before = self.memory.stats()
        try:
            self.memory.replay(phase)
        finally:
            self._advance(self.memory.stats())
            if self._stats.peak_allocated_bytes > self._highest[0]:
                state, _, phases = self.recent[-1]
                self._highest = (self._stats.peak_allocated_bytes, state, list(phases))
        return _relative(self._stats, before)

    def _advance(self, stats: MemoryStats) -> None:
        self._stats = stats
        self._peaks = (
            max(self._peaks[0], stats.peak_allocated_bytes),
            max(self._peaks[1], stats.peak_reserved_bytes),
        )

    def _finish(self, chain: _Chain) -> None:
        if chain.known is not None:
            self._state = chain.known.end
        else:
            start = self._state
            self._state = self._save()
            self._transitions[start, chain.key] = _Transition(tuple(chain.stats), self._state)
        self._chain = None

    def stats(self) -> MemoryStats:
        """Return the counters after the last phase, with the peaks since `reset_peaks`."""
        allocated, reserved = self._peaks
        return dataclasses.replace(self._stats, peak_allocated_bytes=allocated, peak_reserved_bytes=reserved)

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        self._peaks = (self._stats.allocated_bytes, self._stats.reserved_bytes)

    def empty_cache(self) -> None:
        """Return wholly free segments."""
        self.recent.append((self._state, _EMPTY_CACHE, [[(None, EMPTY_CACHE, None)]]))
        known = self._transitions.get((self._state, _EMPTY_CACHE))
        if known is None:
            if self._loaded != self._state:
                self._load(self._state)
            self.memory.empty_cache()
            start, self._state = self._state, self._save()
            known = self._transitions[start, _EMPTY_CACHE] = _Transition(
                (_relative(self.memory.stats(), self._stats),), self._state
            )
        self._stats, self._state = self._absolute(known.phase_stats[0]), known.end

    def live(self) -> Iterator[tuple[Hashable, int]]:
        """Yield (key, requested bytes) of everything allocated."""
        if self._loaded != self._state and self._loaded is not None:
            self._load(self._state)
        return self.memory.live()

    def segments_at_peak(self) -> tuple[SegmentRuns, ...]:
        """Return all that was reserved when most was allocated."""
        peak, state, phases = self._highest
        memory = self.memory_at(state)
        events = (event for phase in phases for event in phase)
        while memory.allocator.allocated_bytes < peak:
            memory.replay([next(events)])
        return segments_of(memory.allocator)

    def memory_at(self, state: int) -> SimulatedMemory:
        """Return a memory of its own in a state that `recent` names."""
        own = self.memory.allocator
        memory = SimulatedMemory(own.budget_bytes, expandable_segments=own.expandable_segments)
        allocator_state, handles = self._states[state]
        memory.allocator.load(allocator_state)
        memory.handles.update(handles)
        return memory

    def _save(self) -> int:
        by_age = tuple(sorted(self.memory.handles, key=self.memory.handles.__getitem__))
        fingerprint = (self.memory.allocator.fingerprint(), by_age)
        if fingerprint not in self._ids:
            self._ids[fingerprint] = len(self._states)
            self._states.append((self.memory.allocator.save(), dict(self.memory.handles)))
        self._loaded = self._ids[fingerprint]
        return self._loaded

    def _load(self, state: int) -> None:
        allocator_state, handles = self._states[state]
        retries, ooms = self._stats.num_alloc_retries, self._stats.num_ooms
        self.memory.allocator.load(allocator_state)
        self.memory.handles.clear()
        self.memory.handles.update(handles)
        # counters are the run's, not the state's
        self.memory.allocator.num_alloc_retries, self.memory.allocator.num_ooms = retries, ooms
        self._loaded = state

    def _absolute(self, relative: MemoryStats) -> MemoryStats:
        return dataclasses.replace(
            relative,
            num_alloc_retries=self._stats.num_alloc_retries + relative.num_alloc_retries,
            num_ooms=self._stats.num_ooms + relative.num_ooms,
        )


@dataclass
class _Chain:
    key: Hashable
    phases: list[Sequence[Event] | None]
    known: _Transition | None
    position: int = 0
    stats: list[MemoryStats] = dataclasses.field(default_factory=list)


def _relative(after: MemoryStats, before: MemoryStats) -> MemoryStats:
    """Return the counters with the cumulative ones as increments."""
    return dataclasses.replace(
        after,
        num_alloc_retries=after.num_alloc_retries - before.num_alloc_retries,
        num_ooms=after.num_ooms - before.num_ooms,
    )


def live_by_category(
    live: Iterable[tuple[Hashable, int]], logits_sizes: Mapping[int, str], unnamed: str = "activation"
) -> dict[str, int]:
    """Sum live bytes by what their names say; unnamed storages of the size of logits are logits, others `unnamed`."""
    totals: dict[str, int] = {}
    for key, num_bytes in live:
        category = key[0] if isinstance(key, tuple) else logits_sizes.get(num_bytes, unnamed)
        totals[category] = totals.get(category, 0) + num_bytes
    return totals
