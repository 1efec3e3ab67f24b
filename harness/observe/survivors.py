"""Notices memory that stays or grows, and has its allocations recorded to say what made it and who holds it.

Three occasions, each noticed from the allocated bytes, which are read anyway:
- Growth at equal points of the loop (the end of a step, the begin of an evaluation batch or of a generate call). The
  device then records who allocates what, for a few of these units; what was made in one and outlives it, in more than
  one, is what grows.
- A phase that a run has few of (RESUME, EVAL, CHECKPOINT, GENERATE) is recorded the first time: what it leaves, and for
  a checkpoint what its peak is made of, would be gone before a second one.
- Memory that is there before the model is loaded, that stays after somebody has caught an out-of-memory, or that fills
  the host: nobody has recorded how it was made, but it can be asked who holds it.

Cost, on the tiny model and one core of a simulated card (python -m tests.bench.survivor_cost): a recorded step takes
0.21 s against 0.20 s, the report 0.6 to 0.7 s, once. A replayed phase allocates nothing and costs nothing.
"""

from __future__ import annotations

import bisect
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from memory_harness.harness.devices.base import Allocation, ObservableDevice
from memory_harness.harness.log.records import (
    BEFORE_LOAD,
    CAUGHT_FAILURE,
    HOST,
    OLD_MODEL,
    OPTIMIZER_STATE,
    SUMMED_LOSSES,
    MemoryStats,
    Phase,
    Record,
    SurvivorRecord,
)
from memory_harness.harness.observe.holders import Holder, find_holder, first_users_holder
from memory_harness.harness.observe.live_objects import (
    MAX_OBJECTS_ASKED,
    MIN_LEFT_BYTES,
    holder_of_failure,
    holder_of_graph,
    holder_of_host_tensors,
    holder_of_model,
    summed_losses,
    tensors_by_handle,
)
from memory_harness.harness.observe.survivor_records import (
    MIN_RISE_BYTES,
    Survivor,
    UnitEnd,
    bytes_by_place,
    growing_records,
    lasting_bytes,
    peak_records,
    survivor_records,
)

STEP = "step"

MIN_GROWTH_BYTES = 64 * 1024  # least growth over the steps from which their allocations are recorded
MIN_HOST_BYTES = 8 * 2**20  # least rise of resident memory in an evaluation; a process's own caches grow by a few MiB
SETTLING_BATCHES = 2  # first evaluation batches, in which the process grows for reasons of its own
MAX_RECORDINGS = 3  # recordings per unit and run
COMPARED_UNITS = 3  # first units of a recording with which its last one is compared
REST_STEPS = 200  # steps from one recording to the next
MAX_UNITS = 50  # most units that one recording takes: what grows every tenth step needs some twenty
MAX_TRIES = 3  # to see in one recording who leaves most of the growth
LONGER_UNITS = 10  # times as many calls make up a unit where a recording of an evaluation has found nothing
SKIPPED_STEPS = 2  # first steps, in which what stays for good appears
SECONDS_UNDISTURBED = 5.0  # that other threads wait at most while the holders of survivors are looked for
SUMS_LOOKED_FOR = (14, 60)  # steps after which sums of losses are looked for, which walks all objects
MIN_SUMMED = 10  # losses in one sum
STEP_RISES = 4  # lasting rises of the floor from which steps are recorded
SHORT_STEPS = 16  # steps like the one that has ended after which memory is full: recorded at once, it may end before

RECORDED_RISES: dict[str, int] = {STEP: 3, Phase.EVAL: 3, Phase.GENERATE: 2, Phase.RESUME: 1, Phase.CHECKPOINT: 1}
"""Lasting rises within a recording after which it ends, by its unit; what evaluation hoards is gone when it ends, and
it may not get far."""


@dataclass
class LastingRises:
    """Lasting rises in a series: each level was never undercut by a later value."""

    skipped: int  # first values that do not count
    levels: list[int] = field(default_factory=list)
    num_seen: int = 0

    def add(self, value: int) -> bool:
        """Take the next value; return whether it is a lasting rise so far."""
        self.num_seen += 1
        if self.num_seen <= self.skipped:
            return False
        while self.levels and self.levels[-1] > value:
            self.levels.pop()
        rises = not self.levels or value - self.levels[-1] > MIN_RISE_BYTES
        if rises:
            self.levels.append(value)
        return rises and len(self.levels) > 1

    @property
    def num_rises(self) -> int:
        """Rises that have lasted until now."""
        return max(0, len(self.levels) - 1)

    @property
    def growth_bytes(self) -> int:
        """Sum of the rises."""
        return self.levels[-1] - self.levels[0] if self.levels else 0


@dataclass(frozen=True)
class _Moment:
    """From when on the run was in a phase and a unit."""

    time: float
    phase: Phase
    unit: int


