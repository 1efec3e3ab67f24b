"""A CUDA GPU, measured through PyTorch's own allocator; optionally held to what a smaller card has.

The only module that touches `torch.cuda`'s memory functions.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from memory_harness.configs.cards import Card, emulated, load_cards
from memory_harness.configs.units import format_bytes, parse_bytes
from memory_harness.harness.devices.base import Allocation, AllocationEvent, HighestRecords, live_at_peak
from memory_harness.harness.devices.nvml import open_nvml
from memory_harness.harness.devices.parallel import SINGLE_GPU, Group, mesh_of
from memory_harness.harness.log.errors import DeviceError, DeviceOutOfMemory
from memory_harness.harness.log.records import (
    DriverUse,
    MemoryStats,
    PeakPart,
    PeakRecord,
    PoolUse,
    RunRecord,
    SegmentRuns,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.log.snapshot import runs_of_segments, write_snapshot
from memory_harness.harness.log.source_lines import SourceLine
from memory_harness.harness.simulate.layer_marks import LayerMarks

MAX_FOREIGN_BYTES = 2 * 2**30
"""memory that others may hold on the GPU before a measurement is refused: a desktop and a CUDA context, not a model"""

HISTORY_ENTRIES = 100_000
"""Allocations and frees kept for a snapshot: some nine steps of an 8B model, with their stacks."""

RECORDED_ENTRIES = 4 * HISTORY_ENTRIES
"""The same while allocations are recorded, which is for some steps or a phase."""

SHARED_POOL = (0, 0)
"""the pool that every stream's ordinary tensors come from"""

_TORCH = os.path.dirname(torch.__file__)

_COUNTERS = {
    "allocated_bytes": ("allocated_bytes", "all", "current"),
    "reserved_bytes": ("reserved_bytes", "all", "current"),
    "active_bytes": ("active_bytes", "all", "current"),
    "inactive_split_bytes": ("inactive_split_bytes", "all", "current"),
    "peak_allocated_bytes": ("allocated_bytes", "all", "peak"),
    "peak_reserved_bytes": ("reserved_bytes", "all", "peak"),
    "num_alloc_retries": ("num_alloc_retries",),
    "num_ooms": ("num_ooms",),
}
"""our counter -> where `torch.cuda.memory_stats_as_nested_dict` has it"""

FLASH_CAPABILITY = (8, 0)
"""from which on PyTorch's flash kernel runs. Source: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp"""

_BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


