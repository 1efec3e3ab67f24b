"""The inputs of checkpointed layers kept in host memory between forward and backward.

On a GPU the copies run on a stream of their own: out while the next layer computes, back while the layer behind it
does. Blocks are allocated and freed in the order of the compute stream alone (no `record_stream`), so the allocator
does the same in every step, and in the simulation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from memory_harness.harness.devices.base import Device


def offload_activations(model: Any, device: Device) -> None:
    """Let every checkpointed layer of a transformers model keep its inputs on the host.

    Gradient checkpointing must be on: it is what makes a layer save its inputs and nothing else.
    """
    offload = _Offload(device)
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = partial(_with_hooks, module._gradient_checkpointing_func, offload)


def _with_hooks(checkpoint: Callable[..., Any], offload: _Offload, *args: Any) -> Any:
    # inside, checkpointing puts hooks of its own on top: only the layer's inputs come to these
    with torch.autograd.graph.saved_tensors_hooks(offload.pack, offload.unpack):
        return checkpoint(*args)


class _Saved:
    """One tensor on the host, and for a while on the device too."""

    def __init__(self, tensor: torch.Tensor, previous: _Saved | None) -> None:
        self.on_device: torch.Tensor | None = tensor
        self.on_host: torch.Tensor | None = None
        self.copied: torch.cuda.Event | None = None
        """recorded after the copy that is under way; None where copies are done at once"""
        self.previous = previous
        """saved just before this one, so needed just after it"""


class _Offload:
    """Pack and unpack hooks of one model; holds the copying stream, and a tensor only while it is on its way back."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream() if device.torch_device.type == "cuda" else None
        self._newest: weakref.ref[_Saved] | None = None
        self._returning: _Saved | None = None
        """held, so that a backward pass that fails half-way does not free memory which is being copied into"""

    def pack(self, tensor: torch.Tensor) -> _Saved:
        """Start copying out; the tensor saved before has had a layer's time to arrive, and leaves the device now."""
        self._returning = None
        before = self._newest() if self._newest is not None else None
        if before is not None:
            self._arrive(before)
            before.on_device = None
        saved = _Saved(tensor, before)
        with self._device.on_host():
            saved.on_host = _host_buffer(tensor)
            self._copy(saved, saved.on_host, tensor)
        self._newest = weakref.ref(saved)
        return saved

    def unpack(self, saved: _Saved) -> torch.Tensor:
        """Return the tensor on the device, and start to fetch the one that is needed next."""
        self._fetch(saved)
        self._arrive(saved)
        tensor, saved.on_device = saved.on_device, None
        self._returning, saved.previous = saved.previous, None
        if self._returning is not None:
            self._fetch(self._returning)
        assert tensor is not None
        return tensor

    def _fetch(self, saved: _Saved) -> None:
        """Start copying back, unless the tensor is on the device still, or on its way."""
        if saved.on_device is None:
            assert saved.on_host is not None
            host = saved.on_host
            saved.on_device = torch.empty(host.shape, dtype=host.dtype, device=self._device.torch_device)
            self._copy(saved, saved.on_device, host)

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
