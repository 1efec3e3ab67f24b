"""What decides which memory a layer takes: calls that are equal in it allocate the same.

A kind is a tuple: the layer's modules with their settings and the layouts of their weights, the layouts of the
arguments, and PyTorch's switches. What cannot be compared makes a call one of no kind.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Hashable, Iterable
from typing import Any

import torch

from memory_harness.harness.log.source_lines import is_library
from memory_harness.harness.simulate.tracer import Tracer, lies_on_meta

CARD = "card"
"""where a tensor lies that an allocation was made for"""

NUMBERS_OF_LAYERS = frozenset({"layer_idx", "layer_index", "layer_id", "layer_number"})
"""attributes that tell one layer of a model from another; which layers differ by them shows when each has run once"""

MAX_DEPTH = 4
"""containers within containers of a module's attribute that are looked into"""

_OF_EVERY_MODULE = frozenset(vars(torch.nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = (bool, int, float, str, bytes, torch.dtype, torch.device, torch.layout, type)


class NoKind(Exception):
    """A call holds something that cannot be compared."""


def kind_of_call(
    tracer: Tracer, layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Hashable, ...]:
    """Return what decides which memory the call takes. Raises NoKind."""
    into: list[Any] = [_switches()]
    _describe_arguments(tracer, [args, kwargs], into, {})
    return (*into, kind_of_layer(tracer, layer))


def kind_of_layer(tracer: Tracer, layer: torch.nn.Module) -> tuple[Hashable, ...]:
    """Return what decides it of the layer itself. Raises NoKind where a script has a hand in it."""
    into: list[Any] = []
    for module in layer.modules():
        attributes = vars(module)
        hooks = any(attributes[name] for name in _HOOKS)
        if hooks or "forward" in attributes or not is_of_library(type(module)):
            raise NoKind
        into += (type(module).__module__, type(module).__qualname__, module.training, *module._modules)
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                _describe_weight(tracer, tensor, into)
        for attribute, value in attributes.items():
            if attribute not in _OF_EVERY_MODULE and attribute not in NUMBERS_OF_LAYERS:
                into.append(attribute)
                _describe(value, into, MAX_DEPTH)
    return tuple(into)


@functools.cache
def is_of_library(module_class: type) -> bool:
    """Return whether a library has a class of modules; what a script's own do beside, nobody knows."""
    package = module_class.__module__.partition(".")[0]  # the one that is not imported anew by whoever wants to
    file = getattr(sys.modules.get(package), "__file__", None)
    return file is not None and is_library(file)


def _switches() -> Hashable:
    """Return PyTorch's settings that decide which operators run, and what they save."""
    cuda = torch.backends.cuda
    attention = (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )
    autocast = (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled())
    return (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(), autocast, attention)


def _describe_weight(tracer: Tracer, tensor: torch.Tensor | None, into: list[Any]) -> None:
    if tensor is None:
        into.append(None)
        return
    if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
        raise NoKind
    into += (type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad)
    into.append(place_of(tracer, tensor))


def place_of(tracer: Tracer, tensor: torch.Tensor) -> Hashable:
    """Return CARD, or the tracer's key of what is not there; None of a tensor with values."""
    if not lies_on_meta(tensor):
        return None
    key = tracer.key_of(tensor)
    return CARD if isinstance(key, (int, tuple)) else key


def _describe_arguments(tracer: Tracer, values: Iterable[Any], into: list[Any], known: dict[int, int]) -> None:
    for value in values:
        if isinstance(value, torch.Tensor):
            place = place_of(tracer, value)
            if place is None or type(value) is not torch.Tensor:
                raise NoKind  # it has values, which the layer may look at
            into += (value.shape, value.stride(), value.dtype, value.requires_grad, place)
            into.append(known.setdefault(id(value), len(known)))
        elif isinstance(value, (list, tuple)):
            into += (type(value), len(value))
            _describe_arguments(tracer, value, into, known)
        elif isinstance(value, dict):
            into.append(tuple(value))
            _describe_arguments(tracer, value.values(), into, known)
        elif value is None or isinstance(value, _PLAIN):
            into += (type(value), value)
        else:
            raise NoKind


def _describe(value: Any, into: list[Any], depth: int) -> None:
    """Add a module's attribute: its value where that is simple, its type where it is an object."""
    if value is None or isinstance(value, _PLAIN):
        into += (type(value), value)
    elif isinstance(value, torch.Tensor):
        into += (type(value), value.shape, value.stride(), value.dtype)
    elif isinstance(value, (list, tuple)) and depth:
        into += (type(value), len(value))
        for member in value:
            _describe(member, into, depth - 1)
    elif isinstance(value, dict) and depth:
        into += (type(value),)
        for key, member in value.items():
            into.append(str(key))
            _describe(member, into, depth - 1)
    elif isinstance(value, functools.partial):
        into.append(value.func)
        _describe([value.args, value.keywords], into, depth - 1)
    elif hasattr(value, "__code__"):
        into.append(id(value.__code__))
    else:
        into += (type(value),)
