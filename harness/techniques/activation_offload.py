"""What layers that compute again have saved, kept in host memory between forward and backward.

Of a layer that is computed again as a whole that is its input; of one whose feed-forward block alone is, all that its
attention saves. On a GPU the copies run on a stream of their own: out while this layer and the next compute, back while
the layer behind it does. Blocks are allocated and freed in the order of the compute stream alone (no `record_stream`),
so the allocator does the same in every step, and in the simulation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from memory_harness.harness.devices.base import Device

LEAST_SHARE = 64
"""which part of a layer's input a tensor has to be for a copy to be worth its launch"""


def offload_activations(model: Any, device: Device, alone: Iterable[Any] = ()) -> None:
    """Let every layer of a transformers model that is computed again keep on the host what it saves.

    Gradient checkpointing must be on: it is what makes a layer save little.

    Args:
        model: whose layers may be computed again as a whole.
        device: where it lies.
        alone: decoder layers whose feed-forward block may be computed again alone, as its `computes_again` says.
    """
    offload = _Offload(device)
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = partial(_whole, module._gradient_checkpointing_func, offload)
    for layer in alone:
        layer.forward = partial(_without_its_block, layer, layer.forward, offload)


def _whole(checkpoint: Callable[..., Any], offload: _Offload, *args: Any) -> Any:
    # inside, checkpointing puts hooks of its own on top: only the layer's inputs come to these
    with offload.of_a_layer():
        return checkpoint(*args)


def _without_its_block(layer: Any, forward: Callable[..., Any], offload: _Offload, *args: Any, **kwargs: Any) -> Any:
    # transformers gives the hidden states by place, and by name what is the same for all layers, such as positions
    if layer.gradient_checkpointing or not (layer.mlp.computes_again and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    all_layers_have = [value for value in tree_leaves(kwargs) if isinstance(value, torch.Tensor)]
    with offload.of_a_layer([*layer.parameters(), *all_layers_have], args[0].nbytes // LEAST_SHARE):
        return forward(*args, **kwargs)


@dataclass(eq=False)
class _Saved:
    """One storage on the host, and for a while on the device too; flat. Lives as long as what autograd has of it."""

    on_device: torch.Tensor | None
    on_host: torch.Tensor
    num_awaited: int = 0
    """tensors of it that the backward pass has yet to ask for; what it has asked for, it holds as long as it needs"""
    copied: torch.cuda.Event | None = None
    """recorded after the copy that is under way; None where copies are done at once"""


@dataclass(eq=False)
class _Layer:
    """What one layer has saved, by storage."""

    previous: _Layer | None
    """which ran just before this one, so is needed just after it"""
    staying: frozenset[int]
    """storages that stay on the device anyway"""
    least_bytes: int
    """of what leaves"""
    saved: weakref.WeakValueDictionary[int, _Saved] = field(default_factory=weakref.WeakValueDictionary)


@dataclass(frozen=True, eq=False)
class _Handle:
    """What autograd holds in the place of a tensor."""

    layer: _Layer
    saved: _Saved
    size: torch.Size
    stride: tuple[int, ...]


class _Offload:
    """Pack and unpack hooks of one model; holds the copying stream, and a layer only while it is on its way back."""

    spans_layers = True
    """a layer's call frees what the one before has saved: no call can be replayed by itself"""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream() if device.torch_device.type == "cuda" else None
        self._newest: weakref.ref[_Layer] | None = None
        """of the forward pass"""
        self._entered: _Layer | None = None
        """by the backward pass"""
        self._returning: list[_Saved] = []
        """held, so that a backward pass that fails half-way does not free memory which is being copied into"""

    @contextmanager
    def of_a_layer(self, staying: Iterable[torch.Tensor] = (), least_bytes: int = 0) -> Iterator[None]:
        """Within, what is saved is one layer's; what the layer before has saved leaves the device now."""
        self._returning, self._entered = [], None
        before = self._newest() if self._newest is not None else None
        if before is not None:
            for saved in before.saved.values():
                self._arrive(saved)
                saved.on_device = None
        layer = _Layer(before, frozenset(tensor.untyped_storage()._cdata for tensor in staying), least_bytes)
        self._newest = weakref.ref(layer)
        with torch.autograd.graph.saved_tensors_hooks(partial(self._pack, layer), self._unpack):
            yield

    def _pack(self, layer: _Layer, tensor: torch.Tensor) -> _Handle | torch.Tensor:
        """Start copying out, once for each storage; return the tensor where it is to stay."""
        storage = tensor.untyped_storage()
        is_whole = tensor.nbytes == storage.nbytes()
        if not is_whole or tensor.nbytes < layer.least_bytes or storage._cdata in layer.staying:
            return tensor.detach()  # what a function returns must not hold on to the function
        saved = layer.saved.get(storage._cdata)
        if saved is None:
            saved = layer.saved[storage._cdata] = self._leaving(tensor)
        saved.num_awaited += 1
        return _Handle(layer, saved, tensor.size(), tensor.stride())

    def _leaving(self, tensor: torch.Tensor) -> _Saved:
        flat = tensor.detach().as_strided((tensor.numel(),), (1,), 0)
        with self._device.on_host():
            saved = _Saved(flat, _host_buffer(flat))
            self._copy(saved, saved.on_host, flat)
        return saved

    def _unpack(self, handle: _Handle | torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device."""
        if isinstance(handle, torch.Tensor):
            return handle
        saved = handle.saved
        flat = self._fetch(saved)
        self._arrive(saved)
        saved.num_awaited -= 1
        if saved.num_awaited <= 0:  # below where a graph that is retained is gone through again
            saved.on_device = None
        if handle.layer is not self._entered:
            self._enter(handle.layer)
        return flat.as_strided(handle.size, handle.stride, 0)

    def _enter(self, layer: _Layer) -> None:
        """Start to fetch what will be needed after this layer."""
        self._entered = layer
        self._returning = [] if layer.previous is None else list(layer.previous.saved.values())
        for saved in self._returning:
            self._fetch(saved)

    def _fetch(self, saved: _Saved) -> torch.Tensor:
        """Start copying back, unless the storage is on the device still, or on its way."""
        if saved.on_device is None:
            host = saved.on_host
            saved.on_device = torch.empty(host.shape, dtype=host.dtype, device=self._device.torch_device)
            self._copy(saved, saved.on_device, host)
        return saved.on_device

    def _copy(self, saved: _Saved, target: torch.Tensor, source: torch.Tensor) -> None:
        if self._stream is not None:
            # what was computed into the source, and what last used the target's block
            self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):  # takes None, and then does nothing
            target.copy_(source, non_blocking=True)
        if self._stream is not None:
            saved.copied = self._stream.record_event()

    def _arrive(self, saved: _Saved) -> None:
        """Let the compute stream wait for the copy; the host does not wait."""
        if saved.copied is not None:
            torch.cuda.current_stream().wait_event(saved.copied)
            saved.copied = None


def _host_buffer(tensor: torch.Tensor) -> torch.Tensor:
    """Return host memory of the tensor's size, page-locked where a GPU copies into it; without values it stays meta."""
    host = "meta" if tensor.is_meta else "cpu"
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=host, pin_memory=tensor.is_cuda)
