"""Containers in host memory that get more and more bytes: arrays, texts and objects that hold them, no tensors.

What of a process's memory piles up slowly is lost in what libraries do by themselves. So all containers are looked at,
now and then, once the process has grown and the device has not; one that is larger each time is what piles up.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np

from memory_harness.harness.log.records import HOST_CONTAINER, Phase, Record, SurvivorRecord
from memory_harness.harness.observe.containers import DICTS, is_users, live_containers
from memory_harness.harness.observe.heap import HeapInUse
from memory_harness.harness.observe.holders import Holder, find_holder

MIB = 1024 * 1024
FIRST_STEP = 8  # before it libraries load, and caches fill
MIN_RISE_BYTES = 2 * MIB  # of the process beyond the device's, from one look to the next; twice as much each time
MIN_HEAP_RISE_BYTES = MIB // 2  # the same of the heap, which is read exactly
MIN_STEPS_BETWEEN = 6
MAX_LOOKS = 8  # each takes a quarter of a second, with libraries
MIN_CONTAINER_BYTES = 256 * 1024  # that a container must get from one look to the next
MIN_MEMBER_BYTES = 1024
MAX_MEMBERS = 20_000
NUM_RISES = 2  # looks, one after another, at which it has got more

MIN_MEMBERS = 3
BYTES_OF_NUMBER = 32  # of Python's: 24 to 28, and a list's reference to it
MIXED_MEMBERS = 8  # first ones of which one that is no number shows that they are not all numbers
MAX_DEPTH = 3  # nesting of what one member holds: a record of rows of numbers takes three


class ContainerWatch:
    """Looks at the containers of a process that grows, and writes which one piles up."""

    def __init__(self, write: Callable[[Record], None]) -> None:
        self._write = write
        self._heap = HeapInUse()
        self._beside_bytes: tuple[int, int] | None = None  # resident memory and the heap less the device's, then
        self._looked_at = 0  # step
        self._num_looks = 0
        self._sizes: dict[int, list[tuple[int, int]]] = {}  # step and bytes at each look, by container
        self._found: dict[int, Holder] = {}

    def end_step(self, step: int, host_rss_bytes: int, allocated_bytes: int) -> None:
        """Take note of resident memory and of the device's after a step."""
        if step < FIRST_STEP or self._num_looks >= MAX_LOOKS:
            return
        beside = host_rss_bytes - allocated_bytes, self._heap.num_bytes() - allocated_bytes
        before = self._beside_bytes = self._beside_bytes or beside
        times = max(1, 2 ** (self._num_looks - 3))
        rises = beside[0] - before[0] >= times * MIN_RISE_BYTES or beside[1] - before[1] >= times * MIN_HEAP_RISE_BYTES
        if rises and step - self._looked_at >= MIN_STEPS_BETWEEN:
            self._beside_bytes = beside
            self._look(step)

    def _look(self, step: int) -> None:
        """Keep what containers hold, of those that hold more than at the look before."""
        self._looked_at, self._num_looks = step, self._num_looks + 1
        sizes: dict[int, list[tuple[int, int]]] = {}
        containers = live_containers()
        for container in containers:
            num_bytes = _bytes_in(container)
            before = self._sizes.get(id(container), [])
            if num_bytes >= MIN_CONTAINER_BYTES and self._grows(before, num_bytes):
                sizes[id(container)] = [*before, (step, num_bytes)]
                if len(sizes[id(container)]) > NUM_RISES and id(container) not in self._found:
                    self._find(container, containers)
        self._sizes = sizes

    def _grows(self, before: list[tuple[int, int]], num_bytes: int) -> bool:
        return not before or num_bytes - before[-1][1] >= MIN_CONTAINER_BYTES

    def _find(self, container: Any, containers: list[Any]) -> None:
        holder = find_holder(container, [self._sizes, containers])
        if holder is not None and holder.is_users:
            self._found[id(container)] = holder

    def end_run(self) -> None:
        """Write what has piled up until the last look."""
        growing = [(seen, self._found[key]) for key, seen in self._sizes.items() if key in self._found]
        for seen, holder in sorted(growing, key=lambda found: -found[0][-1][1])[:1]:
            (first_step, first), (last_step, last) = seen[0], seen[-1]
            per_step = (last - first) // max(1, last_step - first_step)
            record = SurvivorRecord(last_step, Phase.STEP, "", str(holder), per_step, 0, unit=HOST_CONTAINER)
            self._write(record)


def _bytes_in(container: Any) -> int:
    """Return the bytes of what a container holds; a module's variables and an object's attributes are none."""
    is_dict = isinstance(container, DICTS)
    if len(container) < MIN_MEMBERS or isinstance(container, set) or (is_dict and "__name__" in container):
        return 0
    members: Any = container.values() if is_dict else container
    if not _host_bytes(next(reversed(members))):  # of hundreds of thousands of containers, nearly all
        return 0
    with suppress(RuntimeError):  # another thread may change it meanwhile
        return sum(_host_bytes(member) for member in islice(members, MAX_MEMBERS))
    return 0


def _host_bytes(member: Any, depth: int = MAX_DEPTH) -> int:
    kind = type(member)
    if kind is np.ndarray:
        return int(member.nbytes) if member.nbytes >= MIN_MEMBER_BYTES else 0
    if kind in (bytes, bytearray, str):
        return len(member) if len(member) >= MIN_MEMBER_BYTES else 0
    if kind is float:
        return BYTES_OF_NUMBER if depth < MAX_DEPTH else 0  # numbers alone pile up slowly
    if kind in (tuple, list) and member and all(type(item) in (float, int) for item in member[:MIXED_MEMBERS]):
        return BYTES_OF_NUMBER * len(member)
    if depth and kind in (tuple, list, dict):
        members = member.values() if kind is dict else member
        return sum(_host_bytes(item, depth - 1) for item in islice(members, MAX_MEMBERS))
    if depth and is_users(kind.__module__) and hasattr(member, "__dict__"):
        return sum(_host_bytes(item, depth - 1) for item in list(vars(member).values()))
    return 0
