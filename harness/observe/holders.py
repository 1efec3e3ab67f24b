"""Who keeps an object alive: the chain of referrers from a tensor to the name that a user gave to what holds it.

Nothing here keeps a reference to what it looked at. Python's collector knows who refers to an object, except for the
local variables of functions that are running; those are read from their frames.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import inspect
import os
import re
import sys
import types
import weakref
from collections import UserDict, UserList, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import torch

from memory_harness.harness.log.records import (
    ALSO_KEPT,
    AT_EXIT,
    HOOK,
    OF_GENERATOR,
    OF_METRIC,
    OPTIMIZER_STATE,
    TRACEBACK,
    WHEN_GONE,
)
from memory_harness.harness.log.source_lines import (
    SourceLine,
    adding_line,
    adding_lines_of_object,
    calling_line,
    filling_line,
    function_around,
    function_name_around,
    functions_calling,
    handling_line,
    is_in_comprehension,
    is_in_loop_header,
    is_library,
    module_lines,
    registering_line,
    short_path,
    source_files,
    source_line,
    storing_line,
)

MAX_DEPTH = 10  # referrers from tensor to holder's name: a list in an attribute of an object in a list takes four
MAX_LOOKUPS = 40  # questions to the collector about one tensor; each walks all objects, some 30 ms with libraries
MAX_LOOKUPS_MORE = 8  # once a name of the user's is found, for a list or the like that keeps it too
MAX_TARGETS_COMPARED = 100  # objects for which the collector is asked who refers to them, rather than everybody
MAX_REFERRERS = 50  # followed of one object; an object with more is shared by everyone, such as a type
_OWN_FOLDER = os.path.dirname(__file__)  # the local variables of its functions hold what they look at

_WITH_KEY = "dict with key "
_FILLED = ("list of", "dict with", "deque of", "set of")  # begin of links: containers that something adds to
_ATTRIBUTE = re.compile(r"\w+\.\w+")  # a link: of an object
_FUNCTION_CACHE = "the cache of the function "
_IGNORED = (types.BuiltinFunctionType, types.ModuleType, type)
_HOOK_DICTS = {
    "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks", "_global_forward_hooks",
    "_load_state_dict_post_hooks", "_state_dict_hooks",
}  # fmt: skip


class Scope(NamedTuple):
    """Lines of a file among which one stores into a name, under one of some keys where there are any.

    Without a name they are those of a function whose results are kept.
    """

    name: str
    first: int
    last: int
    keys: frozenset[str]
    in_tuple: bool = False  # whether what is kept lies in one
    of_object: bool = False  # whether the name is an attribute's, that others than its class fill


@dataclass(frozen=True)
class Holder:
    """The end of a chain: what holds the object, from the outside in."""

    words: str
    path: str = ""
    line: int = 0
    adds: bool = False  # whether the line adds to what is there, as `append` does
    stores: bool = False  # whether the line stores into the name; else the name's scope begins there
    scope: Scope | None = None  # where the line was looked for

    @property
    def is_users(self) -> bool:
        """Whether the line is the user's own, and no library's."""
        return bool(self.path) and not is_library(self.path)

    @property
    def source(self) -> str:
        """The line itself; empty where it is not known."""
        return source_line(self.path, self.line)

    def of_what_was_made(self, made_at: SourceLine | None) -> Holder:
        """Return the holder with the line, of several that add to it, that adds what was made at another line."""
        scope = self.scope
        if scope is None or made_at is None:
            return self
        if not scope.name:  # of a function whose results are kept: the line that makes them
            is_inside = made_at.path == self.path and scope.first <= made_at.line <= scope.last
            return replace(self, line=made_at.line) if is_inside else self
        if not self.adds:
            return self
        line = adding_line(self.path, *scope[:4], made_at, in_tuple=scope.in_tuple, of_object=scope.of_object)
        return self if line is None else replace(self, line=line)

    def __str__(self) -> str:
        return f"{self.words} ({short_path(self.path)}:{self.line})" if self.path else self.words


def find_holder(target: object, ignored: Sequence[object] = ()) -> Holder | None:
    """Return what holds the object: the user's own name for it, else the outermost that is known, else None.

    `ignored` are containers of the caller's that refer to it too.
    """
    return _Search(ignored).holder_of(target, (), MAX_DEPTH)


def first_users_holder(targets: Sequence[object], ignored: Sequence[object] = ()) -> Holder | None:
    """Return the holder of the first of the objects that is held by a name of the user's, or None."""
    for target in targets:
        holder = find_holder(target, [targets, *ignored])
        if holder is not None and holder.is_users:
            return holder
    return None


