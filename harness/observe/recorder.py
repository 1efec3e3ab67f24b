"""Turns what happens in a run into records: each phase's memory before and after, each step's floor."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

import psutil

from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.gradients import GradientGuard
from memory_harness.harness.log.peaks import UNKNOWN
from memory_harness.harness.log.records import (
    IN_STEP,
    BatchShape,
    ForwardFacts,
    MemoryStats,
    OomRecord,
    Phase,
    PhaseBegin,
    PhaseRecord,
    ProbeRecord,
    Record,
    StepRecord,
)
from memory_harness.harness.observe.host_containers import ContainerWatch
from memory_harness.harness.observe.host_memory import HostWatch
from memory_harness.harness.observe.live_objects import KnownModels, named_memory, tensors_by_handle
from memory_harness.harness.observe.outside import OutsideSampler
from memory_harness.harness.observe.phase_peaks import PhasePeaks
from memory_harness.harness.observe.survivors import SurvivorTracker

IN_PYTHON = "held_in_python"  # category of what a variable, a list or another object of Python refers to
RSS_SECONDS = 0.005  # from one reading of resident memory to the next: one takes longer than a small phase


class ResidentMemory:
    """The process's resident memory, read at most once in `RSS_SECONDS`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._num_bytes = 0
        self._read_at = -RSS_SECONDS

    def num_bytes(self) -> int:
        """Return what was resident when it was read last."""
        now = time.perf_counter()
        if now - self._read_at >= RSS_SECONDS:
            self._num_bytes, self._read_at = self._process.memory_info().rss, now
        return self._num_bytes


@dataclass(frozen=True)
class BegunPhase:
    """A phase that is running."""

    phase: Phase
    batch: BatchShape | None
    index: int
    before: MemoryStats
    time: float  # as `time.perf_counter` counts


