"""Replay of whole training steps: chains of recorded phases whose outcome is remembered.

A step that starts from the same state of the allocator ends in the same state: it is replayed once for each state.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from memory_harness.harness.log.records import MemoryStats, SegmentRuns
from memory_harness.harness.simulate.allocator import AllocatorState
from memory_harness.harness.simulate.memory import SimulatedMemory, segments_of
from memory_harness.harness.simulate.trace import EMPTY_CACHE, Event

NUM_RECENT = 64
"""Chains that are remembered: some twenty optimizer steps."""

NUM_UNSAVED = 16
"""Most chains in a row after which a state is known by them alone; saving one takes as long as half such a chain."""


@dataclass(frozen=True)
class _Transition:
    """What a chain does to one state: counters after each phase, and the state after the last."""

    phase_stats: tuple[MemoryStats, ...]
    end: int


@dataclass(frozen=True)
class _SavedState:
    """A state as a copy of everything."""

    allocator: AllocatorState
    handles: dict[Hashable, int]


@dataclass(frozen=True)
class _ReachedState:
    """A state as what leads to it."""

    start: int
    phases: list[Sequence[Event]]
    num_chains: int
    """since the last saved state"""


@dataclass
class _RunningChain:
    """A chain some of whose phases have run."""

    phases: list[Sequence[Event] | None]
    known: _Transition | None
    """None where the chain has not run from this state before"""
    comes_again: bool
    stats: list[MemoryStats] = field(default_factory=list)


@dataclass(frozen=True)
class ReplayedChain:
    """A chain as it ran."""

    start: int
    """the state before, for `memory_at`"""
    key: Hashable
    phases: list[Sequence[Event]]
    """those that have begun"""


class MemoizedMemory:
    """`SimulatedMemory` that runs chains of recorded phases and remembers their outcome by the state they start from.

    A chain runs as `begin(key, phases)`, then `next_phase()` once for each of its phases.
    """

    def __init__(self, memory: SimulatedMemory) -> None:
        self.memory = memory
        self._states: list[_SavedState | _ReachedState] = []
        self._ids: dict[Hashable, int] = {}
        self._transitions: dict[tuple[int, Hashable], _Transition] = {}
        self._loaded: int | None = None
        """the state that `memory` is in, None when it is in none of the saved ones"""
        self._state = self._save()
        self._stats = memory.stats()
        self._peaks = (0, 0)
        self._chain: _RunningChain | None = None
        self._peak_bytes = 0
        """the highest allocated bytes of all replayed phases"""
        self.peak_chain = ReplayedChain(self._state, None, [])
        """the chain that reached them, up to that phase"""
        self.phase_peaks: dict[Hashable, tuple[int, ReplayedChain]] = {}
        """by a chain's name and a phase's position in it: the highest allocated bytes, and the chain up to there"""
        self.recent: deque[ReplayedChain] = deque(maxlen=NUM_RECENT)

    def emptied(self) -> MemoizedMemory:
        """Return one with nothing allocated, which remembers all outcomes that this one does."""
        own = self.memory.allocator
        empty = MemoizedMemory(SimulatedMemory(own.budget_bytes, expandable_segments=own.expandable_segments))
        # the first state of both is the same
        empty._states, empty._ids, empty._transitions = self._states, self._ids, self._transitions
        return empty

    def begin(self, key: Hashable, phases: Sequence[Sequence[Event] | None], *, comes_again: bool = True) -> None:
        """Start a chain; a phase that is None has to be passed to `next_phase`.

        Args:
            comes_again: whether other chains may lead to the state after it; after each token decoded it is a new one.
        """
        known = self._transitions.get((self._state, key))
        if known is None and self._loaded != self._state:
            self._load(self._state)
        self._chain = _RunningChain(list(phases), known, comes_again)
        self.recent.append(ReplayedChain(self._state, key, []))

    def next_phase(self, events: Sequence[Event] | None = None) -> None:
        """Run the chain's next phase. Raises `DeviceOutOfMemory` where it does not fit."""
        chain = self._chain
        assert chain is not None, "no chain has begun"
        begun = self.recent[-1].phases
        position = len(begun)
        phase = chain.phases[position] if events is None else events
        assert phase is not None, "a phase that is not known yet has to be passed"
        begun.append(phase)
        if chain.known is not None:
            self._advance(self._absolute(chain.known.phase_stats[position]))
        else:
            chain.stats.append(self._replay(phase))
        if len(begun) == len(chain.phases):
            self._finish(chain)

    def _replay(self, phase: Sequence[Event]) -> MemoryStats:
        self._loaded = None
        self.memory.reset_peaks()
        before = self.memory.stats()
        try:
            self.memory.replay(phase)
        finally:
            self._advance(self.memory.stats())
        return _relative(self._stats, before)

    def _advance(self, stats: MemoryStats) -> None:
        self._stats = stats
        allocated, reserved = self._peaks
        self._peaks = max(allocated, stats.peak_allocated_bytes), max(reserved, stats.peak_reserved_bytes)
        chain = self.recent[-1]
        place = (_name_of(chain.key), len(chain.phases))
        if stats.peak_allocated_bytes > self.phase_peaks.get(place, (-1, None))[0]:
            here = replace(chain, phases=list(chain.phases))
            self.phase_peaks[place] = stats.peak_allocated_bytes, here
            if stats.peak_allocated_bytes > self._peak_bytes:
                self._peak_bytes, self.peak_chain = stats.peak_allocated_bytes, here

    def _finish(self, chain: _RunningChain) -> None:
        if chain.known is not None:
            self._state = chain.known.end
        else:
            start = self._state
            self._state = self._save() if chain.comes_again else self._reached(start)
            self._transitions[start, self.recent[-1].key] = _Transition(tuple(chain.stats), self._state)
        self._chain = None

    def stats(self) -> MemoryStats:
        """Return the counters after the last phase, with the peaks since `reset_peaks`."""
        allocated, reserved = self._peaks
        if self._peaks == (self._stats.peak_allocated_bytes, self._stats.peak_reserved_bytes):
            return self._stats
        return replace(self._stats, peak_allocated_bytes=allocated, peak_reserved_bytes=reserved)

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        self._peaks = (self._stats.allocated_bytes, self._stats.reserved_bytes)

    def empty_cache(self) -> None:
        """Return wholly free segments."""
        peaks = self._peaks
        self.begin("empty_cache", [[(None, EMPTY_CACHE, None)]])
        self.next_phase()
        self._peaks = peaks  # after a failure it starts at the state before, which is no new peak

    def live(self) -> Iterator[tuple[Hashable, int]]:
        """Yield (key, requested bytes) of everything allocated."""
        if self._loaded != self._state and self._loaded is not None:
            self._load(self._state)
        return self.memory.live()

    def segments_at_peak(self) -> tuple[SegmentRuns, ...]:
        """Return all that was reserved when most was allocated."""
        memory = self.memory_at(self.peak_chain.start)
        events = itertools.chain.from_iterable(self.peak_chain.phases)
        while memory.allocator.allocated_bytes < self._peak_bytes:
            memory.replay([next(events)])
        return segments_of(memory.allocator)

    def memory_at(self, state: int) -> SimulatedMemory:
        """Return a memory of its own in a state that a chain of `recent` started from."""
        own = self.memory.allocator
        memory = SimulatedMemory(own.budget_bytes, expandable_segments=own.expandable_segments)
        self._put(memory, state)
        return memory

    def _put(self, memory: SimulatedMemory, state: int) -> None:
        """Bring a memory into a state."""
        known = self._states[state]
        if isinstance(known, _SavedState):
            memory.allocator.load(known.allocator)
            memory.handles.clear()
            memory.handles.update(known.handles)
            return
        self._put(memory, known.start)
        for phase in known.phases:
            memory.replay(phase)

    def _save(self) -> int:
        by_age = tuple(sorted(self.memory.handles, key=self.memory.handles.__getitem__))
        fingerprint = (self.memory.allocator.fingerprint(), by_age)
        if fingerprint not in self._ids:
            self._ids[fingerprint] = len(self._states)
            self._states.append(_SavedState(self.memory.allocator.save(), dict(self.memory.handles)))
        self._loaded = self._ids[fingerprint]
        return self._loaded

    def _reached(self, start: int) -> int:
        """Return the state after the last chain, known by how it is reached; now and then it is saved after all."""
        before = self._states[start]
        num_chains = 1 + (before.num_chains if isinstance(before, _ReachedState) else 0)
        if num_chains > NUM_UNSAVED:
            return self._save()
        self._states.append(_ReachedState(start, self.recent[-1].phases, num_chains))
        self._loaded = len(self._states) - 1
        return self._loaded

    def _load(self, state: int) -> None:
        retries, ooms = self._stats.num_alloc_retries, self._stats.num_ooms
        self._put(self.memory, state)
        # counters are the run's, not the state's
        self.memory.allocator.num_alloc_retries, self.memory.allocator.num_ooms = retries, ooms
        self._loaded = state

    def _absolute(self, relative: MemoryStats) -> MemoryStats:
        return replace(
            relative,
            num_alloc_retries=self._stats.num_alloc_retries + relative.num_alloc_retries,
            num_ooms=self._stats.num_ooms + relative.num_ooms,
        )


def _name_of(key: Hashable) -> Hashable:
    """Return the first word of a chain's key."""
    while isinstance(key, tuple) and key:
        key = key[0]
    return key


def _relative(after: MemoryStats, before: MemoryStats) -> MemoryStats:
    """Return the counters with the cumulative ones as increments."""
    return replace(
        after,
        num_alloc_retries=after.num_alloc_retries - before.num_alloc_retries,
        num_ooms=after.num_ooms - before.num_ooms,
    )
