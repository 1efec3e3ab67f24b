"""The values of tensors on the card, as far as they are known: ids, masks and lengths come from the host.

What was moved to the card keeps a copy on the host, and cheap operators on such tensors run there too. What no host
knows gets a stated stand-in, or ends the run with the line that asks.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import torch

from memory_harness.harness.log.errors import HarnessError
from memory_harness.harness.log.source_lines import is_harness, is_library, short_path
from memory_harness.harness.simulate.facade.places import CPU

MAX_INTEGER_BYTES = 4 * 2**20
MAX_FLOAT_BYTES = 64 * 2**10
"""largest result that is computed on the host as well"""
MAX_ELEMENTS = 2**26
"""most elements that are looked at for one value"""

Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


class UnknownValue(HarnessError):
    """A script asked for a value that does not exist without a GPU; `where` is `file:line`."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where


class StandInFloat(float):
    """A number read from a tensor without values. It can be logged and computed with; what hangs on it is unknown.

    `float(tensor)` is beyond this: Python makes a plain number of what it gets.
    """

    def _compare(self, name: str, other: Any) -> bool:
        if isinstance(other, (int, float)) and not isinstance(other, StandInFloat) and not math.isfinite(other):
            return bool(getattr(float, name)(self, other))  # a finite number's answer, whichever it is
        if other is not self and not called_by_library():
            raise UnknownValue(
                "the script branches on a number read from the card, which has no value in a dry run; "
                "set it by hand where the environment variable MEMORY_HARNESS_DRY_RUN is set",
                users_place(),
            )
        return bool(getattr(float, name)(self, other))

    def __lt__(self, other: Any) -> bool:
        return self._compare("__lt__", other)

    def __le__(self, other: Any) -> bool:
        return self._compare("__le__", other)

    def __gt__(self, other: Any) -> bool:
        return self._compare("__gt__", other)

    def __ge__(self, other: Any) -> bool:
        return self._compare("__ge__", other)

    def __add__(self, other: Any) -> Any:
        return _stand_in(float.__add__(self, other))

    def __sub__(self, other: Any) -> Any:
        return _stand_in(float.__sub__(self, other))

    def __mul__(self, other: Any) -> Any:
        return _stand_in(float.__mul__(self, other))

    def __truediv__(self, other: Any) -> Any:
        return _stand_in(float.__truediv__(self, other))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Any:
        return _stand_in(float.__rsub__(self, other))

    def __rtruediv__(self, other: Any) -> Any:
        return _stand_in(float.__rtruediv__(self, other))

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        return _stand_in(float.__pow__(self, other))

    def __rpow__(self, other: Any, modulus: None = None) -> Any:
        return _stand_in(float.__rpow__(self, other))

    def __floordiv__(self, other: Any) -> Any:
        return _stand_in(float.__floordiv__(self, other))

    def __mod__(self, other: Any) -> Any:
        return _stand_in(float.__mod__(self, other))

    def __neg__(self) -> Any:
        return _stand_in(float.__neg__(self))

    def __abs__(self) -> Any:
        return _stand_in(float.__abs__(self))

    def __round__(self, digits: Any = None) -> Any:
        return _stand_in(float.__round__(self, digits))


def _stand_in(result: Any) -> Any:
    return result if result is NotImplemented else StandInFloat(result)


def users_place() -> str:
    """Return `file:line` of the innermost frame outside libraries, or of the innermost one of all."""
    frame = sys._getframe(1)
    innermost = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if not is_harness(path) and not path.startswith("<"):
            place = f"{short_path(path)}:{frame.f_lineno}"
            innermost = innermost or place
            if not is_library(path):
                return place
        frame = frame.f_back  # type: ignore[assignment]
    return innermost


def called_by_library() -> bool:
    """Return whether the innermost frame outside the harness is a library's."""
    frame = sys._getframe(1)
    while frame is not None and is_harness(frame.f_code.co_filename):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and is_library(frame.f_code.co_filename)


class KnownValues:
    """Copies on the host of storages on the card, by `_cdata`."""

    def __init__(self) -> None:
        self._by_storage: dict[int, torch.UntypedStorage | float | bool] = {}
        self.answers: dict[int, bool] = {}
        """to what libraries ask of a number that nobody knows, by the storage of the question"""

    def __bool__(self) -> bool:
        return bool(self._by_storage)

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the values of a tensor on the card, on the host, sharing memory as its views do; None if unknown."""
        value = self._by_storage.get(tensor.untyped_storage()._cdata)
        if value is None:
            return None
        if not isinstance(value, torch.UntypedStorage):
            return torch.tensor(value, dtype=tensor.dtype, device=CPU).expand(tensor.shape)
        host = torch.empty(0, dtype=tensor.dtype, device=CPU)
        # the size by its method: a lazy parameter tells no shape
        return host.set_(value, tensor.storage_offset(), tensor.size(), tensor.stride())

    def keep(self, tensor: torch.Tensor, host: torch.Tensor) -> None:
        """Remember a tensor's values, where they are few enough to be worth it."""
        if not is_small(tensor):
            return
        storage = tensor.untyped_storage()
        copy = torch.zeros(storage.nbytes(), dtype=torch.uint8, device=CPU).untyped_storage()
        self._by_storage[storage._cdata] = copy
        view = self.of(tensor)
        assert view is not None
        view.copy_(host)

    def keep_constant(self, tensor: torch.Tensor, value: float | bool) -> None:
        """Remember that all of a tensor's elements are the same."""
        if is_small(tensor):
            self.keep(tensor, torch.tensor(value, dtype=tensor.dtype, device=CPU).expand(tensor.shape))
        else:
            self._by_storage[tensor.untyped_storage()._cdata] = value

    def forget(self, storage: int) -> None:
        """Drop what is known of a storage."""
        self._by_storage.pop(storage, None)
        self.answers.pop(storage, None)


def is_small(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's values are worth keeping on the host."""
    limit = MAX_FLOAT_BYTES if tensor.is_floating_point() or tensor.is_complex() else MAX_INTEGER_BYTES
    return tensor.untyped_storage().nbytes() <= limit
