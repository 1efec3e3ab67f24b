"""A call of a layer as a program makes it, and how it is made again with other tensors."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch

from memory_harness.harness.simulate.layer_kinds import CARD, cache_among, entry_of, is_number, place_of
from memory_harness.harness.simulate.layer_recording import (
    Argument,
    Call,
    Casts,
    Number,
    autocast_state,
    layout_of,
    trainable,
)
from memory_harness.harness.simulate.results import tensors_among
from memory_harness.harness.simulate.tracer import Tracer


class Request:
    """A call as the program makes it."""

    def __init__(self, layer: torch.nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.layer = layer
        self._call = call
        self.args = args
        self.kwargs = kwargs

    def run(self) -> Any:
        """Make it."""
        return self._call(self.layer, *self.args, **self.kwargs)

    @property
    def cache_entry(self) -> Any:
        """What a cache among the arguments holds for the layer; None where there is none."""
        cache = cache_among(self.args, self.kwargs)
        return None if cache is None else entry_of(cache, self.layer)

    def tensors(self) -> list[torch.Tensor]:
        """Return the tensors among the arguments, each once, and then those in the cache."""
        entry = self.cache_entry
        cached = [] if entry is None else [value for value in vars(entry).values() if not is_number(value)]
        found: dict[int, torch.Tensor] = {}
        for tensor in tensors_among((*self.args, *self.kwargs.values(), *cached)):
            found.setdefault(id(tensor), tensor)
        return list(found.values())

    def has_casts(self, casts: Casts) -> tuple[bool, ...]:
        """Return of which of the layer's trainable weights autocast has a copy."""
        return tuple(weight in casts for weight in trainable(self.layer))

    def as_call(self, tracer: Tracer, casts: Casts) -> Call:
        """Return it without its tensors."""
        tensors = self.tensors()
        arguments = []
        for tensor in tensors:
            place = place_of(tracer, tensor)
            key = None if place == CARD else place
            arguments.append(Argument(layout_of(tensor), tensor.requires_grad, key, tracer.card_of(tensor)))
        run = self._runner({id(tensor): Number(number) for number, tensor in enumerate(tensors)})
        return Call(self.layer, run, arguments, autocast_state(), self.has_casts(casts))

    def _runner(self, numbers: dict[int, Number]) -> Callable[[list[torch.Tensor]], tuple[Any, dict[str, Any]]]:
        """Return what makes the call with other tensors, and with a cache that has nothing in it but for this layer."""
        layer, call = self.layer, self._call
        template = replaced([self.args, self.kwargs], lambda tensor: numbers[id(tensor)])
        cache = cache_among(self.args, self.kwargs)
        if cache is None:

            def run(tensors: list[torch.Tensor]) -> tuple[Any, dict[str, Any]]:
                args, kwargs = replaced(template, tensors.__getitem__, Number)
                tensors.clear()
                return call(layer, *args, **kwargs), {}

            return run

        template = replaced(template, lambda _: _Cache(), type(cache))
        shell, num_entries, bare = copy.copy(cache), len(cache.layers), copy.copy(self.cache_entry)
        shell.layers = []
        state = replaced(vars(bare), lambda tensor: numbers.get(id(tensor), tensor))
        vars(bare).clear()

        def run_with_cache(tensors: list[torch.Tensor]) -> tuple[Any, dict[str, Any]]:
            own, whole = copy.copy(bare), copy.copy(shell)
            vars(own).update(replaced(state, tensors.__getitem__, Number))
            given = {name: weakref.ref(held) for name, held in vars(own).items() if isinstance(held, torch.Tensor)}
            whole.layers = [own] * num_entries
            args, kwargs = replaced(replaced(template, tensors.__getitem__, Number), lambda _: whole, _Cache)
            tensors.clear()
            result = call(layer, *args, **kwargs)
            return result, {name: held for name, held in vars(own).items() if not _is_same(given.get(name), held)}

        return run_with_cache


def _is_same(given: weakref.ref[torch.Tensor] | None, held: Any) -> bool:
    return given is not None and given() is held


class _Cache:
    """In place of a cache."""


def replaced(value: Any, other: Callable[[Any], Any], kind: type = torch.Tensor) -> Any:
    """Return arguments with something else in place of those of a type."""
    if isinstance(value, kind):
        return other(value)
    if isinstance(value, (list, tuple)):
        return type(value)(replaced(member, other, kind) for member in value)
    if isinstance(value, dict):
        return {name: replaced(member, other, kind) for name, member in value.items()}
    return value
