"""Triton where it is not installed: kernels allocate nothing, they fill tensors that their callers have made.

Libraries such as TRL and liger take another way where Triton cannot be imported, and that way takes other memory.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar
from unittest.mock import patch

from memory_harness.harness.simulate.facade.dispatch import FacadeTracer

VERSION = "3.6.0"
"""Source: the version that PyTorch 2.11 requires"""


class Kernel:
    """A function under `triton.jit`: `kernel[grid](...)` launches it, and leaves its tensors without values."""

    forget: ClassVar[Callable[[Any], None]]
    """drops what is known of the values of tensors among arguments"""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.fn = function
        self.__name__ = getattr(function, "__name__", "kernel")

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self.run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Another kernel's call, which only a GPU would make."""

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Launch: what the tensors hold then, nobody knows."""
        Kernel.forget((*args, *kwargs.values()))


class _Stub(ModuleType):
    """A module in which every name is something that can be called, indexed and used as a decorator."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _Anything:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> Any:
        return self


def _jit(function: Any = None, **_: Any) -> Any:
    return Kernel if function is None else Kernel(function)


def _decorator(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda kernel: kernel


def _cdiv(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _next_power_of_2(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()


@contextmanager
def triton_is_there(tracer: FacadeTracer) -> Iterator[None]:
    """Within, Triton can be imported, and launching a kernel does nothing; of one that is installed as well."""
    Kernel.forget = tracer.forget
    if importlib.util.find_spec("triton") is not None:
        from triton.runtime.jit import KernelInterface

        launch = Kernel(KernelInterface.__getitem__).run
        with patch.object(KernelInterface, "__getitem__", lambda *_: launch):
            yield
        return
    names = ("triton", "triton.language", "triton.language.extra", "triton.language.extra.libdevice", "triton.runtime")
    modules: dict[str, Any] = {name: _stub(name) for name in names}
    root = modules["triton"]
    root.__version__ = VERSION
    root.jit, root.autotune, root.heuristics = _jit, _decorator, _decorator
    root.cdiv, root.next_power_of_2 = _cdiv, _next_power_of_2
    root.language, root.runtime = modules["triton.language"], modules["triton.runtime"]
    root.language.constexpr = lambda value=None: value
    with patch.dict(sys.modules, modules):
        yield


def _stub(name: str) -> _Stub:
    module = _Stub(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    return module
