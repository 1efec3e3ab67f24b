"""Several cards that one process drives, all on the meta device: on which of them each tensor lies.

An operator runs where its first tensor lies, as PyTorch's do; what is made of nothing, on the present card.
accelerate's hooks, which bring what a layer is called with to its card, do it here as `Tensor.to` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from accelerate import hooks
from accelerate.utils.operations import is_torch_tensor, recursively_apply

from memory_harness.harness.simulate.tracer import Tracer


@contextmanager
def hooks_move_between_cards(tracer: Tracer) -> Iterator[None]:
    """Within, accelerate's hooks bring tensors to the tracer's cards, by number; weights lie where they are to."""

    def bring(value: Any, card: Any, non_blocking: bool = False, skip_keys: Any = None) -> Any:
        card = card if isinstance(card, int) else 0  # the results of a model go back to where its inputs were
        if isinstance(value, Mapping):
            kept = [skip_keys] if isinstance(skip_keys, str) else skip_keys or ()
            return type(value)({k: v if k in kept else bring(v, card) for k, v in value.items()})  # type: ignore[call-arg]
        return recursively_apply(lambda tensor: _to(tracer, tensor, card), value, test_type=is_torch_tensor)

    def stay(*_: Any, **__: Any) -> None:
        """Each weight was made on its card."""

    with patch.multiple(hooks, send_to_device=bring, set_module_tensor_to_device=stay):
        yield


def _to(tracer: Tracer, tensor: torch.Tensor, card: int) -> torch.Tensor:
    source = tracer.card_of(tensor)
    if source is None or source == card:
        return tensor
    moved: torch.Tensor = _Move.apply(tensor, tracer, source, card)
    return moved


class _Move(torch.autograd.Function):
    """A copy on another card; its gradient goes back."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, tracer: Tracer, source: int, card: int) -> torch.Tensor:
        ctx.tracer, ctx.source = tracer, source
        return _copy(tracer, tensor, card)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return _copy(ctx.tracer, gradients[0], ctx.source), None, None, None


def _copy(tracer: Tracer, tensor: torch.Tensor, card: int) -> torch.Tensor:
    with tracer.on_card(card):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
