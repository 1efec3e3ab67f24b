"""Layers that repeat run once; the others allocate what that one did, and compute nothing.

A model of 32 equal layers takes as long as one of two. When each layer has run for itself, and all of a kind have done
the same, calls of that kind are replayed: the first of a new kind runs for itself too, and what was recorded must be
what it did.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

import torch
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode

from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.simulate.layer_calls import Request, replaced
from memory_harness.harness.simulate.layer_kinds import (
    NoKind,
    card_of_layer,
    is_of_library,
    kind_of_call,
    kind_of_layer,
)
from memory_harness.harness.simulate.layer_marks import LayerMarks
from memory_harness.harness.simulate.layer_recording import (
    ARGUMENT,
    ARGUMENT_GRADIENT,
    CAST,
    OUTPUT,
    OUTPUT_GRADIENT,
    WEIGHT_GRADIENT,
    BackwardRecording,
    Call,
    Casts,
    Gradients,
    LayerRecorder,
    LayerRecording,
    Layout,
    Number,
    Refused,
    Role,
    Step,
    autocast_state,
    is_plain,
    layout_of,
    make,
    shape_of,
    trainable,
)
from memory_harness.harness.simulate.results import tensors_among
from memory_harness.harness.simulate.trace import ENSURE, FREE, Sinks, TraceRecorder
from memory_harness.harness.simulate.tracer import GONE, Tracer, frames_and_layer
from memory_harness.harness.simulate.work import WorkMeter

MIN_LAYERS = 3
"""equal members of a list from which replaying gains anything"""


_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)

_SCALAR = Layout(torch.Size(()), (), torch.float32)


class CannotReplay(RuntimeError):
    """A program does with a model what its replayed layers cannot: it has to run without replay."""


@dataclass
class _Kind:
    """What is known of calls of a kind."""

    shape: Any = None
    """what the first one allocated"""
    recording: LayerRecording | None = None
    is_refused: bool = False


@dataclass
class _LayerClass:
    """What is known of a class of layers."""

    is_refused: bool = False
    """two calls of one kind did not do the same"""
    _have_run: weakref.WeakSet[torch.nn.Module] = field(default_factory=weakref.WeakSet)
    _has_passed: bool = False

    def has_all_run(self, layer: torch.nn.Module) -> bool:
        """Return whether all layers have run for themselves, as they have when one comes again."""
        self._has_passed = self._has_passed or layer in self._have_run
        self._have_run.add(layer)
        return self._has_passed


class LayerReplay:
    """Replays calls of layers while active."""

    def __init__(self, tracer: Tracer, marks: LayerMarks) -> None:
        _references_of_ours()  # now, while nothing is recorded
        self.tracer = tracer
        self._marks = marks
        self.casts: Casts = {}
        self.num_replayed = 0
        self._kinds: dict[Any, _Kind] = {}
        self._classes: dict[type, _LayerClass] = {}
        self._patched: set[type] = set()
        self._thread = threading.get_ident()
        self._is_running = False
        """while a layer does, what is in it is part of it"""
        self._is_off = False
        self._depth = 0
        """modules that are running, one within the other; a layer that a script calls by itself is taken for a model"""
        self._task = -1
        """the last backward pass"""
        self._weights_of_task: set[int] = set()
        """ids of the weights that replayed layers have given gradients in it"""
        self.has_failed = False
        """whether an allocation of a replayed layer did"""
        self.failure: CannotReplay | None = None
        """why the program has to run without replay"""

    @contextmanager
    def active(self, casts: Casts) -> Iterator[None]:
        """Within, members of lists of equal modules are replayed where they may be.

        Args:
            casts: autocast's copies of trainable weights.
        """
        self.casts = casts
        with ExitStack() as stack:
            for container in (torch.nn.ModuleList, torch.nn.Sequential):
                stack.enter_context(patch.object(container, "__iter__", self._noticing(container.__iter__, stack)))
            stack.enter_context(patch.object(torch.autograd, "grad", self._grad(torch.autograd.grad)))
            stack.enter_context(patch.object(torch.autograd, "backward", self._backward(torch.autograd.backward)))
            stack.enter_context(patch.object(torch.nn.Module, "__call__", self._counted(torch.nn.Module.__call__)))
            data_parallel = torch.nn.parallel.DistributedDataParallel
            stack.enter_context(patch.object(data_parallel, "__init__", self._off_from(data_parallel.__init__)))
            stack.callback(self._patched.clear)
            yield

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def call_counted(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            try:
                return call(module, *args, **kwargs)
            finally:
                self._depth -= 1

        return call_counted

    def _noticing(self, iterate: Callable[[Any], Any], stack: ExitStack) -> Callable[[Any], Any]:
        def notice_and_iterate(modules: Any) -> Any:
            if len(modules) >= MIN_LAYERS:
                self._notice(modules._modules.values(), stack)
            return iterate(modules)

        return notice_and_iterate

    def _notice(self, modules: Iterable[torch.nn.Module], stack: ExitStack) -> None:
        """Let calls of libraries' layers, which are made of other modules, come by here."""
        for module in modules:
            layer_class = type(module)
            if layer_class in self._patched or not module._modules or not is_of_library(module):
                continue
            self._patched.add(layer_class)
            self._classes.setdefault(layer_class, _LayerClass())
            call = _caller_of(layer_class)
            stack.enter_context(patch.object(layer_class, "__call__", self._replaying(call), create=True))

    def _grad(self, grad: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(grad)
        def grad_of_weights(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self.num_replayed and any(isinstance(x, torch.nn.Parameter) for x in tensors_among((inputs,))):
                raise self.cannot("torch.autograd.grad of weights")
            return grad(outputs, inputs, *args, **kwargs)

        return grad_of_weights

    def _backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(backward)
        def backward_to_all(*args: Any, inputs: Any = None, **kwargs: Any) -> None:
            if self.num_replayed and inputs is not None:
                raise self.cannot("a backward pass to some of the weights alone")
            backward(*args, inputs=inputs, **kwargs)

        return backward_to_all

    def _off_from(self, init: Callable[..., None]) -> Callable[..., None]:
        """Replay nothing once there is one of these: they wait for the gradients of weights, which autograd tells."""

        @functools.wraps(init)
        def init_without_replay(module: Any, /, *args: Any, **kwargs: Any) -> None:
            self._is_off = True
            init(module, *args, **kwargs)

        return init_without_replay

    def note_backward(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Take that a replayed layer is gone through. Raises CannotReplay where one of its weights was before.

        Autograd then adds the gradients of a weight up before the weight gets them.
        """
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task, self._weights_of_task = task, set()
        for weight in weights:
            if id(weight) in self._weights_of_task:
                raise self.cannot("weights that are used twice for one loss")
            self._weights_of_task.add(id(weight))

    def cannot(self, what: str) -> CannotReplay:
        """Return the error that ends a run which has to go without replay."""
        self.failure = self.failure or CannotReplay(what)
        return self.failure

    def _replaying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def call_or_replay(layer: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not self._depth or not self._may_replay():
                return call(layer, *args, **kwargs)
            if self.has_failed:
                raise self.cannot("a script that goes on after memory ran out")
            self._is_running = True
            try:
                return self._marks.around(layer, args, kwargs, lambda: self._call(Request(layer, call, args, kwargs)))
            finally:
                self._is_running = False

        return call_or_replay

    def _may_replay(self) -> bool:
        """Return whether nobody looks into the layers that are called."""
        if self._is_running or self._is_off or self.tracer._paused or threading.get_ident() != self._thread:
            return False
        looks_in = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        has_hooks = any(getattr(module_hooks, name) for name in _GLOBAL_HOOKS)
        return not (looks_in or has_hooks) and _get_current_dispatch_mode() is self.tracer

    def _call(self, request: Request) -> Any:
        key = self._key_of(request)
        if key is None:
            return request.run()
        kind = self._kinds.setdefault(key, _Kind())
        layer_class = self._classes[type(request.layer)]
        if not layer_class.has_all_run(request.layer) or kind.shape is None:
            return self._run_watched(request, kind, layer_class, key[-1])
        if layer_class.is_refused or kind.is_refused:
            return request.run()
        if kind.recording is None:
            kind.recording = self._record(request, kind)
        if kind.recording is None:
            kind.is_refused = True
            return request.run()
        self.num_replayed += 1
        return _Replay(self, request, kind.recording).forward()

    def _key_of(self, request: Request) -> Any:
        """Return what decides which memory a call takes; None where that is not known."""
        try:
            kind = kind_of_call(self.tracer, request.layer, request.args, request.kwargs)
        except NoKind:
            return None
        return (request.has_casts(self.casts), self.tracer.meter is not None, *kind)

    def _run_watched(self, request: Request, kind: _Kind, layer_class: _LayerClass, before: Any) -> Any:
        """Run the layer, and compare what it does with what others of its kind did."""
        num_asked, sink, recorder = self.tracer.num_asked, self.tracer.sink, TraceRecorder()
        self.tracer.sink = Sinks(recorder, sink)
        try:
            out = request.run()
        finally:
            self.tracer.sink = sink
        shape = shape_of(recorder.events)
        if kind.shape is None:
            kind.shape = shape
        if kind.shape != shape:
            layer_class.is_refused = True
        if self.tracer.num_asked != num_asked or not _is_still(self.tracer, request.layer, before):
            kind.is_refused = True
        return out

    def _record(self, request: Request, kind: _Kind) -> LayerRecording | None:
        """Record the layer beside the program; None where that does not do what the program's did."""
        recorder = LayerRecorder(self.tracer, self.casts, request.as_call(self.tracer, self.casts))
        try:
            recording = recorder.record()
        except Refused:
            return None
        return recording if recorder.shape == kind.shape else None


def _caller_of(layer_class: type) -> Callable[..., Any]:
    """Return what calls a layer of a class, whoever has been put in the place of what it inherits by then."""
    own = vars(layer_class).get("__call__")
    if own is not None:
        return cast(Callable[..., Any], own)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        inherited: Any = super(cast(Any, layer_class), layer)
        return inherited.__call__(*args, **kwargs)

    return call


def _is_still(tracer: Tracer, layer: torch.nn.Module, before: Any) -> bool:
    """Return whether a call has left a layer as it was."""
    try:
        return kind_of_layer(tracer, layer) == before
    except NoKind:
        return False


class _Replay:
    """One replayed call; lives as long as its graph."""

    def __init__(self, owner: LayerReplay, request: Request, recording: LayerRecording) -> None:
        self._owner = owner
        self._tracer = owner.tracer
        self.recording = recording
        self._weights = trainable(request.layer)
        self._card = card_of_layer(owner.tracer, request.layer)
        self._tensors: list[torch.Tensor | None] = list(request.tensors())
        self._entry = request.cache_entry
        self._has_graph = any(wants for _, wants in recording.outputs)
        self._call: Call | None = request.as_call(owner.tracer, owner.casts) if self._has_graph else None
        self._own: dict[Role, int] = {}
        """keys of what only the layer sees"""
        self._held: dict[Role, torch.UntypedStorage] = {}
        """memory of others that the graph keeps"""

    def forward(self) -> Any:
        """Return what the layer does."""
        if self._has_graph:
            wanting = [tensor for tensor in self._tensors if tensor is not None and tensor.requires_grad]
            outputs = _ReplayedLayer.apply(self, *(wanting or [make(self._tracer, _SCALAR, GONE).requires_grad_()]))
        else:
            outputs = self.run_forward()
        result, state = replaced(self.recording.tree, outputs.__getitem__, Number)
        if self._entry is not None:
            vars(self._entry).update(state)
        self._tensors.clear()
        self._entry = None
        return result

    def run_forward(self) -> tuple[torch.Tensor, ...]:
        """Allocate as the layer's forward pass, and return its outputs."""
        recording = self.recording
        made: dict[Role, torch.Tensor] = {}
        layouts = {Role(OUTPUT, index): layout for index, (layout, _) in enumerate(recording.outputs)}
        layouts |= {Role(CAST, index): layout for index, layout in recording.casts.items()}

        def begin(role: Role, key: int) -> None:
            made[role] = make(self._tracer, layouts[role], key)
            if role.kind == CAST:
                self._owner.casts[self._weights[role.number]] = made[role]

        self._run(recording.steps, layouts, begin, self._end_argument)
        self._count(recording.work)
        for role in recording.held:
            tensor = self._tensors[role.number] if role.kind == ARGUMENT else made[role]
            assert tensor is not None
            self._held[role] = tensor.untyped_storage()
        return tuple(made[Role(OUTPUT, index)] for index in range(len(recording.outputs)))

    def run_backward(
        self, gradients: tuple[torch.Tensor | None, ...], are_ours: Sequence[bool]
    ) -> list[torch.Tensor | None]:
        """Allocate as the layer's backward pass, and return the gradients of its arguments.

        Args:
            gradients: of the outputs that want one.
            are_ours: whether nobody else holds each of them.
        """
        if not all(weight.requires_grad for weight in self._weights):
            raise self._owner.cannot("weights that are frozen between a forward pass and its backward pass")
        self._owner.note_backward(self._weights)
        recording = self._backward_recording(gradients)
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            self._call = None  # what is left of the graph holds the trainable weights alone
        made: dict[Role, torch.Tensor] = {}
        layouts = {Role(WEIGHT_GRADIENT, index): layout for index, layout in recording.of_weights.items()}
        for arrived in recording.of_arguments:
            if arrived is not None and arrived[1].kind == ARGUMENT_GRADIENT:
                layouts[arrived[1]] = arrived[0]

        def begin(role: Role, key: int) -> None:
            made[role] = make(self._tracer, layouts[role], key)
            if role.kind == WEIGHT_GRADIENT:
                self._weights[role.number].grad = made[role]

        def end(role: Role) -> None:
            if role.kind == OUTPUT_GRADIENT and are_ours[role.number]:
                self._use_up(gradients[role.number])
            else:
                self._let_go(role)

        self._run(recording.steps, layouts, begin, end)
        self._count(recording.work)
        found: list[torch.Tensor | None] = []
        for arrived in recording.of_arguments:
            if arrived is None:
                found.append(None)
            elif arrived[1].kind == OUTPUT_GRADIENT:
                found.append(gradients[arrived[1].number])
            else:
                found.append(made[arrived[1]])
        return found

    def _backward_recording(self, gradients: tuple[torch.Tensor | None, ...]) -> BackwardRecording:
        if torch.is_grad_enabled():
            raise self._owner.cannot("a backward pass with create_graph")
        how = Gradients(
            tuple(None if gradient is None else layout_of(gradient) for gradient in gradients),
            torch._C._autograd._get_current_graph_task_keep_graph(),
            autocast_state(),
            tuple(weight.grad is not None for weight in self._weights),
        )
        known = self.recording.backward
        if how not in known:
            known[how] = self._record_backward(how)
        return known[how]

    def _record_backward(self, how: Gradients) -> BackwardRecording:
        assert self._call is not None
        recorder = LayerRecorder(self._tracer, self._owner.casts, self._call)
        try:
            with torch.enable_grad():
                recorded = recorder.record(how)
        except Refused:
            raise self._owner.cannot("a backward pass of an unusual kind") from None
        if _without_frames(recorded.steps) != _without_frames(self.recording.steps):
            raise self._owner.cannot("a layer that does something else each time")
        return recorded.backward[how]

    def _run(self, steps: list[Step], seen: Container[Role], begin: Any, end: Any) -> None:
        """Allocate and free.

        Args:
            seen: what others see of what begins.
            begin: told of the role and the key of these.
            end: told of the role of what ends, but for what only the layer sees.
        """
        tracer, sink, own = self._tracer, self._tracer.sink, self._own
        outer, _ = frames_and_layer(tracer.site())
        limit = tracer.site_frames
        tracer.go_to(self._card)
        try:
            for role, size, inner in steps:
                if size >= 0:
                    key = tracer.new_key()
                    if role in seen:
                        begin(role, key)
                    else:
                        own[role] = key
                    tracer.replayed = inner  # for who asks where an allocation fails
                    sink.alloc(key, size, (*(inner + outer)[:limit], *tracer.layer))
                elif size == FREE and role in own:
                    sink.free(own.pop(role))
                elif size == FREE:
                    end(role)
                elif size == ENSURE:
                    key, num_bytes = role
                    sink.ensure(key, num_bytes, (*(inner + outer)[:limit], *tracer.layer))
                else:
                    sink.empty_cache()
        except DeviceOutOfMemory:
            self._owner.has_failed = True
            raise
        finally:
            tracer.replayed = ()

    def _count(self, work: WorkMeter | None) -> None:
        if self._tracer.meter is not None and work is not None:
            self._tracer.meter.add(work)

    def _let_go(self, role: Role) -> None:
        self._held.pop(role, None)

    def _end_argument(self, role: Role) -> None:
        """Let go of an argument: of what lay in the cache, in whose place something else comes."""
        tensor = self._tensors[role.number]
        self._tensors[role.number] = None
        _, changed = self.recording.tree
        for name in changed:
            if vars(self._entry).get(name) is tensor:
                setattr(self._entry, name, None)

    def _use_up(self, gradient: torch.Tensor | None) -> None:
        """End a gradient that the layer has used: autograd's own code holds it until the replay returns."""
        if gradient is not None and is_plain(gradient):
            self._tracer.sink.free(self._tracer.key_of(gradient))
            self._tracer.rename(gradient, GONE)

    def __del__(self) -> None:
        """End what a graph has kept that goes."""
        for key in self._own.values():
            self._tracer.sink.free(key)


def _without_frames(steps: list[Step]) -> list[tuple[Any, int]]:
    return [(role, size) for role, size, _ in steps]


class _ReplayedLayer(torch.autograd.Function):
    """A layer in autograd's graph."""

    @staticmethod
    def forward(ctx: Any, replay: _Replay, *wanting: torch.Tensor) -> Any:
        ctx.replay, ctx.num_wanting = replay, len(wanting)
        ctx.wants = [wants for _, wants in replay.recording.outputs]
        ctx.set_materialize_grads(False)
        outputs = replay.run_forward()
        ctx.mark_non_differentiable(*itertools.compress(outputs, [not wants for wants in ctx.wants]))
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        are_ours = [sys.getrefcount(gradient) <= _references_of_ours() for gradient in gradients]
        wanted = tuple(itertools.compress(gradients, ctx.wants))
        found = ctx.replay.run_backward(wanted, list(itertools.compress(are_ours, ctx.wants)))
        return None, *(found or [None] * ctx.num_wanting)


@functools.cache
def _references_of_ours() -> int:
    """Return how many references a gradient has that autograd alone holds, seen where `_ReplayedLayer` looks."""
    leaf = torch.ones(1, requires_grad=True)
    (_CountReferences.apply(leaf) * 1).backward()
    return _CountReferences.count


class _CountReferences(torch.autograd.Function):
    count = 0

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        counts = [sys.getrefcount(gradient) for gradient in gradients]
        _CountReferences.count = counts[0]
        return None
