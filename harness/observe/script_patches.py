"""How calls of PyTorch are let through an observer while a script runs, and what the frames behind a call tell."""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import CO_NEWLOCALS
from itertools import islice
from types import CodeType, FrameType
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.source_lines import context_around, is_harness, is_library, short_path
from memory_harness.harness.observe.facts import tensors_in
from memory_harness.harness.observe.holders import local_variables
from memory_harness.harness.simulate.compiling import Patch, compiling_with

GENERATE = "generate"  # begin of the names of functions that are taken to generate
MAX_FAILED_FRAMES = 200  # frames looked at for a cache when memory has run out
MIN_PAIRS = 2  # of keys and values, one of each layer, before they are a cache
MAX_FRAMES = 24  # frames looked at for a function that generates, from the model's call outwards

_HARNESS = "memory_harness.harness"
_OBSERVER = os.path.join(os.path.dirname(__file__), "script.py")

_LAZY: tuple[Any, ...] = (UninitializedParameter, UninitializedBuffer)
"""A lazy layer's parameters and buffers, of which PyTorch lets some functions be called by what they are."""

_CPU = re.compile(r"""["']cpu["']""")
_TO_CPU = re.compile(r"""\.to\(\s*(device\s*=\s*)?["']cpu["']""")

Call = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]
Handler = Callable[[Call, Arguments, Keywords], Any]  # makes the original call and returns what that returns


def observed(function: Call, handler: Handler) -> Call:
    """Return a function to put in place of another, which lets the handler make the call."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return handler(function, args, kwargs)

    return call


_OBSERVED_CODE = observed(print, print).__code__


def is_observed(function: Any) -> bool:
    """Return whether `observed` has made the function."""
    return bool(function.__code__ is _OBSERVED_CODE)


@contextmanager
def unseen_by_compiler(patches: Iterable[Patch]) -> Iterator[None]:
    """Within, torch.compile meets PyTorch as it is without the patches, which are to be made next.

    Frames of the harness are passed over, and while something is compiled the patches are taken back.
    """
    from torch._dynamo import trace_rules

    trace_rules.add(_HARNESS)
    with compiling_with([(owner, name, getattr(owner, name)) for owner, name, _ in patches]):
        yield


def patches_of_tensors(device: ObservableDevice) -> list[Patch]:
    """Return what takes a tensor off the card, where CPU tensors stand for the card's."""
    to_host, convert = torch.Tensor.cpu, torch.Tensor.to

    @functools.wraps(to_host)
    def cpu(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if device.torch_device.type != "cpu" or isinstance(self, (torch.nn.Parameter, *_LAZY)):
            return to_host(self, *args, **kwargs)
        with device.on_host():
            return to_host(self, *args, **kwargs).clone()

    @functools.wraps(convert)
    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`.to("cpu")` does what `.cpu()` does, but not `.to(device)`, by which scripts without a GPU mean the card."""
        where = args[0] if args else kwargs.get("device")
        if isinstance(where, str) and where == "cpu" and _says_cpu(sys._getframe(1)):
            return convert(cpu(self), *args, **kwargs)
        return convert(self, *args, **kwargs)

    return [
        (torch.Tensor, "cpu", cpu),
        (torch.Tensor, "to", to),
        *((cls, "_allowed_methods", [*cls._allowed_methods, cpu, to]) for cls in _LAZY),
    ]


def _says_cpu(frame: FrameType) -> bool:
    """Return whether the line that a frame is at names the CPU itself."""
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return not is_library(frame.f_code.co_filename) and bool(_TO_CPU.search(code))


def loads_to_host(where: object) -> bool:
    """Return whether a file's tensors are to lie in host memory, by the `map_location` of the `torch.load` that runs.

    Scripts without a GPU say "cpu" by a variable where they mean the card, and by its name where they mean the host.
    """
    if not isinstance(where, (str, torch.device)) or torch.device(where).type != "cpu":
        return False
    for frame in _frames():
        path = frame.f_code.co_filename
        if is_harness(path):
            continue
        return is_library(path) or bool(_CPU.search(_running_call(frame)))
    return True


def _running_call(frame: FrameType) -> str:
    """Return the lines of the call that a frame is at."""
    first, last, _, _ = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    lines = range(first or frame.f_lineno, (last or frame.f_lineno) + 1)
    return "".join(linecache.getline(frame.f_code.co_filename, line) for line in lines)


def innermost_code(function: Any) -> CodeType | None:
    """Return the code of a function behind its decorators, such as `torch.no_grad()`; None where it has none."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__code__", None)


