"""A CUDA card that is not there, for scripts that ask for one: any program of PyTorch's, unmodified, without values."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from memory_harness.configs.cards import Card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import MemoryStats
from memory_harness.harness.simulate.attention import ANY
from memory_harness.harness.simulate.cards import EachCard
from memory_harness.harness.simulate.facade.cuda import cuda_is_there
from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.files import files_without_weights
from memory_harness.harness.simulate.facade.functions import functions_without_gpu
from memory_harness.harness.simulate.facade.places import tensors_tell_their_place
from memory_harness.harness.simulate.facade.ranks import as_rank_of, collectives, copies_are_refused
from memory_harness.harness.simulate.facade.triton import triton_is_there
from memory_harness.harness.simulate.facade.written import nothing_is_kept
from memory_harness.harness.simulate.memory import UNLIMITED, SimulatedMemory
from memory_harness.harness.simulate.trace import Sinks
from memory_harness.harness.simulate.tracer import EventSink, Lowering, Tracer, lies_on_meta


class _CountedCard:
    """A card's allocator, whose peaks two begin anew, each for themselves: the harness with each phase, the script."""

    def __init__(self, memory: SimulatedMemory) -> None:
        self.memory = memory
        self._highest_of_phase = self._highest_of_script = self._highest_of_run = MemoryStats()

    def stats(self) -> MemoryStats:
        """Return the counters, with the highest since the harness began its peaks anew, whatever the script did."""
        return _with_peaks(self.memory.stats(), self._highest_of_phase)

    def reset_peaks(self) -> None:
        """Start the harness's peaks anew; the script's go on."""
        self._highest_of_script = _with_peaks(self.memory.stats(), self._highest_of_script)
        self._begin_anew()
        self._highest_of_phase = MemoryStats()

    def stats_of_script(self) -> MemoryStats:
        """Return the counters, with the highest since the script began its peaks anew."""
        return _with_peaks(self.memory.stats(), self._highest_of_script)

    def reset_peaks_of_script(self) -> None:
        """Start the script's peaks anew; the harness's go on."""
        self._highest_of_phase = _with_peaks(self.memory.stats(), self._highest_of_phase)
        self._begin_anew()
        self._highest_of_script = MemoryStats()

    def stats_of_run(self) -> MemoryStats:
        """Return the counters, with the highest of all."""
        return _with_peaks(self.memory.stats(), self._highest_of_run)

    def _begin_anew(self) -> None:
        self._highest_of_run = self.stats_of_run()
        self.memory.reset_peaks()


class DryRunDevice(SimulatedDevice):
    """A simulated card that a script finds by itself: `torch.cuda` says it is there.

    Args:
        num_ranks: processes that a launcher would have started, one for each card; this is one of them.
        rank: which of them.
        num_cards: that this process has for itself.
        told: the one of these whose memory is told of; all of them have the budget.
    """

    tracer: FacadeTracer

    def __init__(
        self,
        card: Card,
        budget_bytes: int,
        *,
        expandable_segments: bool = False,
        num_ranks: int = 1,
        rank: int = 0,
        num_cards: int = 1,
        told: int = 0,
    ) -> None:
        super().__init__(
            card,
            budget_bytes,
            computes=False,
            expandable_segments=expandable_segments,
            attention=ANY,
            num_cards=num_cards,
        )
        self.num_ranks, self.rank = num_ranks, rank
        self.tracer.num_visible = max(num_ranks, num_cards)
        self.told = told
        self.failed: int | None = None
        """the card on which an allocation failed last"""
        memories = [SimulatedMemory(budget_bytes, expandable_segments=expandable_segments) for _ in range(num_cards)]
        memories[told] = self._simulated
        self.cards = [_CountedCard(memory) for memory in memories]
        self._each_card = EachCard(memories)
        if num_cards > 1:
            self.tracer.sink = self._each_card
            self.gpu_name = f"{card.title}, GPU {told} of {num_cards}"

    def stats(self) -> MemoryStats:
        """Return the counters of the card that is told of."""
        return self.cards[self.told].stats()

    def other_stats(self) -> list[MemoryStats]:
        """Return those of the other cards."""
        return [card.stats() for card in self.cards if card is not self.cards[self.told]]

    def reset_peaks(self) -> None:
        """Start the harness's peaks anew; the script's go on."""
        for card in self.cards:
            card.reset_peaks()

    def stats_of_run(self) -> tuple[MemoryStats, ...]:
        """Return the counters of all cards, with the highest of the whole run."""
        return tuple(card.stats_of_run() for card in self.cards)

    def without_limit(self) -> None:
        """Let the cards have as much memory as is asked for; what they say of themselves stays."""
        for card in self.cards:
            card.memory.allocator.budget_bytes = UNLIMITED

    def watch_peak(self) -> None:
        """Remember what lives when most is allocated on the card that is told of."""
        super().watch_peak()
        self._tell_of_all()

    def record_history(self) -> None:
        """Keep what happens on the card that is told of."""
        super().record_history()
        self._tell_of_all()

    def _tell_of_all(self) -> None:
        """Let the tracer tell of all cards, where it was made to tell of one."""
        if self.tracer.num_cards > 1:
            self._each_card.sinks[self.told] = self.tracer.sink
            self.tracer.sink = self._each_card

    def _moving_between_cards(self) -> AbstractContextManager[None]:
        """Nothing takes the place of accelerate's hooks: tensors say where they lie."""
        return nullcontext()

    def _make_tracer(self, sink: EventSink, lowerings: dict[Any, Lowering], adopts: bool) -> Tracer:
        return FacadeTracer(sink, {**lowerings, **collectives()})

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, PyTorch code for a GPU runs on the card of the tables."""
        with ExitStack() as stack:
            stack.enter_context(super().active())
            stack.enter_context(cuda_is_there(self.cards, self.budget_bytes, self.tracer, self.card))
            stack.enter_context(tensors_tell_their_place(self.tracer))
            stack.enter_context(nothing_is_kept(self.tracer))
            stack.enter_context(files_without_weights(self.tracer))
            stack.enter_context(triton_is_there(self.tracer))
            stack.enter_context(functions_without_gpu(self.tracer))
            if self.num_ranks > 1:
                stack.enter_context(as_rank_of(self.num_ranks, self.rank, self.tracer))
            if self.tracer.num_visible > 1:
                stack.enter_context(copies_are_refused(self.tracer))
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
        for number, card in enumerate(self.cards):
            card.memory.on_failure = partial(self._note_failure, callback, number)

    def _note_failure(
        self, callback: Callable[[DeviceOutOfMemory], None], number: int, error: DeviceOutOfMemory
    ) -> None:
        self.failed = number
        self._locate(callback, error)

    def handle_of(self, tensor: torch.Tensor) -> Hashable | None:
        """Return the tracer's key of the tensor's storage; None where it lies on a card that is not told of."""
        if not lies_on_meta(tensor) or self.tracer.card_of(tensor) not in (None, self.told):
            return None
        return self.tracer.key_of(tensor)

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