def referred(targets: Sequence[object], ignored: Sequence[object]) -> list[object]:
    """Return those of the objects that any Python object but the ignored ones refers to; one walk over all objects."""
    skipped = set(map(id, (*ignored, targets, ignored)))
    wanted = set(map(id, targets))
    found: set[int] = set()
    # the collector compares whatever any object refers to with each of the targets
    referrers = gc.get_referrers(*targets) if len(targets) <= MAX_TARGETS_COMPARED else gc.get_objects()
    for referrer in referrers:
        if id(referrer) not in skipped:
            of_it = wanted.intersection(map(id, gc.get_referents(referrer)))
            if of_it and not _is_own(_code_of(referrer)):
                found |= of_it
    for frame in running_frames():
        if not _is_own(frame.f_code):
            found |= wanted.intersection(map(id, local_variables(frame).values()))
    return [target for target in targets if id(target) in found]


class _Search:
    """Holds the walk's budget and what it has seen."""

    def __init__(self, ignored: Sequence[object]) -> None:
        self._seen = set(map(id, (*ignored, self, self.__dict__, ignored)))
        self._lookups = MAX_LOOKUPS

    def holder_of(self, target: object, inner: tuple[str, ...], depth: int) -> Holder | None:
        """Return the first holder that is the user's along any chain, else the first of all; depth first.

        One whose line adds to it goes first: what lies in a list may lie in a variable, drawn from it, for a while.
        """
        self._seen.add(id(target))
        # of functions that hand it on, the one that made it
        named = [*_running_locals(target, inner), *_context_variables(target, inner)]
        running = sorted(named, key=lambda holder: not holder.stores)
        own = fallback = self._noted(users_first(running))
        if depth == 0 or self._lookups <= 0 or (fallback is not None and fallback.is_users and fallback.adds):
            return fallback
        for referrer in self._referrers(target):
            found = self._noted(self._through(target, referrer, inner, depth))
            fallback = users_first((fallback, found))
            if found is not None and found.is_users and found.adds:
                return found
            is_beyond = found is not None and found.is_users and not found.words.startswith("local ")
            if fallback is not None and found is not None and fallback is own and is_beyond:
                # a parameter is stored by no line
                is_given = found.stores and not fallback.stores
                fallback = found if is_given else replace(fallback, words=f"{fallback.words}, {ALSO_KEPT}")
            if self._lookups <= 0:
                break
        if fallback is None and isinstance(target, (list, set, dict)):
            return _in_the_making(target, inner)
        if fallback is None and isinstance(target, (types.FunctionType, types.MethodType, functools.partial)):
            return _called_at_exit(target, inner)
        return fallback

    def _noted(self, found: Holder | None) -> Holder | None:
        """Leave a few lookups once a holder of the user's is found."""
        if found is not None and found.is_users:
            self._lookups = min(self._lookups, MAX_LOOKUPS_MORE)
        return found

    def _referrers(self, target: object) -> list[object]:
        self._lookups -= 1
        found = [r for r in gc.get_referrers(target) if id(r) not in self._seen and not isinstance(r, _IGNORED)]
        self._seen.add(id(found))
        running = set(map(id, running_frames()))  # whose local variables have been looked at
        kept = [r for r in found if not _is_own(_code_of(r)) and id(r) not in running]
        self._seen.add(id(kept))
        ranked = sorted(kept, key=_rank)[:MAX_REFERRERS]
        self._seen.add(id(ranked))
        return ranked

    def _through(self, target: object, referrer: object, inner: tuple[str, ...], depth: int) -> Holder | None:
        """Return the holder behind one referrer: its own name where it has one, else what refers to it."""
        if isinstance(referrer, types.FrameType):
            return self._frame(target, referrer, inner, depth)
        if isinstance(referrer, types.GeneratorType):
            return self._generator(target, referrer, inner, depth)
        if isinstance(referrer, types.CellType):
            return self._cell(referrer, inner, depth)
        if isinstance(referrer, types.FunctionType):
            default = _default_of(referrer, self._seen, inner)
            return default if default.adds else self._of_function(default, referrer, inner, depth)
        if isinstance(referrer, functools._lru_cache_wrapper):
            return _function_cache(referrer, inner)
        own = _of_own_container(referrer, inner)
        if own is not None:
            return own
        if isinstance(referrer, dict):
            return self._dict(target, referrer, inner, depth)
        if isinstance(referrer, weakref.finalize._Info):  # type: ignore[attr-defined]
            return _called_when_gone(inner)
        slot = next((name for name, value in _slots_of(referrer) if value is target), None)
        if slot is not None:
            return self._named_attribute(referrer, slot, inner, depth)
        if isinstance(referrer, (list, tuple, set, frozenset)) or not hasattr(referrer, "__dict__"):
            return self.holder_of(referrer, (_describe(referrer), *inner), depth - 1)
        return self._attribute(target, referrer, inner, depth)

    def _frame(self, target: object, frame: types.FrameType, inner: tuple[str, ...], depth: int) -> Holder:
        """Return who keeps the traceback or the generator that keeps a frame that has ended, or is suspended."""
        code = frame.f_code
        words = f"local `{_local_name(frame, target) or '?'}` of {code.co_name}()"
        error = self._error_with(frame)
        if error is not None:
            outer = self.holder_of(error, (type(error).__name__, TRACEBACK, words, *inner), depth - 1)
            if outer is not None and outer.is_users:
                return outer if outer.adds else _handed_on(outer, error)
        keepers = [r for r in self._referrers(frame) if getattr(r, "tb_frame", getattr(r, "gi_frame", None)) is frame]
        line = frame.f_lineno
        for keeper in keepers:
            kind = type(keeper).__name__
            line = getattr(keeper, "tb_lineno", line)
            outer = self.holder_of(keeper, (kind, words, *inner), depth - 1)
            if outer is not None and outer.is_users:
                return outer
            words = f"{words}, kept by a {kind}"
        return Holder(_words(words, inner), code.co_filename, line)

    def _error_with(self, frame: types.FrameType) -> BaseException | None:
        """Return the exception whose traceback has a frame, and holds it and its variables.

        Between the two lies an entry for each frame that the exception passed, libraries' among them.
        """
        self._lookups -= 1
        for item in gc.get_objects():
            if issubclass(type(item), BaseException) and id(item) not in self._seen:
                entry = item.__traceback__
                while entry is not None:
                    if entry.tb_frame is frame:
                        return item
                    entry = entry.tb_next
        return None

    def _generator(
        self, target: object, generator: types.GeneratorType[Any, Any, Any], inner: tuple[str, ...], depth: int
    ) -> Holder:
        """Return what collects suspended generators, else the local variable of one, such as a `with` block's."""
        code = generator.gi_code
        name, line = "?", None
        if generator.gi_frame is not None:
            name = _local_name(generator.gi_frame, target) or "?"
            line = storing_line(code.co_filename, name, code.co_firstlineno, last_line(code))
        link = f"local `{name}` {OF_GENERATOR}{code.co_name}()"
        outer = self.holder_of(generator, (link, *inner), depth - 1)
        if outer is not None and outer.is_users and outer.adds:
            return outer
        return Holder(_words(link, inner), code.co_filename, line or code.co_firstlineno)

    def _of_function(
        self, own: Holder, function: types.FunctionType, inner: tuple[str, ...], depth: int
    ) -> Holder | None:
        """Return what collects a function and others like it, else the function itself."""
        outer = self.holder_of(function, inner, depth - 1)
        return outer if outer is not None and outer.is_users and outer.adds else own

    def _cell(self, cell: types.CellType, inner: tuple[str, ...], depth: int) -> Holder | None:
        """Return the variable of the function that closes over a cell, which may be a hook."""
        self._seen.add(id(cell))
        for closure in self._referrers(cell):
            if not isinstance(closure, tuple):
                continue
            for function in self._referrers(closure):
                if isinstance(function, types.FunctionType) and function.__closure__ is closure:
                    return self._closure(function, cell, inner, depth)
        return None

    def _closure(
        self, function: types.FunctionType, cell: types.CellType, inner: tuple[str, ...], depth: int
    ) -> Holder | None:
        code = function.__code__
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        name = next(name for name, other in cells if other is cell)  # cells are equal where their contents are
        is_hook = self._is_hook(function)
        link = f"variable `{name}` {HOOK if is_hook else 'of the closure '}{code.co_name}()"
        own = _stored(_words(link, inner), code.co_filename, name, code.co_firstlineno, last_line(code), inner)
        if is_hook:
            return _registered(own, code)
        own = _with_key_outside(_given_outside(own, name, code, inner), name, code, inner)
        return own if own.adds else self._of_function(own, function, (link, *inner), depth)

    def _is_hook(self, function: object) -> bool:
        """Return whether a module or a tensor calls the function as a hook."""
        for container in self._referrers(function):
            if isinstance(container, dict) and self._is_hook_dict(container):
                return True
        return False

    def _is_hook_dict(self, container: dict[Any, Any]) -> bool:
        for owner in self._referrers(container):
            names = owner if isinstance(owner, dict) else getattr(owner, "__dict__", {})
            if any(names.get(name) is container for name in _HOOK_DICTS):
                return True
        return False

    def _dict(self, target: object, mapping: dict[Any, Any], inner: tuple[str, ...], depth: int) -> Holder | None:
        """Return the variable of a module, the attribute of an object, or who holds a dict like any other."""
        key = _key_of(mapping, target)
        if "__name__" in mapping and "__builtins__" in mapping:  # of a module, which need not be registered any more
            return _global(mapping, str(key), inner)
        self._seen.add(id(mapping))
        if "__module__" in mapping and "__doc__" in mapping:
            for cls in gc.get_referrers(mapping):
                if isinstance(cls, type) and vars(cls).get(key) is target:
                    return _of_class(_words(f"attribute `{key}` of the class {cls.__name__}", inner), cls, key, inner)
        for owner in self._referrers(mapping):
            if getattr(owner, "__dict__", None) is mapping:
                return self._named_attribute(owner, str(key), inner, depth)
            # Python may keep the attributes in a dict of their own, and no object but that refers to them
            modules = [owner] if isinstance(owner, torch.nn.Module) else _owners_of_parts(owner, mapping)
            for module in modules:
                if _has_as_parts(vars(module), mapping):
                    return self._named_attribute(module, str(key), inner, depth)
        return self.holder_of(mapping, (_WITH_KEY + _key_words(key), *inner), depth - 1)

    def _attribute(self, target: object, owner: object, inner: tuple[str, ...], depth: int) -> Holder | None:
        name = _key_of(vars(owner), target)
        if name is None:  # a deque, an OrderedDict or another container with attributes of its own
            return self.holder_of(owner, (_describe(owner), *inner), depth - 1)
        return self._named_attribute(owner, name, inner, depth)

    def _named_attribute(self, owner: object, name: str, inner: tuple[str, ...], depth: int) -> Holder | None:
        """Return the attribute of an object of the user's; behind a library's, who holds that."""
        kind = type(owner).__name__
        if isinstance(owner, torch.nn.Module) and name in _HOOK_DICTS:
            hooks = getattr(owner, name).values()
            hook = next((hook for hook in hooks if id(hook) in self._seen), None)
            return _hook(hook, kind, inner)
        named = f"{OF_METRIC}{kind}" if _is_metric(owner) else f"of {kind}"
        cls = getattr(type(owner), "_forward_cls", type(owner))  # of a graph's node, its function
        is_state = isinstance(owner, torch.optim.Optimizer) and name == "state"
        words = OPTIMIZER_STATE if is_state else f"attribute `{name}` {named}"
        holder = _of_class(_words(words, inner), cls, name, inner, owner)
        if inner and OF_METRIC in inner[0]:
            holder = _updated(holder, name)
        if holder.is_users and holder.adds and not is_state:
            return holder
        link = f"{kind}.{name}"
        if is_state:
            link = OPTIMIZER_STATE
            holder = _set_elsewhere(holder.words, name, inner) or holder
        elif _is_metric(owner):
            link = f"`{name}` {named}"
        outer = self.holder_of(owner, (link, *inner), depth - 1)
        # an object that only carries it, in a list of such objects
        is_better = outer is not None and outer.is_users and (outer.adds or not holder.is_users)
        return outer if is_better else holder


