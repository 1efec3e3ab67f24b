"""Where a tensor without values stands: on the card, on the host, or nowhere, as code that asks for meta wants it.

All three lie on PyTorch's meta device. Scripts and libraries compare devices, so tensors of the card must say `cuda`;
PyTorch's own code below its dispatcher must go on seeing meta.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from memory_harness.harness.simulate.tracer import lies_on_meta

if TYPE_CHECKING:
    from memory_harness.harness.simulate.facade.dispatch import FacadeTracer

CARD = torch.device("cuda", 0)
"""the first card; as the kind of place, any"""
CPU = torch.device("cpu")
META = torch.device("meta")

ADDRESS_BITS = 36
"""bits of an address within an allocation of the card; code that looks for shared memory compares addresses"""

_device = torch._C.TensorBase.device.__get__
_data = torch._C.TensorBase.data.__get__  # type: ignore[attr-defined]
_assign_data = torch._C.TensorBase.data.__set__  # type: ignore[attr-defined]
_data_ptr = torch._C.TensorBase.data_ptr
_clone = torch.UntypedStorage.clone
_storage_address = torch._C.StorageBase.data_ptr  # type: ignore[attr-defined]


def real_device(tensor: torch.Tensor) -> torch.device:
    """Return the device on which a tensor lies."""
    with torch._C.DisableTorchFunction():
        return _device(tensor)


@contextmanager
def tensors_tell_their_place(tracer: FacadeTracer) -> Iterator[None]:
    """Within, a tensor's `device` is the place that it stands for, except to PyTorch's code under the dispatcher."""

    def device(tensor: torch.Tensor) -> torch.device:
        if tracer.depth or not lies_on_meta(tensor):
            return real_device(tensor)
        return tracer.place_of(tensor)

    def is_cuda(tensor: torch.Tensor) -> bool:
        return device(tensor).type == "cuda"

    def is_cpu(tensor: torch.Tensor) -> bool:
        return device(tensor).type == "cpu"

    def is_meta(tensor: torch.Tensor) -> bool:
        return device(tensor).type == "meta"

    def get_device(tensor: torch.Tensor) -> int:
        place = device(tensor)
        return -1 if place.index is None else place.index

    def data_ptr(tensor: torch.Tensor) -> int:
        if tracer.depth or not lies_on_meta(tensor):
            return int(_data_ptr(tensor))
        return address(tensor.untyped_storage()) + int(tensor.storage_offset()) * tensor.element_size()

    def address(storage: torch.UntypedStorage) -> int:
        if tracer.depth or storage.device.type != "meta" or not storage.nbytes():
            return int(_storage_address(storage))
        key = tracer.key_of_storage(storage)
        return key << ADDRESS_BITS if isinstance(key, int) else storage._cdata

    def clone(storage: torch.UntypedStorage) -> torch.UntypedStorage:
        copy = _clone(storage)
        if storage.device.type == "meta":
            tracer.place_copy(copy, storage)
        return copy

    stand_ins: dict[str, Any] = {
        "device": property(device),
        "is_cuda": property(is_cuda),
        "is_cpu": property(is_cpu),
        "is_meta": property(is_meta),
        "get_device": get_device,
        "data_ptr": data_ptr,
        "data": property(_data, _set_data),
    }
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(patch.object(torch.Tensor, name, stand_in, create=True))
        stack.enter_context(patch.object(torch.UntypedStorage, "data_ptr", address, create=True))
        stack.enter_context(patch.object(torch.UntypedStorage, "clone", clone))
        stack.enter_context(patch.object(torch, "_has_compatible_shallow_copy_type", lambda *_: True))
        yield


def _set_data(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Let a tensor be what another one is, as between the host and CUDA: optimizers and layers go on holding it."""
    if lies_on_meta(tensor) == lies_on_meta(value):
        _assign_data(tensor, value)
        return
    gradient, requires_grad = tensor.grad, tensor.requires_grad
    tensor.grad = None  # it has a hold on the tensor
    torch._C._swap_tensor_impl(tensor, value.detach())
    tensor.requires_grad = requires_grad  # no method, which lazy parameters forbid
    if gradient is not None:
        tensor.grad = gradient.to(value.device)
