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
CPU = torch.device("cpu")
META = torch.device("meta")

_device = torch._C.TensorBase.device.__get__


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

    stand_ins: dict[str, Any] = {
        "device": property(device),
        "is_cuda": property(is_cuda),
        "is_cpu": property(is_cpu),
        "is_meta": property(is_meta),
        "get_device": get_device,
    }
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(patch.object(torch.Tensor, name, stand_in, create=True))
        yield


def device_named(value: Any) -> torch.device | None:
    """Return the device that an argument names, an index being that of a card; None where it names none."""
    if isinstance(value, torch.device):
        return value if value.type != "cuda" else CARD
    if isinstance(value, str):
        return device_named(torch.device(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return CARD
    return None