def _has_as_parts(attributes: dict[str, Any], mapping: dict[Any, Any]) -> bool:
    """Return whether a dict is where a module of these attributes has its buffers or inner metrics."""
    if attributes.get("_buffers") is mapping:
        return True
    return attributes.get("_modules") is mapping and any(map(_is_metric, mapping.values()))


def _owners_of_parts(attributes: object, mapping: dict[Any, Any]) -> list[torch.nn.Module]:
    if not isinstance(attributes, dict) or not _has_as_parts(attributes, mapping):
        return []
    return [owner for owner in gc.get_referrers(attributes) if isinstance(owner, torch.nn.Module)]


def _updated(holder: Holder, name: str) -> Holder:
    """Return the holder of a metric with the line that hands something to it, by `update` or by a call."""
    if not holder.is_users:
        return holder
    line = calling_line(holder.path, "update", name) or calling_line(holder.path, name)
    return holder if line is None else replace(holder, line=line, adds=True, stores=True)


def _default_of(function: types.FunctionType, seen: Collection[int], inner: tuple[str, ...]) -> Holder:
    """Return the parameter whose default was met on the way, or the function where it is none of its parameters'."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    positional = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    given = {**dict(zip(positional, defaults, strict=True)), **(function.__kwdefaults__ or {})}
    name = next((name for name, value in given.items() if id(value) in seen), None)
    if name is None:
        words = f"default or attribute of {code.co_name}()"
        return Holder(_words(words, inner), code.co_filename, code.co_firstlineno)
    words = _words(f"default of `{name}` of {code.co_name}()", inner)
    return _stored(words, code.co_filename, name, code.co_firstlineno, last_line(code), inner)


def _handed_on(holder: Holder, error: BaseException) -> Holder:
    """Return the holder with the line that hands a caught exception to a library, whose list or the like keeps it."""
    caught = error.__traceback__
    if caught is None or not any(word in holder.words for word in _FILLED):
        return holder
    path = caught.tb_frame.f_code.co_filename
    line = None if is_library(path) else handling_line(path, caught.tb_lineno)
    return holder if line is None else replace(holder, path=path, line=line, adds=True, scope=None)


def _is_metric(owner: object) -> bool:
    """Return whether an object is a metric as torchmetrics, ignite or Keras have it: it is updated, then computed."""
    updates = any(callable(getattr(type(owner), name, None)) for name in ("update", "update_state", "add_batch"))
    return updates and any(callable(getattr(type(owner), name, None)) for name in ("compute", "result"))


def users_first(holders: Iterable[Holder | None]) -> Holder | None:
    """Return the first holder that is the user's, else the first of all."""
    first = None
    for holder in holders:
        if holder is not None and holder.is_users:
            return holder
        first = first or holder
    return first