@dataclass
class _UnitRecording:
    """Allocations that the device records, over some units."""

    unit: str
    moments: list[_Moment]
    begin_bytes: int  # allocated when it began
    num_units: int = 0
    num_rises: int = 0
    num_tries: int = 0  # how often it was looked at whether it says enough
    first_ends: list[UnitEnd] = field(default_factory=list)
    first_nodes: tuple[int | None, int] = (None, 0)  # numbers of the first nodes of graphs, of the last units

    def end_unit(self) -> None:
        """Take note that a unit is over."""
        self.num_units += 1
        self.first_nodes = (self.first_nodes[1], torch._C._autograd._get_sequence_nr())

    def note_phase(self, phase: Phase) -> None:
        """Take note of a phase that begins."""
        self.moments.append(_Moment(time.time(), phase, self.num_units))

    def survivor(self, allocation: Allocation) -> Survivor:
        """Return the allocation with where the run was when it was made."""
        index = bisect.bisect_right(self.moments, allocation.made_at, key=lambda moment: moment.time)
        moment = self.moments[max(0, index - 1)]
        return Survivor(allocation, moment.phase, moment.unit)


@contextmanager
def _other_threads_waiting() -> Iterator[None]:
    """Within, other threads run only while this one waits for something: one may let go what is looked at."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS_UNDISTURBED)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class SurvivorTracker:
    """Notices what stays or grows on the device and, where something does, writes what it is made of."""

    def __init__(self, device: ObservableDevice, write: Callable[[Record], None]) -> None:
        self._device = device
        self._write = write
        self._rises = {unit: LastingRises(0) for unit in RECORDED_RISES}
        self._rises[STEP] = LastingRises(SKIPPED_STEPS)
        self._recorded_at: dict[str, list[int]] = {unit: [] for unit in RECORDED_RISES}
        """steps in which recordings of each unit have ended"""
        self._recording: _UnitRecording | None = None
        self._reported: set[str] = set()  # units that are reported once a run: HOST, CAUGHT_FAILURE
        self._phase = Phase.LOAD
        self._step = 0
        self._num_ooms = 0
        self._floor_bytes = 0
        self._host_rss_bytes = 0
        self._most_positions = 0  # of a batch of the running evaluation
        self._num_calls = 0  # of the running evaluation
        self._calls_of_unit = 1  # more where a text takes many calls, or a search goes through many

    @property
    def is_recording(self) -> bool:
        """Whether allocations are being recorded."""
        return self._recording is not None

    @property
    def records_peaks(self) -> bool:
        """Whether what is freed is recorded too, so that the peak of a phase can be told."""
        return self._recording is not None and self._recording.unit != STEP

    # Where the run is

    def begin_phase(self, phase: Phase, step: int, index: int, allocated_bytes: int, positions: int = 0) -> None:
        """Take note of a phase that begins.

        Args:
            phase: that begins.
            step: in which it does.
            index: number of the evaluation batch, or of the generate call.
            allocated_bytes: of the device.
            positions: of each row of its batch; 0 where that is not known.
        """
        self._phase, self._step = phase, step
        recording = self._recording
        if recording is not None and recording.unit != STEP and (recording.unit != phase or index == 0):
            self._end_phase_recording(recording, allocated_bytes)
        if phase is Phase.LOAD and allocated_bytes >= MIN_GROWTH_BYTES:
            tensors = tensors_by_handle(self._device)
            self._write_holder(holder_of_model(tensors), BEFORE_LOAD, allocated_bytes, len(tensors))
        if phase in RECORDED_RISES:
            if index == 0:
                self._rises[phase] = LastingRises(0)
                self._most_positions = self._num_calls = 0
            self._most_positions = max(self._most_positions, positions)
            # one position after many: the next token of a text, which is over when another one begins
            if positions != 1 or self._most_positions == 1:
                self._num_calls += 1
                if phase is not Phase.EVAL or self._num_calls % self._calls_of_unit == 0:
                    self._end_unit(phase, allocated_bytes)
        if self._recording is not None:
            self._recording.note_phase(phase)

    def begin_evaluation_batch(self, index: int, host_rss_bytes: int) -> None:
        """Take note of resident memory; a host that fills up during an evaluation is asked once for its tensors."""
        if index <= SETTLING_BATCHES:
            self._host_rss_bytes = host_rss_bytes
            return
        rise = host_rss_bytes - self._host_rss_bytes
        if rise >= MIN_HOST_BYTES and HOST not in self._reported:
            self._reported.add(HOST)
            num_tensors = len(tensors_by_handle(self._device))
            holder = holder_of_host_tensors(self._device, rise // 2)
            if holder is not None and OPTIMIZER_STATE not in holder.words:
                self._write_holder(holder, HOST, rise, num_tensors)

    def end_step(self, step: int, stats: MemoryStats) -> None:
        """Take note of the floor after an optimizer step."""
        self._step = step
        left = stats.allocated_bytes - self._floor_bytes
        has_failed = stats.num_ooms > self._num_ooms
        if has_failed and left >= MIN_LEFT_BYTES and CAUGHT_FAILURE not in self._reported:
            self._reported.add(CAUGHT_FAILURE)
            tensors = tensors_by_handle(self._device)
            holder = holder_of_failure(self._device) or holder_of_graph(tensors)
            self._write_holder(holder, CAUGHT_FAILURE, left, len(tensors))
        self._num_ooms, self._floor_bytes = stats.num_ooms, stats.allocated_bytes
        grows = self._recording is not None or self._recorded_at[STEP]
        if step in SUMS_LOOKED_FOR and not grows and SUMMED_LOSSES not in self._reported:
            self._note_summed_losses()
        fills = left >= MIN_LEFT_BYTES and left * SHORT_STEPS > self._device.budget_bytes - stats.allocated_bytes
        self._end_unit(STEP, stats.allocated_bytes, is_short=fills and step >= SKIPPED_STEPS)

    def _note_summed_losses(self) -> None:
        """Report who adds up losses with their graphs."""
        found = summed_losses(MIN_SUMMED)
        if found is not None:
            self._reported.add(SUMMED_LOSSES)
            holder, num_terms = found
            self._write_holder(holder, SUMMED_LOSSES, 0, num_terms)

    def end_run(self, allocated_bytes: int) -> None:
        """Report what a recording in progress has seen: the run is over."""
        recording = self._recording
        if recording is None:
            return
        if recording.unit != STEP:
            self._end_phase_recording(recording, allocated_bytes)
        elif recording.num_rises > 1:
            self._report(recording, allocated_bytes)
        else:
            self._stop(recording)

    def stop(self, allocated_bytes: int) -> None:
        """End a recording: memory ran out, and what lives of this step is the frames' that are unwinding.

        What several steps before have left is reported.
        """
        recording = self._recording
        if recording is None:
            return
        if recording.unit == STEP and recording.num_units > 1:
            self._report(recording, allocated_bytes)
        else:
            self._stop(recording)

    # Recordings

    def _end_unit(self, unit: str, allocated_bytes: int, *, is_short: bool = False) -> None:
        """Take note that a unit is over, which may begin or end a recording.

        Args:
            unit: that is over.
            allocated_bytes: of the device.
            is_short: whether memory will soon be full.
        """
        rises, recording = self._rises[unit], self._recording
        rose = rises.add(allocated_bytes)
        if recording is None:
            if self._is_worth_recording(unit, is_short=is_short):
                self._recording = _UnitRecording(unit, [_Moment(time.time(), self._phase, 0)], allocated_bytes)
                self._device.record_allocations(with_peak=unit != STEP)
        elif recording.unit == unit:
            recording.end_unit()
            recording.num_rises += rose
            if recording.num_units <= COMPARED_UNITS:
                self._note_end(recording, allocated_bytes)
            recording.note_phase(self._phase)
            has_grown = allocated_bytes - recording.begin_bytes >= MIN_LEFT_BYTES
            is_enough = has_grown and recording.num_rises >= RECORDED_RISES[unit]
            if recording.num_units == MAX_UNITS or (is_enough and self._says_enough(recording, allocated_bytes)):
                self._report(recording, allocated_bytes)

    def _says_enough(self, recording: _UnitRecording, allocated_bytes: int) -> bool:
        """Return whether several units left most of the growth; else as many rises more are waited for, a few times.

        What grows in every other step may have come once so far, between rises of another kind. An evaluation may not
        get far enough to wait for.
        """
        if recording.unit != STEP:
            return True
        made = map(recording.survivor, self._device.live_allocations())
        lasting = lasting_bytes(made, recording.num_units)
        recording.num_tries += 1
        if 2 * lasting >= allocated_bytes - recording.begin_bytes or recording.num_tries > MAX_TRIES:
            return True
        recording.num_rises = 0
        return False

    def _note_end(self, recording: _UnitRecording, allocated_bytes: int) -> None:
        """Take note of what a unit has made, for a comparison with a later one."""
        made = map(recording.survivor, self._device.live_allocations())
        own = [survivor for survivor in made if survivor.unit == recording.num_units - 1]
        recording.first_ends.append(UnitEnd(recording.num_units, allocated_bytes, bytes_by_place(own)))

    def _is_worth_recording(self, unit: str, *, is_short: bool) -> bool:
        rises, recorded_at = self._rises[unit], self._recorded_at[unit]
        if len(recorded_at) >= MAX_RECORDINGS:
            return False
        goes_on = unit == Phase.EVAL and self._calls_of_unit > 1
        if recorded_at and self._step - recorded_at[-1] < REST_STEPS and not goes_on:
            return False
        grows = rises.num_rises >= STEP_RISES and rises.growth_bytes >= MIN_GROWTH_BYTES
        return grows or is_short or unit != STEP

    def _stop(self, recording: _UnitRecording) -> None:
        self._recording = None
        self._recorded_at[recording.unit].append(self._step)
        self._rises[recording.unit] = LastingRises(0)
        self._device.stop_recording_allocations()

    def _report(self, recording: _UnitRecording, allocated_bytes: int) -> None:
        """Write what the units have left; an evaluation whose batches left nothing so far is recorded on for a while.

        What its calls replace in each other may be kept only now and then, such as a cache at the end of a reply.
        """
        with _other_threads_waiting():
            survivors = [recording.survivor(allocation) for allocation in self._device.live_allocations()]
            records = self._records(recording, survivors, allocated_bytes)
        recording.num_tries += 1
        may_wait = recording.unit == Phase.EVAL and recording.num_units < MAX_UNITS
        if not records and may_wait and recording.num_tries <= MAX_TRIES:
            recording.num_rises = 0
            return
        self._stop(recording)
        if recording.unit == Phase.EVAL:
            self._calls_of_unit = 1 if records else self._calls_of_unit * LONGER_UNITS
        self._write_all(records)

    def _records(
        self, recording: _UnitRecording, survivors: list[Survivor], allocated_bytes: int
    ) -> list[SurvivorRecord]:
        unit, num_units = recording.unit, recording.num_units
        last_began, _ = recording.first_nodes
        records = survivor_records(survivors, unit, num_units, self._step, self._device, last_began)
        # with what was made since, where the run has ended in between
        made_last = [survivor for survivor in survivors if survivor.unit >= num_units - 1]
        end = UnitEnd(num_units, allocated_bytes, bytes_by_place(made_last))
        known_bytes = sum(record.bytes_per_step for record in records) * num_units
        if known_bytes < (allocated_bytes - recording.begin_bytes) / 2:
            records += growing_records(made_last, recording.first_ends, end, unit, self._step, self._device)
        return records

    def _end_phase_recording(self, recording: _UnitRecording, allocated_bytes: int) -> None:
        """Report what a phase that is over has left, and what the peak of a checkpoint was made of."""
        phase = recording.moments[0].phase
        has_left = allocated_bytes - recording.begin_bytes >= MIN_LEFT_BYTES
        left = self._device.live_allocations() if has_left else []
        peak = self._device.live_allocations_at_peak() if recording.unit == Phase.CHECKPOINT else []
        self._stop(recording)
        if sum(allocation.num_bytes for allocation in peak) >= MIN_LEFT_BYTES:
            self._write_all(peak_records(peak, phase, self._step))
        survivors = [Survivor(allocation, phase, 0) for allocation in left]
        self._write_all(survivor_records(survivors, recording.unit, 1, self._step, self._device))

    def _write_all(self, records: Iterable[SurvivorRecord]) -> None:
        for record in records:
            self._write(record)

    # Memory of which nobody has recorded how it was made

    def note_old_model(self, model: torch.nn.Module, num_bytes: int, unit: str = OLD_MODEL) -> None:
        """Report who holds a model that is no longer trained, or never was."""
        holder = find_holder(model)
        if holder is not None and holder.is_users:
            self._write_holder(holder, unit, num_bytes, 1)

    def note_failure_kept(self) -> None:
        """Report who keeps an out-of-memory that was caught, where the run goes on and no step has ended since."""
        left = self._device.stats().allocated_bytes - self._floor_bytes
        if left >= MIN_LEFT_BYTES and CAUGHT_FAILURE not in self._reported:
            holder = holder_of_failure(self._device)
            if holder is not None:
                self._reported.add(CAUGHT_FAILURE)
                self._write_holder(holder, CAUGHT_FAILURE, left, 1)

    def note_checkpoint_kept(self, tensors: list[torch.Tensor], loaded_at: str) -> None:
        """Report who holds tensors of a checkpoint that has been restored, with the line that loaded it.

        One that puts them into a dict, such as by other names, is where nothing begins.
        """
        num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        holder = first_users_holder(tensors[:MAX_OBJECTS_ASKED], [tensors])
        if holder is not None and holder.adds and loaded_at:
            holder = replace(holder, path="")
        self._write_holder(holder, Phase.RESUME, num_bytes, len(tensors), loaded_at)

    def _write_holder(self, holder: Holder | None, unit: str, num_bytes: int, num_tensors: int, site: str = "") -> None:
        """Write who holds the memory, and what made it where that is known; nothing where no holder is."""
        if holder is not None:
            self._write(SurvivorRecord(self._step, self._phase, site, str(holder), num_bytes, num_tensors, unit=unit))
