"""What one call of a layer allocates, forwards and backwards, found out beside the program.

The layer runs on made-up arguments of which nobody else holds anything, so that what its graph keeps is what still
lives. Nothing of it reaches the program's own memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch.autograd.graph import _engine_run_backward

from memory_harness.harness.simulate.layer_kinds import card_of_layer, is_simple
from memory_harness.harness.simulate.lowering import outside_backward
from memory_harness.harness.simulate.trace import EMPTY_CACHE, ENSURE, FREE, SWITCH, Event, TraceRecorder
from memory_harness.harness.simulate.tracer import GONE, WATCHED_SITE_FRAMES, Site, Tracer, frames_and_layer
from memory_harness.harness.simulate.work import WorkMeter

Casts = dict[torch.Tensor, torch.Tensor]
"""autocast's copies of trainable weights, which live as long as its region"""


class Refused(Exception):
    """The layer does something that a replay would not do."""


class Layout(NamedTuple):
    """A tensor, but for its values."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype


class Argument(NamedTuple):
    """A tensor among the arguments of a call."""

    layout: Layout
    requires_grad: bool
    key: Hashable
    """of a tensor that lies elsewhere than on the card: where; else None"""
    card: int | None
    """of several"""


class Role(NamedTuple):
    """What a storage is to a layer, and which of that kind."""

    kind: str
    number: int


LOCAL, ARGUMENT, OUTPUT, CAST = "local", "argument", "output", "cast"
OUTPUT_GRADIENT, ARGUMENT_GRADIENT, WEIGHT_GRADIENT = "output gradient", "argument gradient", "weight gradient"


class Step(NamedTuple):
    """An event of `harness.simulate.trace` with a role in place of a key."""

    role: Any
    size: int
    inner: Site
    """frames within the layer"""


class Gradients(NamedTuple):
    """How a backward pass begins."""

    of_outputs: tuple[Layout | None, ...]
    """those that arrive, of the outputs that want one"""
    keeps_graph: bool
    autocast: tuple[Any, ...]
    has_gradient: tuple[bool, ...]
    """of each trainable weight: whether there is one to add to"""


@dataclass(frozen=True)
class BackwardRecording:
    """What a backward pass does."""

    steps: list[Step]
    of_arguments: list[tuple[Layout, Role] | None]
    """gradients of the arguments that want one"""
    of_weights: dict[int, Layout]
    """gradients of trainable weights that had none before"""
    work: WorkMeter | None
    """what it took, where that is asked for"""


@dataclass(frozen=True)
class LayerRecording:
    """What a call does."""

    steps: list[Step]
    tree: Any
    """what it returns, with a `Number` in place of each tensor"""
    outputs: list[tuple[Layout, bool]]
    """with whether a gradient is wanted"""
    casts: dict[int, Layout]
    """autocast's copies, by the number of the trainable weight"""
    held: list[Role]
    """arguments, outputs and casts that the graph keeps"""
    work: WorkMeter | None
    """what it takes, where that is asked for"""
    backward: dict[Gradients, BackwardRecording] = field(default_factory=dict)


class Call(NamedTuple):
    """A call of a layer, with all that makes it happen again."""

    layer: torch.nn.Module
    run: Callable[[list[torch.Tensor]], tuple[Any, dict[str, Any]]]
    """runs it with tensors in their places among the arguments; returns what it returns, and what it puts into a cache

    The list is empty afterwards.
    """
    arguments: list[Argument]
    autocast: tuple[Any, ...]
    has_casts: tuple[bool, ...]
    """of each trainable weight: whether autocast has a copy of it already"""


def autocast_state() -> tuple[Any, ...]:
    """Return the arguments of `torch.autocast` that are in force; none where it is off."""
    if not torch.is_autocast_enabled("cpu"):
        return ()
    return ("cpu", torch.get_autocast_dtype("cpu"), True, torch.is_autocast_cache_enabled())