def _running_locals(target: object, inner: tuple[str, ...]) -> Iterator[Holder]:
    """Yield the local variables of running functions, in any thread, that are the object."""
    frame = None
    try:
        for frame in running_frames():
            code = frame.f_code
            if _is_own(code) or not code.co_flags & inspect.CO_NEWLOCALS:
                continue
            name = _local_name(frame, target)
            if name is not None:
                words = _words(f"local `{name}` of {code.co_name}()", inner)
                holder = _stored(words, code.co_filename, name, code.co_firstlineno, last_line(code), inner)
                if holder.line <= code.co_firstlineno:  # a parameter is stored by no line
                    holder = replace(holder, line=frame.f_lineno)
                yield _at_call(holder, name, frame, inner)
    finally:
        del frame  # this function's own may be it: a circle that would keep the target


def _context_variables(target: object, inner: tuple[str, ...]) -> Iterator[Holder]:
    """Yield the module's context variables that have the object as their value, which the collector does not tell."""
    for variable in [variable for variable, value in contextvars.copy_context().items() if value is target]:
        for variables in gc.get_referrers(variable):
            if isinstance(variables, dict) and "__name__" in variables and "__builtins__" in variables:
                yield _global(variables, str(_key_of(variables, variable)), ("context variable", *inner))


