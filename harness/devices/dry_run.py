"""A CUDA card that is not there, for scripts that ask for one: any program of PyTorch's, unmodified, without values."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from memory_harness.configs.cards import Card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import MemoryStats
from memory_harness.harness.simulate.attention import ANY
from memory_harness.harness.simulate.facade.cuda import cuda_is_there
from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.files import files_without_weights
from memory_harness.harness.simulate.facade.functions import functions_without_gpu
from memory_harness.harness.simulate.facade.places import tensors_tell_their_place
from memory_harness.harness.simulate.facade.ranks import collectives, first_rank_of
from memory_harness.harness.simulate.facade.triton import triton_is_there
from memory_harness.harness.simulate.facade.written import nothing_is_kept
from memory_harness.harness.simulate.trace import Sinks
from memory_harness.harness.simulate.tracer import EventSink, Lowering, Tracer, lies_on_meta


class DryRunDevice(SimulatedDevice):
    """A simulated card that a script finds by itself: `torch.cuda` says it is there.

    Args:
        num_ranks: processes that a launcher would have started, one for each card; this is the first of them.
    """

    tracer: FacadeTracer

    def __init__(self, card: Card, budget_bytes: int, *, expandable_segments: bool = False, num_ranks: int = 1) -> None:
        self._highest_of_phase = self._highest_of_script = MemoryStats()
        super().__init__(card, budget_bytes, computes=False, expandable_segments=expandable_segments, attention=ANY)
        self.num_ranks = num_ranks

    def stats(self) -> MemoryStats:
        """Return the counters, with the highest since the harness began its peaks anew, whatever the script did."""
        return _with_peaks(super().stats(), self._highest_of_phase)

    def reset_peaks(self) -> None:
        """Start the harness's peaks anew; the script's go on."""
        self._highest_of_script = _with_peaks(super().stats(), self._highest_of_script)
        super().reset_peaks()
        self._highest_of_phase = MemoryStats()

    def stats_of_script(self) -> MemoryStats:
        """Return the counters, with the highest since the script began its peaks anew."""
        return _with_peaks(super().stats(), self._highest_of_script)

    def reset_peaks_of_script(self) -> None:
        """Start the script's peaks anew; the harness's go on."""
        self._highest_of_phase = _with_peaks(super().stats(), self._highest_of_phase)
        super().reset_peaks()
        self._highest_of_script = MemoryStats()

    def _make_tracer(self, sink: EventSink, lowerings: dict[Any, Lowering], adopts: bool) -> Tracer:
        return FacadeTracer(sink, {**lowerings, **collectives()})

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, PyTorch code for a GPU runs on the card of the tables."""
        with ExitStack() as stack:
            stack.enter_context(super().active())
            stack.enter_context(cuda_is_there(self, self.card, self.num_ranks))
            stack.enter_context(tensors_tell_their_place(self.tracer))
            stack.enter_context(nothing_is_kept(self.tracer))
            stack.enter_context(files_without_weights(self.tracer))
            stack.enter_context(triton_is_there(self.tracer))
            stack.enter_context(functions_without_gpu(self.tracer))
            if self.num_ranks > 1:
                stack.enter_context(first_rank_of(self.num_ranks, self.tracer))
            yield

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Within, all is observed as ever: without the tracer nothing of the script's would run."""
        yield

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Within, nothing counts as device memory, whatever device the script makes tensors on by default."""
        with super().on_host(), torch.device("cpu"):
            yield

    def on_out_of_memory(self, callback: Callable[[DeviceOutOfMemory], None]) -> None:
        """Call back for every allocation that fails from now on, located by the script's own line."""
        self._simulated.on_failure = partial(self._locate, callback)

    def handle_of(self, tensor: torch.Tensor) -> Hashable | None:
        """Return the tracer's key of the tensor's storage."""
        return self.tracer.key_of(tensor) if lies_on_meta(tensor) else None

    def adopt(self, values: Any) -> None:
        """Nothing is to be adopted: all that lies on the card was made under the tracer."""


def run_on_card_of(device: SimulatedDevice, program: Callable[[str], Any]) -> Any:
    """Run code that asks for `cuda` by name; what it allocates is allocated on the device, which keeps what it leaves.

    Args:
        program: takes PyTorch's name of the card.
    """
    card = DryRunDevice(device.card, device.budget_bytes)
    card._simulated.allocator.budget_bytes = None  # whether there is room is up to the device
    card.tracer.sink = Sinks(card.tracer.sink, device.tracer.sink)
    card.tracer.take_over(device.tracer)
    try:
        with device.unobserved(), card.active():
            return program("cuda:0")
    finally:
        device.tracer.take_over(card.tracer)


def _with_peaks(now: MemoryStats, earlier: MemoryStats) -> MemoryStats:
    """Return counters whose peaks are the higher ones of both."""
    return replace(
        now,
        peak_allocated_bytes=max(now.peak_allocated_bytes, earlier.peak_allocated_bytes),
        peak_reserved_bytes=max(now.peak_reserved_bytes, earlier.peak_reserved_bytes),
    )
