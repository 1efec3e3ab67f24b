"""Allocations that failed in a script and were caught: where, and whether their work was done again afterwards.

A failure counts as made good only where something shows it; a script that merely goes on has skipped the work:

- the handler, or what follows it in the same pass of the loop, calls the same kind of work again;
- a later call is made with the tensors of the one that failed;
- success leaves the loop around the `try`, which so is a search for what fits, and a later pass succeeded;
- it failed in the first steps, in a function that was left for good before the training went on without it.

It counts once that work has ended: with an optimizer step where it trains, else with the next call; in the last case
at the end of the script.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch

from memory_harness.harness.log.handlers import Handler, handlers_around
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.source_lines import is_harness, is_library, is_standard_library, short_path
from memory_harness.harness.observe.facts import tensors_in

_MODES = {
    Phase.FORWARD: "training",
    Phase.BACKWARD: "training",
    Phase.OPTIMIZER: "training",
    Phase.EVAL: "evaluation",
    Phase.GENERATE: "generation",
}
_TORCH = os.path.dirname(torch.__file__)
_MAX_TRYING_STEPS = 16  # steps within which a script tries what fits before it trains; doubling and halving takes fewer
_MAX_DEPTH = 3  # how deeply tensors are nested in what a module is called with


@dataclass(frozen=True)
class _Call:
    """An outermost call of a module, or one that generates."""

    mode: str
    module: weakref.ref[torch.nn.Module] | None
    storages: tuple[weakref.ref[Any], ...]  # of the tensors that it was made with
    size: int  # elements of the largest

    def shares_tensors(self, other: _Call) -> bool:
        """Return whether both were made with the same memory; that of a tensor that is gone is nobody's."""
        alive = {id(storage) for reference in self.storages if (storage := reference()) is not None}
        return any(id(reference()) in alive for reference in other.storages)

    def is_of_kind(self, other: _Call) -> bool:
        """Return whether both do the same with modules of one class."""
        own, others = self.module and self.module(), other.module and other.module()
        return self.mode == other.mode and own is not None and type(own) is type(others)


def _call(mode: str, module: torch.nn.Module | None, values: Iterable[Any]) -> _Call:
    tensors = tensors_in(list(values), _MAX_DEPTH)
    storages = tuple(weakref.ref(tensor.untyped_storage()) for tensor in tensors if tensor.layout is torch.strided)
    size = max((tensor.numel() for tensor in tensors), default=0)
    return _Call(mode, None if module is None else weakref.ref(module), storages, size)


@dataclass
class _Failure:
    """A failed allocation whose work has not been done again so far."""

    number: int  # among all failures of the run, from 0
    call: _Call | None  # whose work it was; None where that was no module's
    catcher: _Catcher | None
    asking: tuple[CodeType, int] | None  # the user's innermost frame that asked, and its line
    is_preparing: bool  # whether it failed before any model was called
    is_tried_again: bool = False
    has_left: bool = False  # the frame that caught it has entered the `try` again
    goes_on_elsewhere: bool | None = None  # whether training went on without the function that caught it, and only so
    before: list[int] = field(default_factory=list)  # earlier failures, whose work this one was to do again


@dataclass(frozen=True)
class _Catcher:
    """The frame that catches a failure, by what tells it apart without keeping it, and its `try`."""

    code: CodeType
    frame: int
    handler: Handler
    is_module: bool

    @property
    def where(self) -> str:
        return f"{short_path(self.code.co_filename)}:{self.handler.line}"


class CaughtFailures:
    """Follows what a script does about allocations that failed."""

    def __init__(self) -> None:
        self._num_failures = self._num_steps = 0
        self._last_call: _Call | None = None
        self._open: list[_Failure] = []

    def note_call(self, module: torch.nn.Module | None, values: Iterable[Any], mode: str) -> list[int]:
        """Take note of a call that begins; return the failures whose work is done now, by number."""
        call = self._last_call = _call(mode, module, values)
        if not self._open:
            return []
        done = self._take_done(training=False)
        frames = {id(frame): frame for frame in _frames(sys._getframe())}
        for failure in self._open:
            failure.is_tried_again = failure.is_tried_again or _tries_again(failure, call, frames)
            _note_elsewhere(failure, call, frames)
        return done

    def note_step(self) -> list[int]:
        """Take note of an optimizer step that ended; return the failures whose work is done now, by number."""
        self._num_steps += 1
        return self._take_done(training=True) if self._open else []

    def note_end(self) -> list[int]:
        """Take note that the script has run to its end; return the failures whose work is done now, by number."""
        for failure in self._open:
            failure.is_tried_again = failure.is_tried_again or bool(failure.goes_on_elsewhere)
        return [*self._take_done(training=True), *self._take_done(training=False)]

    def note_failure(self, phase: Phase | None, frame: FrameType | None) -> str | None:
        """Take note of an allocation that fails in a frame; return `file:line` of what catches it, if anything does."""
        mode = None if phase is None else _MODES.get(phase)
        call = self._last_call
        own_call = call if call is not None and call.mode == mode else None
        failure = _Failure(self._num_failures, own_call, _catcher(frame), _asking(frame), is_preparing=call is None)
        if self._num_steps > _MAX_TRYING_STEPS:
            failure.goes_on_elsewhere = False
        self._num_failures += 1
        still_open = []
        for earlier in self._open:
            if earlier.is_tried_again or _is_same_search(earlier, failure):
                failure.before += [*earlier.before, earlier.number]
            else:
                still_open.append(earlier)
        self._open = [*still_open, failure]
        return failure.catcher.where if failure.catcher else None

    def _take_done(self, *, training: bool) -> list[int]:
        done: list[int] = []
        for failure in tuple(self._open):
            trains = failure.call is not None and failure.call.mode == "training"
            if trains is training and failure.is_tried_again:
                done += [*failure.before, failure.number]
                self._open.remove(failure)
        return done


