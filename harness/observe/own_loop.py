"""Any training loop, recorded: the loop says where its steps and phases are, the device what they take.

    from memory_harness import Recorder

    with Recorder.open("runs/mine", budget="14.4 GiB") as r:
        for batch in loader:
            with r.step(batch):
                with r.phase("forward"):
                    loss = model(**batch).loss
                with r.phase("backward"):
                    loss.backward()
                with r.phase("optimizer"):
                    optimizer.step()
                    optimizer.zero_grad()
    r.report()

With a CUDA GPU the numbers are measured. Without one, CPU tensors count as if they lay on the card: what is made goes
through the model of its allocator, and an allocation beyond the budget raises `torch.OutOfMemoryError`. What threads
allocate counts where they begin within the recording: PyTorch's dispatch modes belong to a thread.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from memory_harness.configs.cards import Card, find_card
from memory_harness.configs.targets import DEFAULT_CARD, budget_bytes_of, check_device
from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.devices.cuda import CudaDevice
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.environment import environment
from memory_harness.harness.log.errors import ConfigError, DeviceOutOfMemory, GradientError, HarnessError
from memory_harness.harness.log.files import create_unused
from memory_harness.harness.log.records import (
    BatchShape,
    EndRecord,
    EvalRecord,
    Outcome,
    Phase,
    Record,
    RunRecord,
    phase_named,
    run_record_of,
)
from memory_harness.harness.log.runlog import LogWriter
from memory_harness.harness.observe.caught_failures import CaughtFailures
from memory_harness.harness.observe.facts import batch_shape, model_facts
from memory_harness.harness.observe.recorder import BegunPhase, PhaseRecorder
from memory_harness.harness.observe.script_threads import future_patches, running_frame, thread_patches

FilePath = str | os.PathLike[str]
GAP_BYTES = 4096  # least rise between a step's phases that is recorded: a number that is read back takes 512 B


def choose_device(
    device: str, gpu: str | Card | None, budget: str | int | None, *, adopts: bool = False, lowered: bool = False
) -> ObservableDevice:
    """Return the device for a loop that is not ours; nothing of the GPU is switched off where no card is named.

    Args:
        device: one of `DEVICES`; `gpu` and `budget` as in `Recorder.open`.
        adopts: without a GPU, tensors made before count from their first use on.
        lowered: without a GPU, run what the card would run; False leaves the CPU's operators as they are.

    Raises:
        ConfigError: a value is not usable.
        DeviceError: there is no GPU, or it is smaller than the budget.
    """
    card = check_device(device, gpu)
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        budget_bytes = budget_bytes_of(budget, card)
        if card is not None:
            budget_bytes = budget_bytes or card.budget_bytes
        return CudaDevice(card, budget_bytes, share_gpu=True)
    card = card or find_card(DEFAULT_CARD)
    budget_bytes = budget_bytes_of(budget, card)
    return SimulatedDevice(card, budget_bytes or card.budget_bytes, computes=True, adopts=adopts, lowered=lowered)


def _create_log(path: Path) -> Path:
    """Create a log that nobody else writes to; an earlier one of that name is kept."""
    if not path.name:
        raise ConfigError(f"{path}: the name of a log is needed; give another path")
    name = path.name.removesuffix(".jsonl")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot make the folder ({error.strerror}); give another path") from None
    try:
        return create_unused(path.parent, name, ".jsonl", lambda log: log.touch(exist_ok=False))
    except OSError as error:
        raise ConfigError(f"{path}: cannot write there ({error.strerror}); give another path") from None


@dataclass
class StepFacts:
    """What a loop may say about its step, for the record; a tensor is read back, which waits for it."""

    loss: float | None = None
    learning_rate: float = 0.0
    grad_norm: float | None = None


class Recorder:
    """A loop under observation. `Recorder.open` makes one; `phase_recorder` is what it writes through."""

    print_report: ClassVar[Callable[[Path], None] | None] = None
    """prints the report on a log; `memory_harness` sets it, since reports lie above the harness"""
    report_of: ClassVar[Callable[[Path], Any] | None] = None
    """returns the report on a log, as an object that shows itself; set likewise"""

    @staticmethod
    @contextmanager
    def open(
        path: FilePath, *, device: str = "auto", gpu: str | None = None, budget: str | int | None = None
    ) -> Iterator[Recorder]:
        """Record a training loop into a new log while the context lasts.

        Args:
            path: of the log; `.jsonl` is added, and a number where there is one of that name.
            device: `cuda` measures, `simulated` takes CPU tensors for tensors of a card; `auto` measures on a GPU.
            gpu: card of gpus.toml to stand for; None is the GPU that is there, or a T4.
            budget: what PyTorch may reserve, such as `14.4 GiB`; None is all that the card gives it.

        Raises:
            ConfigError: a value is not usable.
            DeviceError: the device is not to be had.
        """
        chosen = choose_device(device, gpu, budget, adopts=True)
        recorder: Recorder | None = None
        log = _create_log(Path(path))
        try:
            with LogWriter(log) as writer, Recorder(chosen, writer.write, log).running() as recorder:
                yield recorder
        except BaseException as error:
            if recorder is not None and chosen.as_out_of_memory(error) is not None:
                recorder.tell()
            raise

    def __init__(self, device: ObservableDevice, write: Callable[[Record], None], log: Path | None = None) -> None:
        self.device = device
        self.log = log  # the file that the records go to, for `report`
        self.has_told = False  # whether an out-of-memory that passed has printed the report
        self.phase_recorder = PhaseRecorder(device, write)
        self.phase_recorder.epoch = 1
        self._write = write
        self._run = new_run_record(device)
        self.failure: DeviceOutOfMemory | None = None  # the last, caught or not; without the error's traceback
        self._shapes: list[BatchShape] = []  # of the running step's micro-batches
        self._batch: BatchShape | None = None
        self._gap: BegunPhase | None = None  # the running step, while no phase of it is
        self._outside: BegunPhase | None = None  # what runs outside of steps and phases, while that is so
        self._in_step = self._has_phases = self._is_over = False
        self._caught: CaughtFailures | None = None  # follows what is done about failed allocations
        self._lost: set[int] = set()  # failed allocations in threads that nobody has asked for
        self._inside: Phase | None = None
        self._last: tuple[Phase | None, int, int] = (None, 0, 0)  # phase, step and index of the phase that began last

    @contextmanager
    def running(self) -> Iterator[Recorder]:
        """Within, PyTorch code runs on the device. An error goes on to the caller, and into the log as the outcome."""
        begin = time.perf_counter()
        self._write(self._run)
        self.device.on_out_of_memory(self._note_out_of_memory)
        outcome, message = Outcome.COMPLETED, ""
        try:
            with ExitStack() as threads, self.device.active():
                for change in thread_patches(self.device, self._note_lost):
                    threads.enter_context(change)
                for change in future_patches(self._note_lost, self._note_taken):
                    threads.enter_context(change)
                self._begin_outside()
                yield self
            if self._lost:
                outcome = Outcome.OOM
        except BaseException as error:
            outcome, message = self._outcome_of(error)
            raise
        finally:
            self._end(outcome, message, time.perf_counter() - begin)

    def _outcome_of(self, error: BaseException) -> tuple[Outcome, str]:
        """Return the outcome that an error is, and what to say of it."""
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            return Outcome.STOPPED, repr(error)
        if self.device.as_out_of_memory(error) is not None:
            return Outcome.OOM, ""
        return Outcome.ERROR, repr(error)

    def _end(self, outcome: Outcome, message: str, seconds: float) -> None:
        """Try what frees memory, say how many steps there were, and close the log."""
        self._end_outside(is_last=True)
        self._is_over = True
        if outcome is Outcome.COMPLETED:  # else the error's frames hold whatever they were at
            self.phase_recorder.end_run()
        self.phase_recorder.stop()
        self.phase_recorder.probe("gc", gc.collect)
        self.phase_recorder.probe("autocast_cache", torch.clear_autocast_cache)
        if outcome is Outcome.COMPLETED and not self._run.total_steps:
            self.describe(total_steps=self.phase_recorder.step)
        self._write(EndRecord(outcome, self.phase_recorder.step, seconds, message))

    def _note_lost(self, error: BaseException) -> None:
        """Take what ended a thread, or its work for a pool, of which the loop itself may know nothing."""
        if self.device.as_out_of_memory(error) is not None:
            self._lost.add(id(error))

    def _note_taken(self, error: BaseException) -> None:
        """Take what the loop has got to know of: it may do the work again, or end."""
        self._lost.discard(id(error))

    def _note_out_of_memory(self, error: DeviceOutOfMemory) -> None:
        if self._is_over:  # in a thread that goes on
            return
        sizes = (error.requested_bytes, error.allocated_bytes, error.reserved_bytes, error.largest_free_block_bytes)
        self.failure = DeviceOutOfMemory(*sizes, error.where, error.frames)
        if self._caught is not None:
            begun = self.phase_recorder.running_phase
            frame = running_frame(threading.main_thread().ident or 0)
            error.caught_at = self._caught.note_failure(begun.phase if begun else None, frame)
        self.phase_recorder.vocab_size = self._run.vocab_size
        self.phase_recorder.out_of_memory(error)

    def follow_failures(self) -> CaughtFailures:
        """Follow from now on what the loop does about failed allocations; return what is to be told of its calls."""
        self._caught = CaughtFailures()
        self._run = dataclasses.replace(self._run, follows_failures=True)
        return self._caught

    def describe(
        self,
        model: torch.nn.Module | None = None,
        *,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        """Say what is known about the run: the model's sizes let the report factor sizes, the steps name the moment."""
        changes: dict[str, Any] = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        if model is not None:
            changes["model"] = model_facts(model)
        given = {name: value for name, value in changes.items() if value is not None}
        self._run = dataclasses.replace(self._run, **given)
        self._write(self._run)  # the last one counts

    @property
    def epoch(self) -> int:
        """The epoch that steps belong to; the first is 1."""
        return self.phase_recorder.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self.phase_recorder.epoch = number

    @contextmanager
    def step(self, batch: Any = None) -> Iterator[StepFacts]:
        """Record an optimizer step; micro-batches are given to `phase("forward", batch)` where there are several.

        What happens in it outside of any phase is recorded as STEP.
        """
        self._check_free("step")
        self._end_outside()
        begin, facts = time.perf_counter(), StepFacts()
        recorder = self.phase_recorder
        recorder.step += 1
        recorder.micro_step, self._shapes, self._has_phases = 0, [], False
        self._batch = batch_shape_on_host(self.device, batch)
        self._gap = recorder.begin_phase(Phase.STEP, self._batch)
        self._in_step = True
        try:
            yield facts
        finally:
            self._in_step = False
            self._end_gap(is_whole_step=not self._has_phases)
        if not self._shapes and self._batch is not None:
            self._shapes.append(self._batch)
        seconds = time.perf_counter() - begin
        with self.device.on_host():
            loss, grad_norm = _number("loss", facts.loss), _number("grad_norm", facts.grad_norm)
            learning_rate = _number("learning_rate", facts.learning_rate) or 0.0
        with suppress(GradientError):  # not ours to stop; the log has the norms
            recorder.end_step(self._shapes, loss, grad_norm, learning_rate, seconds)
        self._batch = None
        self._begin_outside()

    @contextmanager
    def phase(self, name: str | Phase, batch: Any = None) -> Iterator[None]:
        """Record a part of the loop: load, data, forward, backward, optimizer, eval, checkpoint, generate, resume.

        The name may be in any case. A batch of None is the step's.

        Raises:
            ConfigError: there is no such phase.
            HarnessError: another one is running.
        """
        phase = phase_named(name)
        self._check_free(f"phase {phase}", in_step=True)
        self._end_outside()
        shape = batch_shape_on_host(self.device, batch)
        if shape is None and phase in _OF_STEP:
            shape = self._batch
        if phase is Phase.FORWARD and shape is not None:
            self.phase_recorder.micro_step = len(self._shapes)
            self._shapes.append(shape)
        self._end_gap()
        self._has_phases, self._inside = True, phase
        try:
            with self.phase_recorder.phase(phase, shape, self._next_index(phase)):
                yield
        finally:
            self._inside = None
        if self._in_step:
            self._gap = self.phase_recorder.begin_phase(Phase.STEP, self._batch)
        else:
            self._begin_outside()

    def _check_free(self, what: str, *, in_step: bool = False) -> None:
        """Raise HarnessError where what begins would take the peaks of something that still runs."""
        if self._is_over:
            raise HarnessError(f"{what}: the recording is over; open another one")
        if self._inside is not None:
            raise HarnessError(f"{what}: {self._inside} is still running; phases follow one another")
        if self._in_step and not in_step:
            raise HarnessError(f"{what}: step {self.phase_recorder.step} is still running; steps follow one another")

    def evaluated(self, loss: float | None, target_tokens: int = 0) -> None:
        """Record that an evaluation is over, whose batches were phases."""
        phase, _, index = self._last
        batches = index + 1 if phase is Phase.EVAL else 0
        self._write(EvalRecord(self.phase_recorder.step, self.phase_recorder.epoch, batches, target_tokens, loss))

    def _next_index(self, phase: Phase) -> int:
        """Count evaluation batches and generate calls that follow one another."""
        step = self.phase_recorder.step
        follows = phase in _COUNTED and self._last[:2] == (phase, step)
        index = self._last[2] + 1 if follows else 0
        self._last = (phase, step, index)
        return index

    def _begin_outside(self) -> None:
        self.device.reset_peaks()
        self._outside = BegunPhase(Phase.STEP, None, 0, self.device.stats(), time.perf_counter())

    def _end_outside(self, *, is_last: bool = False) -> None:
        """Record what ran outside of steps and phases only where the run's peak would be missed without it.

        What comes before the first of them makes the model and its like, which the first one then shows as held.
        """
        outside, self._outside = self._outside, None
        recorder = self.phase_recorder
        is_first = self._last[0] is None and not recorder.step
        if outside is None or (is_first and not is_last):
            return
        if self.device.stats().peak_allocated_bytes > recorder.peak_allocated_bytes + GAP_BYTES:
            recorder.end_phase(outside)

    def _end_gap(self, *, is_whole_step: bool = False) -> None:
        """Record what a step does outside of phases, where that is more than to read numbers."""
        gap, self._gap = self._gap, None
        if gap is not None:
            rise = self.device.stats().peak_allocated_bytes - gap.before.allocated_bytes
            if rise > GAP_BYTES or is_whole_step:
                self.phase_recorder.end_phase(gap)

    def tell(self) -> None:
        """Print the report on a log that has ended by itself, where reports are known; once."""
        if Recorder.print_report is not None and self.log is not None and not self.has_told:
            self.has_told = True
            Recorder.print_report(self.log)

    def report(self) -> None:
        """Print the report on the log, as `run_probe.py --replay` does. Raises HarnessError where it cannot."""
        if Recorder.print_report is None:
            raise HarnessError("report: no reports are known here; import by `from memory_harness import Recorder`")
        if self.log is None:
            raise HarnessError("report: there is no log; open the recorder by `Recorder.open`")
        Recorder.print_report(self.log)

    def _repr_html_(self) -> str | None:
        """Return the report for a notebook's cell; nothing while none is known."""
        if Recorder.report_of is None or self.log is None:
            return None
        page: str = Recorder.report_of(self.log)._repr_html_()
        return page


def _number(name: str, value: Any) -> float | None:
    """Return a number that a loop gave, a tensor's too, for which this waits. Raises HarnessError where it is none."""
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        value = value.detach()
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise HarnessError(f"{name} of a step: a number, not {type(value).__name__}") from None


_OF_STEP = (Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)
_COUNTED = (Phase.EVAL, Phase.GENERATE)


def batch_shape_on_host(device: ObservableDevice, batch: Any) -> BatchShape | None:
    """Return the batch's shape; reading its mask and labels does not count as the loop's own."""
    with device.on_host():
        return batch_shape(batch)


def new_run_record(device: ObservableDevice) -> RunRecord:
    """Return the first record of a run of which nothing is known but the device."""
    return run_record_of(device.source, device.gpu_name, device.budget_bytes, environment=environment())
