"""Several cards that one process drives, all on the meta device: on which of them each tensor lies.

What is allocated goes to the memory of the card where it begins; `EachCard` tells each of its own.
An operator runs where its first tensor lies, as PyTorch's do; what is made of nothing, on the present card.
accelerate's hooks, which bring what a layer is called with to its card, do it here as `Tensor.to` does.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from accelerate import hooks
from accelerate.utils.operations import is_torch_tensor, recursively_apply

from memory_harness.harness.simulate.tracer import EventSink, Place, Site, Tracer


class EachCard:
    """An event sink that tells those of several cards what begins and ends there.

    Args:
        sinks: of the cards, by number.
    """

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        self.sinks = list(sinks)
        self._here = 0
        self._cards: dict[Hashable, int] = {}

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Take that a storage begins where the last switch led. Raises what that card's sink raises."""
        self._cards[key] = self._here
        self.sinks[self._here].alloc(key, num_bytes, site)

    def free(self, key: Hashable) -> None:
        """Take that it ends, wherever it lies."""
        card = self._cards.pop(key, None)
        if card is not None:
            self.sinks[card].free(key)

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Take that a lasting one begins: each card has its own."""
        self.sinks[self._here].ensure(key, num_bytes, site)

    def empty_cache(self) -> None:
        """Take that wholly free segments are returned, on all cards."""
        for sink in self.sinks:
            sink.empty_cache()

    def switch(self, place: Place) -> None:
        """Take where what follows begins."""
        self._here = place.card
        self.sinks[self._here].switch(place)


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