class CudaDevice:
    """Implements `Device` on the current GPU.

    Args:
        card: what the GPU stands for; attention backends that the card lacks are switched off. None takes it as it is.
        budget_bytes: what the allocator may reserve; None for all of the GPU.
        attention: `auto`, or the attention backends to take where they can run, the most wanted first.
        expandable_segments: let the allocator grow segments page by page, from now on in this process.
        share_gpu: measure although others hold memory on the GPU; PyTorch's counters are the process's own.
        group: the GPUs of the run.
        num_cards: GPUs that this process drives, from the first on, each held to the budget; alike.

    Raises:
        DeviceError: there is no GPU, others hold too much of it, or it is smaller than the budget.
    """

    source = "cuda"
    torch_device = torch.device("cuda")
    computes = True

    def __init__(
        self,
        card: Card | None,
        budget_bytes: int | None,
        *,
        attention: str = "auto",
        expandable_segments: bool = False,
        share_gpu: bool = False,
        group: Group = SINGLE_GPU,
        num_cards: int = 1,
    ) -> None:
        self.group = group
        self._num_cards = num_cards
        self.mesh: Any = None
        self.gpu_peaks: tuple[int, ...] = ()
        if not torch.cuda.is_available():
            raise DeviceError("--device cuda: no CUDA GPU here; use --device simulated")
        if group.is_joined:
            torch.cuda.set_device(group.local_rank)
        free, total = torch.cuda.mem_get_info()
        if total - free > MAX_FOREIGN_BYTES and not share_gpu:
            raise DeviceError(
                f"the GPU already holds {format_bytes(total - free)} "
                f"(at most {format_bytes(MAX_FOREIGN_BYTES)} allowed): stop the other process, "
                "restart the notebook's kernel, or use --device simulated"
            )
        budget_bytes = budget_bytes or total
        if budget_bytes > total:
            raise DeviceError(
                f"--budget {format_bytes(budget_bytes)}: the GPU has {format_bytes(total)}; "
                "lower --budget or pick another --gpu"
            )
        if expandable_segments:
            # the environment's PYTORCH_ALLOC_CONF is read when PyTorch is imported, long before this
            torch._C._accelerator_setAllocatorSettings("expandable_segments:True")
        # the limit is on reserved segments only, which is what the budget counts
        self._fraction = budget_bytes / total
        self._hold_to(self._fraction)
        self.budget_bytes = budget_bytes
        self.gpu_name = torch.cuda.get_device_name()
        if card is not None:
            self.gpu_name += f" as {card.title}"
        self._backends = _backends(attention, card)
        if group.shares_layers:
            self.mesh = mesh_of(group, "cuda")
        # NVML counts all GPUs, whichever of them CUDA_VISIBLE_DEVICES shows to this process
        self._nvml = open_nvml(lambda: torch.cuda._get_nvml_device_index(None))
        self._pools_at_bytes = 0  # reserved bytes at which the private pools were looked at
        self._private_pools = (0, 0)
        self._failed_segment_bytes = 0
        self._failed_on = torch.cuda.current_device()
        self._on_out_of_memory: Callable[[DeviceOutOfMemory], None] | None = None
        torch._C._cuda_attach_out_of_memory_observer(self._note_failure)  # type: ignore[attr-defined]
        self._graph_stream: Any = None
        self._pool: _GraphPool | None = None
        self._keeps_history = False
        self._recording_since = self._peak_since = 0.0
        self._layers: list[tuple[float, str]] = []
        """seconds since the epoch at which layers of a model have begun to run"""
        self._marks = LayerMarks(self._note_layer)

    def _note_failure(self, device: int, segment_bytes: int, limit_bytes: int, free_bytes: int) -> None:
        """Keep the exact size of the segment that could not be had: the error's text has two decimals of it."""
        self._failed_segment_bytes, self._failed_on = segment_bytes, device
        if self._on_out_of_memory is not None:
            self._on_out_of_memory(self._out_of_memory(segment_bytes, _frames_of_stack()))

    def on_out_of_memory(self, callback: Callable[[DeviceOutOfMemory], None]) -> None:
        """Call back from the allocator's own observer, which runs before the error is raised."""
        self._on_out_of_memory = callback

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, the budget holds, and attention takes only the backends that the card has."""
        self._hold_to(self._fraction)
        try:
            with sdpa_kernel(self._backends, set_priority=True) if self._backends else nullcontext():
                yield
        finally:
            self._on_out_of_memory = None
            self._hold_to(1.0)

    @property
    def has_flash_attention(self) -> bool:
        """Whether the GPU has it, as the card that it stands for, and nothing else is asked for."""
        is_allowed = not self._backends or SDPBackend.FLASH_ATTENTION in self._backends
        return is_allowed and torch.cuda.get_device_capability() >= FLASH_CAPABILITY

    @property
    def _cards(self) -> range:
        """The GPUs that this process drives, by number."""
        first = torch.cuda.current_device() if self._num_cards == 1 else 0
        return range(first, first + self._num_cards)

    def _hold_to(self, fraction: float) -> None:
        for number in self._cards:
            torch.cuda.set_per_process_memory_fraction(fraction, number)

    def stats(self) -> MemoryStats:
        """Return the allocator's counters; reading them does not wait for the GPU."""
        return _stats_of(self._cards[0])

    def other_stats(self) -> list[MemoryStats]:
        """Return the counters of the further GPUs."""
        return list(map(_stats_of, self._cards[1:]))

    def reset_peaks(self) -> None:
        """Start new peaks at the present values."""
        for number in self._cards:
            torch.cuda.reset_peak_memory_stats(number)

    def empty_cache(self) -> None:
        """Return wholly free segments to the driver."""
        torch.cuda.empty_cache()

    def unobserved(self) -> AbstractContextManager[None]:
        """PyTorch's allocator counts anyway, at no price."""
        return nullcontext()

    def heap_bytes(self) -> int | None:
        """Observing has no price here."""
        return None

    def driver_use(self) -> DriverUse | None:
        """Return what NVML says, or without nvidia-ml-py what CUDA does, which knows no processes."""
        if self._nvml is not None:
            return self._nvml.use(self.stats().reserved_bytes)
        free, total = torch.cuda.mem_get_info()
        return DriverUse(total - free, total)

    def pool_use(self) -> PoolUse | None:
        """Return the private pools as they were when reserved last changed: asking goes through all segments."""
        if self._keeps_history or self._recording_since:
            return None  # all recorded events would come along with the segments
        reserved_bytes = self.stats().reserved_bytes
        if reserved_bytes != self._pools_at_bytes:
            device, self._pools_at_bytes = torch.cuda.current_device(), reserved_bytes
            segments = [segment for segment in torch.cuda.memory_snapshot() if segment["device"] == device]
            self._private_pools = private_pools(segments)
        pinned = torch.cuda.memory.host_memory_stats_as_nested_dict()
        owned, active = (_at(pinned, (name, "current")) for name in ("allocated_bytes", "active_bytes"))
        return PoolUse(*self._private_pools, owned, active)

    @contextmanager
    def graph_pool(self) -> Iterator[None]:
        """Let all that runs here take its memory from the pool, the backward pass's thread included."""
        pool = self._opened_pool()
        with pool.on_its_stream(), pool.in_use():
            yield

    def release_graph_pool(self) -> None:
        """Give up the pool; the next one is another, of the same stream, whose workspaces stay."""
        self._pool = None
        self.empty_cache()

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """Capture a graph and replay it, as capturing computes nothing."""
        graph, pool = torch.cuda.CUDAGraph(), self._opened_pool()
        with pool.on_its_stream(), _captured(graph, pool.handle):
            run()
        graph.replay()
        return graph.replay

    def _opened_pool(self) -> _GraphPool:
        if self._graph_stream is None:
            self._graph_stream = torch.cuda.Stream()
        if self._pool is None:
            self._pool = _GraphPool(self._graph_stream)
        return self._pool

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Return CUDA's mixed precision."""
        if dtype is torch.float32:
            return nullcontext()
        return torch.autocast("cuda", dtype=dtype)

    def on_host(self) -> AbstractContextManager[Any]:
        """Tensors without a device are host memory anyway."""
        return nullcontext()

    def on_card(self, number: int) -> AbstractContextManager[Any]:
        """Within, PyTorch's present GPU is that one."""
        return nullcontext() if self._num_cards == 1 else torch.cuda.device(number)

    def put(self, array: np.ndarray[Any, Any] | torch.Tensor) -> torch.Tensor:
        """Copy to the GPU."""
        return torch.as_tensor(array).to(self.torch_device)

    def read(self, tensor: torch.Tensor) -> float | None:
        """Return the value; waits for the GPU."""
        return float(tensor.item())

    def assuming(self, value: float, real_tokens: int | None = None) -> AbstractContextManager[Any]:
        """Values are read, not assumed."""
        return nullcontext()

    def as_out_of_memory(self, error: BaseException) -> DeviceOutOfMemory | None:
        """Return PyTorch's out-of-memory with its sizes, or None when the error is another one."""
        if isinstance(error, DeviceOutOfMemory):  # raised again once all GPUs of the run know of it
            return error
        if not isinstance(error, torch.OutOfMemoryError):
            return None
        frames = _outside_torch(traceback.walk_tb(error.__traceback__))[::-1]
        return self._out_of_memory(self._failed_segment_bytes or requested_bytes(str(error)) or 0, frames)

    def _out_of_memory(self, num_bytes: int, frames: tuple[str, ...]) -> DeviceOutOfMemory:
        device = self._failed_on
        stats = _stats_of(device)
        segments = [segment for segment in torch.cuda.memory_snapshot() if segment["device"] == device]
        return DeviceOutOfMemory(
            num_bytes,
            stats.allocated_bytes,
            stats.reserved_bytes,
            _largest_free_block(segments),
            frames[0].split(" ")[0] if frames else None,
            frames,
            runs_of_segments(segments),
        )

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """The allocator knows sizes, not what they are for."""
        return {}

    def segments_at_peak(self) -> Sequence[SegmentRuns]:
        """The allocator shows its segments as they are, not as they were."""
        return ()

    def record_allocations(self, *, with_peak: bool = False) -> None:
        """Let PyTorch record Python's stack with each allocation; the last ones are kept, freed or not."""
        if not self._keeps_history:
            torch.cuda.memory._record_memory_history(
                "all", context="alloc", stacks="python", max_entries=RECORDED_ENTRIES, clear_history=True
            )
        self._recording_since = self._peak_since = time.time()
        self._layers.clear()

    shows_peaks = True

    def begin_peak(self) -> None:
        """Let the highest moment be looked for from here on."""
        self._peak_since = time.time()

    def phase_peaks(self, highest_records: HighestRecords, vocab_size: int) -> list[PeakRecord]:
        """Return none: they are recorded as they come."""
        return []

    def live_allocations(self) -> list[Allocation]:
        """Return the blocks in use that were allocated since."""
        found = allocations_in(torch.cuda.memory._snapshot(), torch.cuda.current_device())
        return self._with_layers(allocation for allocation in found if allocation.made_at >= self._recording_since)

    def live_allocations_at_peak(self) -> list[Allocation]:
        """Return what lived at the peak, by PyTorch's trace of allocations and frees."""
        snapshot = torch.cuda.memory._snapshot()
        device = torch.cuda.current_device()
        events = allocation_events(snapshot, device, self._recording_since)
        since_peak = allocation_events(snapshot, device, self._peak_since)
        return self._with_layers(live_at_peak(events, len(events) - len(since_peak)))

    def layers_marked(self) -> AbstractContextManager[None]:
        """Within, the time is kept at which each layer of a model begins to run: PyTorch records no module."""
        return self._marks.active()

    def _note_layer(self, name: str) -> None:
        self._layers.append((time.time(), name))

    def _with_layers(self, allocations: Iterable[Allocation]) -> list[Allocation]:
        """Return the allocations with the layers that ran when they were made."""
        found = []
        for allocation in allocations:
            number = bisect.bisect_right(self._layers, allocation.made_at, key=itemgetter(0))
            layer = self._layers[number - 1][1] if number else ""
            found.append(dataclasses.replace(allocation, layer=layer))
        return found

    def stop_recording_allocations(self) -> None:
        """Stop, unless the history is kept for a snapshot."""
        self._recording_since = 0.0
        self._layers.clear()
        if not self._keeps_history:
            torch.cuda.memory._record_memory_history(None)

    def largest_data(self) -> tuple[int, str] | None:
        """Only what is on the GPU counts."""
        return None

    def active_in_thread(self) -> AbstractContextManager[Any]:
        """PyTorch's allocator sees all threads."""
        return nullcontext()

    def adopt(self, values: Iterable[Any]) -> None:
        """PyTorch's allocator knows all that is on the GPU."""

    def watch_peak(self) -> None:
        """PyTorch keeps no more than the last allocations, which may lie behind the peak."""

    def peak_parts(self, log: RunLog) -> list[PeakPart]:
        """It is not known."""
        return []

    def record_history(self) -> None:
        """Let PyTorch record the last allocations and frees, each with Python's stack."""
        self._keeps_history = True
        torch.cuda.memory._record_memory_history(stacks="python", max_entries=HISTORY_ENTRIES)

    def write_history(self, path: Path, run: RunRecord) -> None:
        """Write PyTorch's own snapshot; it does not name the run."""
        write_snapshot(torch.cuda.memory._snapshot(), path)

    def note_origins(self, *, on: bool) -> None:
        """Keep none: PyTorch tells of lines only while it records its history, which has a price."""

    def origin_of(self, tensor: torch.Tensor) -> SourceLine | None:
        """Return None: nothing is kept."""
        return None

    def handle_of(self, tensor: torch.Tensor) -> Hashable | None:
        """Return the address of the tensor's storage, which is its block's."""
        return storage_address(tensor) if tensor.is_cuda else None


