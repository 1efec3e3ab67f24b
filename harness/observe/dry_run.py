"""A script that is run dry: observed like any other, and ended when nothing new comes any more."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from memory_harness.harness.devices.dry_run import DryRunDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import Outcome, Record
from memory_harness.harness.observe.script import ScriptObserver
from memory_harness.harness.observe.script_patches import Arguments, Call, Keywords

QUIET_STEPS = 12
"""optimizer steps without a higher peak, and with the same floor, after which training has shown what it takes"""
MAX_STEPS = 120
"""most optimizer steps: what has grown until then goes on growing, and the report says when it would not fit"""
MAX_STEPS_AFTER = 3
"""further steps of a loop that no data loader ends"""
FLOOR_TOLERANCE_BYTES = 2**20
MAX_SORTED_BATCHES = 1000
"""batches of a loader that are looked at for the largest"""


class DryRunOver(BaseException):
    """Ends a script that has shown what it takes; no script's `except Exception` may catch it."""


class DryRunObserver(ScriptObserver):
    """Ends the training of a script that is run dry, and so lets it go on to what follows: evaluation, generation.

    Data loaders that are trained from end; a loop that has none ends the script.

    Args:
        max_steps: optimizer steps after which the script is over; None decides by what is new.
        worst_first: data loaders give their largest batches first.
        on_step: told of the number of optimizer steps so far after each of them.
        ranks_on_gpu: of the ranks, so many have their memory on this one's card.
        on_failure: told when an allocation fails, while all is as it was then.
    """

    def __init__(
        self,
        device: DryRunDevice,
        write: Callable[[Record], None],
        script: str,
        max_steps: int | None,
        *,
        worst_first: bool = False,
        ranks_on_gpu: int = 1,
        on_step: Callable[[int], None] = lambda _: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(device, write, script)
        self._run = dataclasses.replace(self._run, num_ranks=device.num_ranks, ranks_on_gpu=ranks_on_gpu)
        self.stopped_because = ""
        self._worst_first = worst_first
        self._on_step = on_step
        self._on_failure = on_failure
        self._max_steps = max_steps
        self._num_steps = self._num_quiet = self._num_after = 0
        self._highest = 0
        self._floor = 0
        self._is_over = False

    def tell_of_gpus(self, peaks: tuple[int, ...]) -> None:
        """Take what is reserved of each GPU at most, where the script has several."""
        self._describe(gpu_peaks=peaks)

    def _note_out_of_memory(self, error: DeviceOutOfMemory) -> None:
        super()._note_out_of_memory(error)
        self._on_failure()

    @property
    def _is_settled(self) -> bool:
        return self._num_quiet >= QUIET_STEPS or self._num_steps >= MAX_STEPS

    def _end_step(self, learning_rate: float) -> None:
        super()._end_step(learning_rate)
        self._num_steps += 1
        self._on_step(self._num_steps)
        cards = [self.device.stats(), *self.device.other_stats()]
        highest = sum(stats.peak_reserved_bytes for stats in cards)
        floor = sum(stats.allocated_bytes for stats in cards)
        is_new = highest > self._highest or abs(floor - self._floor) > FLOOR_TOLERANCE_BYTES
        self._num_quiet = 0 if is_new else self._num_quiet + 1
        self._highest, self._floor = max(self._highest, highest), floor
        if self._num_steps == self._max_steps:
            self._stop(f"after {self._num_steps} step{'s' * (self._num_steps > 1)}, as --steps says")
        if self._max_steps is None and self._is_settled:
            self._num_after += 1
            if self._num_after > MAX_STEPS_AFTER:
                self._stop(f"after {self._num_steps} steps: {self._reason()}; more with --steps")

    def _reason(self) -> str:
        if self._num_quiet >= QUIET_STEPS:
            return f"no higher peak in the last {self._num_quiet}, and what stays between steps is known"
        return "it grows; see what is found"

    def _stop(self, because: str) -> None:
        if self._is_over:  # a bare `except` of the script's has caught the end; the log must not wait for ever
            self.end_script()
            self.end_log(Outcome.COMPLETED, because, 0.0)
            os._exit(0)
        self._is_over = True
        self.stopped_because = because
        raise DryRunOver

    def begin_loader(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Begin a pass over a data loader, which ends early where it is trained from and nothing new comes."""
        batches = super().begin_loader(call, args, kwargs)
        if self._worst_first:
            batches = _largest_first(batches)
        return self._until_settled(batches) if self._max_steps is None else batches

    def _until_settled(self, batches: Iterator[Any]) -> Iterator[Any]:
        steps_before = self._num_steps
        for batch in batches:
            yield batch
            if self._is_settled and self._num_steps > steps_before:
                self.stopped_because = f"after {self._num_steps} steps of training: {self._reason()}; more with --steps"
                return


def _largest_first(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches of a loader, of those that it gives first the largest first; equal ones stay in order."""
    first = list(itertools.islice(batches, MAX_SORTED_BATCHES))
    yield from sorted(first, key=_num_elements, reverse=True)
    yield from batches


def _num_elements(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return batch.numel()
    if isinstance(batch, Mapping):
        return sum(map(_num_elements, batch.values()))
    return sum(map(_num_elements, batch)) if isinstance(batch, (list, tuple)) else 0
