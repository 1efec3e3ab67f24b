"""Which steps of a watched script are traced, where tracing has a price: all at first, later some of them.

TRACED    each operator goes through the tracer, and what the steps take is recorded
RESTING   none does: the steps before were flat, and batches are no larger than those that were traced
SETTLING  traced again; what was made unseen goes in this step, so that its floor says nothing

The heap of the process is the witness: at the end of a step its size, less what the tracer counts, stays as it is as
long as nothing is missed. A heap that grows during a rest ends it, and steps are traced until they are flat again.
"""

from __future__ import annotations

from collections import Counter, deque
from contextlib import ExitStack, suppress
from enum import Enum, auto
from itertools import islice

import torch

from memory_harness.configs.units import KIB
from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.records import BatchShape, Phase

WARM_UP_STEPS = 100  # traced before the first rest, and after a heap that has grown
FLAT_STEPS = 40  # last traced steps whose floors must be flat before a rest
FLAT_BYTES = 4 * KIB  # what the lowest floor of their later half may exceed that of the earlier half by
BURST_STEPS = 3  # traced between two rests
MIN_REST, MAX_REST, REST_SHARE = 48, 1000, 8  # steps of a rest: an eighth of all before it, within these
HEAP_STEPS = 8  # from one look at the heap to the next, which may take half a millisecond
MISSED_BYTES, MISSED_BYTES_PER_STEP = 64 * KIB, KIB
"""Growth of the heap that ends a rest: at once, and for each of its steps; a kept scalar takes half a KiB a step."""
MAX_SETTLING_STEPS = 3  # an optimizer that steps every other time takes two
MAX_ALARMS = 4  # heaps that have grown, after which there are no more rests
TRACED_UNITS = {Phase.EVAL: 8, Phase.GENERATE: 8, Phase.CHECKPOINT: 8}
"""Evaluations and the like that are traced in any case, though they come during a rest."""


class _State(Enum):
    TRACED = auto()
    RESTING = auto()
    SETTLING = auto()