def storage_address(tensor: torch.Tensor) -> int | None:
    """Return where a tensor's storage begins; None where it only wraps other tensors, as DTensor does."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:
        return None


class _GraphPool:
    """A private pool and the stream that is captured, as the default one cannot be.

    Bitsandbytes runs some of its kernels on the default stream, whatever the present one: so nothing but passes runs on
    this one, and each waits for the other. A graph of one kernel keeps the pool while nothing uses it.
    Source: `CUDAGraphTreeManager` in torch/_inductor/cudagraph_trees.py.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.handle: Any = torch.cuda.graph_pool_handle()
        self._stream = stream
        self._value = torch.zeros((), device="cuda").add_(1)  # its kernel is loaded before it is captured
        self._keeper = torch.cuda.CUDAGraph()
        with self.on_its_stream(), _captured(self._keeper, self.handle):
            self._value.add_(1)

    @contextmanager
    def on_its_stream(self) -> Iterator[None]:
        """Within, kernels run after all before, and those that follow run after them."""
        before = torch.cuda.current_stream()
        self._stream.wait_stream(before)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            before.wait_stream(self._stream)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within, the present stream's allocations come from the pool."""
        device = torch.cuda.current_device()
        torch._C._cuda_beginAllocateCurrentStreamToPool(device, self.handle)
        try:
            yield
        finally:
            torch._C._cuda_endAllocateToPool(device, self.handle)
            torch._C._cuda_releasePool(device, self.handle)