def trainable(layer: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the weights that get gradients, in an order that equal layers share."""
    return [weight for weight in layer.parameters() if weight.requires_grad]


def layout_of(tensor: torch.Tensor) -> Layout:
    """Return a tensor's layout."""
    return Layout(tensor.shape, tensor.stride(), tensor.dtype)


def make(tracer: Tracer, layout: Layout, key: Hashable, card: int | None = None) -> torch.Tensor:
    """Return a tensor without values under a key, of which no sink has been told; on one of several cards."""
    with tracer.paused(), torch._C.DisableTorchFunction():
        tensor = torch.empty_strided(layout.shape, layout.strides, dtype=layout.dtype, device="meta")
    tracer.rename(tensor, key)
    if card is not None:
        tracer.place_on(tensor, card)
    return tensor


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is all of its memory."""
    with torch._C.DisableTorchFunction():
        if type(tensor) is not torch.Tensor or tensor.storage_offset() or not tensor.numel():
            return False
        extent = 1
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            extent += (size - 1) * stride
        return tensor.untyped_storage().nbytes() == extent * tensor.element_size()


def shape_of(events: Sequence[Event]) -> list[tuple[Hashable, int]]:
    """Return events with what began among them numbered, and without the rest: two calls that do the same are equal."""
    numbers: dict[Hashable, int] = {}
    shape: list[tuple[Hashable, int]] = []
    for key, size, _ in events:
        if size >= 0:
            numbers[key] = len(numbers)
        if size == ENSURE:
            shape.append((key, size))
        elif key in numbers or size == EMPTY_CACHE:
            shape.append((numbers.get(key), size))
    return shape


class LayerRecorder:
    """Records one call of a layer."""

    def __init__(self, tracer: Tracer, casts: Casts, call: Call) -> None:
        self._tracer = tracer
        self._casts = casts
        self._call = call
        self._weights = trainable(call.layer)
        self._recorder = TraceRecorder()
        self._roles: dict[Hashable, Role] = {}
        self._num_born = 0
        self.shape: list[tuple[Hashable, int]] = []
        """that of the forward pass, see `shape_of`"""
        self._arrived: list[tuple[Layout, Role] | None] = []
        self._gradients: Gradients | None = None

    def record(self, gradients: Gradients | None = None) -> LayerRecording:
        """Return what the call does, and its backward pass: by default the one that usually follows. Raises Refused."""
        before = [weight.grad for weight in self._weights]
        with self._aside():
            try:
                with _autocast(self._call.autocast):
                    recording, seed = self._forward(gradients)
                self._find_held(recording)
                if seed is not None:
                    assert self._gradients is not None
                    recording.backward[self._gradients] = self._backward(seed, before)
                    del seed
            finally:
                for weight, gradient in zip(self._weights, before, strict=True):
                    if weight.grad is not gradient:
                        weight.grad = gradient
            self._check_all_ended()
        return recording

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Within, what happens is recorded, and the program's memory and autocast know nothing of it."""
        tracer, casts = self._tracer, dict(self._casts)
        card = card_of_layer(tracer, self._call.layer)
        tracer.go_to(card)  # where all of it is to be
        sink, frames, meter = tracer.sink, tracer.site_frames, tracer.meter
        tracer.sink, tracer.site_frames = self._recorder, WATCHED_SITE_FRAMES
        try:
            with _outside_autocast(), outside_backward():
                self._begin_region()
                yield
        finally:
            self._casts.clear()
            self._casts.update(casts)
            self._let_go_of_the_living()
            tracer.sink, tracer.site_frames, tracer.told_card, tracer.meter = sink, frames, card, meter

    def _begin_region(self) -> None:
        """Let autocast's copies be there that were when the call was made. Raises Refused where one is gone."""
        for weight, has_cast in zip(self._weights, self._call.has_casts, strict=True):
            if not has_cast:
                self._casts.pop(weight, None)
            elif weight not in self._casts:
                raise Refused

    # Forwards

    def _forward(self, gradients: Gradients | None) -> tuple[LayerRecording, torch.Tensor | None]:
        outer, cast_before = self._tracer.site(), set(self._casts)
        work = self._start_meter()
        out = self._run()
        events = list(self._recorder.events)
        self.shape = shape_of(events)
        tensors: list[torch.Tensor] = []
        result = _numbered(out[0], tensors)
        num_returned = len(tensors)
        tree = (result, _numbered(out[1], tensors))
        del out
        outputs = [(layout_of(tensor), tensor.requires_grad) for tensor in tensors]
        for index, tensor in enumerate(tensors):
            self._give_role(tensor, Role(OUTPUT, index))
        casts = self._name_casts(cast_before)
        recording = LayerRecording(self._steps(events, outer), tree, outputs, casts, [], work)
        if not any(tensor.requires_grad for tensor in tensors):
            return recording, None
        self._gradients = gradients or self._usual_gradients(tensors, num_returned)
        return recording, _Seed.apply(self, *[tensor for tensor in tensors if tensor.requires_grad])

    def _usual_gradients(self, outputs: Sequence[torch.Tensor], num_returned: int) -> Gradients:
        """Return those of a training step: what stays in a cache gets none."""
        of_outputs: list[Layout | None] = []
        for number, output in enumerate(outputs):
            if output.requires_grad:
                of_outputs.append(layout_of(output) if number < num_returned else None)
        return Gradients(tuple(of_outputs), False, (), tuple(weight.grad is not None for weight in self._weights))

    def _run(self) -> Any:
        """Run the layer on arguments that nobody else holds."""
        arguments = self._call.arguments
        wanting = [index for index, argument in enumerate(arguments) if argument.requires_grad]
        with_graph: dict[int, torch.Tensor] = {}
        if wanting and torch.is_grad_enabled():
            with_graph = dict(zip(wanting, _Begin.apply(self, wanting, _leaf(self._tracer)), strict=True))
        tensors = [with_graph.get(index) for index in range(len(arguments))]
        del with_graph
        for index, tensor in enumerate(tensors):
            if tensor is None:
                tensors[index] = self.make_argument(index)
        del tensor
        return self._call.run(cast(list[torch.Tensor], tensors))

    def make_argument(self, index: int) -> torch.Tensor:
        """Return a tensor in place of an argument."""
        layout, _, place, card = self._call.arguments[index]
        if place is not None:
            return make(self._tracer, layout, place)
        return self._make_in_role(layout, Role(ARGUMENT, index), card)

    def make_gradients(self) -> list[torch.Tensor | None]:
        """Return what arrives as the gradients of the outputs."""
        assert self._gradients is not None
        made: list[torch.Tensor | None] = []
        for index, layout in enumerate(self._gradients.of_outputs):
            made.append(None if layout is None else self._make_in_role(layout, Role(OUTPUT_GRADIENT, index)))
        return made

    def _make_in_role(self, layout: Layout, role: Role, card: int | None = None) -> torch.Tensor:
        key = self._tracer.new_key()
        self._roles[key] = role
        return make(self._tracer, layout, key, card)

    def _give_role(self, tensor: torch.Tensor, role: Role) -> None:
        """Name what the layer has made for others. Raises Refused where it is no tensor of its own memory."""
        key = self._tracer.key_of(tensor)
        if key in self._roles or not is_plain(tensor) or key not in self._living():
            raise Refused
        self._roles[key] = role

    def _name_casts(self, before: set[torch.Tensor]) -> dict[int, Layout]:
        numbers = {id(weight): number for number, weight in enumerate(self._weights)}
        casts = {}
        for weight, copy in self._casts.items():
            if weight in before:
                continue
            if id(weight) not in numbers:
                raise Refused
            self._give_role(copy, Role(CAST, numbers[id(weight)]))
            casts[numbers[id(weight)]] = layout_of(copy)
        return casts

    def _find_held(self, recording: LayerRecording) -> None:
        """Find out what the graph keeps, now that nothing else does."""
        living = self._living()
        for key, role in self._roles.items():
            if key in living and role.kind in (ARGUMENT, OUTPUT, CAST):
                recording.held.append(role)

    def _living(self) -> set[Hashable]:
        """Return what has a role, or began, and has not ended."""
        living: set[Hashable] = set(self._roles)
        for key, size, _ in self._recorder.events:
            if size >= 0:
                living.add(key)
            elif size == FREE:
                living.discard(key)
        return living

    # Backwards

    def _backward(self, seed: torch.Tensor, before: Sequence[torch.Tensor | None]) -> BackwardRecording:
        assert self._gradients is not None
        outer, num_events = self._tracer.site(), len(self._recorder.events)
        gradient = (make(self._tracer, layout_of(seed), GONE),)
        work = self._start_meter()
        with _autocast(self._gradients.autocast):
            _engine_run_backward(
                (seed,), gradient, self._gradients.keeps_graph, False, (), allow_unreachable=True, accumulate_grad=True
            )
        of_weights = {}
        for number, (weight, earlier) in enumerate(zip(self._weights, before, strict=True)):
            if weight.grad is earlier:
                continue
            if weight.grad is None or earlier is not None:
                raise Refused
            self._give_role(weight.grad, Role(WEIGHT_GRADIENT, number))
            of_weights[number] = layout_of(weight.grad)
        steps = self._steps(self._recorder.events[num_events:], outer)
        passed_on = {Role(ARGUMENT_GRADIENT, index) for index in range(len(self._arrived))}
        passed_on |= {arrived[1] for arrived in self._arrived if arrived is not None}
        own = [step for step in steps if step.size != FREE or step.role not in passed_on]
        return BackwardRecording(own, self._arrived, of_weights, work)

    def arrive(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Take the gradients of the arguments. Raises Refused where one is no tensor of its own memory."""
        for index, gradient in enumerate(gradients):
            if gradient is None:
                self._arrived.append(None)
                continue
            key = self._tracer.key_of(gradient)
            if key not in self._roles:
                self._give_role(gradient, Role(ARGUMENT_GRADIENT, index))
            role = self._roles[key]
            if role.kind not in (ARGUMENT_GRADIENT, OUTPUT_GRADIENT) or not is_plain(gradient):
                raise Refused
            self._arrived.append((layout_of(gradient), role))

    # Both

    def _start_meter(self) -> WorkMeter | None:
        """Return what measures from here on, where work is asked for."""
        meter = self._tracer.meter
        if meter is not None:
            self._tracer.meter = meter.empty()
        return self._tracer.meter

    def _steps(self, events: Sequence[Event], outer: Site) -> list[Step]:
        """Return events as steps: what others began and ended is theirs. Raises Refused where they are on two cards."""
        steps = []
        for key, size, extra in events:
            if size >= 0:
                role = self._roles.setdefault(key, Role(LOCAL, self._num_born))
                self._num_born += 1
                steps.append(Step(role, size, _inner(extra, outer)))
            elif size == FREE and key in self._roles:
                steps.append(Step(self._roles[key], FREE, ()))
            elif size == ENSURE:
                num_bytes, site = cast(tuple[int, Site], extra)
                steps.append(Step((key, num_bytes), ENSURE, _inner(site, outer)))
            elif size == EMPTY_CACHE:
                steps.append(Step(None, EMPTY_CACHE, ()))
            elif size == SWITCH:
                raise Refused
        return steps

    def _check_all_ended(self) -> None:
        if self._living() & set(self._roles):
            gc.collect()
        if self._living() & set(self._roles):
            raise Refused

    def _let_go_of_the_living(self) -> None:
        """Let nobody be told of the end of what a recording that failed has left."""
        living = self._living()
        for cdata, (reference, key) in list(self._tracer._storages.items()):
            if key in living:
                self._tracer._storages[cdata] = (reference, GONE)


class Number(int):
    """In place of a tensor."""


def _numbered(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return what a layer returned with a number for each tensor, which are added to the list. Raises Refused."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return Number(len(tensors) - 1)
    if type(value) in (tuple, list):
        return type(value)(_numbered(member, tensors) for member in value)
    if type(value) is dict:
        return {name: _numbered(member, tensors) for name, member in value.items()}
    if is_simple(value):
        return value
    raise Refused


def _inner(site: Any, outer_site: Site) -> Site:
    """Return the frames within the layer: those before the ones that called it."""
    frames, _ = frames_and_layer(site)
    outer, _ = frames_and_layer(outer_site)
    for length in range(len(frames)):
        if frames[length:] == outer[: len(frames) - length]:
            return frames[:length]
    return frames


def _autocast(state: tuple[Any, ...]) -> AbstractContextManager[Any]:
    return torch.autocast(*state) if state else nullcontext()


@contextmanager
def _outside_autocast() -> Iterator[None]:
    """Within, no region of mixed precision is open, as in a backward pass."""
    was_enabled = torch.is_autocast_enabled("cpu")
    depth = torch.autocast_increment_nesting() - 1
    for _ in range(depth + 1):
        torch.autocast_decrement_nesting()
    torch.set_autocast_enabled("cpu", False)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cpu", was_enabled)
        for _ in range(depth):
            torch.autocast_increment_nesting()


def _leaf(tracer: Tracer) -> torch.Tensor:
    """Return a number that wants a gradient and takes no memory."""
    return make(tracer, Layout(torch.Size(()), (), torch.float32), GONE).requires_grad_()


class _Begin(torch.autograd.Function):
    """Makes arguments that want a gradient, and takes note of those that come."""

    @staticmethod
    def forward(ctx: Any, recorder: LayerRecorder, wanting: list[int], leaf: torch.Tensor) -> Any:
        ctx.recorder = recorder
        ctx.set_materialize_grads(False)
        return tuple(recorder.make_argument(index) for index in wanting)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.recorder.arrive(gradients)
        return None, None, None


class _Seed(torch.autograd.Function):
    """Gives outputs their gradients, which nobody else holds."""

    @staticmethod
    def forward(ctx: Any, recorder: LayerRecorder, *outputs: torch.Tensor) -> torch.Tensor:
        ctx.recorder = recorder
        return make(recorder._tracer, Layout(torch.Size(()), (), torch.float32), GONE)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return None, *ctx.recorder.make_gradients()