def _of_own_container(owner: object, inner: tuple[str, ...]) -> Holder | None:
    """Return a list or the like of a class of the user's, one of whose methods adds to it; None for all others."""
    if not isinstance(owner, (dict, list, set, deque, UserDict, UserList)):
        return None
    words = _words(f"a {type(owner).__name__}", inner)
    for cls in type(owner).__mro__[:-1]:
        path, first, last = _class_lines(cls)
        if path and not is_library(path):
            holder = _stored(words, path, "self", first, last, inner)
            if holder.adds:
                return holder
    return None


def _in_the_making(target: object, inner: tuple[str, ...]) -> Holder | None:
    """Return the expression that makes a list or the like, which nothing refers to before it is complete."""
    frame, is_of_generator = None, False
    try:
        for frame in running_frames():
            code = frame.f_code
            is_callers = _is_own(code) and code.co_filename != __file__
            if is_callers and _local_name(frame, target) is not None:
                return None
            path, line = code.co_filename, frame.f_lineno
            # `list(...)` and the like call a generator themselves
            is_making = is_in_comprehension(path, line) or (is_of_generator and not is_in_loop_header(path, line))
            if not is_library(path) and is_making:
                return Holder(_words("what an expression makes", inner), path, line, adds=True, stores=True)
            is_of_generator = bool(code.co_flags & inspect.CO_GENERATOR)
        return None
    finally:
        del frame  # as in `_running_locals`


