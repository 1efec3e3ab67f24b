"""Looks closely at the first times that each phase runs: what lives at its highest moment, and who made it.

Recording every allocation costs time, so only some phases are recorded: the first ones, and those of a batch larger
than any before. Where the tracker of survivors records anyway, its recording is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from memory_harness.harness.devices.base import Allocation, ObservableDevice
from memory_harness.harness.log.allocator_sizes import block_size
from memory_harness.harness.log.peaks import PeakSum, kind_in, kind_of
from memory_harness.harness.log.records import IN_STEP, BatchShape, MemoryStats, Phase, Record
from memory_harness.harness.observe.live_objects import named_memory
from memory_harness.harness.observe.survivors import SurvivorTracker

MAX_RECORDED = 3
"""Times that each phase is recorded; with a step before there are gradients and states of the optimizer."""
_OPENING = (Phase.DATA, Phase.STEP, Phase.ROLLOUT)
"""Phases with which a micro-batch begins, and a recording anew; those after them free what it has made."""


class _Running(NamedTuple):
    """The phase that is being looked at."""

    phase: Phase
    logits_sizes: dict[int, str]


class PhasePeaks:
    """Writes a `PeakRecord` for phases that are recorded and whose peak is the highest of their kind so far."""

    def __init__(self, device: ObservableDevice, survivors: SurvivorTracker, write: Callable[[Record], None]) -> None:
        self._device = device
        self._survivors = survivors
        self._write = write
        self._is_recording = False
        self._running: _Running | None = None
        self._times: Counter[Phase] = Counter()
        self._most_tokens: Counter[Phase] = Counter()
        self._highest: Counter[Phase] = Counter()

    def begin_phase(self, phase: Phase, batch: BatchShape | None, vocab_size: int) -> None:
        """Take note of a phase that begins, once the tracker of survivors has."""
        self._running = None
        if self._survivors.is_recording:  # it has begun anew, and will end it
            self._is_recording = False
        if not self._device.shows_peaks or not self._is_wanted(phase, batch):
            if phase in (*_OPENING, Phase.FORWARD):
                self.stop()
            return
        if self._survivors.is_recording:
            if not self._survivors.records_peaks:
                return
        elif not self._is_recording or phase in _OPENING:
            self._device.record_allocations(with_peak=True)
            self._is_recording = True
        self._device.begin_peak()
        num_logits = batch.padded_tokens * vocab_size if batch is not None else 0
        sizes = {2 * num_logits: "logits", 4 * num_logits: "logits"} if num_logits else {}
        self._running = _Running(phase, sizes)

    def _is_wanted(self, phase: Phase, batch: BatchShape | None) -> bool:
        tokens = batch.padded_tokens if batch is not None else 0
        is_larger = tokens > self._most_tokens[phase]
        self._most_tokens[phase] = max(tokens, self._most_tokens[phase])
        follows = self._is_recording and phase in IN_STEP and phase not in _OPENING
        return self._times[phase] < MAX_RECORDED or (self._times[phase] < 2 * MAX_RECORDED and is_larger) or follows

    def end_phase(self, phase: Phase, step: int, after: MemoryStats) -> None:
        """Write what lived at the peak of a phase that has been looked at."""
        running, self._running = self._running, None
        if running is None or running.phase is not phase:
            return
        self._times[phase] += 1
        if after.peak_allocated_bytes > self._highest[phase]:
            self._highest[phase] = after.peak_allocated_bytes
            found = _sum_of(self._device, running)
            self._write(found.record(phase, step, after.peak_allocated_bytes, after.peak_reserved_bytes))
        if phase not in IN_STEP:
            self.stop()

    def end_step(self) -> None:
        """Take note that a step is over, and with it what was made for it."""
        self.stop()

    def stop(self) -> None:
        """End the recording, where it is this one's own."""
        self._running = None
        if self._is_recording and not self._survivors.is_recording:
            self._device.stop_recording_allocations()
        self._is_recording = False


def _sum_of(device: ObservableDevice, running: _Running) -> PeakSum:
    """Return what lived at the peak: what was made since the recording began, and what has a name from before."""
    made = device.live_allocations_at_peak()
    still_live = {(allocation.handle, allocation.made_at) for allocation in device.live_allocations()}
    named = named_memory(device)
    found = PeakSum()
    for allocation in made:
        is_live = (allocation.handle, allocation.made_at) in still_live
        _add(found, allocation, running, named.get(allocation.handle) if is_live else None)
    begun = {handle for handle, _ in still_live}
    for handle, (category, name, num_bytes) in named.items():
        if handle not in begun:
            found.add(kind_of(category, name), block_size(num_bytes), name=name)
    return found


def _add(found: PeakSum, allocation: Allocation, running: _Running, named: Any) -> None:
    num_bytes = block_size(allocation.num_bytes)
    if named is not None:
        category, name, _ = named
        found.add(kind_of(category, name), num_bytes, name=name)
        return
    kind = running.logits_sizes.get(allocation.num_bytes, kind_in(running.phase))
    found.add(kind, num_bytes, frames=allocation.frames)
