"""What keeps a training run alive: out of memory, a signal, a full disk.

An optimizer step that runs out of memory is undone and done again from the random states that it began with, first
with a cleared cache where that can help, then in smaller micro-batches: the same samples, the same effective batch.
Evaluation and generation have their own remedies and never touch the training batch. What cannot be remedied ends
the run at a checkpoint of the last whole step.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, NoReturn, Protocol, TypeVar

from memory_harness.harness.data.batching import Batch, halves
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.errors import DeviceOutOfMemory, PeerOutOfMemory, SharedOutOfMemory
from memory_harness.harness.log.manifest import Manifest, Position, checkpoints
from memory_harness.harness.log.records import Phase, RecoveryRecord
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.strategies.base import Strategy, TrainableStrategy
from memory_harness.harness.train.checkpoint import keep_newest, save_peers, write_checkpoint
from memory_harness.harness.train.rng import random_states, restore_random_states
from memory_harness.harness.train.run import Run

ACTIONS = {
    "clear-cache": "released the allocator's cached blocks",
    "split-micro-batch": "did the step again in smaller micro-batches",
    "split-batch": "did the evaluation or generation again in smaller batches",
    "skip-batch": "left out an evaluation batch or prompt that does not fit even alone",
    "skip-checkpoint": "went on without a checkpoint that could not be written",
    "keep-outdated": "left outdated checkpoints that could not be removed",
    "skip-adapter": "went on without the best adapter so far, which could not be written",
    "stop": "stopped at a checkpoint",
}

RETRIES_BEFORE_CLEARING = 2
"""Allocator retries since the cache was last cleared. A retry gives back wholly free segments only; between steps,
when activations are gone, many more are free."""
GUARD_FACTOR = 6
"""An optimizer step that finds this many times the adapter's bytes never yet reserved cannot run out of memory: AdamW's
two states, the gradients' copies and the update's temporaries take about five, no other optimizer takes more."""
Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Split(Generic[Part]):
    """How a batch of evaluation or generation is cut into smaller ones."""

    limit: str
    """field of `BatchLimits` that remembers what did not fit"""
    tokens: Callable[[Part], int]
    """padded tokens of a batch"""
    parts: Callable[[Part], list[Part]]
    """its halves, or itself alone where it is one sequence"""


def catch_out_of_memory(device: Device, action: Callable[[], object]) -> DeviceOutOfMemory | None:
    """Run the action; return the out-of-memory that ended it, or None.

    The one place where running out of memory is caught. What is returned holds no frame, and so no tensor.
    """
    try:
        action()
    except Exception as error:
        failure = device.as_out_of_memory(error)
        if failure is None:
            raise
        traceback.clear_frames(error.__traceback__)
        failure.__traceback__ = failure.__context__ = failure.__cause__ = None
        return failure
    return None


def run_collectively(recorder: PhaseRecorder, action: Callable[[], Result]) -> Result:
    """Run what every GPU of the run runs at this point; where memory runs out on one of them, raise on all.

    So no GPU waits for one that has failed, none goes on to what another cannot do, and all decide by the same failure.

    Raises:
        SharedOutOfMemory: what needed most, where there are several GPUs.
    """
    group = recorder.device.group
    if not group.is_joined:
        return action()
    results: list[Result] = []
    failure = catch_out_of_memory(recorder.device, lambda: results.append(action()))
    is_told = isinstance(failure, PeerOutOfMemory)
    if not is_told and not group.any(failure is not None):
        return results[0]
    found = group.gather(None if failure is None or is_told else recorder.oom_record(failure))
    records = [record for record in found if record is not None]
    largest = max(records, key=lambda record: record.requested_bytes + record.allocated_bytes)
    raise SharedOutOfMemory(largest)


class Protection(Protocol):
    """What the loop wraps around the parts of a run that can fail."""

    def step(self, action: Callable[[Sequence[Batch]], None], micro_batches: Sequence[Batch], done: Position) -> None:
        """Run an optimizer step over the micro-batches; `done` is where the run is after it."""

    def in_parts(self, action: Callable[[Part], Result], whole: Part, split: Split[Part]) -> list[Result]:
        """Run over a batch; return the result of each part that it was cut into, without those that do not fit."""

    def save(self, position: Position) -> None:
        """Write a checkpoint."""

    def stop_requested(self) -> bool:
        """Return whether the run is to end at the next safe point."""


class Unprotected:
    """Implements `Protection` for a probe: what fails has to be seen to fail."""

    def __init__(self, run: Run[Strategy], output: Path) -> None:
        self._run = run
        self._output = output

    def step(self, action: Callable[[Sequence[Batch]], None], micro_batches: Sequence[Batch], done: Position) -> None:
        """Run it."""
        action(micro_batches)

    def in_parts(self, action: Callable[[Part], Result], whole: Part, split: Split[Part]) -> list[Result]:
        """Run it whole."""
        return [action(whole)]

    def save(self, position: Position) -> None:
        """Save the training state."""
        self._run.strategy.save(self._output / f"checkpoint-{position.step}")
        keep_newest(self._output, self._run.config.eval.keep_checkpoints)

    def stop_requested(self) -> bool:
        """Return False: a probe runs to its end."""
        return False


class Recovery:
    """Implements `Protection` for a training run.

    Args:
        run: whose steps are undone and whose state is saved.
        recorder: takes what failed and what was done about it.
        folder: the run's.
        manifest: of its checkpoints; its position is where the run begins.
        log_bytes: returns the size of the log.
        stop_requested: returns whether a signal has asked to end.
    """

    def __init__(
        self,
        run: Run[TrainableStrategy],
        recorder: PhaseRecorder,
        folder: Path,
        manifest: Manifest,
        log_bytes: Callable[[], int],
        stop_requested: Callable[[], bool],
    ) -> None:
        self._config = run.config
        self._device = run.device
        self._strategy = run.strategy
        self._recorder = recorder
        self._folder = folder
        self._manifest = manifest
        self._last = replace(manifest.position, pending=False)  # what was pending is done before the first step
        self._log_bytes = log_bytes
        self.limits = manifest.position.limits
        self.stop_requested = stop_requested
        self._seen_retries = run.device.stats().num_alloc_retries

    def step(self, action: Callable[[Sequence[Batch]], None], micro_batches: Sequence[Batch], done: Position) -> None:
        """Run an optimizer step; where memory runs out, undo it, and do it again with more room or in smaller pieces.

        Raises:
            DeviceOutOfMemory: nothing more can be done; a checkpoint of the step before has been written.
        """
        began_with = random_states()
        batches = self._all_within_limit(micro_batches)
        may_clear = True
        while failure := self._try_step(action, batches):
            restore_random_states(began_with)
            if may_clear and self._fits_once_cleared(failure):
                may_clear = False
                self._note(failure, "clear-cache")
            elif smaller := self._smaller(batches, failure):
                self._note(failure, "split-micro-batch", f"{len(batches)} micro-batches, now {len(smaller)}")
                batches = smaller
            else:
                self.save(self._last)
                self._stop(failure)
        self._last = done
        self._heed_retries()

    def _stop(self, failure: DeviceOutOfMemory) -> NoReturn:
        newest = checkpoints(self._folder)[-1].name
        self._record("stop", newest, self._phase_of(failure))
        raise failure

    def _phase_of(self, failure: DeviceOutOfMemory) -> Phase | None:
        failed = failure.record or self._recorder.running_phase
        return failed.phase if failed else None

    def _try_step(
        self, action: Callable[[Sequence[Batch]], None], batches: Sequence[Batch]
    ) -> DeviceOutOfMemory | None:
        """Run the step; where it fails, leave no trace of it but the allocator's statistics."""
        copy = None
        if self._device.group.any(self._optimizer_may_fail()):
            copy = self._strategy.host_copy()
        failure = catch_out_of_memory(self._device, lambda: action(batches))
        if failure is None:
            return None
        if self._phase_of(failure) is Phase.OPTIMIZER:
            if copy is None:  # a part of the update may have happened: only the last checkpoint is whole
                self._stop(failure)
            self._strategy.undo_to(copy)
        self._strategy.abandon()
        self._device.empty_cache()
        return failure

    def _optimizer_may_fail(self) -> bool:
        reserved = [stats.reserved_bytes for stats in (self._device.stats(), *self._device.other_stats())]
        never_reserved = self._device.budget_bytes - max(reserved)
        return never_reserved < GUARD_FACTOR * self._strategy.trainable_bytes()

    def _all_within_limit(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return the batches, those above the limit in halves, and the halves likewise."""
        limit, within = self.limits.train_tokens, list[Batch]()
        for batch in batches:
            if limit is None or batch.shape.padded_tokens <= limit or len(batch.samples) == 1:
                within.append(batch)
            else:
                within += self._all_within_limit(halves(batch, self._config))
        return within

    def _smaller(self, batches: Sequence[Batch], failure: DeviceOutOfMemory) -> list[Batch]:
        """Return the batches with all as large as the one that failed in halves; empty where none can be halved."""
        source = failure.record or self._recorder.running_phase
        failed = source.batch if source else None
        if failed is None:  # the optimizer, whose need no batch decides
            return []
        smaller: list[Batch] = []
        for batch in batches:
            if batch.shape.padded_tokens >= failed.padded_tokens:
                smaller += halves(batch, self._config)
            else:
                smaller.append(batch)
        if len(smaller) == len(batches):
            return []
        self.limits = replace(self.limits, train_tokens=failed.padded_tokens - 1)
        return smaller

    def in_parts(self, action: Callable[[Part], Result], whole: Part, split: Split[Part]) -> list[Result]:
        """Run over a batch; where memory runs out, with a cleared cache, then over its halves, and theirs.

        Returns:
            The results of all parts; a part that does not fit even alone has none.
        """
        if self._is_known_not_to_fit(whole, split):
            return self._over_parts(action, whole, split)
        results, failure = self._try_part(action, whole)
        if failure and self._fits_once_cleared(failure):
            self._note(failure, "clear-cache")
            results, failure = self._try_part(action, whole)
        if failure is None:
            return results
        if split.parts(whole) == [whole]:
            self._note(failure, "skip-batch")
            return []
        tokens = split.tokens(whole)
        self.limits = replace(self.limits, **{split.limit: tokens - 1})
        self._note(failure, "split-batch", f"{tokens} padded tokens")
        return self._over_parts(action, whole, split)

    def _try_part(self, action: Callable[[Part], Result], part: Part) -> tuple[list[Result], DeviceOutOfMemory | None]:
        """Run over a part; return its result, or what ended it, of which no other trace is left."""
        results: list[Result] = []

        def run() -> Result:
            return action(part)

        def run_alike() -> Result:
            return run_collectively(self._recorder, run) if self._device.group.shares_layers else run()

        failure = catch_out_of_memory(self._device, lambda: results.append(run_alike()))
        if failure:
            self._strategy.abandon()
            self._device.empty_cache()
        return results, failure

    def _is_known_not_to_fit(self, whole: Part, split: Split[Part]) -> bool:
        limit: int | None = getattr(self.limits, split.limit)
        return limit is not None and split.tokens(whole) > limit and len(split.parts(whole)) > 1

    def _over_parts(self, action: Callable[[Part], Result], whole: Part, split: Split[Part]) -> list[Result]:
        results: list[Result] = []
        for part in split.parts(whole):
            results += self.in_parts(action, part, split)
        return results

    def _fits_once_cleared(self, failure: DeviceOutOfMemory) -> bool:
        return failure.requested_bytes + failure.allocated_bytes <= self._device.budget_bytes

    def save(self, position: Position) -> None:
        """Write a checkpoint and remove the oldest; a disk that refuses costs this checkpoint, not the run."""
        self._save(position)
        self._device.group.any(False)  # nobody goes on before it is there

    def _save(self, position: Position) -> None:
        try:
            failure = catch_out_of_memory(self._device, lambda: self.write_checkpoint(position))
        except OSError as error:
            reason = f"{error.strerror or error}"
        else:
            if failure is None:
                return
            reason = str(failure)
            self._recorder.out_of_memory(failure)
            self._device.empty_cache()
        self._record("skip-checkpoint", reason)

    def write_checkpoint(self, position: Position) -> None:
        """Write a checkpoint (the first GPU does) and remove the oldest. Raises OSError where the disk refuses it."""
        _, *others = self._device.group.gather(random_states())
        state = self._strategy.training_state()
        if self._device.group.rank:
            return
        position = replace(position, limits=self.limits)
        manifest = replace(self._manifest, position=position, log_bytes=self._log_bytes())

        def save(folder: Path) -> None:
            self._strategy.write_state(folder, state)
            save_peers(folder, others)

        write_checkpoint(self._folder, save, manifest)
        try:
            keep_newest(self._folder, self._config.eval.keep_checkpoints)
        except OSError as error:
            self._record("keep-outdated", error.strerror or str(error))

    def _heed_retries(self) -> None:
        """Clear the cache between steps once the allocator has had to retry repeatedly: the next failure is near."""
        retries = self._device.stats().num_alloc_retries
        if retries - self._seen_retries >= RETRIES_BEFORE_CLEARING:
            self._device.empty_cache()
            self._record("clear-cache", f"{retries - self._seen_retries} allocator retries", Phase.OPTIMIZER)
            self._seen_retries = retries

    def _note(self, failure: DeviceOutOfMemory, action: str, detail: str = "") -> None:
        """Record what failed and what is done about it."""
        self._recorder.out_of_memory(failure)
        self._record(action, detail, self._phase_of(failure))
        self._seen_retries = self._device.stats().num_alloc_retries

    def _record(self, action: str, detail: str, phase: Phase | None = None) -> None:
        recorder = self._recorder
        running = recorder.running_phase
        phase = phase or (running.phase if running else Phase.LOAD)
        recorder.write(RecoveryRecord(phase, recorder.step, recorder.epoch, action, detail))
