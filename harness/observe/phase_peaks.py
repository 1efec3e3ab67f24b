"""Looks closely at the first times that each phase runs: what lives at its highest moment, and who made it.

Recording every allocation costs time, so only some phases are recorded: the first ones, those of a batch larger than
any before, and the step after one whose peaks have grown. Where the tracker of survivors records anyway, its recording
is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from memory_harness.harness.devices.base import Allocation, ObservableDevice
from memory_harness.harness.log.allocator_sizes import block_size
from memory_harness.harness.log.peaks import UNKNOWN, PeakSum, kind_in, kind_of
from memory_harness.harness.log.records import IN_STEP, BatchShape, MemoryStats, Phase, Record
from memory_harness.harness.observe.live_objects import KnownModels, Named, named_memory
from memory_harness.harness.observe.survivors import SurvivorTracker

MAX_RECORDED = 3
"""Times that each phase is recorded; with a step before there are gradients and states of the optimizer."""
MIN_RISE = 1.01
"""by what factor a later peak of a phase must be higher to be told of too: what lives is asked of all objects"""
GROWN, MAX_AGAIN = 1.25, 24
"""by what factor a peak must exceed the last that was told of to be looked at again, and how often that is done"""
_OPENING = (Phase.DATA, Phase.ROLLOUT)
"""Phases with which a micro-batch begins, and a recording anew."""
_FOLLOWING = (Phase.BACKWARD, Phase.OPTIMIZER)
"""Phases that are recorded together with what came before: they free it."""


_Identity = tuple[Hashable, float]
"""of an allocation: its handle, which another one may have later, and when it was made"""


def _identity(allocation: Allocation) -> _Identity:
    return allocation.handle, allocation.made_at


class _Running(NamedTuple):
    """The phase that is being looked at."""

    phase: Phase
    logits_sizes: dict[int, str]


class PhasePeaks:
    """Writes a `PeakRecord` for phases that are recorded and whose peak is the highest of their kind so far."""

    def __init__(
        self,
        device: ObservableDevice,
        survivors: SurvivorTracker,
        known: KnownModels,
        write: Callable[[Record], None],
    ) -> None:
        self._device = device
        self._survivors = survivors
        self._write = write
        self._is_recording = False
        self._known = known
        self._running: _Running | None = None
        self._names: dict[_Identity, Named] = {}
        self._made_in: dict[_Identity, Phase] = {}
        self._marks: ExitStack | None = None
        """follows the layers of a model while phases are looked at"""
        self._times: Counter[Phase] = Counter()
        self._most_tokens: Counter[Phase] = Counter()
        self._highest: Counter[Phase] = Counter()
        """peak that was told of last"""
        self._last: Counter[Phase] = Counter()
        """peak when it ran last, whether it was looked at or not"""
        self._looks_again = False
        """whether this step, or this phase outside of steps, is recorded because peaks have grown"""
        self._num_again = 0
        self._is_in_step = False

    def begin_phase(self, phase: Phase, batch: BatchShape | None, vocab_size: int) -> None:
        """Take note of a phase that begins, once the tracker of survivors has."""
        self._running = None
        if not self._device.shows_peaks:
            return
        if self._survivors.is_recording:  # it has begun anew, and will end it
            self._is_recording = False
        if not self._is_wanted(phase, batch):
            if phase in (*_OPENING, Phase.FORWARD):
                self.stop()
            if self._survivors.records_peaks:
                self._device.begin_peak()  # which lets go of what has ended before
            return
        if self._survivors.is_recording:
            if not self._survivors.records_peaks:
                return
        elif not self._is_recording or phase in _OPENING:
            self._names.clear()
            self._made_in.clear()
            self._device.record_allocations(with_peak=True)
            self._is_recording = True
        if self._marks is None:
            self._marks = ExitStack()
            self._marks.enter_context(self._device.layers_marked())
        self._times[phase] += 1  # here: what lies between two phases begins, and does not always end
        self._device.begin_peak()
        num_logits = batch.padded_tokens * vocab_size if batch is not None else 0
        sizes = {2 * num_logits: "logits", 4 * num_logits: "logits"} if num_logits else {}
        self._running = _Running(phase, sizes)

    def _is_wanted(self, phase: Phase, batch: BatchShape | None) -> bool:
        tokens = batch.padded_tokens if batch is not None else 0
        is_larger = tokens > self._most_tokens[phase]
        self._most_tokens[phase] = max(tokens, self._most_tokens[phase])
        is_early = self._times[phase] < MAX_RECORDED or (self._times[phase] < 2 * MAX_RECORDED and is_larger)
        if self._num_again < MAX_AGAIN and self._has_grown(phase):
            self._looks_again = True
            self._num_again += 1
        follows = self._is_recording and phase in _FOLLOWING
        return is_early or self._looks_again or follows

    def _has_grown(self, phase: Phase) -> bool:
        """Return whether peaks were far above the last that were told of: the phase's, or any of a step that begins."""
        phases: tuple[Phase, ...] = (phase,)
        if phase in IN_STEP:
            phases = () if self._is_in_step else IN_STEP  # later in a step, what it has made was not recorded
            self._is_in_step = True
        return any(0 < GROWN * self._highest[each] < self._last[each] for each in phases)

    def end_phase(self, phase: Phase, step: int, after: MemoryStats) -> None:
        """Write what lived at the peak of a phase that has been looked at."""
        self._last[phase] = after.peak_allocated_bytes
        running, self._running = self._running, None
        if running is None or running.phase is not phase:
            return
        still_live = self._device.live_allocations()
        named = named_memory(self._device, self._known)
        self._note(phase, map(_identity, still_live), named)
        if after.peak_allocated_bytes > MIN_RISE * self._highest[phase]:
            self._highest[phase] = after.peak_allocated_bytes
            found = PeakSum()
            at_peak = self._device.live_allocations_at_peak()
            for allocation in at_peak:
                self._add(found, allocation, running)
            self._add_earlier(found, {allocation.handle for allocation in still_live}, named)
            self._add_by_category(found, at_peak)
            self._write(found.record(phase, step, after.peak_allocated_bytes, after.peak_reserved_bytes))
        if phase not in IN_STEP:
            self.stop()

    def _note(self, phase: Phase, still_live: Iterable[_Identity], named: Mapping[Hashable, Named]) -> None:
        """Remember what is known now of what lives: a gradient that is cleared later was one."""
        for identity in still_live:
            self._made_in.setdefault(identity, phase)
            if identity[0] in named:
                self._names[identity] = named[identity[0]]

    def _add(self, found: PeakSum, allocation: Allocation, running: _Running) -> None:
        identity, num_bytes = _identity(allocation), block_size(allocation.num_bytes)
        if identity in self._names:
            category, name, _ = self._names[identity]
            found.add(kind_of(category, name), num_bytes, name=name)
            return
        if allocation.category:
            found.add(kind_of(allocation.category, ""), num_bytes, frames=allocation.frames)
            return
        kind = running.logits_sizes.get(allocation.num_bytes) or kind_in(self._made_in.get(identity, running.phase))
        found.add(kind, num_bytes, frames=allocation.frames, layer=allocation.layer)

    @staticmethod
    def _add_earlier(found: PeakSum, recorded: set[Hashable], named: Mapping[Hashable, Named]) -> None:
        """Add what has a name and was made before the recording began."""
        for handle, (category, name, num_bytes) in named.items():
            if handle not in recorded:
                found.add(kind_of(category, name), block_size(num_bytes), name=name)

    def _add_by_category(self, found: PeakSum, at_peak: Sequence[Allocation]) -> None:
        """Add what the device itself knows, such as workspaces, which go on living once made."""
        by_category = Counter(self._device.live_bytes({}))
        del by_category[UNKNOWN]
        for allocation in at_peak:
            by_category[allocation.category] -= allocation.num_bytes
        for category, num_bytes in by_category.items():
            if num_bytes > 0:
                found.add(kind_of(category, ""), num_bytes)

    def end_step(self) -> None:
        """Take note that a step is over, and with it what was made for it."""
        self._is_in_step = False
        self.stop()

    def stop(self) -> None:
        """End the recording, where it is this one's own."""
        self._running = None
        self._looks_again = False
        if self._marks is not None:
            self._marks.close()
            self._marks = None
        self._names.clear()
        self._made_in.clear()
        if self._is_recording and not self._survivors.is_recording:
            self._device.stop_recording_allocations()
        self._is_recording = False