def _called_at_exit(target: object, inner: tuple[str, ...]) -> Holder | None:
    """Return the line that has something called when Python exits, which keeps it where no object refers to it.

    None where one does that was met on the way, as a metric does to its own methods; lists here are the search's own.
    """
    if any(not isinstance(referrer, (list, types.FrameType)) for referrer in gc.get_referrers(target)):
        return None
    for path in _users_running():
        line = calling_line(path, "register", "atexit")
        if line is not None:
            return Holder(_words(AT_EXIT, inner), path, line, adds=True, stores=True)
    return None


def _called_when_gone(inner: tuple[str, ...]) -> Holder | None:
    """Return the line that has something called once an object is gone, which keeps it until then."""
    for path in _users_running():
        line = calling_line(path, "finalize")
        if line is not None:
            return Holder(_words(WHEN_GONE, inner), path, line, adds=True, stores=True)
    return None


def _at_call(holder: Holder, name: str, frame: types.FrameType, inner: tuple[str, ...]) -> Holder:
    """Return the holder with the line at which its frame is, where that hands on the object whose attribute keeps it.

    A library's object fills its own lists when it is called, not where it is made.
    """
    is_of_object = bool(inner) and _ATTRIBUTE.fullmatch(inner[0]) is not None
    names_it = re.search(rf"\b{re.escape(name)}\b", source_line(holder.path, frame.f_lineno)) is not None
    return replace(holder, line=frame.f_lineno) if is_of_object and names_it and not holder.adds else holder


def running_frames() -> Iterator[types.FrameType]:
    """Yield the frames of all threads, innermost first."""
    frame, frames = None, list(sys._current_frames().values())
    try:
        while frames:
            frame = frames.pop()
            yield frame
            if frame.f_back is not None:
                frames.append(frame.f_back)
    finally:
        del frames, frame


def _code_of(referrer: object) -> types.CodeType | None:
    """Return a frame's or a generator's code, None for anything else."""
    if isinstance(referrer, types.FrameType):
        return referrer.f_code
    return referrer.gi_code if isinstance(referrer, types.GeneratorType) else None


def _is_own(code: types.CodeType | None) -> bool:
    return code is not None and os.path.dirname(code.co_filename) == _OWN_FOLDER


def _local_name(frame: types.FrameType, target: object) -> Any:
    return _key_of(local_variables(frame), target)


def _key_of(mapping: dict[Any, Any], target: object) -> Any:
    """Return the first key that has the object as its value, or None."""
    for key, value in list(mapping.items()):
        if value is target:
            return key
    return None


def local_variables(frame: types.FrameType) -> dict[str, Any]:
    """Return a frame's local variables; the frame itself keeps no copy of them."""
    variables = frame.f_locals
    found = dict(variables)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_NEWLOCALS:
        variables.clear()  # a copy that the frame would keep, and with it tensors that the function has let go of
    return found


def _of_class(words: str, cls: type, name: str, inner: tuple[str, ...], owner: object = None) -> Holder:
    """Return the holder that an attribute is, with the line that stores into it, in the class or in one it is of.

    Args:
        owner: the object whose attribute it is, where it is one's and not the class's own.
    """
    holders = []
    for base in cls.__mro__[:-1]:
        path, first, last = _class_lines(base)
        if path:
            holders.append(_stored(words, path, name, first, last, inner, of_object=True))
    best = _best(holders, Holder(words))
    called = None if best.is_users else _called_to_add(words, cls, name, owner)
    if called is not None:
        return called
    if not best.stores:
        best = _set_elsewhere(words, name, inner) or best
    is_filled_elsewhere = best.is_users and not best.adds and bool(inner) and inner[0].startswith(_FILLED)
    line = adding_line(best.path, name, 1, sys.maxsize, of_object=True) if is_filled_elsewhere else None
    if line is None:
        return best
    scope = None if best.scope is None else best.scope._replace(first=1, last=sys.maxsize, of_object=True)
    return replace(best, line=line, adds=True, stores=True, scope=scope)


