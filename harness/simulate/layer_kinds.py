"""What decides which memory a layer takes: calls that are equal in it allocate the same.

A kind is a tuple: the layer's modules with their settings and the layouts of their weights, the layouts of the
arguments, and PyTorch's switches. What cannot be compared makes a call one of no kind.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Hashable, Iterable
from types import CellType
from typing import Any

import torch

from memory_harness.harness.log.source_lines import is_library
from memory_harness.harness.simulate.tracer import Tracer, lies_on_meta

CARD = "card"
"""where a tensor lies that an allocation was made for"""

NUMBERS_OF_LAYERS = frozenset({"layer_idx", "layer_index", "layer_id", "layer_number"})
"""attributes that tell one layer of a model from another; which layers differ by them shows when each has run once"""

_CACHES = ("DynamicCache",)
_ENTRIES = ("DynamicLayer", "DynamicSlidingWindowLayer")
"""transformers' caches of keys and values, and what they hold for a layer, where a call does nothing else to them"""

_TECHNIQUES = "memory_harness.harness.techniques."
"""code that takes the place of a module's own, as the configuration says"""

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
    known: dict[int, int] = {}
    _describe_arguments(tracer, [args, kwargs], into, known)
    cache = cache_among(args, kwargs)
    if cache is not None:
        entry = entry_of(cache, layer)
        others = {name: value for name, value in vars(cache).items() if name != "layers"}
        held = {name: value.item() if is_number(value) else value for name, value in vars(entry).items()}
        _describe_arguments(tracer, [others, held, type(entry)], into, known)
    return (*into, kind_of_layer(tracer, layer))


def cache_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the cache of keys and values among the arguments of a layer; None where there is none."""
    return next((value for value in (*args, *kwargs.values()) if _is_named(value, *_CACHES)), None)


def entry_of(cache: Any, layer: torch.nn.Module) -> Any:
    """Return what a cache holds for a layer. Raises NoKind where that is not known."""
    for module in layer.modules():
        numbers = NUMBERS_OF_LAYERS & vars(module).keys()
        if not numbers:
            continue
        number = vars(module)[min(numbers)]
        if isinstance(number, int) and number < len(cache.layers):
            entry = cache.layers[number]
            if _is_named(entry, *_ENTRIES):
                return entry
        break
    raise NoKind


def is_number(value: Any) -> bool:
    """Return whether a value is one number on the host, such as the length of a cache's window."""
    return isinstance(value, torch.Tensor) and not value.ndim and not lies_on_meta(value)


def _is_named(value: Any, *names: str) -> bool:
    return type(value).__name__ in names and type(value).__module__ == "transformers.cache_utils"


def kind_of_layer(tracer: Tracer, layer: torch.nn.Module) -> tuple[Hashable, ...]:
    """Return what decides it of the layer itself. Raises NoKind where a script has a hand in it."""
    into: list[Any] = []
    for module in layer.modules():
        attributes = vars(module)
        hooks = any(attributes[name] for name in _HOOKS)
        if hooks or not is_of_library(module) or not _is_own_forward(attributes):
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


def _is_own_forward(attributes: dict[str, Any]) -> bool:
    """Return whether a module runs its class's code, or a technique's, which is compared with the other attributes.

    accelerate's hook that moves arguments to the card may be.
    """
    own = attributes.get("forward")
    if own is None or (isinstance(own, functools.partial) and own.func.__module__.startswith(_TECHNIQUES)):
        return True
    hook: Any = attributes.get("_hf_hook")
    return type(hook).__name__ == "AlignDevicesHook" and not hook.offload


def is_of_library(module: torch.nn.Module) -> bool:
    """Return whether a library has a module's class and its code; what a script's own do beside, nobody knows."""
    return _is_in_library(type(module).__module__) and _is_library_code(type(module).forward)


def _is_library_code(function: Any) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is None or is_library(code.co_filename)


@functools.cache
def _is_in_library(name: str) -> bool:
    package = name.partition(".")[0]  # the one that is not imported anew by whoever wants to
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
    is_made_of_others = tensor.requires_grad and not tensor.is_leaf
    if is_made_of_others or tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
        raise NoKind
    into += (type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad)
    into += (place_of(tracer, tensor), tracer.card_of(tensor))


def place_of(tracer: Tracer, tensor: torch.Tensor) -> Hashable:
    """Return CARD, or the tracer's key of what is not there; None of a tensor with values."""
    if not lies_on_meta(tensor):
        return None
    key = tracer.key_of(tensor)
    return CARD if isinstance(key, (int, tuple)) else key


def card_of_layer(tracer: Tracer, layer: torch.nn.Module) -> int:
    """Return on which of several cards a layer's weights lie, by the first of them."""
    return next(filter(None, map(tracer.card_of, layer.parameters())), 0)


def _describe_arguments(tracer: Tracer, values: Iterable[Any], into: list[Any], known: dict[int, int]) -> None:
    for value in values:
        if isinstance(value, torch.Tensor):
            place = place_of(tracer, value)
            if place is None or type(value) is not torch.Tensor:
                raise NoKind  # it has values, which the layer may look at
            into += (value.shape, value.stride(), value.dtype, value.requires_grad, place, tracer.card_of(value))
            into.append(known.setdefault(id(value), len(known)))
        elif type(value) in (list, tuple):
            into += (type(value), len(value))
            _describe_arguments(tracer, value, into, known)
        elif type(value) is dict:
            into.append(tuple(value))
            _describe_arguments(tracer, value.values(), into, known)
        elif is_simple(value):
            into += (type(value), value)
        elif _is_named(value, *_CACHES):
            into.append(_CACHES)
        else:
            raise NoKind


def is_simple(value: Any) -> bool:
    """Return whether a value is no more than what it is equal to."""
    return value is None or isinstance(value, _PLAIN)


def _describe(value: Any, into: list[Any], depth: int) -> None:
    """Add a module's attribute: its value where that is simple, its type where it is an object."""
    if is_simple(value):
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
        _describe(value.func, into, depth - 1)
        _describe([value.args, value.keywords], into, depth - 1)
    elif hasattr(value, "__code__"):
        into.append(id(value.__code__))
        for cell in getattr(value, "__closure__", None) or ():
            _describe_object(cell, into)
    else:
        _describe_object(value, into)


def _describe_object(value: Any, into: list[Any]) -> None:
    """Add an object's type, and what it holds that is simple: a model's configuration may change as it runs.

    Raises NoKind where a technique's says that what it does in one layer depends on others (`spans_layers`).
    """
    if getattr(value, "spans_layers", False):
        raise NoKind
    into.append(type(value))
    attention = getattr(value, "_attn_implementation", None)
    if isinstance(attention, str) and not _is_library_attention(attention):
        raise NoKind
    held = {"": value.cell_contents} if isinstance(value, CellType) else getattr(value, "__dict__", {})
    for name, member in held.items():
        if is_simple(member) and name not in NUMBERS_OF_LAYERS:
            into += (name, member)


def _is_library_attention(name: str) -> bool:
    """Return whether what transformers calls by that name is not a script's own."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    function = ALL_ATTENTION_FUNCTIONS.get(name)
    return function is None or _is_library_code(function)
