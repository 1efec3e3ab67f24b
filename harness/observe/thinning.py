"""Keeps the log of a long run small: of most later steps, only the floor and what they left is written.

The phases of the first steps are written as they end. Of later ones they are held back, and written where they tell
something new: a peak above all before, a length not seen before, memory that ran out, the last step, and one step in
`INTERVAL`. A killed run loses what was held back, so at most the phases of `INTERVAL` steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from memory_harness.harness.log.records import EndRecord, OomRecord, Phase, PhaseBegin, PhaseRecord, Record, StepRecord

FULL_STEPS = 300  # of which all phases are written: some 0.7 MB
INTERVAL = 200
_IN_STEP = (Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)
_PhaseRecords = list[PhaseBegin | PhaseRecord]


class LogThinning:
    """Stands before what writes records; the steps' own records all pass."""

    def __init__(self, write: Callable[[Record], None]) -> None:
        self._write = write
        self._num_steps = 0
        self._step: _PhaseRecords = []  # phases of the running step
        self._last: _PhaseRecords = []  # of the step before it, held back
        self._highest: dict[Phase, _PhaseRecords] = {}  # of the steps held back in which each phase had its peak
        self._peaks: dict[Phase, int] = {}
        self._lengths: set[int] = set()

    def write(self, record: Record) -> None:
        """Write a record, or hold it back."""
        if isinstance(record, (PhaseBegin, PhaseRecord)) and record.phase in _IN_STEP:
            self._step.append(record)
            if self._num_steps >= FULL_STEPS:
                return
        elif isinstance(record, StepRecord):
            record = self._end_step(record)
        elif isinstance(record, (OomRecord, EndRecord)):
            self._write_held()
        self._write(record)

    def _end_step(self, record: StepRecord) -> StepRecord:
        """Return the step's record, with what it left where its phases, which tell that, are held back."""
        self._num_steps += 1
        step, self._step = self._step, []
        ended = [phase for phase in step if isinstance(phase, PhaseRecord)]
        has_news = self._note_lengths(ended)
        self._note_peaks(ended, step)
        if self._num_steps <= FULL_STEPS:
            self._highest.clear()
            return record
        self._last = step
        if has_news or self._num_steps % INTERVAL == 0:
            self._write_held()
            return record
        return _with_what_it_left(record, ended) if ended else record

    def _note_lengths(self, ended: list[PhaseRecord]) -> bool:
        """Return whether a batch has a length that none had before."""
        lengths = {phase.batch.padded_length for phase in ended if phase.batch}
        is_new = not lengths <= self._lengths
        self._lengths |= lengths
        return is_new

    def _note_peaks(self, ended: list[PhaseRecord], step: _PhaseRecords) -> None:
        for phase in ended:
            if phase.after.peak_allocated_bytes > self._peaks.get(phase.phase, -1):
                self._peaks[phase.phase] = phase.after.peak_allocated_bytes
                self._highest[phase.phase] = step

    def _write_held(self) -> None:
        """Write the phases of the steps with the highest peaks since the last time, of the last one, and what runs."""
        steps = [*self._highest.values(), self._last]
        if self._num_steps >= FULL_STEPS:
            steps.append(self._step)
        self._highest, self._last, self._step = {}, [], []
        written: list[int] = []
        for step in sorted(filter(None, steps), key=_number_of):
            if id(step) not in written:
                written.append(id(step))
                for record in step:
                    self._write(record)


def _with_what_it_left(record: StepRecord, ended: list[PhaseRecord]) -> StepRecord:
    forward_bytes = padded_tokens = 0
    for phase in ended:
        if phase.phase is Phase.FORWARD:
            forward_bytes += phase.after.allocated_bytes - phase.allocated_before_bytes
            padded_tokens += phase.batch.padded_tokens if phase.batch else 0
    left_bytes = record.allocated_bytes - ended[0].allocated_before_bytes
    return replace(record, left_bytes=left_bytes, forward_bytes=forward_bytes, padded_tokens=padded_tokens)


def _number_of(step: _PhaseRecords) -> int:
    return step[0].step
