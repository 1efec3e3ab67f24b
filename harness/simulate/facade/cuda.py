"""`torch.cuda` and `torch.accelerator` as programs see them on a card of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import patch

import torch

from memory_harness.configs.cards import Card
from memory_harness.harness.log.records import MemoryStats
from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.places import CARD

RNG_STATE_BYTES = 16
"""Source: aten/src/ATen/cuda/CUDAGeneratorImpl.cpp, seed and offset"""


class CountedMemory(Protocol):
    """The memory of a card, as far as `torch.cuda` tells of it."""

    def stats_of_script(self) -> MemoryStats:
        """Return the allocator's counters, with the peaks since the script began them anew."""

    def reset_peaks_of_script(self) -> None:
        """Start new peaks at the present values."""


@dataclass(frozen=True)
class _Stream:
    """One of a card's streams: all run in order here, as one does."""

    device: Any = CARD
    priority: int = 0
    cuda_stream: int = 0

    def synchronize(self) -> None: ...

    def wait_stream(self, stream: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return False

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None: ...


class _Event:
    """A point in a stream; time does not pass on a card that is not there."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Any) -> float:
        return 1.0


class _PresentCard:
    """Which card is the present one; of several ranks each has one, whatever it calls it."""

    def __init__(self, tracer: FacadeTracer) -> None:
        self._tracer = tracer

    def number(self, device: Any = None) -> int:
        """Return the number of the card that an argument names, by default the present one's."""
        if device is None or self._tracer.num_cards == 1:
            return self._tracer.present_card
        card = self._tracer.device_named(device)
        return self._tracer.present_card if card is None or card.index is None else card.index

    def set(self, device: Any = None) -> int:
        """Let another card be the present one; return which was."""
        before = self._tracer.present_card
        if device != -1:  # as PyTorch's own code says that it stays the same
            self._tracer.present_card = self.number(device)
        return before

    def within(self, device: Any = None) -> AbstractContextManager[None]:
        """Return `torch.cuda.device(device)`; a tensor stands for its card."""
        if isinstance(device, torch.Tensor):
            device = device.device if device.device.type == "cuda" else None
        return self._while(self.number(device))

    @contextmanager
    def _while(self, number: int) -> Iterator[None]:
        before = self.set(number)
        try:
            yield
        finally:
            self.set(before)


@contextmanager
def cuda_is_there(
    memories: Sequence[CountedMemory], budget_bytes: int, tracer: FacadeTracer, card: Card
) -> Iterator[None]:
    """Within, PyTorch says that there are as many GPUs as are visible, and what is on those that this process has."""
    num_cards = tracer.num_visible
    present = _PresentCard(tracer)
    memory = _memory(memories, budget_bytes, present, tracer)
    with ExitStack() as stack:
        for name, value in (memory | _module(card, budget_bytes, num_cards, present)).items():
            stack.enter_context(patch.object(torch.cuda, name, value, create=True))
            for module in (torch.cuda.memory, torch.cuda.random):
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, value))
        for name in ("range_push", "range_pop", "range_start", "range_end", "mark"):
            stack.enter_context(patch.object(torch.cuda.nvtx, name, _nothing))
        for name, value in _accelerator(memory, num_cards, present).items():
            stack.enter_context(patch.object(torch.accelerator, name, value, create=True))
        stack.enter_context(patch.object(torch._C, "_cuda_getDeviceCount", lambda: num_cards, create=True))
        stack.enter_context(patch.object(torch.version, "cuda", torch.version.cuda or "13.0"))
        yield