def _is_same_search(earlier: _Failure, failure: _Failure) -> bool:
    """Return whether a failure is one more try of a search, with something smaller than before."""
    before, now = earlier.catcher, failure.catcher
    if before is None or now is None or not now.handler.is_search:
        return False
    if (before.code, before.frame, before.handler) != (now.code, now.frame, now.handler):
        return False
    if earlier.call is None or failure.call is None or not now.handler.is_nested:
        return True
    return failure.call.size < earlier.call.size or failure.call.shares_tensors(earlier.call)


def _tries_again(failure: _Failure, call: _Call, frames: dict[int, FrameType]) -> bool:
    """Return whether a call does the work again that failed."""
    failed, catcher = failure.call, failure.catcher
    if failed is None:
        return _search_went_on(failure, frames)
    if failed.mode != call.mode:
        return False
    if failed.shares_tensors(call):
        return True
    frame = frames.get(catcher.frame) if catcher else None
    if catcher is None or frame is None or frame.f_code is not catcher.code:
        return False
    handler, line = catcher.handler, frame.f_lineno
    if line in handler.handling:
        return True
    if line in handler.body:
        failure.has_left = True
        is_smaller = call.size < failed.size
        return handler.is_search and (is_smaller or (catcher.is_module and not handler.is_nested))
    is_same_module = failed.module is not None and call.module is not None and failed.module() is call.module()
    return not failure.has_left and is_same_module and line in handler.following


def _note_elsewhere(failure: _Failure, call: _Call, frames: dict[int, FrameType]) -> None:
    """Take note of whether training goes on outside of the function that caught the failure, or returns to it."""
    failed, catcher = failure.call, failure.catcher
    if failed is None or catcher is None or catcher.is_module or call.mode != "training":
        return
    is_back = any(frame.f_code is catcher.code for frame in frames.values())
    if is_back and failure.goes_on_elsewhere:
        failure.goes_on_elsewhere = False
    elif not is_back and failure.goes_on_elsewhere is None and failed.is_of_kind(call):
        failure.goes_on_elsewhere = True


def _search_went_on(failure: _Failure, frames: dict[int, FrameType]) -> bool:
    """Return whether a search got beyond the line that failed outside of any call; the failure has no call."""
    catcher = failure.catcher
    if catcher is None or not catcher.handler.is_search:
        return False
    frame = frames.get(catcher.frame)
    is_inside = frame is not None and frame.f_code is catcher.code and frame.f_lineno in catcher.handler.body
    if not is_inside:
        return failure.is_preparing
    if failure.asking is None:
        return False
    code, line = failure.asking
    return any(other.f_code is code and other.f_lineno >= line for other in frames.values())


def _asking(innermost: FrameType | None) -> tuple[CodeType, int] | None:
    for frame in _frames(innermost):
        if not is_library(frame.f_code.co_filename):
            return frame.f_code, frame.f_lineno
    return None


def _catcher(innermost: FrameType | None) -> _Catcher | None:
    """Return the innermost frame of the script's, or of a library that it uses, which catches what is raised now."""
    for frame in _frames(innermost):
        code = frame.f_code
        if is_standard_library(code.co_filename) or code.co_filename.startswith(_TORCH):
            continue
        for handler in handlers_around(code.co_filename, frame.f_lineno):
            if _catches(handler, frame):
                return _Catcher(code, id(frame), handler, code.co_name == "<module>")
    return None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the script's frames from one outwards, up to what runs it."""
    has_begun = False
    while frame is not None:
        is_own = is_harness(frame.f_code.co_filename)
        if has_begun and is_own and frame.f_code.co_name == "run_script":
            return
        if not is_own:
            has_begun = True
            yield frame
        frame = frame.f_back


def _catches(handler: Handler, frame: FrameType) -> bool:
    """Return whether one of the classes is that of an out-of-memory; a name that is not global may be."""
    for names in handler.classes:
        found: Any = frame.f_globals.get(names[0], frame.f_builtins.get(names[0]))
        for name in names[1:]:
            found = getattr(found, name, None) if found is not None else None
        if not isinstance(found, type) or issubclass(torch.OutOfMemoryError, found):
            return True
    return not handler.classes