class StepSampling:
    """Switches a device's tracer off and on from step to step; never, where observing has no price."""

    def __init__(self, device: ObservableDevice) -> None:
        self._device = device
        self._is_on = device.heap_bytes() is not None
        self._state = _State.TRACED
        self._rest = ExitStack()  # open while the tracer is off
        self._num_steps = self._num_in_state = self._num_rested = self._num_alarms = 0
        self._num_to_trace = WARM_UP_STEPS
        self._floors: deque[int] = deque(maxlen=FLAT_STEPS)
        self._beside_bytes = 0  # of the heap, beside what the tracer counts
        self._resting_heap_bytes = 0  # of the heap when the rest began
        self._most_tokens: dict[Phase, int] = {}  # of a batch that was traced
        self._num_units = Counter[Phase]()  # evaluations and the like that were traced
        self._shows_phases = True
        self._unseen: torch.Tensor | None = None
        """stands for what was made during the rest and still lives when a larger batch ends it"""

    @property
    def is_resting(self) -> bool:
        """Whether nothing is traced or recorded now."""
        return self._state is _State.RESTING

    @property
    def hides_phases(self) -> bool:
        """Whether what phases take must not be shown: some of what lives was made unseen."""
        return self._state is _State.SETTLING and not self._shows_phases

    @property
    def shows_steps(self) -> bool:
        """Whether the floor of the step that ends is known."""
        return self._state is _State.TRACED

    def begin_phase(self, phase: Phase, batch: BatchShape | None, index: int) -> None:
        """Take note of a phase that begins, which ends the rest where it may take more than any that was traced."""
        if not self._is_on:
            return
        tokens = 0 if batch is None else batch.padded_tokens
        is_larger = tokens > self._most_tokens.get(phase, -1)
        is_new = index == 0 and self._num_units[phase] < TRACED_UNITS.get(phase, 0)
        if self.is_resting and (is_larger or is_new):
            self._wake(_State.SETTLING, shows_phases=True)
        if not self.is_resting:
            self._most_tokens[phase] = max(tokens, self._most_tokens.get(phase, -1))
            self._num_units[phase] += index == 0

    def begin_again(self) -> None:
        """Trace the next steps: something of the script is new, such as a model or an optimizer."""
        if self._is_on:
            if self.is_resting:
                self._wake(_State.SETTLING, shows_phases=True)
            self._num_to_trace = WARM_UP_STEPS

    def stop(self) -> None:
        """Trace all that follows: memory has run out."""
        if self._is_on:
            if self.is_resting:
                self._wake(_State.TRACED, shows_phases=True)
            self._state, self._is_on = _State.TRACED, False

    def close(self) -> None:
        """Leave the device as it was found."""
        self._unseen = None
        self._rest.close()

    def end_step(self, *, may_rest: bool) -> None:
        """Take note that a step is over; the next one may be traced, or not."""
        if not self._is_on:
            return
        self._unseen = None
        self._num_steps += 1
        self._num_in_state += 1
        if self.is_resting:
            self._go_on_resting()
        elif self._state is _State.SETTLING:
            self._go_on_settling()
        else:
            self._floors.append(self._device.stats().allocated_bytes)
            if self._num_in_state >= self._num_to_trace and may_rest and self._is_flat():
                self._begin_rest()

    def _is_flat(self) -> bool:
        half = len(self._floors) // 2
        earlier, later = islice(self._floors, half), islice(self._floors, half, None)
        return min(later) - min(earlier, default=0) <= FLAT_BYTES

    def _begin_rest(self) -> None:
        self._rest.enter_context(self._device.unobserved())
        self._resting_heap_bytes = self._heap_bytes()
        self._beside_bytes = self._resting_heap_bytes - self._floors[-1]
        self._begin(_State.RESTING)

    def _begin(self, state: _State) -> None:
        self._state, self._num_in_state = state, 0

    def _heap_bytes(self) -> int:
        return self._device.heap_bytes() or 0

    def _has_missed(self, num_bytes: int) -> bool:
        """Return whether the heap has changed by more than what Python itself, and kept numbers, may take."""
        return num_bytes > MISSED_BYTES + MISSED_BYTES_PER_STEP * self._num_rested

    def _go_on_resting(self) -> None:
        self._num_rested = self._num_in_state
        if self._num_rested % HEAP_STEPS == 0 and self._has_missed(self._heap_bytes() - self._resting_heap_bytes):
            self._wake(_State.TRACED, shows_phases=True)
            self._note_alarm()
        elif self._num_rested >= min(MAX_REST, max(MIN_REST, self._num_steps // REST_SHARE)):
            self._wake(_State.SETTLING, shows_phases=False)

    def _go_on_settling(self) -> None:
        beside = self._heap_bytes() - self._device.stats().allocated_bytes
        if not self._has_missed(abs(beside - self._beside_bytes)):
            self._begin(_State.TRACED)
        elif self._num_in_state >= MAX_SETTLING_STEPS:
            self._begin(_State.TRACED)
            self._note_alarm()

    def _note_alarm(self) -> None:
        self._num_to_trace = WARM_UP_STEPS
        self._floors.clear()
        self._num_alarms += 1
        self._is_on = self._num_alarms < MAX_ALARMS

    def _wake(self, state: _State, *, shows_phases: bool) -> None:
        """Switch the tracer on again."""
        self._rest.close()
        self._shows_phases = shows_phases
        self._num_to_trace = BURST_STEPS
        self._begin(state)
        if shows_phases:
            self._count_unseen()

    def _count_unseen(self) -> None:
        """Let what was made during the rest, and lives, count until the step is over: a peak is rather too high."""
        stats = self._device.stats()
        num_bytes = self._heap_bytes() - self._beside_bytes - stats.allocated_bytes
        if num_bytes > MISSED_BYTES and stats.allocated_bytes + num_bytes < 3 * self._device.budget_bytes // 4:
            with suppress(RuntimeError):  # never written to, so that it takes no memory of the machine's
                self._unseen = torch.empty(num_bytes, dtype=torch.uint8, device=self._device.torch_device)
