"""The memory of a simulated card: where operators allocate as they run, and where recorded phases are replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Protocol

from memory_harness.harness.devices.base import Allocation, live_at_peak
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import MemoryStats, SegmentRuns
from memory_harness.harness.log.source_lines import SourceLine, is_harness, users_line
from memory_harness.harness.simulate.history import MemoryHistory, history_of
from memory_harness.harness.simulate.memory import MemoizedMemory, SimulatedMemory, live_by_category
from memory_harness.harness.simulate.tracer import WATCHED_SITE_FRAMES, Site, Tracer


class CardMemory(Protocol):
    """The memory of a simulated card; the methods named as those of a device do what those promise."""

    def stats(self) -> MemoryStats:
        """Return the allocator's counters."""
        ...

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        ...

    def set_budget(self, budget_bytes: int) -> None:
        """Let the allocator reserve so much from now on."""
        ...

    def on_out_of_memory(self, callback: Callable[[DeviceOutOfMemory], None]) -> None:
        """Call back for every allocation that fails."""
        ...

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes by category."""
        ...

    def segments_at_peak(self) -> Sequence[SegmentRuns]:
        """Return all that was reserved when most was allocated."""
        ...

    def record_allocations(self, *, with_peak: bool) -> None:
        """Record who allocates what."""
        ...

    def live_allocations(self) -> list[Allocation]:
        """Return what has been recorded and still lives."""
        ...

    def live_allocations_at_peak(self) -> list[Allocation]:
        """Return what has been recorded and lived at the peak of that."""
        ...

    def stop_recording_allocations(self) -> None:
        """Stop."""
        ...

    def record_history(self) -> None:
        """Keep the last allocations and frees."""
        ...

    def history(self) -> MemoryHistory:
        """Return them, after `record_history`."""
        ...


class LiveMemory:
    """Implements `CardMemory` where operators run, and the tracer reports each of their allocations.

    Args:
        simulated: the memory that the tracer reports to.
        tracer: keeps more frames with each allocation while somebody wants to know them.
        site_frames: frames that it keeps otherwise; 0 finds them once an allocation has failed.
    """

    def __init__(self, simulated: SimulatedMemory, tracer: Tracer, site_frames: int) -> None:
        self.simulated = simulated
        self._tracer = tracer
        self._site_frames = tracer.site_frames = site_frames
        self._history: MemoryHistory | None = None

    def stats(self) -> MemoryStats:
        """Return the allocator model's counters."""
        return self.simulated.stats()

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        self.simulated.reset_peaks()

    def set_budget(self, budget_bytes: int) -> None:
        """Let the allocator model reserve so much from now on."""
        self.simulated.allocator.budget_bytes = budget_bytes

    def on_out_of_memory(self, callback: Callable[[DeviceOutOfMemory], None]) -> None:
        """Call back for every allocation that fails."""
        self.simulated.on_failure = callback if self._site_frames else partial(self._locate, callback)

    def _locate(self, callback: Callable[[DeviceOutOfMemory], None], error: DeviceOutOfMemory) -> None:
        """Add the frames, which are not kept with each allocation here, while the failed one is still running."""
        kept, self._tracer.site_frames = self._tracer.site_frames, WATCHED_SITE_FRAMES
        lines = tuple(line for line in _source_lines(self._tracer.site()) if not is_harness(line.path))
        self._tracer.site_frames = kept
        line = users_line(lines)
        error.frames = tuple(map(str, lines))
        error.where = str(line).split(" ")[0] if line else None
        callback(error)

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes; tensors have no names here, and fewer live once a failure has unwound the frames."""
        return live_by_category(self.simulated.live_at_failure or self.simulated.live(), logits_sizes, "unknown")

    def segments_at_peak(self) -> Sequence[SegmentRuns]:
        """Return none: the model shows its segments as they are, not as they were."""
        return ()

    def record_allocations(self, *, with_peak: bool) -> None:
        """Keep what the tracer knows of each allocation."""
        self.simulated.watched = {}
        self.simulated.watched_events = [] if with_peak else None
        self._tracer.site_frames = WATCHED_SITE_FRAMES

    def live_allocations(self) -> list[Allocation]:
        """Return what has been recorded and still lives."""
        # copied in one go: the collector may free some of it meanwhile
        live = (self.simulated.watched or {}).copy()
        return [_allocation(key, *made) for key, made in live.items()]

    def live_allocations_at_peak(self) -> list[Allocation]:
        """Return what lived at the peak."""
        events = []
        for key, made in self.simulated.watched_events or ():
            events.append((key, None if made is None else _allocation(key, *made)))
        return live_at_peak(events)

    def stop_recording_allocations(self) -> None:
        """Stop, and keep as few frames as before, unless the history wants them."""
        if self._history is None:
            self._tracer.site_frames = self._site_frames
        self.simulated.watched = self.simulated.watched_events = None

    def record_history(self) -> None:
        """Keep what the tracer reports."""
        self._history = self._tracer.sink = MemoryHistory(self.simulated)
        self._tracer.site_frames = WATCHED_SITE_FRAMES

    def history(self) -> MemoryHistory:
        """Return what was reported since `record_history`."""
        assert self._history is not None, "record_history comes first"
        return self._history


class ReplayedMemory:
    """Implements `CardMemory` where phases are replayed: nothing of theirs outlives them that a user could hold.

    Args:
        memoized: the memory that they are replayed on.
        phase_title: gives a chain's key and a phase's position in it a name, for the history.
    """

    def __init__(self, memoized: MemoizedMemory, phase_title: Callable[[Hashable, int], str]) -> None:
        self.memoized = memoized
        self._phase_title = phase_title

    def stats(self) -> MemoryStats:
        """Return the counters after the last phase."""
        return self.memoized.stats()

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        self.memoized.reset_peaks()

    def set_budget(self, budget_bytes: int) -> None:
        """Refuse: what was remembered holds for one budget."""
        raise NotImplementedError("a replayed run has the card to itself")

    def on_out_of_memory(self, callback: Callable[[DeviceOutOfMemory], None]) -> None:
        """Call nobody back: there is no line of a user's that could have failed."""

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes by what their names say; see `live_by_category`."""
        return live_by_category(self.memoized.live(), logits_sizes)

    def segments_at_peak(self) -> Sequence[SegmentRuns]:
        """Return the segments of the phase with the highest peak, which runs once more, up to there."""
        return self.memoized.segments_at_peak()

    def record_allocations(self, *, with_peak: bool) -> None:
        """Record nothing."""

    def live_allocations(self) -> list[Allocation]:
        """Return none."""
        return []

    def live_allocations_at_peak(self) -> list[Allocation]:
        """Return none."""
        return []

    def stop_recording_allocations(self) -> None:
        """There is nothing to stop."""

    def record_history(self) -> None:
        """The last phases are remembered anyway."""

    def history(self) -> MemoryHistory:
        """Return what happened in the last phases, by running them once more."""
        return history_of(self.memoized, self._phase_title)


def _source_lines(site: Site) -> tuple[SourceLine, ...]:
    return tuple(SourceLine(code.co_filename, line, code.co_name) for code, line in site)


def _allocation(key: Hashable, num_bytes: int, made_at: float, site: Site) -> Allocation:
    return Allocation(key, num_bytes, made_at, _source_lines(site))
