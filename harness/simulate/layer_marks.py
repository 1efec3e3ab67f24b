"""Which layer of a model is running, so that what it allocates can be told from what other layers do.

Forwards it is told by calls of modules, backwards by the nodes of the graph with which their outputs were made. It lies
in this folder, whose frames are no part of the stack of an allocation.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.autograd import Variable

from memory_harness.harness.log.peaks import layer_of, numbered_layer
from memory_harness.harness.simulate.compiling import compiling_with

_KEY = "layer of the memory harness"
"""of a node's metadata: it has been marked"""

Run = Callable[[], Any]


class LayerMarks:
    """Tells `mark` the name of the layer that runs from now on, such as `layers.3`; nothing where none does.

    Source: hooks of nodes run before the node does, see torch/csrc/autograd/engine.cpp, `call_function`.
    """

    def __init__(self, mark: Callable[[str], None]) -> None:
        self._mark = mark
        self._names = weakref.WeakKeyDictionary[torch.nn.Module, str]()
        """of modules with which a layer begins; empty for all others that are known"""
        self._running = ""
        self._is_active = self._is_patched = False
        self._goes_back = False
        """whether a backward pass is under way"""

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Within, calls of modules come by here; to begin takes some ms, as Python forgets what it knows of modules."""
        original = torch.nn.Module.__call__

        @functools.wraps(original)
        def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            # spelled out: this runs for every module
            if not self._is_active or not self._name_of(module):
                return original(module, *args, **kwargs)
            return self.around(module, args, kwargs, lambda: original(module, *args, **kwargs))

        torch.nn.Module.__call__ = call  # type: ignore[method-assign]
        self._is_patched = True
        can_compile = "torch._dynamo" in sys.modules  # which takes a second to import
        try:
            with compiling_with([(torch.nn.Module, "__call__", original)]) if can_compile else nullcontext():
                yield
        finally:
            self._is_patched = False
            if torch.nn.Module.__call__ is call:  # else somebody has put it back, or something over it
                torch.nn.Module.__call__ = original  # type: ignore[method-assign]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, calls of modules are followed."""
        with nullcontext() if self._is_patched else self.patched():
            self._set("")
            self._is_active, self._goes_back = True, False
            try:
                yield
            finally:
                self._is_active = False
                self._set("")

    def around(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], run: Run) -> Any:
        """Return what a call of a module returns, which `run` makes."""
        name = self._name_of(module) if self._is_active else ""
        if not name or torch._C._functorch.peek_interpreter_stack() is not None:
            return run()
        before = self._running
        self._mark_nodes((*args, *kwargs.values()), before)
        self._set(name)
        try:
            output = run()
        finally:
            self._set(before)
        self._mark_nodes(_members(output), name)
        return output

    def _name_of(self, module: torch.nn.Module) -> str:
        name = self._names.get(module)
        if name is None:
            self._names.update(layer_begins(module))
            name = self._names[module]
        return name

    def _set(self, name: str) -> None:
        self._running = name
        self._mark(name)

    def _mark_nodes(self, values: Iterable[Any], name: str) -> None:
        """Let the backward pass be that layer's from the nodes on that made these tensors, where no other's is."""
        for value in values:
            node: Any = value.grad_fn if isinstance(value, torch.Tensor) else None
            if node is not None and _KEY not in node.metadata:
                node.metadata[_KEY] = name
                node.register_prehook(functools.partial(self._enter_backwards, name))

    def _enter_backwards(self, name: str, _: Any) -> None:
        if not self._is_active:
            return
        if not self._goes_back:
            self._goes_back = True
            # at its end: the first layer is not what comes then, such as the optimizer and the next loss
            Variable._execution_engine.queue_callback(functools.partial(self._end_backwards, self._running))
        self._set(name)

    def _end_backwards(self, before: str) -> None:
        self._goes_back = False
        if self._is_active:
            self._set(before)


def layer_begins(model: torch.nn.Module) -> dict[torch.nn.Module, str]:
    """Return of each module of a model the layer that begins with it, nothing where none does.

    A layer is a numbered member of the outermost list, or what lies beside such lists. What contains a list is none.
    """
    named = dict(model.named_modules())
    containers = {""}
    for name in filter(numbered_layer, named):
        containers.update(outer for outer in _outer(name) if not numbered_layer(outer))
    found: dict[torch.nn.Module, str] = {}
    for name, module in named.items():
        layer = "" if name in containers else layer_of(f"{name}.weight")
        outer = name.rpartition(".")[0]
        is_inside = outer not in containers and layer_of(f"{outer}.weight") == layer
        found[module] = "" if is_inside else layer
    return found


def _outer(name: str) -> Iterator[str]:
    """Yield the names of the modules in which one lies."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _members(output: Any) -> Iterable[Any]:
    """Return the tensors that lie openly in what a module has returned."""
    if isinstance(output, dict):
        return list(output.values())
    return output if isinstance(output, (tuple, list)) else (output,)
