"""What operators make on the meta device, remembered: PyTorch's own answer there takes ten times longer."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch

from memory_harness.harness.simulate.facade.places import META

Made = tuple[torch.Size, tuple[int, ...], torch.dtype]
"""shape, strides and type of a result in memory of its own"""

aten = torch.ops.aten
_RESHAPING = ("aten::set_", "aten::resize_", "aten::resize_as_")


class ShapeCache:
    """Runs operators on tensors without values; what they make is the same for arguments of the same shapes."""

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[Made, ...] | None] = {}
        self._kinds: dict[int, str] = {}  # by the ids of operators, which live for ever and take long to hash

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operator, on the meta device."""
        kind = self._kinds.get(id(func)) or self._kind(func)
        if kind == "changes":
            return args[0]
        if kind == "other":
            return func(*args, **kwargs)
        key = (id(func), _key(args), _key(tuple(kwargs.items())) if kwargs else None)
        if key not in self._made:
            out = func(*args, **kwargs)
            self._made[key] = _what_was_made(out, args)
            return out
        made = self._made[key]
        if made is None:
            return func(*args, **kwargs)
        results = [torch.empty_strided(size, stride, dtype=dtype, device=META) for size, stride, dtype in made]
        return results[0] if kind == "one" else tuple(results)


    def _kind(self, func: Any) -> str:
        kind = self._kinds[id(func)] = _kind(func)
        return kind


def _kind(func: Any) -> str:
    """Return `one` or `several` for operators that make tensors, `changes` for those in place, else `other`."""
    schema = func._schema
    reshapes = torch.Tag.inplace_view in func.tags or schema.name in _RESHAPING
    returns = [str(value.type) for value in schema.returns]
    writes = list(filter(_is_written, schema.arguments))
    if writes:
        is_in_place = writes == schema.arguments[:1] and returns == ["Tensor"]
        return "changes" if is_in_place and not reshapes else "other"
    if any(value.alias_info is not None for value in (*schema.arguments, *schema.returns)):
        return "other"
    if set(returns) != {"Tensor"} or torch.Tag.dynamic_output_shape in func.tags:
        return "other"
    return "one" if len(returns) == 1 else "several"


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def _key(value: Any) -> Hashable:
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    return value if isinstance(value, Hashable) else repr(value)


def _what_was_made(out: Any, args: tuple[Any, ...]) -> tuple[Made, ...] | None:
    """Return the results' shapes where each lies alone in memory that it fills, else None."""
    results = (out,) if isinstance(out, torch.Tensor) else out
    storages = set()
    made: list[Made] = []
    for result in results:
        if not isinstance(result, torch.Tensor) or result.device.type != "meta" or result.storage_offset():
            return None
        storages.add(result.untyped_storage()._cdata)
        fresh = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=META)
        if fresh.untyped_storage().nbytes() != result.untyped_storage().nbytes():
            return None
        made.append((result.shape, result.stride(), result.dtype))
    for argument in args:
        if isinstance(argument, torch.Tensor):
            storages.discard(argument.untyped_storage()._cdata)
    return tuple(made) if len(storages) == len(made) else None