@contextmanager
def _captured(graph: torch.cuda.CUDAGraph, pool: Any) -> Iterator[None]:
    """Capture what the present stream is given within; as `torch.cuda.graph`, but the cache is not emptied before."""
    torch.cuda.synchronize()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # what failed has ended the capture too; its own error is the one to tell
            graph.capture_end()
        raise
    graph.capture_end()


def allocations_in(snapshot: dict[str, Any], device: int) -> list[Allocation]:
    """Return the blocks in use of a memory snapshot whose allocation its trace shows, oldest first."""
    events = snapshot["device_traces"][device]
    last_made = {event["addr"]: event for event in events if event["action"] == "alloc"}
    found = []
    blocks = chain.from_iterable(segment["blocks"] for segment in snapshot["segments"] if segment["device"] == device)
    for block in blocks:
        address = block["address"]
        if block["state"] == "active_allocated" and address in last_made:
            found.append(_allocation(address, block["requested_size"], last_made[address]))
    return sorted(found, key=lambda allocation: allocation.made_at)


def allocation_events(snapshot: dict[str, Any], device: int, since: float) -> list[AllocationEvent]:
    """Return the allocations and frees of a memory snapshot's trace from a time on; a free counts when asked for."""
    found: list[AllocationEvent] = []
    for event in snapshot["device_traces"][device]:
        if event["time_us"] / 1e6 < since:
            continue
        if event["action"] == "alloc":
            found.append((event["addr"], _allocation(event["addr"], event["size"], event)))
        elif event["action"] == "free_requested":
            found.append((event["addr"], None))
    return found


