"""What operators return on the meta device, remembered: all layers of a model ask the same.

PyTorch finds out shape, strides and type of a result there in Python, ten times slower than it makes a tensor of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]
"""shape, strides and type of a tensor that begins where its memory does"""


class MetaResults:
    """Runs operators; on arguments like those before, only makes tensors like those that came out then."""

    def __init__(self) -> None:
        # by the operator's id: operators live for ever, and take long to hash
        self._known: dict[int, dict[tuple[Any, ...], _Result] | None] = {}
        """by what a result depends on; None of operators whose results cannot be made anew, such as views"""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the operator does."""
        known = self._known.setdefault(id(func), {})
        if known is None:
            return func(*args, **kwargs)
        signature: list[Any] = [torch.get_default_dtype()]
        if not (_describe(args, signature) and _describe(kwargs.items(), signature)):
            return func(*args, **kwargs)
        key = tuple(signature)
        if key in known:
            return known[key].again()
        out = func(*args, **kwargs)
        result = _result_of(out, {_memory(tensor) for tensor in tensors_among((*args, *kwargs.values()))})
        if result is None:
            self._known[id(func)] = None
        else:
            known[key] = result
        return out


class _Result:
    """What an operator returned: one tensor (no container) or several, each in new memory of its own."""

    def __init__(self, container: type | None, layouts: Sequence[_Layout]) -> None:
        self._container = container
        self._layouts = layouts

    def again(self) -> Any:
        """Return the same anew."""
        if self._container is None:
            return _empty(self._layouts[0])
        return self._container([_empty(layout) for layout in self._layouts])


def _describe(values: Iterable[Any], into: list[Any]) -> bool:
    """Add all that a result on the meta device depends on; return False where an argument lies elsewhere."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if not value.is_meta:
                return False
            into += (value.shape, value.stride(), value.dtype)
        elif isinstance(value, (list, tuple)):
            into += (list, len(value))
            if not _describe(value, into):
                return False
        else:
            into += (type(value), value)  # 1, 1.0 and True are equal, and their results of different types
    return True


def _result_of(out: Any, given: set[int]) -> _Result | None:
    """Return how to make the same again; None where it is no new tensor in plain memory of its own.

    Args:
        given: the memory of the arguments.
    """
    tensors = tensors_among((out,))
    container = None if isinstance(out, torch.Tensor) else type(out)
    if not tensors or (container is not None and len(tensors) != len(out)):
        return None
    memory = {_memory(tensor) for tensor in tensors}
    if len(memory) < len(tensors) or memory & given or not all(map(_is_plain, tensors)):
        return None
    return _Result(container, [_layout(tensor) for tensor in tensors])


def tensors_among(values: Sequence[Any]) -> list[torch.Tensor]:
    """Return the tensors among an operator's arguments, those in lists included."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(tensors_among(value))
    return found


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor on the meta device is all of its memory, and of no class of its own."""
    if type(tensor) is not torch.Tensor or not tensor.is_meta:
        return False
    return tensor.untyped_storage().nbytes() == _empty(_layout(tensor)).untyped_storage().nbytes()


def _layout(tensor: torch.Tensor) -> _Layout:
    return tensor.shape, tensor.stride(), tensor.dtype


def _empty(layout: _Layout) -> torch.Tensor:
    shape, strides, dtype = layout
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
