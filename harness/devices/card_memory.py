"""What a simulated card's memory is: allocated while operators run, or what recorded phases are replayed on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from operator import itemgetter

from memory_harness.harness.devices.base import HighestRecords
from memory_harness.harness.log.peaks import UNKNOWN
from memory_harness.harness.log.records import OomRecord, PeakPart, PeakRecord, Phase, PhaseRecord, SegmentRuns
from memory_harness.harness.simulate.history import MemoryHistory, history_of
from memory_harness.harness.simulate.memoized import MemoizedMemory, ReplayedChain
from memory_harness.harness.simulate.memory import SimulatedMemory, live_by_category
from memory_harness.harness.simulate.peak import PeakWatch, replayed_parts, replayed_peak
from memory_harness.harness.simulate.tracer import Tracer


class LiveMemory:
    """Memory where operators run, and a tracer reports each of their allocations to `simulated`."""

    def __init__(self, simulated: SimulatedMemory) -> None:
        self.simulated = simulated
        self.stats, self.reset_peaks = simulated.stats, simulated.reset_peaks
        self._history: MemoryHistory | None = None
        self._peak: PeakWatch | None = None

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes; tensors have no names here, and fewer live once a failure has unwound the frames."""
        return live_by_category(self.simulated.live_at_failure or self.simulated.live(), logits_sizes, UNKNOWN)

    def segments_at_peak(self) -> tuple[SegmentRuns, ...]:
        """Return none: the model shows its segments as they are, not as they were."""
        return ()

    def record_history(self, tracer: Tracer) -> None:
        """Let the tracer report to a history, which hands everything on."""
        self._history = tracer.sink = MemoryHistory(self.simulated)

    def history(self) -> MemoryHistory:
        """Return what was reported since `record_history`."""
        assert self._history is not None, "record_history comes first"
        return self._history

    def watch_peak(self, tracer: Tracer) -> None:
        """Let the tracer report to what remembers the peak, which hands everything on."""
        self._peak = tracer.sink = PeakWatch(self.simulated, UNKNOWN)

    def name_category(self, category: str) -> None:
        """Let what is made from now on be of this category."""
        if self._peak is not None:
            self._peak.label = category

    def peak_parts(self, *, of_failure: bool) -> list[PeakPart]:
        """Return what lived at the peak since `watch_peak`, or at the last failure."""
        assert self._peak is not None, "watch_peak comes first"
        return self._peak.parts(of_failure=of_failure)

    def phase_peaks(self, highest_records: HighestRecords, vocab_size: int) -> list[PeakRecord]:
        """Return none: what observes the run looks at them as they come."""
        return []


def _logits_sizes(record: PhaseRecord | OomRecord | None, vocab_size: int) -> dict[int, str]:
    """Return the sizes of a batch's logits, in 16 and in 32 bits."""
    if record is None or record.batch is None or not vocab_size:
        return {}
    num_logits = record.batch.padded_tokens * vocab_size
    return {2 * num_logits: "logits", 4 * num_logits: "logits"}


class ReplayedMemory:
    """Memory where phases are replayed: nothing of theirs outlives them that a user could hold.

    Args:
        memoized: the memory that they are replayed on.
        phase_title: gives a chain's key and a phase's position in it a name, for the history.
    """

    def __init__(self, memoized: MemoizedMemory, phase_title: Callable[[Hashable, int], str]) -> None:
        self.stats, self.reset_peaks = memoized.stats, memoized.reset_peaks
        self.segments_at_peak = memoized.segments_at_peak
        self._memoized = memoized
        self._phase_title = phase_title

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes by what their names say."""
        return live_by_category(self._memoized.live(), logits_sizes)

    def record_history(self, tracer: Tracer) -> None:
        """Keep nothing: the last phases are remembered anyway."""

    def history(self) -> MemoryHistory:
        """Return what happened in the last phases, by running them once more."""
        return history_of(self._memoized, self._phase_title)

    def watch_peak(self, tracer: Tracer) -> None:
        """Watch nothing: the phases of the peak are remembered anyway."""

    def name_category(self, category: str) -> None:
        """Phases are replayed as they were recorded: with names, where there are any."""

    def peak_parts(self, *, of_failure: bool) -> list[PeakPart]:
        """Return what lived at the peak, or at the last failure, by running its phases once more."""
        return replayed_parts(self._memoized, of_failure=of_failure)

    def phase_peaks(self, highest_records: HighestRecords, vocab_size: int) -> list[PeakRecord]:
        """Return what lived at each phase's peak, by running what led there once more."""
        highest: dict[Phase, tuple[int, ReplayedChain]] = {}
        for num_bytes, chain in self._memoized.phase_peaks.values():
            title = self._phase_title(chain.key, len(chain.phases) - 1)
            if title:
                phase = Phase[title.partition(" ")[0]]
                highest[phase] = max(highest.get(phase, (-1, chain)), (num_bytes, chain), key=itemgetter(0))
        found = []
        for phase, (_, chain) in highest.items():
            record = highest_records.get(phase)
            sizes = _logits_sizes(record, vocab_size)
            found.append(replayed_peak(self._memoized, chain, phase, record.step if record else 0, sizes))
        return found


CardMemory = LiveMemory | ReplayedMemory
"""what a simulated device asks; a method named as one of `Device` does what that promises"""