def _allocation(address: int, num_bytes: int, event: dict[str, Any]) -> Allocation:
    lines = (SourceLine(frame["filename"], frame["line"], frame["name"]) for frame in event["frames"])
    outside = tuple(line for line in lines if not line.path.startswith(_TORCH))
    return Allocation(address, num_bytes, event["time_us"] / 1e6, outside)


def host_card(target: Card) -> Card:
    """Return the target card as this GPU emulates it: the target's memory and attention, this GPU's kernels.

    Source: cuBLAS' workspace by capability, see gpus.toml.
    """
    properties = torch.cuda.get_device_properties()
    capability = (properties.major, properties.minor)
    like = next((c for c in load_cards().values() if c.capability == capability), target)
    host = dataclasses.replace(
        like, title=properties.name, num_sms=properties.multi_processor_count, capability=capability
    )
    return emulated(target, host)


def _backends(attention: str, card: Card | None) -> list[SDPBackend]:
    """Return the attention backends to take; none where PyTorch is to choose among all."""
    if attention != "auto":
        return [*(_BACKENDS[name] for name in attention.split(",")), SDPBackend.MATH]
    if card is None:
        return []
    return [_BACKENDS[name] for name in card.sdpa_backends]


def _stats_of(device: int) -> MemoryStats:
    # the nested form: flattening it, as torch.cuda.memory_stats does, takes most of the time of a reading
    counters = torch.cuda.memory_stats_as_nested_dict(device)
    return MemoryStats(**{name: _at(counters, path) for name, path in _COUNTERS.items()})


