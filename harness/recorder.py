"""Turns what happens in a run into records: each phase's memory before and after, each step's floor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from harness.devices.base import Device
from harness.errors import DeviceOutOfMemory
from harness.gradients import GradientGuard
from harness.records import (
    BatchShape,
    ForwardFacts,
    OomRecord,
    Phase,
    PhaseBegin,
    PhaseRecord,
    ProbeRecord,
    Record,
    StepRecord,
)
from harness.zoom import Zoom


class Recorder:
    """Writes records to `write` while a run advances; knows where the run is.

    Args:
        device: whose memory is read.
        write: takes each record as it happens.
    """

    def __init__(self, device: Device, write: Callable[[Record], None]) -> None:
        self.device = device
        self.write = write
        self.step = 0
        self.micro_step = 0
        self.epoch = 0
        self.forward_facts: ForwardFacts | None = None
        """how the forward pass of the running phase was made"""
        self._current: tuple[Phase, BatchShape | None, int] | None = None
        self._process = psutil.Process()
        self._zoom = Zoom(device, write)
        self._gradients = GradientGuard()

    @contextmanager
    def phase(self, phase: Phase, batch: BatchShape | None = None, index: int = 0) -> Iterator[None]:
        """Record a phase, also when it fails: the peak that it reached is what one wants to know then."""
        self.write(PhaseBegin(phase, self.step, self.micro_step, self.epoch))
        self._current = (phase, batch, index)
        self.forward_facts = None
        before = self.device.stats()
        self._zoom.begin_phase(phase, self.step, index, before.allocated_bytes)
        self.device.reset_peaks()
        begin = time.perf_counter()
        try:
            yield
            self._current = None
        finally:
            self.write(
                PhaseRecord(
                    phase=phase,
                    step=self.step,
                    micro_step=self.micro_step,
                    epoch=self.epoch,
                    seconds=time.perf_counter() - begin,
                    allocated_before_bytes=before.allocated_bytes,
                    reserved_before_bytes=before.reserved_bytes,
                    after=self.device.stats(),
                    index=index,
                    batch=batch,
                    host_rss_bytes=self._process.memory_info().rss,
                    driver_used_bytes=self.device.driver_used_bytes(),
                    forward=self.forward_facts,
                )
            )

    def end_step(
        self,
        shapes: list[BatchShape],
        loss: float | None,
        grad_norm: float | None,
        learning_rate: float,
        seconds: float,
    ) -> None:
        """Record an optimizer step: the floor that memory returned to, and what the step worked on.

        Raises:
            GradientError: the last steps' gradients train nothing.
        """
        stats = self.device.stats()
        lengths = tuple(length for shape in shapes for length in shape.lengths)
        padded = sum(shape.padded_tokens for shape in shapes)
        record = StepRecord(
            step=self.step,
            epoch=self.epoch,
            micro_steps=len(shapes),
            lengths=lengths,
            padded_share=1 - sum(lengths) / padded,
            target_tokens=sum(shape.target_tokens for shape in shapes),
            loss=loss,
            learning_rate=learning_rate,
            seconds=seconds,
            allocated_bytes=stats.allocated_bytes,
            reserved_bytes=stats.reserved_bytes,
            num_alloc_retries=stats.num_alloc_retries,
            host_rss_bytes=self._process.memory_info().rss,
            grad_norm=grad_norm,
        )
        self.write(record)
        self._zoom.end_step(self.step, stats.allocated_bytes)
        self._gradients.check(record)

    def probe(self, name: str, action: Callable[[], object]) -> None:
        """Record what the action frees. It takes away evidence, so it belongs at the end of a run."""
        before = self.device.stats()
        action()
        after = self.device.stats()
        self.write(
            ProbeRecord(
                name,
                self.step,
                before.allocated_bytes,
                after.allocated_bytes,
                before.reserved_bytes,
                after.reserved_bytes,
            )
        )

    def out_of_memory(self, error: DeviceOutOfMemory, vocab_size: int) -> None:
        """Record an allocation that failed in the phase that ran last; `vocab_size` tells logits from activations."""
        self._zoom.stop()
        phase, batch, index = self._current or (Phase.LOAD, None, 0)
        tokens = batch.padded_tokens if batch else 0
        logits_sizes = {tokens * vocab_size * size: "logits" for size in (2, 4)}
        stats = self.device.stats()
        self.write(
            OomRecord(
                phase=phase,
                step=self.step,
                micro_step=self.micro_step,
                epoch=self.epoch,
                requested_bytes=error.requested_bytes,
                allocated_bytes=error.allocated_bytes,
                reserved_bytes=error.reserved_bytes,
                budget_bytes=self.device.budget_bytes,
                largest_free_block_bytes=error.largest_free_block_bytes,
                num_alloc_retries=stats.num_alloc_retries,
                batch=batch,
                where=error.where,
                frames=error.frames,
                live_bytes=dict(self.device.live_bytes(logits_sizes)),
                index=index,
            )
        )