def _called_to_add(words: str, cls: type, name: str, owner: object) -> Holder | None:
    """Return the user's line that calls the method by which a library's class adds to an attribute of an object."""
    for base in cls.__mro__[:-1]:
        path, first, last = _class_lines(base)
        added = adding_line(path, name, first, last, of_object=True) if path else None
        method = "" if added is None else function_name_around(path, added)
        methods = functions_calling(path, method, first, last) if method not in ("", "__init__") else []
        for users, called in product(_users_running(), methods):
            line = calling_line(users, called)
            if line is not None:
                names = [] if owner is None else _names_of(owner)
                of_owner = (calling_line(users, called, known_as) for known_as in names)
                return Holder(words, users, next(filter(None, of_owner), line), adds=True, stores=True)
    return None


def _names_of(target: object) -> list[str]:
    """Return the names of the attributes, items and variables that an object is the value of."""
    found = [local_variables(frame) for frame in running_frames()]
    for referrer in gc.get_referrers(target):
        mapping = referrer if isinstance(referrer, dict) else getattr(referrer, "__dict__", None)
        if isinstance(mapping, dict):
            found.append(mapping)
    names = (_key_of(mapping, target) for mapping in found)
    return [name for name in names if isinstance(name, str)]


def _users_running() -> list[str]:
    """Return the files of the user's whose functions run, innermost first."""
    paths = dict.fromkeys(frame.f_code.co_filename for frame in running_frames())
    return [path for path in paths if not is_library(path)]


def _set_elsewhere(words: str, name: str, inner: tuple[str, ...]) -> Holder | None:
    """Return the line of a user's file that is running which sets an attribute that its object's class does not."""
    found = [_stored(words, path, name, 1, sys.maxsize, inner, of_object=True) for path in _users_running()]
    best = _best(found, Holder(words))
    return best if best.stores else None


def _function_cache(cached: functools._lru_cache_wrapper[Any], inner: tuple[str, ...]) -> Holder:
    """Return the cache that functools keeps of what a function has returned."""
    code = inspect.unwrap(cached).__code__
    words = _words(f"{_FUNCTION_CACHE}{code.co_name}()", inner)
    scope = Scope("", code.co_firstlineno, last_line(code), frozenset())
    return Holder(words, code.co_filename, code.co_firstlineno, scope=scope)


def attributes_of(item: object) -> list[tuple[str, Any]]:
    """Return an object's attributes, those in slots too, with their names."""
    found = list(getattr(item, "__dict__", {}).items()) if not isinstance(item, type) else []
    return [*found, *_slots_of(item)]


def _slots_of(item: Any) -> Iterator[tuple[str, Any]]:
    for cls in type(item).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, types.MemberDescriptorType) and cls.__module__ != "builtins":
                yield name, getattr(item, name, None)


def kept_by_class(cls: type) -> Holder | None:
    """Return the one attribute that a class's methods add to, once its objects are made; None where none or more do."""
    path, first, last = _class_lines(cls)
    found = adding_lines_of_object(path, first, last) if path and not is_library(path) else []
    if len(found) != 1:
        return None
    name, line = found[0]
    return Holder(f"attribute `{name}` of {cls.__name__}", path, line, adds=True, stores=True)


def attribute_holder(owner: object, name: str) -> Holder:
    """Return an object's attribute, with the line of its class that stores it; of a graph's node, of its function's."""
    cls = getattr(type(owner), "_forward_cls", type(owner))
    return _of_class(f"attribute `{name}` of {cls.__name__}", cls, name, ())


def _hook(hook: Any, kind: str, inner: tuple[str, ...]) -> Holder:
    """Return the hook of a module that holds what it is bound to, or closes over, with the line that registers it."""
    code = hook_code(hook)
    if code is None:
        return Holder(_words(f"hook of {kind}", inner))
    words = _words(f"what is {HOOK}{code.co_name}() on {kind}", inner[:-1])
    line = registering_line(code.co_filename, code.co_name)
    return Holder(words, code.co_filename, line or code.co_firstlineno, adds=True, stores=True)


def hook_code(hook: Any) -> types.CodeType | None:
    """Return the code of a function, a method, a partial one or an object that is called as a hook."""
    hook = hook.func if isinstance(hook, functools.partial) else hook
    if not hasattr(hook, "__code__") and not isinstance(hook, types.MethodType):
        hook = vars(type(hook)).get("__call__")
    return getattr(hook, "__code__", None)


def _registered(own: Holder, code: types.CodeType) -> Holder:
    """Return the holder with the line that registers a hook, where the hook only reads what it closes over."""
    line = None if own.stores else registering_line(code.co_filename, code.co_name)
    return own if line is None else replace(own, line=line, adds=True, stores=True, scope=None)


