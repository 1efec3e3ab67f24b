"""A CUDA card that is not there: PyTorch code runs on the CPU, its allocations on a model of the card's allocator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.checkpoint import DefaultDeviceType

from configs.cards import Card
from harness.errors import DeviceOutOfMemory
from harness.records import MemoryStats
from harness.simulate.lowering import operator_lowerings, replaced_functions
from harness.simulate.memory import MemoizedMemory, SimulatedMemory, live_by_category
from harness.simulate.tracer import Tracer

_is_autocast_enabled = torch.is_autocast_enabled


class SimulatedDevice:
    """Implements `Device` without a GPU.

    Args:
        card: the card to simulate.
        budget_bytes: what its allocator may reserve.
        computes: real CPU tensors (small models) when True, else fake tensors: any size, no values.
        attention: `auto`, or the attention backend to take.
    """

    source = "simulated"
    torch_device = torch.device("cpu")

    def __init__(
        self, card: Card, budget_bytes: int, *, computes: bool, expandable_segments: bool = False, attention: str = "auto"
    ) -> None:
        self.card = card
        self.gpu_name = card.name
        self.budget_bytes = budget_bytes
        self.computes = computes
        self.expandable_segments = expandable_segments
        memory = SimulatedMemory(budget_bytes, expandable_segments=expandable_segments)
        self.memory: SimulatedMemory | MemoizedMemory = memory
        self.tracer = Tracer(memory, operator_lowerings(card))
        self._attention = attention
        self._fake_mode = None if computes else FakeTensorMode(allow_non_fake_inputs=True)
        self._dynamic_map: torch.Tensor | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, PyTorch code on the CPU is taken for code on the card."""
        with ExitStack() as stack:
            stack.enter_context(_cpu_stands_for_cuda())
            if self._fake_mode is not None:
                stack.enter_context(self._fake_mode)
            stack.enter_context(self.tracer)
            stack.enter_context(replaced_functions(self.tracer, self.card, self._attention))
            stack.enter_context(self._bitsandbytes_tables())
            yield

    @contextmanager
    def _bitsandbytes_tables(self) -> Iterator[None]:
        """Give bitsandbytes its code table on this device; it would build one by value, which fake tensors lack."""
        import bitsandbytes.functional as functional

        if self._dynamic_map is None:
            with self.on_host():
                table = functional.create_dynamic_map()
            self._dynamic_map = self.put(table)
        with patch.dict(functional.name2qmap, {"dynamic": self._dynamic_map}):
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

    def driver_used_bytes(self) -> int | None:
        """There is no driver."""
        return None

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Return the CPU's mixed precision, which casts the operators of this model as CUDA's does."""
        return nullcontext() if dtype is torch.float32 else torch.autocast("cpu", dtype=dtype)

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Within, tensors are real (or meta) and count as host memory."""
        with self.tracer.paused(), unset_fake_temporarily():
            yield

    def put(self, array: np.ndarray[Any, Any] | torch.Tensor) -> torch.Tensor:
        """Allocate the array's size on the card, with its values where values exist."""
        host = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
        if not self.computes:
            return torch.empty(host.shape, dtype=host.dtype)
        return host.clone()

    def read(self, tensor: torch.Tensor) -> float | None:
        """Return the value, or None for fake tensors."""
        return float(tensor.item()) if self.computes else None

    def quantised_parameter(self, packed: torch.Tensor, quant_state: Any, module: torch.nn.Module) -> torch.nn.Parameter:
        """Return a 4-bit weight; fake tensors cannot be wrapped in `Params4bit`, so they carry its attributes."""
        if self.computes:
            return _params4bit(packed, quant_state, module)
        parameter = torch.nn.Parameter(packed, requires_grad=False)
        for name, value in _quantised_attributes(quant_state, module).items():
            setattr(parameter, name, value)
        return parameter

    def assume_finite(self) -> AbstractContextManager[Any]:
        """Within, overflow flags of fake tensors read 0."""
        return nullcontext() if self.computes else self.tracer.assuming(0.0)

    def as_out_of_memory(self, error: BaseException) -> DeviceOutOfMemory | None:
        """The simulation raises the harness's own error."""
        return error if isinstance(error, DeviceOutOfMemory) else None

    def live_bytes(self, logits_sizes: Mapping[int, str]) -> Mapping[str, int]:
        """Return live bytes by what their names say; see `live_by_category`."""
        return live_by_category(self.memory.live(), logits_sizes)


def _quantised_attributes(quant_state: Any, module: torch.nn.Module) -> dict[str, Any]:
    return {
        "quant_state": quant_state,
        "bnb_quantized": True,
        "blocksize": quant_state.blocksize,
        "compress_statistics": quant_state.nested,
        "quant_type": quant_state.quant_type,
        "quant_storage": torch.uint8,
        "module": module,
    }


def _params4bit(packed: torch.Tensor, quant_state: Any, module: torch.nn.Module) -> torch.nn.Parameter:
    from bitsandbytes.nn import Params4bit

    return Params4bit(packed, requires_grad=False, **_quantised_attributes(quant_state, module))  # type: ignore[no-any-return]


@contextmanager
def _cpu_stands_for_cuda() -> Iterator[None]:
    """Let code that asks about CUDA's mixed precision, as peft and checkpointing do, hear about the CPU's."""

    def is_autocast_enabled(device_type: str = "cpu") -> bool:
        return _is_autocast_enabled("cpu" if device_type == "cuda" else device_type)

    before = DefaultDeviceType.get_device_type()
    DefaultDeviceType.set_device_type("cpu")
    try:
        with patch.object(torch, "is_autocast_enabled", is_autocast_enabled):
            yield
    finally:
        DefaultDeviceType.set_device_type(before)
