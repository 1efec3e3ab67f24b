"""Lists, dictionaries and the like that live, those too that Python's collector does not know of.

A dictionary of nothing but texts, numbers and arrays can be in no circle, so that the collector lets it alone. It is
found in what refers to it: a variable of a module, of a function that runs or of a closure, an attribute, an item.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

from memory_harness.harness.log.source_lines import is_library
from memory_harness.harness.observe.holders import local_variables, running_frames

DICTS = (dict, defaultdict, OrderedDict)
CONTAINERS = (list, deque, set, *DICTS)


def live_containers() -> list[Any]:
    """Return all containers that may grow without end, each once."""
    found: dict[int, Any] = {}
    for item in gc.get_objects():
        if type(item) in CONTAINERS and getattr(item, "maxlen", None) is None:
            found[id(item)] = item
        for member in _referred_by(item):
            if type(member) is dict and not gc.is_tracked(member):
                found[id(member)] = member
    for variable in _variables_of_functions():
        if type(variable) is dict and not gc.is_tracked(variable):
            found[id(variable)] = variable
    return list(found.values())


def _referred_by(item: Any) -> Iterable[Any]:
    """Return what may be the user's of what an object refers to."""
    kind = type(item)
    if kind is dict:
        return list(item.values())
    if kind is list or kind is types.CellType or is_users(kind.__module__):
        return gc.get_referents(item)
    return ()


def _variables_of_functions() -> Iterator[Any]:
    for frame in running_frames():
        if not is_library(frame.f_code.co_filename):
            yield from local_variables(frame).values()


@functools.lru_cache(maxsize=4096)
def is_users(module: str) -> bool:
    """Return whether a module is the script itself, or one of its user's."""
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    return bool(path) and not is_library(path)