def running_generator() -> CodeType | None:
    """Return the outermost function that generates among those that led to the model's call, or None."""
    found: CodeType | None = None
    for frame in _frames():
        if frame.f_code.co_name.startswith(GENERATE):
            found = frame.f_code
    return found


def calling_line() -> str | None:
    """Return `file:line` of the user's innermost frame."""
    for frame in _frames():
        path = frame.f_code.co_filename
        if not is_library(path):
            return f"{short_path(path)}:{frame.f_lineno}"
    return None


def line_that_called(frame: FrameType | None) -> str | None:
    """Return `file:line` of the user's innermost frame around the outermost call of a module, from a frame within."""
    has_left = False
    while frame is not None:
        path = frame.f_code.co_filename
        if path == _OBSERVER:
            has_left = has_left or frame.f_code.co_name == "call_module"
        elif has_left and not is_library(path):
            return f"{short_path(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def autocast_around(frame: FrameType | None) -> str | None:
    """Return `file:line` of the outermost `with` of the user's that has autocast open around a frame."""
    found = None
    for outer, line in traceback.walk_stack(frame):
        path = outer.f_code.co_filename
        opened = None if is_library(path) else context_around(path, line, "autocast")
        found = found if opened is None else f"{short_path(path)}:{opened}"
    return found


def cache_in_frames(frame: FrameType | None) -> tuple[int, str | None]:
    """Return the bytes of keys and values that running calls hand on, from a frame out.

    They are what transformers' models call so, or a list of as many pairs as layers have run. With `file:line` of the
    user's that called the one that begins them.
    """
    most, called_at = 0, None
    for outer, line in islice(traceback.walk_stack(frame), MAX_FAILED_FRAMES):
        is_function = outer.f_code.co_flags & CO_NEWLOCALS and not is_harness(outer.f_code.co_filename)
        variables = local_variables(outer) if is_function else {}
        caches = [variables.get("past_key_values"), *filter(_is_list_of_pairs, variables.values())]
        tensors = tensors_in(caches)
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
        most = max(most, sum(storages.values()))
        path = outer.f_code.co_filename
        if most and called_at is None and not is_library(path):
            called_at = f"{short_path(path)}:{line}"
    return most, called_at


def _is_list_of_pairs(value: Any) -> bool:
    """Return whether it is a list of several pairs of tensors, all of one shape of four dimensions, without graphs."""
    if not isinstance(value, list) or len(value) < MIN_PAIRS:
        return False
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return False
    tensors = [tensor for pair in value for tensor in pair]
    if not all(isinstance(tensor, torch.Tensor) and tensor.dim() == 4 for tensor in tensors):
        return False
    return len({tensor.shape for tensor in tensors}) == 1 and not any(tensor.requires_grad for tensor in tensors)


def making_line() -> str:
    """Return `file:line` of the user's innermost frame that is in no constructor; empty where there is none."""
    for frame in _frames():
        path = frame.f_code.co_filename
        if not is_library(path) and frame.f_code.co_name != "__init__":
            return f"{short_path(path)}:{frame.f_lineno}"
    return ""


def _frames() -> Iterator[FrameType]:
    """Yield the frames that led here, innermost first."""
    for frame, _ in islice(traceback.walk_stack(sys._getframe(1)), MAX_FRAMES):
        yield frame
