"""Objects that refer to each other in a circle: which tensors wait with them for the collector, and what closes it.

The collector is asked to keep what it finds, once: what is unreachable then is looked at, and let go.
"""

from __future__ import annotations

import gc
import re
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from typing import Any

import torch

from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.source_lines import is_library
from memory_harness.harness.observe.holders import Holder, attribute_holder, attributes_of

MAX_GARBAGE = 200_000  # objects that are looked at; with more of them nothing is said
MAX_CIRCLES = 50  # of which the one with the most bytes is told
MIN_COLLECTED_BYTES = 4096  # least that a collection must free to be written down
MAX_COLLECTIONS = 200  # that are written down in a run
_OF_ITSELF = re.compile(r"[=(,]\s*self\b(?!\.)")


@contextmanager
def collections_noted(device: ObservableDevice, note: Callable[[int, int], None]) -> Iterator[None]:
    """Within, tell of each run of the collector that frees memory of the device: allocated before and after it."""
    before = num_noted = 0

    def ask(phase: str, _: dict[str, int]) -> None:
        nonlocal before, num_noted
        if num_noted >= MAX_COLLECTIONS:
            return
        allocated = device.stats().allocated_bytes
        if phase == "start":
            before = allocated
        elif before - allocated >= MIN_COLLECTED_BYTES:
            num_noted += 1
            note(before, allocated)

    gc.callbacks.append(ask)
    try:
        yield
    finally:
        gc.callbacks.remove(ask)


def collect_and_look(device: ObservableDevice) -> tuple[Holder, int] | None:
    """Collect garbage; return what closes the circle that held the most bytes of the device, and these, if any did."""
    flags, kept_before = gc.get_debug(), len(gc.garbage)
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
    finally:
        gc.set_debug(flags)
    garbage = gc.garbage[kept_before:]
    del gc.garbage[kept_before:]
    found = _largest_circle(garbage, device) if len(garbage) <= MAX_GARBAGE else None
    del garbage
    gc.collect()
    return found


def _largest_circle(garbage: Sequence[Any], device: ObservableDevice) -> tuple[Holder, int] | None:
    tensors = [item for item in garbage if issubclass(type(item), torch.Tensor)]
    if not tensors:
        return None
    known = {id(item): item for item in garbage}
    inner = {id(item): [id(part) for part in gc.get_referents(item) if id(part) in known] for item in garbage}
    longest = sorted(_circles(inner), key=len)[-MAX_CIRCLES:]
    sized = [(_bytes_behind(circle, inner, known, device), circle) for circle in longest]
    for num_bytes, circle in sorted(sized, key=itemgetter(0), reverse=True):
        holder = _closing(circle, known) if num_bytes else None  # which reads sources
        if holder is not None:
            return holder, num_bytes
    return None


def _circles(inner: dict[int, list[int]]) -> list[list[int]]:
    """Return the strongly connected components of several members, or of one that refers to itself.

    Source: Tarjan, Depth-first search and linear graph algorithms, without recursion.
    """
    index: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found = []
    for root in inner:
        if root in index:
            continue
        work = [(root, iter(inner[root]))]
        index[root] = lowest[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, following = work[-1]
            for other in following:
                if other not in index:
                    index[other] = lowest[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(inner[other])))
                    break
                if other in on_stack:
                    lowest[node] = min(lowest[node], index[other])
            else:
                work.pop()
                if work:
                    outer = work[-1][0]
                    lowest[outer] = min(lowest[outer], lowest[node])
                if lowest[node] == index[node]:
                    circle = _pop_until(node, stack, on_stack)
                    if len(circle) > 1 or node in inner[node]:
                        found.append(circle)
    return found


def _pop_until(node: int, stack: list[int], on_stack: set[int]) -> list[int]:
    circle = []
    while True:
        other = stack.pop()
        on_stack.discard(other)
        circle.append(other)
        if other == node:
            return circle


def _bytes_behind(
    circle: Iterable[int], inner: dict[int, list[int]], known: dict[int, Any], device: ObservableDevice
) -> int:
    """Return the bytes of the device in tensors that a circle leads to."""
    waiting, seen = list(circle), set(circle)
    sizes: dict[Hashable, int] = {}
    while waiting:
        node = waiting.pop()
        item = known[node]
        if issubclass(type(item), torch.Tensor) and item.layout is torch.strided:
            handle = device.handle_of(item)
            if handle is not None:
                sizes[handle] = item.untyped_storage().nbytes()
        for other in inner[node]:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return sum(sizes.values())


def _closing(circle: Sequence[int], known: dict[int, Any]) -> Holder | None:
    """Return the user's line that lets a member refer to another: an attribute's, or a function's that names itself."""
    members = set(circle)
    found: list[tuple[Holder, bool]] = []  # and whether it refers to another member itself, with no list in between
    asked: set[tuple[type, str]] = set()
    for node in circle:
        item = known[node]
        if isinstance(item, types.FunctionType) and not is_library(item.__code__.co_filename):
            words = f"the function {item.__code__.co_name}(), which refers to itself"
            found.append((Holder(words, item.__code__.co_filename, item.__code__.co_firstlineno), False))
            continue
        for name, value in attributes_of(item):
            is_new = (type(item), name) not in asked
            if is_new and (id(value) in members or _leads_into(value, members)):
                asked.add((type(item), name))
                found.append((attribute_holder(item, name), not isinstance(value, (dict, list, set, tuple))))
    users = [(holder, is_direct) for holder, is_direct in found if holder.is_users]
    if not users:
        return None
    closing, _ = max(users, key=_closes)
    return replace(closing, words=f"a circle, closed by {closing.words}")


def _closes(found: tuple[Holder, bool]) -> tuple[bool, bool, bool, int]:
    """Return the order of holders: what an object hands of itself to another goes before what it takes.

    A node's parent goes before the list of its children.
    """
    holder, is_direct = found
    return bool(_OF_ITSELF.search(holder.source)), is_direct, holder.stores, holder.line


def _leads_into(value: Any, members: set[int]) -> bool:
    """Return whether a member of the circle lies in a value that the collector does not know, such as a dict's keys."""
    return isinstance(value, (list, tuple)) and any(id(item) in members for item in value)