def _module(card: Card, budget_bytes: int, num_cards: int, present: _PresentCard) -> dict[str, Any]:
    major, minor = card.capability
    properties = SimpleNamespace(
        name=card.title,
        major=major,
        minor=minor,
        total_memory=budget_bytes,
        multi_processor_count=card.num_sms,
        warp_size=32,
        gcnArchName="",
        is_integrated=0,
        max_threads_per_multi_processor=2048,
        regs_per_multiprocessor=65536,
        shared_memory_per_block_optin=101376,
        L2_cache_size=4 * 2**20,
        uuid="00000000-0000-0000-0000-000000000000",
    )
    has_bf16 = major >= 8
    return {
        "is_available": lambda: True,
        "_is_compiled": lambda: True,
        "is_initialized": lambda: True,
        "init": _nothing,
        "_lazy_init": _nothing,
        "_lazy_call": _nothing,
        "device_count": lambda: num_cards,
        "_device_count_nvml": lambda: num_cards,
        "current_device": present.number,
        "set_device": present.set,
        "_exchange_device": present.set,
        "_maybe_exchange_device": present.set,
        "device": present.within,
        "device_of": present.within,
        "get_device_name": lambda *_: card.title,
        "get_device_capability": lambda *_: card.capability,
        "get_device_properties": lambda *_: properties,
        "get_arch_list": lambda: [f"sm_{major}{minor}"],
        "can_device_access_peer": lambda *_: False,
        "is_bf16_supported": lambda including_emulation=True: has_bf16 or including_emulation,
        "is_tf32_supported": lambda: has_bf16,
        "synchronize": _nothing,
        "ipc_collect": _nothing,
        "Stream": _Stream,
        "ExternalStream": _Stream,
        "Event": _Event,
        "stream": lambda stream: nullcontext(stream),
        "set_stream": _nothing,
        "current_stream": lambda *_: _Stream(),
        "default_stream": lambda *_: _Stream(),
        "is_current_stream_capturing": lambda: False,
        "manual_seed": _nothing,
        "manual_seed_all": _nothing,
        "seed": _nothing,
        "seed_all": _nothing,
        "initial_seed": lambda: 0,
        "get_rng_state": lambda *_: torch.zeros(RNG_STATE_BYTES, dtype=torch.uint8),
        "get_rng_state_all": lambda: [torch.zeros(RNG_STATE_BYTES, dtype=torch.uint8)],
        "set_rng_state": _nothing,
        "set_rng_state_all": _nothing,
        "utilization": lambda *_: 0,
    }


def _memory(
    memories: Sequence[CountedMemory], budget_bytes: int, present: _PresentCard, tracer: FacadeTracer
) -> dict[str, Any]:
    def stats(device: Any = None) -> dict[str, int]:
        now = memories[present.number(device)].stats_of_script()
        return {
            "allocated_bytes.all.current": now.allocated_bytes,
            "allocated_bytes.all.peak": now.peak_allocated_bytes,
            "reserved_bytes.all.current": now.reserved_bytes,
            "reserved_bytes.all.peak": now.peak_reserved_bytes,
            "active_bytes.all.current": now.allocated_bytes,
            "active_bytes.all.peak": now.peak_allocated_bytes,
            "num_alloc_retries": now.num_alloc_retries,
            "num_ooms": 0,
        }

    def of(key: str) -> Any:
        return lambda device=None: stats(device)[key]

    def reset(device: Any = None) -> None:
        memories[present.number(device)].reset_peaks_of_script()

    def free_and_total(device: Any = None) -> tuple[int, int]:
        return budget_bytes - stats(device)["reserved_bytes.all.current"], budget_bytes

    return {
        "memory_allocated": of("allocated_bytes.all.current"),
        "memory_reserved": of("reserved_bytes.all.current"),
        "max_memory_allocated": of("allocated_bytes.all.peak"),
        "max_memory_reserved": of("reserved_bytes.all.peak"),
        "memory_stats": stats,
        "memory_stats_as_nested_dict": stats,
        "mem_get_info": free_and_total,
        "memory_summary": lambda device=None, *_, **__: str(stats(device)),
        "memory_snapshot": lambda *_, **__: [],
        "reset_peak_memory_stats": reset,
        "reset_max_memory_allocated": reset,
        "reset_accumulated_memory_stats": _nothing,
        "empty_cache": lambda: tracer.sink.empty_cache(),
        "set_per_process_memory_fraction": _nothing,
        "_record_memory_history": _nothing,
    }


def _accelerator(memory: dict[str, Any], num_cards: int, present: _PresentCard) -> dict[str, Any]:
    return {
        "is_available": lambda: True,
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "device_count": lambda: num_cards,
        "current_device_index": present.number,
        "set_device_index": present.set,
        "synchronize": _nothing,
        "current_stream": lambda *_: _Stream(),
        **{name: memory[name] for name in ("empty_cache", "memory_allocated", "memory_reserved", "memory_stats")},
        **{name: memory[name] for name in ("max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats")},
    }


def _nothing(*_: Any, **__: Any) -> None:
    """Do what a card that is not there can do of it."""
