"""Records every allocation that a piece of PyTorch code would make on a CUDA device, without one.

A storage is an allocation: it begins when an operator returns a tensor on a storage not seen before, and ends when the
storage dies (a weak reference tells). The tensors may be on the meta device (nothing computed, any size) or real CPU
tensors (small models, truly computed); the events are the same, because `lowering` replaces what the CPU does
otherwise.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from memory_harness.harness.log.source_lines import SourceLine, is_library
from memory_harness.harness.simulate.results import MetaResults
from memory_harness.harness.simulate.work import WorkMeter

Frame = tuple[CodeType, int]


class Layer(NamedTuple):
    """The layer of a model that was running."""

    name: str


Site = tuple[Frame | Layer, ...]
"""the frames that asked for an allocation, innermost first, PyTorch's own and the tracer's left out; then the layer,
where one was running"""

MAX_SITE_FRAMES = 8
WATCHED_SITE_FRAMES = 48
"""Frames kept while watched: between a user's line and a layer's operator lie some 20 of the libraries'."""

HOST = "host"
"""key of storages that are host memory and so never reported"""
GONE = "gone"
"""key of storages that hold no memory any more, or never did, though their tensors are there"""


class Place(NamedTuple):
    """Where an allocation is made."""

    card: int = 0
    stream: int = 0
    """each stream of a card has blocks of its own in the caching allocator"""


class EventSink(Protocol):
    """Receives allocations and frees in program order."""

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Take that a storage of `num_bytes` (before rounding) begins."""

    def free(self, key: Hashable) -> None:
        """Take that the storage ends."""

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Take that a storage begins unless it exists: one that lives as long as the process, such as a workspace."""

    def empty_cache(self) -> None:
        """Take that wholly free segments are returned to the driver."""

    def switch(self, place: Place) -> None:
        """Take that what follows begins there."""


Lowering = Callable[["Tracer", Any, tuple[Any, ...], dict[str, Any]], Any]


