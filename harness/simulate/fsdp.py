"""PyTorch's FSDP2 for one rank of many that are not there: its own code runs, and sends nothing.

What it allocates is its own: padded shards, what layers are gathered into, what gradients are reduced from and into,
each in the blocks of the stream that it takes. Replaced are the process group, the streams and what sends; the card
lies on the meta device, which FSDP2 does not take for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp._fully_shard import (
    _fsdp_collectives,
    _fsdp_param,
    _fsdp_param_group,
    _fsdp_state,
    _fully_shard,
)

from memory_harness.harness.simulate.tracer import GONE, Place, Tracer

META = torch.device("meta")


def mesh_of_absent(size: int, rank: int = 0, device_type: str = "cpu") -> DeviceMesh:
    """Return a mesh of that many ranks, of which only this one is there; a process has one such mesh at a time."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if distributed.is_initialized():
        assert distributed.get_backend() == "fake", "processes that are joined simulate no others"
        distributed.destroy_process_group()
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    return init_device_mesh(device_type, (size,))


@contextmanager
def sharding_without_peers(tracer: Tracer, card: Callable[[], torch.device] = lambda: META) -> Iterator[None]:
    """Within, `fully_shard` and what it has sharded work on the meta device, and tell the tracer what they allocate.

    Args:
        card: says what the card is called that is the present one.
    """
    handle = _StandInHandle(tracer)
    group = _fsdp_param_group.FSDPParamGroup
    with ExitStack() as stack:
        for module in (_fsdp_param_group, _fsdp_collectives, _fsdp_state):
            stack.enter_context(patch.object(module, "_get_device_handle", lambda device_type: handle))
        stack.enter_context(patch.object(_fully_shard, "_get_device_from_mesh", lambda mesh: card()))
        stack.enter_context(patch.object(group, "_validate_no_meta_params", lambda group: None))
        stack.enter_context(gathered_weights_are_traced(tracer))
        stack.enter_context(patch.object(_fsdp_collectives.DefaultAllGather, "__call__", _send_nothing))
        stack.enter_context(patch.object(_fsdp_collectives.DefaultReduceScatter, "__call__", _send_nothing))
        yield


def gathered_weights_are_traced(tracer: Tracer) -> AbstractContextManager[Any]:
    """Within, the tracer is told where FSDP2 frees a gathered weight's memory, and where it takes it again."""
    return patch.multiple(_fsdp_param, **_storage_functions(tracer))


def _send_nothing(*_: Any, **__: Any) -> None:
    """Nobody is there; all buffers are the caller's."""


def _storage_functions(tracer: Tracer) -> dict[str, Any]:
    """Return FSDP2's functions that free a gathered weight's memory, and take it again under the same tensor.

    Source: torch/distributed/fsdp/_fully_shard/_fsdp_param.py, `alloc_storage` and `free_storage`.
    """

    def alloc_storage(tensor: torch.Tensor) -> None:
        size, storage = tensor.numel() * tensor.itemsize, tensor.untyped_storage()
        if storage.size() != size:
            key = tracer.new_key()
            tracer.sink.alloc(key, size, tracer.site())
            tracer.rename(tensor, key)
            storage.resize_(size)

    def free_storage(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.size():
            tracer.sink.free(tracer.key_of(tensor))
            tracer.rename(tensor, GONE)
            storage.resize_(0)

    return {"alloc_storage": alloc_storage, "free_storage": free_storage}


class _StandInEvent:
    """A point in a stream; time does not pass on a card that is not there."""

    def record(self, stream: Any = None) -> _StandInEvent:
        return self

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...


class _StandInStream:
    """A stream that has blocks of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def wait_stream(self, stream: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> _StandInEvent:
        return _StandInEvent()


class _StandInHandle:
    """What FSDP2 asks of `torch.cuda`."""

    Event = _StandInEvent

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._streams = [_StandInStream(0)]
        self._current = self._streams[0]

    def Stream(self, priority: int = 0) -> _StandInStream:  # as torch.cuda has it
        self._streams.append(_StandInStream(len(self._streams)))
        return self._streams[-1]

    def current_stream(self) -> _StandInStream:
        return self._current

    @contextmanager
    def stream(self, stream: _StandInStream) -> Iterator[None]:
        before, self._current = self._current, stream
        if stream is not before:
            self._tracer.sink.switch(Place(self._tracer.told_card, stream.number))
        try:
            yield
        finally:
            self._current = before
            if stream is not before:
                self._tracer.sink.switch(Place(self._tracer.told_card, before.number))
