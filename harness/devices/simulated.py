"""A CUDA card that is not there: PyTorch code runs on the CPU, its allocations on a model of the card's allocator."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode, _pop_mode, _push_mode

from memory_harness.configs.cards import Card
from memory_harness.harness.devices.base import Allocation, AllocationEvent, HighestRecords, live_at_peak
from memory_harness.harness.devices.card_memory import CardMemory, LiveMemory
from memory_harness.harness.devices.heap import heap_reader
from memory_harness.harness.devices.parallel import SINGLE_GPU, Group, local_part, mesh_of
from memory_harness.harness.log.allocator_sizes import LEAST_CARD_BYTES, fine_segment_size
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import (
    DriverUse,
    GpuProcess,
    MemoryStats,
    PeakPart,
    PeakRecord,
    PoolUse,
    RunRecord,
    SegmentRuns,
    record_to_dict,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.snapshot import write_snapshot
from memory_harness.harness.log.source_lines import SourceLine, is_harness, users_line
from memory_harness.harness.simulate.allocator import GRAPH_POOL, GRAPH_STREAM
from memory_harness.harness.simulate.attention import ANY
from memory_harness.harness.simulate.autocast import meta_autocast
from memory_harness.harness.simulate.cards import hooks_move_between_cards
from memory_harness.harness.simulate.fsdp import gathered_weights_are_traced, sharding_without_peers
from memory_harness.harness.simulate.layer_marks import LayerMarks
from memory_harness.harness.simulate.layer_replay import LayerReplay
from memory_harness.harness.simulate.lowering import operator_lowerings, replaced_functions
from memory_harness.harness.simulate.memory import SimulatedMemory, WatchedAllocation
from memory_harness.harness.simulate.tracer import (
    HOST,
    MAX_SITE_FRAMES,
    WATCHED_SITE_FRAMES,
    EventSink,
    Lowering,
    Place,
    Tracer,
    frames_and_layer,
    source_lines,
)

_is_autocast_enabled, _get_autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype


class SimulatedDevice:
    """Implements `Device` without a GPU.

    Args:
        card: the card to simulate.
        budget_bytes: what its allocator may reserve.
        computes: real CPU tensors (small models) when True, else tensors on the meta device: any size, no values.
        attention: `auto`, or the attention backends to take, the most wanted first, parted by commas.
        adopts: tensors made before count from their first use on; for loops that are not ours.
        lowered: operators are replaced by what the card would run; False counts what the CPU's own allocate.
        group: the cards of the run.
        num_cards: that this process drives, as of a model whose layers lie on several.
    """

    source = "simulated"

    def __init__(
        self,
        card: Card,
        budget_bytes: int,
        *,
        computes: bool,
        expandable_segments: bool = False,
        attention: str = "auto",
        adopts: bool = False,
        lowered: bool = True,
        group: Group = SINGLE_GPU,
        num_cards: int = 1,
    ) -> None:
        self.card = card
        self.gpu_name = card.title
        self.budget_bytes = budget_bytes
        self.computes = computes
        self.torch_device = torch.device("cpu" if computes else "meta")
        self.expandable_segments = expandable_segments
        self._simulated = SimulatedMemory(budget_bytes, expandable_segments=expandable_segments)
        if not lowered and budget_bytes < LEAST_CARD_BYTES:
            self._simulated.allocator.segment_size = fine_segment_size
        self.memory: CardMemory = LiveMemory(self._simulated)
        """another one where phases are replayed; then nothing is reported to the first"""
        lowerings = operator_lowerings(card) if lowered else {}
        self.tracer = self._make_tracer(self._simulated, lowerings, adopts)
        self._site_frames = self.tracer.site_frames = MAX_SITE_FRAMES if lowered else 0
        self.group = replace(group, on_host=self.on_host)
        self.mesh = mesh_of(group, "cpu") if group.shares_layers else None
        self._lowered = lowered
        self._read_heap = heap_reader() if computes and not lowered else None
        self._marks = LayerMarks(self.tracer.mark_layer)
        self.layers = LayerReplay(self.tracer, self._marks)
        self.tracer.num_cards = num_cards
        self.gpu_peaks: tuple[int, ...] = ()
        self.replays_layers = not group.shares_layers and num_cards == 1
        """whether layers of a model without values that repeat run once"""
        self.looks_at_peaks = True
        """whether anybody asks what lives at the peaks of phases, which takes a fifth of a small run's time"""
        self._elsewhere_bytes = self._library_bytes = 0
        self._pools: PoolUse | None = None
        self._peak_from = 0
        """position in the recorded events from which on the highest moment is looked for"""
        self._attention = attention
        self._code_tables: dict[str, torch.Tensor] = {}
        """bitsandbytes' tables, once they have been made on this device"""

    def _make_tracer(self, sink: EventSink, lowerings: dict[Any, Lowering], adopts: bool) -> Tracer:
        return Tracer(sink, lowerings, self.torch_device, adopts=adopts)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, PyTorch code on `torch_device` is taken for code on the card."""
        if not self._lowered:
            with self.tracer, gathered_weights_are_traced(self.tracer):
                yield
            return
        with ExitStack() as stack:
            stack.enter_context(_cuda_autocast_is_cpu_autocast())
            stack.enter_context(replaced_functions(self.tracer, self.card, self._attention))
            if self.computes and self.mesh is not None:
                stack.enter_context(gathered_weights_are_traced(self.tracer))
            if not self.computes:
                casts = stack.enter_context(meta_autocast())
                stack.enter_context(_foreach_on_meta())
                if self.mesh is not None:
                    stack.enter_context(sharding_without_peers(self.tracer))
                if self.tracer.num_cards > 1:
                    stack.enter_context(self._moving_between_cards())
                stack.enter_context(self._marks.patched())
                if self.replays_layers:
                    stack.enter_context(self.layers.active(casts))
            stack.enter_context(self.tracer)
            stack.enter_context(self._bitsandbytes_tables())
            if not self.computes:
                stack.enter_context(self._managed_memory())
            yield

    def _moving_between_cards(self) -> AbstractContextManager[None]:
        """Let accelerate's hooks move tensors between the cards, by number."""
        return hooks_move_between_cards(self.tracer)

    @contextmanager
    def _bitsandbytes_tables(self) -> Iterator[None]:
        """Let bitsandbytes make its code table anew: it keeps one for all devices, once it has brought it to one."""
        import bitsandbytes.functional as functional

        create = functional.create_dynamic_map

        def create_on_device(signed: bool = True, max_exponent_bits: int = 7, total_bits: int = 8) -> torch.Tensor:
            with self.on_host():
                table = create(signed, max_exponent_bits, total_bits)
            # a tensor with values is on the card from the start, as it moves to where it is already
            return self.put(table) if self.computes else table

        with patch.dict(functional.name2qmap), patch.object(functional, "create_dynamic_map", create_on_device):
            functional.name2qmap.clear()
            functional.name2qmap.update(self._code_tables)
            try:
                yield
            finally:
                self._code_tables = dict(functional.name2qmap)

    def _managed_memory(self) -> AbstractContextManager[Any]:
        """Let bitsandbytes' paged tensors be memory outside the allocator: CUDA's driver moves it between the two."""
        import bitsandbytes.functional as functional

        def get_paged(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> torch.Tensor:
            with self.on_host():
                tensor = torch.empty(shape, dtype=dtype, device=device)
            self.tracer.rename(tensor, HOST)
            tensor.is_paged = True  # type: ignore[attr-defined]
            return tensor

        def nothing(*_: Any, **__: Any) -> None:
            """There are no values."""

        return patch.multiple(functional, get_paged=get_paged, fill=nothing, prefetch_tensor=nothing)

    def largest_data(self) -> tuple[int, str] | None:
        """Return it where a script's tensors on the CPU stand for the card's: nothing tells which would stay there."""
        num_bytes, site = self.tracer.largest_data
        line = users_line(_of_script(source_lines(site)))
        return None if line is None else (num_bytes, str(line).split(" ")[0])

    def active_in_thread(self) -> AbstractContextManager[Any]:
        """Switch the tracer on, which belongs to a thread; what else runs in place of the card's code does not.

        Without values it stays off: layers that are replayed know one thread alone.
        """
        return self.tracer if self.computes or not self._lowered else nullcontext()

    def stats(self) -> MemoryStats:
        """Return the allocator model's counters."""
        return self.memory.stats()

    def other_stats(self) -> list[MemoryStats]:
        """Return none: each card of several is replayed by itself."""
        return []

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        self.memory.reset_peaks()

    def empty_cache(self) -> None:
        """Return wholly free segments."""
        self.tracer.sink.empty_cache()

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Within, the tracer is off, unless a mode of the user's lies over it."""
        if _get_current_dispatch_mode() is not self.tracer:
            yield
            return
        self.tracer.__exit__(None, None, None)
        below = _get_current_dispatch_mode()
        try:
            yield
        finally:
            self._trace_again(below)

    def _trace_again(self, below: Any) -> None:
        """Put the tracer back to where it was, under the modes that the user has entered meanwhile."""
        above = []
        while _get_current_dispatch_mode() not in (below, None):
            above.append(_pop_mode())
        self.tracer.__enter__()
        for mode in reversed(above):
            _push_mode(mode)

    def heap_bytes(self) -> int | None:
        """Return what the process holds by malloc where tensors have values and operators are traced as they are."""
        return None if self._read_heap is None else self._read_heap()

    def driver_use(self) -> DriverUse | None:
        """Return what a driver would count; None while nothing is beside the allocator, as there is none to ask."""
        if not self._elsewhere_bytes and not self._library_bytes:
            return None
        own = self.stats().reserved_bytes + self.card.context_bytes + self._library_bytes
        others = (GpuProcess(0, "another process", self._elsewhere_bytes),) if self._elsewhere_bytes else ()
        total = self.budget_bytes + self.card.context_bytes
        return DriverUse(own + self._elsewhere_bytes, total, own, others)

    def pool_use(self) -> PoolUse | None:
        """Return what was said to be set aside; None before that."""
        return self._pools

    def take_beside(self, *, elsewhere_bytes: int = 0, library_bytes: int = 0) -> None:
        """Let another process, or a library of this one, take memory: the allocator may reserve less by that."""
        self._elsewhere_bytes += elsewhere_bytes
        self._library_bytes += library_bytes
        taken = self._elsewhere_bytes + self._library_bytes
        self._simulated.allocator.budget_bytes = max(1, self.budget_bytes - taken)

    def set_aside(self, pools: PoolUse) -> None:
        """Let that be in private pools, which the allocator has to count by itself, and in pinned memory."""
        self._pools = pools

    @contextmanager
    def graph_pool(self) -> Iterator[None]:
        """Let the allocator model take the pool for a stream of its own.

        Beside it the first capture makes the random state that graphs share, on their stream.
        Source: aten/src/ATen/cuda/CUDAGeneratorImpl.cpp, `CUDAGeneratorState::register_graph`.
        """
        sink, site = self.tracer.sink, self.tracer.site()
        sink.switch(Place(stream=GRAPH_STREAM))
        for name in ("seed", "offset"):
            sink.ensure(("workspace", f"graphs' {name}"), torch.int64.itemsize, site)
        sink.switch(Place(stream=GRAPH_POOL))
        try:
            yield
        finally:
            sink.switch(Place())

    def release_graph_pool(self) -> None:
        """Release it, then what else is free, as PyTorch does."""
        with self.graph_pool():
            self.tracer.sink.empty_cache()
        self.tracer.sink.empty_cache()

    @property
    def has_flash_attention(self) -> bool:
        """Whether the card has it, and nothing else is asked for."""
        asked_for = self.card.sdpa_backends if self._attention in ("auto", ANY) else self._attention.split(",")
        return "flash" in asked_for and "flash" in self.card.sdpa_backends

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run; what is replayed on a GPU allocates nothing, and runs again here where tensors have values."""
        with self.graph_pool():
            run()
        return partial(self._run_unseen, run)

    def _run_unseen(self, run: Callable[[], None]) -> None:
        if self.computes:
            with self.on_host():
                run()

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Return the CPU's mixed precision, which casts the operators of these models as CUDA's does."""
        if dtype is torch.float32:
            return nullcontext()
        return torch.autocast("cpu", dtype=dtype)

    def on_host(self) -> AbstractContextManager[Any]:
        """Within, nothing counts as device memory."""
        return self.tracer.paused()

    def on_card(self, number: int) -> AbstractContextManager[Any]:
        """Within, what is made lies on that card."""
        return self.tracer.on_card(number)

    def put(self, array: np.ndarray[Any, Any] | torch.Tensor) -> torch.Tensor:
        """Allocate the array's size on the card, with its values where values exist."""
        with self.on_host():
            host = torch.as_tensor(array)
        if self.computes:
            return host.clone()
        return torch.empty_like(host, device=self.torch_device)

    def read(self, tensor: torch.Tensor) -> float | None:
        """Return the value, or None where there is none."""
        if not self.computes:
            return None
        return float(tensor.item())

    def assuming(self, value: float, real_tokens: int | None = None) -> AbstractContextManager[Any]:
        """Within, `.item()` of a tensor without a value gives `value`, and a mask without values has `real_tokens`."""
        if self.computes:
            return nullcontext()
        return patch.multiple(self.tracer, assumed_value=value, real_tokens=real_tokens)

    def as_out_of_memory(self, error: BaseException) -> DeviceOutOfMemory | None:
        """The simulation raises the harness's own error."""
        if isinstance(error, DeviceOutOfMemory):
            return error
        return None

    def on_out_of_memory(self, callback: Callable[[DeviceOutOfMemory], None]) -> None:
        """Call back for every allocation that fails from now on; nobody is told of those in replayed phases."""
        self._simulated.on_failure = callback if self._lowered else partial(self._locate, callback)

    def _locate(self, callback: Callable[[DeviceOutOfMemory], None], error: DeviceOutOfMemory) -> None:
        """Add the frames, which are not kept with each allocation here, while the failed one is still running."""
        kept, self.tracer.site_frames = self.tracer.site_frames, WATCHED_SITE_FRAMES
        lines = _of_script(source_lines(self.tracer.site()))
        self.tracer.site_frames = kept
        line = users_line(lines)
        error.frames = tuple(map(str, lines))
        error.where = str(line).split(" ")[0] if line else None
        callback(error)

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes by what their names say; see `live_by_category`."""
        return self.memory.live_bytes(logits_sizes)

    def segments_at_peak(self) -> Sequence[SegmentRuns]:
        """Return the segments where phases are replayed."""
        return self.memory.segments_at_peak()

    def record_allocations(self, *, with_peak: bool = False) -> None:
        """Keep what the tracer knows of each allocation; replayed phases allocate nothing that a user could hold."""
        self._simulated.watched = {}
        self._simulated.watched_events = [] if with_peak else None
        self._peak_from = 0
        self.tracer.site_frames = WATCHED_SITE_FRAMES

    def live_allocations(self) -> list[Allocation]:
        """Return what still lives."""
        # copied in one go: the collector may free some of it meanwhile
        live = (self._simulated.watched or {}).copy()
        return [_allocation(key, made) for key, made in live.items()]

    def live_allocations_at_peak(self) -> list[Allocation]:
        """Return what lived at the peak."""
        events: list[AllocationEvent] = []
        for key, made in self._simulated.watched_events or ():
            events.append((key, None if made is None else _allocation(key, made)))
        return live_at_peak(events, self._peak_from)

    def stop_recording_allocations(self) -> None:
        """Stop."""
        self._simulated.watched = self._simulated.watched_events = None
        self.tracer.site_frames = self._site_frames

    def layers_marked(self) -> AbstractContextManager[None]:
        """Within, each allocation says which layer of a model was running."""
        return self._marks.active()

    def adopt(self, values: Iterable[Any]) -> None:
        """Count the tensors among the values from now on, where an operator did not make them."""
        for value in values:
            self.tracer.track(local_part(value))

    def handle_of(self, tensor: torch.Tensor) -> Hashable | None:
        """Return the tracer's key of the tensor's storage."""
        return self.tracer.key_of(tensor) if tensor.device.type == self.torch_device.type else None

    def note_origins(self, *, on: bool) -> None:
        """Let the tracer keep lines, or not."""
        self.tracer.notes_origins = on

    def origin_of(self, tensor: torch.Tensor) -> SourceLine | None:
        """Return the line that the tracer has kept."""
        return self.tracer.origins.get(self.handle_of(tensor))

    def record_history(self) -> None:
        """Keep what the tracer reports, each allocation with its frames."""
        self.memory.record_history(self.tracer)
        self._site_frames = self.tracer.site_frames = WATCHED_SITE_FRAMES

    def watch_peak(self) -> None:
        """Remember from now on what lives when most is allocated, for `peak_parts`."""
        self.memory.watch_peak(self.tracer)
        self._site_frames = self.tracer.site_frames = WATCHED_SITE_FRAMES

    def name_category(self, category: str) -> None:
        """Let what is allocated from now on be of this category in `peak_parts`, where it gets no name."""
        self.memory.name_category(category)

    def peak_parts(self, log: RunLog) -> list[PeakPart]:
        """Return what lived when a run needed most: at its peak, or when it failed."""
        return self.memory.peak_parts(of_failure=log.needed_bytes > log.peak_allocated_bytes)

    @property
    def shows_peaks(self) -> bool:
        """Whether what a phase allocates can be seen while it runs; replayed phases are told of by `phase_peaks`."""
        return self.looks_at_peaks and isinstance(self.memory, LiveMemory)

    def phase_peaks(self, highest_records: HighestRecords, vocab_size: int) -> list[PeakRecord]:
        """Return what lived at the peaks of phases that were replayed."""
        return self.memory.phase_peaks(highest_records, vocab_size)

    def begin_peak(self) -> None:
        """Let the highest moment be looked for from here on; of what was before, only what still lives is kept."""
        simulated = self._simulated
        if simulated.watched is not None and simulated.watched_events is not None:
            simulated.watched_events = list(simulated.watched.copy().items())
            self._peak_from = len(simulated.watched_events)

    def write_history(self, path: Path, run: RunRecord) -> None:
        """Write the memory and its last events as PyTorch writes those of a GPU."""
        write_snapshot(self.memory.history().snapshot(record_to_dict(run)), path)


def _of_script(lines: Sequence[SourceLine]) -> tuple[SourceLine, ...]:
    """Return the frames, innermost first, up to the script itself: what runs it is of no interest."""
    found: list[SourceLine] = []
    for line in lines:
        if is_harness(line.path):
            continue
        found.append(line)
        if line.function == "<module>":
            break
    return tuple(found)


def _allocation(key: Hashable, made: WatchedAllocation) -> Allocation:
    num_bytes, made_at, site = made
    _, layer = frames_and_layer(site)
    category = key[0] if isinstance(key, tuple) else ""
    return Allocation(key, num_bytes, made_at, source_lines(site), layer, category)


def _stand_in(device_type: str) -> str:
    return "cpu" if device_type in ("cuda", "meta") else device_type


@contextmanager
def _cuda_autocast_is_cpu_autocast() -> Iterator[None]:
    """Let code that asks about CUDA's mixed precision, or switches it, mean the CPU's, which stands for it here."""
    from transformers.utils import generic

    def is_autocast_enabled(device_type: str = "cpu") -> bool:
        return _is_autocast_enabled(_stand_in(device_type))

    def get_autocast_dtype(device_type: str) -> torch.dtype:
        return _get_autocast_dtype(_stand_in(device_type))

    init = torch.autocast.__init__

    def init_stand_in(
        self: torch.autocast, device_type: str, dtype: torch.dtype | None = None, *args: Any, **kwargs: Any
    ) -> None:
        if device_type == "cuda":
            dtype = dtype or torch.float16  # the CPU's own is another one
        init(self, _stand_in(device_type), dtype, *args, **kwargs)

    # transformers' `maybe_autocast`, which models call to switch it off, does nothing on the meta device
    switched_off = partial(torch.autocast, "cpu", enabled=False)
    with (
        patch.object(torch.autocast, "__init__", init_stand_in),
        patch.multiple(torch, is_autocast_enabled=is_autocast_enabled, get_autocast_dtype=get_autocast_dtype),
        patch.object(generic, "nullcontext", switched_off),
    ):
        yield


@contextmanager
def _foreach_on_meta() -> Iterator[None]:
    """Let gradient clipping and optimizers take one kernel for many tensors on the meta device, as they do on CUDA."""
    from torch.optim import optimizer  # which torch.optim itself does not show

    utils = torch.utils._foreach_utils
    foreach = [*utils._get_foreach_kernels_supported_devices(), "meta"]
    fused = [*utils._get_fused_kernels_supported_devices(), "meta"]
    with (
        patch.object(utils, "_get_foreach_kernels_supported_devices", lambda: foreach),
        patch.object(optimizer, "_get_foreach_kernels_supported_devices", lambda: foreach),
        patch.object(optimizer, "_get_fused_kernels_supported_devices", lambda: list(fused)),
    ):
        yield