class Tracer(TorchDispatchMode):
    """Reports the life of every storage to a sink while active.

    Args:
        sink: where events go; may be swapped between phases.
        lowerings: operator -> replacement that allocates what CUDA's kernel would.
        device: whose tensors stand for the card's; others are host memory.
        adopts: tensors that were made before count from their first use on, as if they were allocated then.
    """

    def __init__(
        self, sink: EventSink, lowerings: dict[Any, Lowering], device: torch.device, *, adopts: bool = False
    ) -> None:
        super().__init__()
        self.sink = sink
        self._device_type = device.type
        self._adopts = adopts
        self._lowerings = lowerings
        self._storages: dict[int, tuple[weakref.ref[Any], Hashable]] = {}
        self._makes_storage: dict[int, bool] = {}
        self._largest: dict[int, int] = {}
        """of the integers in a storage, where they were counted"""
        self.run = MetaResults().run
        """runs an operator as it is; for lowerings"""
        self._next_key = 0
        self._paused = 0
        self.site_frames = MAX_SITE_FRAMES
        self.replayed: Site = ()
        """frames of a layer that is replayed, in which nobody is"""
        self.layer: tuple[()] | tuple[Layer] = ()
        """the layer that is running, if one is"""
        self.num_cards = 1
        """that what is traced lies on"""
        self.present_card = 0
        """where what is made of no other tensor begins"""
        self._stays_on_card = False
        """whether all begins there, whatever it is made of"""
        self.told_card = 0
        """where the sink believes that what follows begins"""
        self._cards: dict[int, int] = {}
        """of storages, where there are several cards"""
        self.notes_origins = False
        """whether the user's line is kept that makes a storage: of data, not of what a model makes"""
        self.origins: dict[Hashable, SourceLine] = {}
        self.largest_data: tuple[int, Site] = (0, ())
        """bytes and place of the largest tensor of data so far; kept where operators run as they are"""
        self.meter: WorkMeter | None = None
        """what is told how much work there is, where anybody asks; not of operators that run as they are"""
        self.num_asked = 0
        """how often a value was asked for"""
        self.assumed_value: float | None = None
        """what `.item()` on a meta tensor is taken to be; None lets it raise, as nothing is computed"""
        self.real_tokens: int | None = None
        """how many tokens a mask without values marks; None lets the question raise"""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if types and any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to this rank's part comes by here then
        if self._paused:
            return self._run_unrecorded(func, args, kwargs)
        if self._adopts:
            self._adopt((*args, *kwargs.values()))
        if not self._lowerings:
            return self._run_as_it_is(func, args, kwargs)
        if self.num_cards > 1:
            self.go_to(self.present_card if self._stays_on_card else self._card_among(args))
        lowering = self._lowerings.get(func)
        out = self.run(func, args, kwargs) if lowering is None else lowering(self, func, args, kwargs)
        self._track_result(out, args)
        if self.meter is not None:
            self.meter.operator(func, args, out)
        return out

    def note_attention(self, query: torch.Tensor, num_pairs: float, num_products: int, *, is_causal: bool) -> None:
        """Tell the meter, where there is one, of a fused attention kernel; see `WorkMeter.attention`.

        Args:
            query: its queries, the head's dimension last.
            num_pairs: of queries and keys, over all heads, were each asked for.
            num_products: that the kernel computes of each pair.
            is_causal: whether only half of them are.
        """
        if self.meter is not None:
            self.meter.attention(query, num_pairs / 2 if is_causal else num_pairs, num_products)

    def _run_unrecorded(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.meter is not None:
            self.meter.fused(func, args)
        return func(*args, **kwargs)

    def _track_result(self, out: Any, args: tuple[Any, ...]) -> None:
        """Track what an operator has made; of many tensors, each where the one lies that it was made of."""
        if self.num_cards > 1 and isinstance(out, (list, tuple)) and args and isinstance(args[0], (list, tuple)):
            for tensor, source in zip(out, args[0], strict=False):
                self.go_to(self._card_among((source,)))
                self.track(tensor)
        self.track(out)

    def _card_among(self, values: Iterable[Any]) -> int:
        """Return where the first tensor lies, the present card where there is none."""
        for value in values:
            if isinstance(value, torch.Tensor):
                card = self.card_of(value)
                if card is not None:
                    return card
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
                return self._card_among(value)
        return self.present_card

    def place_on(self, tensor: torch.Tensor, card: int) -> None:
        """Let a tensor lie on one of several cards, wherever it was made."""
        self._cards[tensor.untyped_storage()._cdata] = card

    def card_of(self, tensor: torch.Tensor) -> int | None:
        """Return on which of several cards a tensor lies; None where it is the host's."""
        return self._cards.get(tensor.untyped_storage()._cdata) if self.num_cards > 1 else None

    def go_to(self, card: int) -> None:
        """Let what begins from now on begin on that card."""
        if card != self.told_card:
            self.told_card = card
            self.sink.switch(Place(card))

    def begin_recording(self, sink: EventSink) -> None:
        """Tell that sink of all that follows; it begins on the first card."""
        self.sink, self.told_card = sink, 0

    @contextmanager
    def on_card(self, number: int) -> Iterator[None]:
        """Within, what is made lies on that card."""
        before = self.present_card, self._stays_on_card
        self.present_card, self._stays_on_card = number, True
        try:
            yield
        finally:
            self.present_card, self._stays_on_card = before

    def _run_as_it_is(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator of a script that pays for each microsecond here; half of all make no memory."""
        out = func(*args, **kwargs)
        makes = self._makes_storage.get(id(func))  # operators live for ever, and take long to hash
        if makes is None:
            makes = self._makes_storage[id(func)] = _makes_storage(func)
        if makes:
            self.track(out)
            if isinstance(out, torch.Tensor) and out.nbytes > self.largest_data[0]:
                self._note_data(out.nbytes, args)
            if self.notes_origins and isinstance(out, torch.Tensor):
                self._follow_origin(out, args)
        return out

    def _note_data(self, num_bytes: int, args: tuple[Any, ...]) -> None:
        """Keep where the largest tensor was made out of no other one, or of a data loader's, by no module."""
        frames: list[Frame] = []
        is_collated = False
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and len(frames) < WATCHED_SITE_FRAMES:
            path = frame.f_code.co_filename
            if path.startswith(_OF_MODELS):
                return
            is_collated = is_collated or path.startswith(_DATA_LOADERS)
            if not _is_plumbing(path):
                frames.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        if is_collated or not any(isinstance(arg, (torch.Tensor, list, tuple)) and _has_tensor(arg) for arg in args):
            self.largest_data = (num_bytes, tuple(frames))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Leave out the wrapper that hides a mode from torch.compile, whose frames would show in users' tracebacks."""
        return False

    def ignore_compile_internals(self) -> bool:  # type: ignore[override]  # it is asked of the mode itself
        """Let torch.compile compile what is watched, as without the tracer, and leave the rest to run as it is."""
        return not self._lowerings

    def track(self, value: Any) -> None:
        """Begin an allocation for each storage in `value` (a tensor, or nested lists and tuples) not seen before."""
        if isinstance(value, torch.Tensor):
            if value.device.type == self._device_type:
                self._track_tensor(value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.track(item)

    def _adopt(self, values: Iterable[Any]) -> None:
        """Track the tensors that an operator uses; a single number is the host's, as PyTorch passes it to CUDA."""
        for value in values:
            if isinstance(value, torch.Tensor):
                if value.dim():
                    self.track(value)
            elif isinstance(value, (list, tuple)):
                self._adopt(value)

    def _track_tensor(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        cdata = storage._cdata
        if cdata not in self._storages and storage.nbytes():  # nothing is allocated for an empty tensor
            key = self.new_key()
            self._storages[cdata] = (weakref.ref(storage, self._on_death(cdata)), key)
            self._note_card(storage)
            self.sink.alloc(key, storage.nbytes(), self.site())
            if self.notes_origins:
                self._note_origin(key)

    def _note_card(self, storage: torch.UntypedStorage) -> None:
        if self.num_cards > 1:
            self._cards[storage._cdata] = self.told_card

    def _note_origin(self, key: Hashable) -> None:
        """Keep the user's line that makes a storage; no more, as data may be very many tensors."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            path = frame.f_code.co_filename
            if not _is_plumbing(path) and not is_library(path):
                self.origins[key] = SourceLine(path, frame.f_lineno, frame.f_code.co_name)
                return
            frame = frame.f_back

    def _follow_origin(self, made: torch.Tensor, args: tuple[Any, ...]) -> None:
        """Let what is made of data of its own kind and length, or of rows of that length, have the line of that data.

        What a batch is padded to, or how long its rows are, was decided there.
        """
        own = self.key_of(made)
        for source in _tensors_among(args):
            key = self.key_of(source)
            is_alike = source.shape == made.shape or source.shape == made.shape[1:]
            if own in self.origins and key in self.origins and is_alike and source.dtype is made.dtype:
                self.origins[own] = self.origins[key]
                return

    def _on_death(self, cdata: int) -> Callable[[Any], None]:
        def end(_: Any) -> None:
            entry = self._storages.pop(cdata, None)
            self._largest.pop(cdata, None)
            self._cards.pop(cdata, None)
            if entry is not None:
                self.origins.pop(entry[1], None)
                if entry[1] not in (HOST, GONE):
                    self.sink.free(entry[1])

        return end

    def new_key(self) -> int:
        """Return a key that no other allocation of this tracer has."""
        self._next_key += 1
        return self._next_key

    def key_of(self, tensor: torch.Tensor) -> Hashable | None:
        """Return the key of the tensor's storage, or None where it is not tracked."""
        return self.key_of_storage(tensor.untyped_storage())

    def key_of_storage(self, storage: torch.UntypedStorage) -> Hashable | None:
        """Return the storage's key, or None where it is not tracked."""
        return self._storages.get(storage._cdata, (None, None))[1]

    def rename(self, tensor: torch.Tensor, key: Hashable) -> None:
        """Let the tensor's storage be known as `key` from now on, tracked before or not."""
        storage = tensor.untyped_storage()
        entry = self._storages.get(storage._cdata)
        reference = entry[0] if entry else weakref.ref(storage, self._on_death(storage._cdata))
        self._storages[storage._cdata] = (reference, key)
        if storage._cdata not in self._cards:
            self._note_card(storage)

    def keep_largest(self, tensor: torch.Tensor, value: int) -> None:
        """Remember the largest of a tensor's integers as long as its storage lives; of booleans, True is 1."""
        self._largest[tensor.untyped_storage()._cdata] = value

    def largest_in(self, tensor: torch.Tensor) -> int | None:
        """Return the largest of a tensor's integers; None where it is not known, as of a part of what was counted."""
        if not self._largest:
            return None
        storage = tensor.untyped_storage()
        is_whole = tensor.shape[-1:].numel() * tensor.itemsize == storage.nbytes()
        return self._largest.get(storage._cdata) if is_whole else None

    def take_over(self, other: Tracer) -> None:
        """Follow from now on the storages that another tracer has followed, under the keys that they have there."""
        for cdata, (reference, key) in list(other._storages.items()):
            storage = reference()
            if storage is not None:
                self._storages[cdata] = (weakref.ref(storage, self._on_death(cdata)), key)
        other._storages.clear()
        self._next_key = max(self._next_key, other._next_key)

    @contextmanager
    def temporary(self, sizes: Sequence[int]) -> Iterator[None]:
        """Within, allocations exist that a kernel makes for itself, in this order, and frees before it returns."""
        site = self.site()
        keys = [self.new_key() for _ in sizes]
        for key, size in zip(keys, sizes, strict=True):
            self.sink.alloc(key, size, site)
        yield
        for key in reversed(keys):
            self.sink.free(key)

    def site(self) -> Site:
        """Return the frames that led here, innermost first, without PyTorch's and the simulation's own."""
        frames: list[Frame | Layer] = list(self.replayed)
        frame = sys._getframe(1)
        while frame is not None and len(frames) < self.site_frames:
            if not _is_plumbing(frame.f_code.co_filename):
                frames.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]
        return (*frames, *self.layer)

    def mark_layer(self, name: str) -> None:
        """Let what is allocated from now on be of that layer, of none where the name is empty."""
        self.layer = (Layer(name),) if name else ()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, operators run unrecorded: what they allocate exists on the host only."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1


_is_meta = torch._C.TensorBase.is_meta.__get__  # type: ignore[attr-defined]


def lies_on_meta(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has no values; `Tensor.is_meta` says what a script is to see, see `facade.places`."""
    with torch._C.DisableTorchFunction():
        return bool(_is_meta(tensor))


def _makes_storage(func: Any) -> bool:
    """Return whether an operator's result may lie in new memory: that of views and operators in place does not."""
    fresh = any(value.alias_info is None for value in func._schema.returns)
    # `torch.tensor` makes its memory without an operator, and loading puts it under an empty tensor
    return fresh or func._schema.name.startswith(("aten::lift_fresh", "aten::set_", "aten::resize_"))


_PLUMBING_PATHS = (os.path.dirname(torch.__file__), os.path.dirname(__file__), contextlib.__file__, "<string>")


_TORCH = os.path.dirname(torch.__file__)
_OF_MODELS = tuple(os.path.join(_TORCH, name) for name in ("nn/", "optim/", "autograd/"))
_DATA_LOADERS = os.path.join(_TORCH, "utils/data/")


def _has_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or any(isinstance(item, torch.Tensor) for item in value)


def _tensors_among(args: tuple[Any, ...]) -> Iterator[torch.Tensor]:
    """Yield the tensors among an operator's arguments; of a list the first one alone."""
    for arg in args:
        if isinstance(arg, torch.Tensor):
            yield arg
        elif isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], torch.Tensor):
            yield arg[0]


@cache
def _is_plumbing(path: str) -> bool:
    return path.startswith(_PLUMBING_PATHS)


def frames_and_layer(site: Site) -> tuple[tuple[Frame, ...], str]:
    """Return a site without the layer, and the layer's name, empty where none was running."""
    if site and isinstance(site[-1], Layer):
        return site[:-1], site[-1].name  # type: ignore[return-value]
    return site, ""  # type: ignore[return-value]


def source_lines(site: Site) -> tuple[SourceLine, ...]:
    """Return the frames as lines of source code."""
    frames, _ = frames_and_layer(site)
    return tuple(SourceLine(code.co_filename, line, code.co_name) for code, line in frames)
