"""The largest of a tensor's integers, where they were counted: some rotary embeddings ask for it.

Source: transformers/modeling_rope_utils.py, `dynamic_rope_update`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from memory_harness.harness.simulate.tracer import Lowering, Tracer

aten = torch.ops.aten


def _arange(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Count; the overloads take the end last."""
    out = tracer.run(func, args, kwargs)
    if type(args[-1]) is int:
        tracer.keep_largest(out, args[-1] - 1)
    return out


def _max(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Find the largest."""
    out = tracer.run(func, args, kwargs)
    largest = tracer.largest_in(args[0])
    if largest is not None:
        tracer.keep_largest(out, largest)
    return out


def _compare(
    compare: Callable[[float, float], bool], tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Compare; the answer is known where both sides are single integers that are."""
    out = tracer.run(func, args, kwargs)
    left, right = _number(tracer, args[0]), _number(tracer, args[1])
    if out.dim() == 0 and left is not None and right is not None:
        tracer.keep_largest(out, compare(left, right))
    return out


def keep_sum(tracer: Tracer, out: torch.Tensor, counted: torch.Tensor, added: object) -> None:
    """Keep the largest of what was counted with a number added to it."""
    largest = tracer.largest_in(counted)
    if largest is not None and type(added) is int:
        tracer.keep_largest(out, largest + added)


def _number(tracer: Tracer, value: torch.Tensor | float) -> float | None:
    return tracer.largest_in(value) if isinstance(value, torch.Tensor) else value


LOWERINGS: dict[Any, Lowering] = {
    aten.arange.default: _arange,
    aten.arange.start: _arange,
    aten.max.default: _max,
    aten.gt.Scalar: partial(_compare, operator.gt),
    aten.lt.Scalar: partial(_compare, operator.lt),
    aten.gt.Tensor: partial(_compare, operator.gt),
    aten.lt.Tensor: partial(_compare, operator.lt),
}