class PhaseRecorder:
    """Writes records to `write` as they happen while a run advances on the device; knows where the run is."""

    def __init__(self, device: ObservableDevice, write: Callable[[Record], None]) -> None:
        self.device = device
        self.write = write
        self.step = 0
        self.micro_step = 0
        self.epoch = 0
        self.training = 1
        self.forward_facts: ForwardFacts | None = None  # how the forward pass of the running phase was made
        self.vocab_size = 0  # tells logits from activations; 0 while no model is loaded
        self.running_phase: BegunPhase | None = None  # also once it has raised an error, until another begins
        self._resident = ResidentMemory()
        self.peak_allocated_bytes = 0  # highest of all phases so far
        self._host_rss_bytes = 0  # resident memory when the last phase ended
        self._containers = ContainerWatch(write)
        self.host = HostWatch(write)  # notices that the process grows
        self.survivors = SurvivorTracker(device, write)  # notices memory that stays or grows
        self.known_models = KnownModels()
        self._peaks = PhasePeaks(
            device, self.survivors, self.known_models, write
        )  # notices what the first peaks are made of
        self._outside = OutsideSampler(device, write)
        self._gradients = GradientGuard()

    @contextmanager
    def phase(self, phase: Phase, batch: BatchShape | None = None, index: int = 0) -> Iterator[None]:
        """Record a phase, also when it fails: the peak that it reached is what one wants to know then."""
        begun = self.begin_phase(phase, batch, index)
        try:
            yield
            self.running_phase = None
        finally:
            self.end_phase(begun)

    def begin_phase(self, phase: Phase, batch: BatchShape | None = None, index: int = 0) -> BegunPhase:
        """Begin a phase where no context can span it; pass what is returned to `end_phase`."""
        self.write(PhaseBegin(phase, self.step, self.micro_step, self.epoch))
        self.forward_facts = None
        before = self.device.stats()
        positions = batch.padded_length if batch is not None else 0
        self.survivors.begin_phase(phase, self.step, index, before.allocated_bytes, positions)
        if phase is Phase.EVAL:
            self.survivors.begin_evaluation_batch(index, self._host_rss_bytes)
        self._peaks.begin_phase(phase, batch, self.vocab_size)
        self.device.reset_peaks()
        self.running_phase = BegunPhase(phase, batch, index, before, time.perf_counter())
        return self.running_phase

    def end_phase(self, begun: BegunPhase) -> None:
        """Write the record of a phase, with the peak since it began."""
        self._host_rss_bytes = self._resident.num_bytes()
        after = self.device.stats()
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, after.peak_allocated_bytes)
        self.write(
            PhaseRecord(
                phase=begun.phase,
                step=self.step,
                micro_step=self.micro_step,
                epoch=self.epoch,
                seconds=round(time.perf_counter() - begun.time, 6),
                allocated_before_bytes=begun.before.allocated_bytes,
                reserved_before_bytes=begun.before.reserved_bytes,
                after=after,
                index=begun.index,
                batch=begun.batch,
                host_rss_bytes=self._host_rss_bytes,
                forward=self.forward_facts,
            )
        )
        self._peaks.end_phase(begun.phase, self.step, after)
        if begun.phase not in IN_STEP:
            self._outside.sample(begun.phase, self.step, after.reserved_bytes)

    def end_step(
        self,
        shapes: list[BatchShape],
        loss: float | None,
        grad_norm: float | None,
        learning_rate: float,
        seconds: float,
    ) -> None:
        """Record an optimizer step: the floor that memory returned to, and what the step worked on.

        Raises GradientError where the last steps' gradients train nothing.
        """
        stats = self.device.stats()
        lengths = tuple(chain.from_iterable(shape.lengths for shape in shapes))
        padded = sum(shape.padded_tokens for shape in shapes)
        record = StepRecord(
            step=self.step,
            epoch=self.epoch,
            micro_steps=len(shapes),
            lengths=lengths,
            padded_share=1 - sum(lengths) / padded if padded else 0.0,
            target_tokens=sum(shape.target_tokens for shape in shapes),
            loss=loss,
            learning_rate=learning_rate,
            seconds=round(seconds, 6),
            allocated_bytes=stats.allocated_bytes,
            reserved_bytes=stats.reserved_bytes,
            num_alloc_retries=stats.num_alloc_retries,
            host_rss_bytes=self._resident.num_bytes(),
            grad_norm=grad_norm,
            workers_rss_bytes=_workers_rss_bytes(),
            training=self.training,
        )
        self.write(record)
        self._outside.sample(Phase.STEP, self.step, stats.reserved_bytes)
        self._peaks.end_step()
        self.survivors.end_step(self.step, stats)
        # where phases are replayed no code of a user's runs that could keep anything, and what is recorded grows
        if self.device.shows_peaks:
            self.host.end_step(self.step, record.host_rss_bytes, stats.allocated_bytes)
            self._containers.end_step(self.step, record.host_rss_bytes, stats.allocated_bytes)
        self._gradients.check(record)

    def stop(self) -> None:
        """Look at nothing any more: the loop has ended, be it by an error."""
        self.host.stop()
        self._peaks.stop()

    def end_run(self) -> None:
        """Write what is still being looked at; comes before the probes, which take the evidence away."""
        self.stop()
        self._containers.end_run()
        self.survivors.end_run(self.device.stats().allocated_bytes)

    def probe(self, name: str, action: Callable[[], object]) -> None:
        """Record what the action frees. It takes away evidence, so it belongs at the end of a run."""
        before = self.device.stats()
        action()
        after = self.device.stats()
        allocated = before.allocated_bytes, after.allocated_bytes
        reserved = before.reserved_bytes, after.reserved_bytes
        self.write(ProbeRecord(name, self.step, *allocated, *reserved))

    def out_of_memory(self, error: DeviceOutOfMemory) -> None:
        """Record an allocation that failed."""
        self._peaks.stop()
        self.survivors.stop(error.allocated_bytes)
        phase = self.running_phase.phase if self.running_phase else Phase.LOAD
        self._outside.sample(phase, self.step, error.reserved_bytes)
        self.write(error.record or self.oom_record(error))

    def oom_record(self, error: DeviceOutOfMemory) -> OomRecord:
        """Return the record of an allocation that failed in the phase that ran last."""
        stats = self.device.stats()
        begun = self.running_phase or BegunPhase(Phase.LOAD, None, 0, stats, 0.0)
        logits_sizes = {}
        if begun.batch is not None and self.vocab_size:
            num_logits = begun.batch.padded_tokens * self.vocab_size
            logits_sizes = {2 * num_logits: "logits", 4 * num_logits: "logits"}
        live = self._named(dict(self.device.live_bytes(logits_sizes)), error.allocated_bytes)
        if begun.phase is Phase.LOAD:  # weights get their names once all are there
            live["parameter"] = live.get("parameter", 0) + live.pop("activation", 0)
        return OomRecord(
            phase=begun.phase,
            step=self.step,
            micro_step=self.micro_step,
            epoch=self.epoch,
            requested_bytes=error.requested_bytes,
            allocated_bytes=error.allocated_bytes,
            reserved_bytes=error.reserved_bytes,
            budget_bytes=self.device.budget_bytes,
            largest_free_block_bytes=error.largest_free_block_bytes,
            num_alloc_retries=stats.num_alloc_retries,
            batch=begun.batch,
            where=error.where,
            frames=error.frames,
            live_bytes={name: num_bytes for name, num_bytes in live.items() if num_bytes},
            index=begun.index,
            segments=error.segments,
            caught_at=error.caught_at,
            batch_at=error.batch_at,
        )

    def _named(self, live: dict[str, int], allocated_bytes: int) -> dict[str, int]:
        """Return live bytes by category; where the device cannot tell them apart, by what refers to them."""
        if live and UNKNOWN not in live:
            return live
        found = Counter(live or {UNKNOWN: allocated_bytes})
        named = named_memory(self.device, self.known_models)
        for category, _, num_bytes in named.values():
            found[category] += num_bytes
            found[UNKNOWN] -= num_bytes
        found[UNKNOWN] = max(0, found[UNKNOWN])
        in_python = 0
        for handle, tensors in tensors_by_handle(self.device).items():
            if handle not in named:
                in_python += tensors[0].untyped_storage().nbytes()
        found[IN_PYTHON] = min(in_python, found[UNKNOWN])  # of logits the device has told already
        found[UNKNOWN] -= found[IN_PYTHON]
        return found


def _workers_rss_bytes() -> int:
    """Return the resident memory of the processes that this one has started and that still run."""
    total = 0
    for worker in multiprocessing.active_children():
        with suppress(psutil.Error):
            total += psutil.Process(worker.pid).memory_info().rss
    return total