def _given_outside(own: Holder, name: str, code: types.CodeType, inner: tuple[str, ...]) -> Holder:
    """Return the holder with the line of the function around a closure that stores what the closure only reads."""
    lines = None if own.stores else function_around(code.co_filename, code.co_firstlineno)
    outer = own if lines is None else _stored(own.words, code.co_filename, name, *lines, inner)
    return replace(own, line=outer.line) if outer.stores else own


def _with_key_outside(own: Holder, name: str, code: types.CodeType, inner: tuple[str, ...]) -> Holder:
    """Return the holder with the line of the function around a closure, where that fills the key and its own do not."""
    if not inner or not inner[0].startswith(_WITH_KEY):
        return own
    lines = function_around(code.co_filename, code.co_firstlineno)
    if lines is None:
        return own
    outer = _stored(own.words, code.co_filename, name, *lines, inner)
    key = inner[0].removeprefix(_WITH_KEY)  # as `repr` writes it
    fills_it = key in outer.source.replace('"', "'") and key not in own.source.replace('"', "'")
    return outer if fills_it else own


def _best(holders: Sequence[Holder], otherwise: Holder) -> Holder:
    """Return the user's holder whose line adds, else whose line stores, else the first."""
    users = [holder for holder in holders if holder.is_users]
    adding = [holder for holder in users if holder.adds]
    storing = [holder for holder in users if holder.stores]
    return next(iter(adding or storing or users or holders), otherwise)


def _stored(
    words: str, path: str, name: str, first: int, last: int, inner: tuple[str, ...], *, of_object: bool = False
) -> Holder:
    """Return a holder with the line, of those given, that stores into its name."""
    keys = frozenset(text.removeprefix(_WITH_KEY) for text in inner if text.startswith(_WITH_KEY))
    added = adding_line(path, name, first, last, keys)
    if added is None and inner and inner[0].startswith(_FILLED) and not of_object and not is_library(path):
        added = filling_line(path, name, first, last)
    line = added or storing_line(path, name, first, last, of_object=of_object)
    scope = Scope(name, first, last, keys, in_tuple=bool(inner) and inner[-1].startswith("tuple of"))
    return Holder(words, path, line or first, adds=added is not None, stores=line is not None, scope=scope)


def _global(variables: dict[Any, Any], name: str, inner: tuple[str, ...]) -> Holder:
    path = variables.get("__file__") or ""
    words = _words(f"global `{name}` of {variables['__name__']}", inner)
    stretches = [(file, lines) for file in source_files(path) for lines in module_lines(file, name)]
    best = _best([_stored(words, file, name, *lines, inner) for file, lines in stretches], Holder(words))
    frame = next((frame for frame in running_frames() if frame.f_locals is variables), None)
    return best if frame is None else _at_call(best, name, frame, inner)


def _rank(referrer: object) -> int:
    """Return the place in the order in which referrers are followed: what people name on purpose first."""
    order = (types.CellType, types.FrameType, list, dict, set)
    for rank, kind in enumerate(order):
        if isinstance(referrer, kind):
            return rank
    return len(order)


def _words(name: str, inner: tuple[str, ...]) -> str:
    """Return `local `losses` of train(): list of 12`."""
    return ": ".join([name, ", ".join(inner)]) if inner else name


def _key_words(key: object) -> str:
    """Return a key as Python writes it; a tensor would write its values."""
    if isinstance(key, tuple):
        return f"({', '.join(map(_key_words, key))})"
    return repr(key) if isinstance(key, (str, int, float)) else type(key).__name__


def _describe(container: object) -> str:
    kind = type(container).__name__
    if getattr(container, "maxlen", None) is not None:
        return f"{kind} of {len(container)}, at most {container.maxlen}"  # type: ignore[arg-type,attr-defined]
    return f"{kind} of {len(container)}" if hasattr(type(container), "__len__") else kind  # type: ignore[arg-type]


def _class_lines(cls: type) -> tuple[str, int, int]:
    """Return the file, first and last line of a class, as far as they are known."""
    try:
        path = inspect.getsourcefile(cls)
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError):
        return "", 0, 0
    return path or "", first, first + len(lines) - 1


def last_line(code: types.CodeType) -> int:
    """Return the last line of a function, its inner ones included."""
    last = code.co_firstlineno
    for _, _, line in code.co_lines():
        last = max(last, line or 0)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            last = max(last, last_line(constant))
    return last