def _at(counters: dict[str, Any], path: tuple[str, ...]) -> int:
    value: Any = counters
    for name in path:
        value = value.get(name, {})
    return int(value or 0)  # 0 before anything has been allocated


def requested_bytes(message: str) -> int | None:
    """Return the size in `CUDA out of memory. Tried to allocate 7.83 GiB. ...` to its printed digits, None without one.

    What is printed is the size of the segment: the request rounded up to 2 MiB.
    """
    match = re.search(r"Tried to allocate ([\d.]+ \w+)", message)
    if match is None:
        return None
    return parse_bytes(match.group(1))


def _outside_torch(frames: Iterable[tuple[FrameType, int]]) -> tuple[str, ...]:
    """Return `file:line function` of the frames, PyTorch's own and those that only start a thread left out."""
    found = []
    for frame, line in frames:
        code = frame.f_code
        if not code.co_filename.startswith((_TORCH, threading.__file__)):
            found.append(str(SourceLine(code.co_filename, line, code.co_name)))
    return tuple(found)


def _frames_of_stack() -> tuple[str, ...]:
    """Return the frames that run now; in a backward pass, which has a thread of its own, those that wait for it."""
    found = _outside_torch(traceback.walk_stack(sys._getframe(2)))
    if not found:
        main = sys._current_frames()[threading.main_thread().ident or 0]
        found = _outside_torch(traceback.walk_stack(main))
    return found


def _largest_free_block(segments: list[dict[str, Any]]) -> int:
    blocks = chain.from_iterable(map(itemgetter("blocks"), segments))
    sizes = (block["size"] for block in blocks if block["state"] == "inactive")
    return max(sizes, default=0)


def private_pools(segments: list[dict[str, Any]]) -> tuple[int, int]:
    """Return how many private pools the segments of a memory snapshot belong to, and the bytes of these segments."""
    private = [segment for segment in segments if tuple(segment.get("segment_pool_id", SHARED_POOL)) != SHARED_POOL]
    pools = {tuple(segment["segment_pool_id"]) for segment in private}
    return len(pools), sum(segment["total_size"] for segment in private)
