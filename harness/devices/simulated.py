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
from torch.utils._python_dispatch import _get_current_dispatch_mode

from memory_harness.configs.cards import Card
from memory_harness.harness.devices.base import Allocation, live_at_peak
from memory_harness.harness.devices.parallel import LONE, Group
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import MemoryStats, Phase, RunRecord, SegmentRuns, record_to_dict
from memory_harness.harness.log.snapshot import write_snapshot
from memory_harness.harness.log.source_lines import SourceLine, is_harness, users_line
from memory_harness.harness.simulate.history import MemoryHistory, history_of
from memory_harness.harness.simulate.lowering import meta_autocast, operator_lowerings, replaced_functions
from memory_harness.harness.simulate.memoized import MemoizedMemory
from memory_harness.harness.simulate.memory import SimulatedMemory, live_by_category
from memory_harness.harness.simulate.tracer import HOST, MAX_SITE_FRAMES, WATCHED_SITE_FRAMES, Site, Tracer

_is_autocast_enabled = torch.is_autocast_enabled


class SimulatedDevice:
    """Implements `Device` without a GPU.

    Args:
        card: the card to simulate.
        budget_bytes: what its allocator may reserve.
        computes: real CPU tensors (small models) when True, else tensors on the meta device: any size, no values.
        attention: `auto`, or the attention backend to take.
        adopts: tensors made before count from their first use on; for loops that are not ours.
        lowered: operators are replaced by what the card would run; False counts what the CPU's own allocate.
        group: the cards of the run.
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
        group: Group = LONE,
    ) -> None:
        self.card = card
        self.gpu_name = card.title
        self.budget_bytes = budget_bytes
        self.computes = computes
        self.torch_device = torch.device("cpu" if computes else "meta")
        self.expandable_segments = expandable_segments
        memory = SimulatedMemory(budget_bytes, expandable_segments=expandable_segments)
        self.memory: SimulatedMemory | MemoizedMemory = memory
        self.tracer = Tracer(memory, operator_lowerings(card) if lowered else {}, self.torch_device, adopts=adopts)
        self.group = replace(group, on_host=self.on_host)
        self._lowered = lowered
        self._site_frames = MAX_SITE_FRAMES if lowered else 0
        self.tracer.site_frames = self._site_frames
        self._elsewhere_bytes = 0
        self._attention = attention
        self._history: MemoryHistory | None = None
        self._code_tables: dict[str, torch.Tensor] = {}
        """bitsandbytes' tables, once they have been made on this device"""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, PyTorch code on `torch_device` is taken for code on the card."""
        if not self._lowered:
            with self.tracer:
                yield
            return
        with ExitStack() as stack:
            stack.enter_context(_cuda_autocast_is_cpu_autocast())
            if not self.computes:
                stack.enter_context(meta_autocast())
                stack.enter_context(_foreach_on_meta())
            stack.enter_context(self.tracer)
            stack.enter_context(replaced_functions(self.tracer, self.card, self._attention))
            stack.enter_context(self._bitsandbytes_tables())
            if not self.computes:
                stack.enter_context(self._managed_memory())
            yield

    @contextmanager
    def _bitsandbytes_tables(self) -> Iterator[None]:
        """Let bitsandbytes make its code table anew: it computes it on the host and keeps one for all devices."""
        import bitsandbytes.functional as functional

        create = functional.create_dynamic_map

        def create_on_device(signed: bool = True, max_exponent_bits: int = 7, total_bits: int = 8) -> torch.Tensor:
            with self.on_host():
                table = create(signed, max_exponent_bits, total_bits)
            return self.put(table)

        with patch.dict(functional.name2qmap), patch.object(functional, "create_dynamic_map", create_on_device):
            functional.name2qmap.clear()
            functional.name2qmap.update(self._code_tables)
            try:
                yield
            finally:
                self._code_tables = dict(functional.name2qmap)

    @contextmanager
    def _managed_memory(self) -> Iterator[None]:
        """Let bitsandbytes' paged tensors be memory outside the allocator: CUDA's driver moves it between the two."""
        import bitsandbytes.functional as functional

        def get_paged(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> torch.Tensor:
            with self.on_host():
                tensor = torch.empty(shape, dtype=dtype, device=device)
            self.tracer.rename(tensor, HOST)
            return tensor

        def fill(tensor: torch.Tensor, value: float) -> None:
            """There are no values."""

        with patch.object(functional, "get_paged", get_paged), patch.object(functional, "fill", fill):
            yield

    def stats(self) -> MemoryStats:
        """Return the allocator model's counters."""
        return self.memory.stats()

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
        try:
            yield
        finally:
            self.tracer.__enter__()

    def driver_used_bytes(self) -> int | None:
        """Return what a driver would count; None while the card is this process's alone, as there is none to ask."""
        if not self._elsewhere_bytes:
            return None
        return self.stats().reserved_bytes + self.card.context_bytes + self._elsewhere_bytes

    def take_elsewhere(self, num_bytes: int) -> None:
        """Let another process take memory of the card: the driver counts it, the allocator may reserve less by that."""
        assert isinstance(self.memory, SimulatedMemory), "a replayed run has the card to itself"
        self._elsewhere_bytes += num_bytes
        self.memory.allocator.budget_bytes = max(1, self.budget_bytes - self._elsewhere_bytes)

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Return the CPU's mixed precision, which casts the operators of these models as CUDA's does."""
        return nullcontext() if dtype is torch.float32 else torch.autocast("cpu", dtype=dtype)

    def on_host(self) -> AbstractContextManager[Any]:
        """Within, nothing counts as device memory."""
        return self.tracer.paused()

    def put(self, array: np.ndarray[Any, Any] | torch.Tensor) -> torch.Tensor:
        """Allocate the array's size on the card, with its values where values exist."""
        with self.on_host():
            host = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
        return host.clone() if self.computes else torch.empty_like(host, device=self.torch_device)

    def read(self, tensor: torch.Tensor) -> float | None:
        """Return the value, or None where there is none."""
        return float(tensor.item()) if self.computes else None

    def assuming(self, value: float) -> AbstractContextManager[Any]:
        """Within, `.item()` of a tensor without a value gives `value`."""
        return nullcontext() if self.computes else self.tracer.assuming(value)

    def as_out_of_memory(self, error: BaseException) -> DeviceOutOfMemory | None:
        """The simulation raises the harness's own error."""
        return error if isinstance(error, DeviceOutOfMemory) else None

    def on_out_of_memory(self, tell: Callable[[DeviceOutOfMemory], None]) -> None:
        """Tell of every allocation that fails from now on; a run that replays phases tells of none."""
        if isinstance(self.memory, SimulatedMemory):
            self.memory.on_failure = tell if self._lowered else partial(self._locate, tell)

    def _locate(self, tell: Callable[[DeviceOutOfMemory], None], error: DeviceOutOfMemory) -> None:
        """Add the frames, which are not kept with each allocation here, while the failed one is still running."""
        self.tracer.site_frames, kept = WATCHED_SITE_FRAMES, self.tracer.site_frames
        frames = (SourceLine(code.co_filename, line, code.co_name) for code, line in self.tracer.site())
        lines = tuple(line for line in frames if not is_harness(line.path))
        self.tracer.site_frames = kept
        line = users_line(lines)
        error.frames = tuple(map(str, lines))
        error.where = str(line).split(" ")[0] if line else None
        tell(error)

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes by what their names say; see `live_by_category`.

        Live tensors have no names, and fewer of them live once a failed allocation has unwound the frames.
        """
        if isinstance(self.memory, MemoizedMemory):
            return live_by_category(self.memory.live(), logits_sizes)
        return live_by_category(self.memory.live_at_failure or self.memory.live(), logits_sizes, unnamed="unknown")

    def segments_at_peak(self) -> Sequence[SegmentRuns]:
        """Return the segments where phases are replayed: the one with the highest peak runs once more, up to there."""
        return self.memory.segments_at_peak() if isinstance(self.memory, MemoizedMemory) else ()

    def watch(self, *, with_peak: bool = False) -> None:
        """Keep what the tracer knows of each allocation; replayed phases allocate nothing that a user could hold."""
        if isinstance(self.memory, SimulatedMemory):
            self.memory.watched = {}
            self.memory.watched_events = [] if with_peak else None
            self.tracer.site_frames = WATCHED_SITE_FRAMES

    def watched(self) -> list[Allocation]:
        """Return what still lives."""
        watched = (self.memory.watched or {}) if isinstance(self.memory, SimulatedMemory) else {}
        # copied in one go: the collector may free some of it meanwhile
        return [_allocation(key, *made) for key, made in watched.copy().items()]

    def watched_peak(self) -> list[Allocation]:
        """Return what lived at the peak."""
        events = (self.memory.watched_events or []) if isinstance(self.memory, SimulatedMemory) else []
        return live_at_peak([(key, None if made is None else _allocation(key, *made)) for key, made in events])

    def unwatch(self) -> None:
        """Stop."""
        self.tracer.site_frames = self._site_frames if self._history is None else WATCHED_SITE_FRAMES
        if isinstance(self.memory, SimulatedMemory):
            self.memory.watched = self.memory.watched_events = None

    def adopt(self, values: Iterable[Any]) -> None:
        """Count the tensors among the values from now on, where an operator did not make them."""
        for value in values:
            self.tracer.track(value)

    def record_history(self) -> None:
        """Keep what the tracer reports; a memory that replays phases remembers the last ones anyway."""
        if isinstance(self.memory, SimulatedMemory):
            self._history = self.tracer.sink = MemoryHistory(self.memory)
            self.tracer.site_frames = WATCHED_SITE_FRAMES

    def write_history(self, path: Path, run: RunRecord) -> None:
        """Write the memory and its last events as PyTorch writes those of a GPU."""
        history = history_of(self.memory, phase_of_chain) if isinstance(self.memory, MemoizedMemory) else self._history
        assert history is not None, "record_history comes first"
        write_snapshot(history.snapshot(record_to_dict(run)), path)

    def handle_of(self, tensor: torch.Tensor) -> Hashable | None:
        """Return the tracer's key of the tensor's storage."""
        return self.tracer.key_of(tensor) if tensor.device.type == self.torch_device.type else None


_PHASES_OF_CHAIN = {
    "load": (Phase.LOAD,),
    "train": (Phase.DATA, Phase.FORWARD, Phase.BACKWARD),
    "optimizer": (Phase.OPTIMIZER,),
    "eval": (Phase.EVAL, Phase.EVAL),
    "prefill": (Phase.GENERATE,),
    "decode": (Phase.GENERATE,),
    "release": (Phase.GENERATE,),
    "save": (Phase.CHECKPOINT,),
}
"""by the first word of a compiled chain's key"""


def phase_of_chain(key: Hashable, position: int) -> str:
    """Return what a compiled chain's phase is in the run, such as `EVAL 8x2048`, or nothing.

    A key is a chain's name or a tuple that begins with it, together with the shape; see `CompiledStrategy`.
    """
    if not isinstance(key, tuple):
        return ""
    chain, (batch_size, length) = key
    name = chain[0] if isinstance(chain, tuple) else chain
    phases = _PHASES_OF_CHAIN.get(str(name), ())
    shape = f" {batch_size}x{length}" if name in ("train", "eval") else ""
    return f"{phases[position]}{shape}" if position < len(phases) else ""


def _allocation(key: Hashable, num_bytes: int, made_at: float, site: Site) -> Allocation:
    frames = tuple(SourceLine(code.co_filename, line, code.co_name) for code, line in site)
    return Allocation(key, num_bytes, made_at, frames)


@contextmanager
def _cuda_autocast_is_cpu_autocast() -> Iterator[None]:
    """Let code that asks about CUDA's mixed precision, as peft does, hear about the CPU's, which stands for it here."""

    def is_autocast_enabled(device_type: str = "cpu") -> bool:
        return _is_autocast_enabled("cpu" if device_type in ("cuda", "meta") else device_type)

    with patch.object(torch, "is_autocast_enabled", is_autocast_enabled):
        yield


def _foreach_on_meta() -> AbstractContextManager[Any]:
    """Let gradient clipping take the multi-tensor path on the meta device, as it does on CUDA."""
    utils = torch.utils._foreach_utils
    devices = [*utils._get_foreach_kernels_supported_devices(), "meta"]
    return patch.object(utils, "_get_foreach_kernels_supported_devices", lambda: devices)
