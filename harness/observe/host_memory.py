"""Resident memory that climbs from step to step: which line allocates it, and which container keeps it.

Python's own allocations, NumPy's included, are traced for a few steps once the process grows and the device does not;
what allocates elsewhere, in C, is not seen. Tracing makes these steps two to four times slower, once a run.
"""

from __future__ import annotations

import tracemalloc
import weakref
from collections import Counter, deque
from collections.abc import Callable, Collection
from itertools import islice, pairwise
from sys import getsizeof
from typing import Any

from memory_harness.harness.log.records import HOST_STEPS, Phase, Record, SurvivorRecord
from memory_harness.harness.log.source_lines import SourceLine, is_library, source_line
from memory_harness.harness.observe.containers import CONTAINERS, DICTS, live_containers
from memory_harness.harness.observe.holders import first_users_holder

MIB = 1024 * 1024
WINDOW = 8  # steps that the process must have grown over before it is looked at
MIN_STEP_BYTES = 3 * MIB // 4  # least growth a step; the C library's arenas and Python's own grow a little
TRACED_STEPS = 6
TRACED_FRAMES = 12  # from the allocation outwards, to reach the user's line
TRACED_SHARE = 0.5  # share of the growth, of the least too, that the lines must account for before one is named
MIN_MEMBERS = WINDOW - 2  # of a container that grows with every step, by the time that it is looked at
MAX_CONTAINERS_ASKED = 3
SIZED_DEPTH, SIZED_MEMBERS = 2, 1000  # nesting and members looked at for the size of what a container has got


class HostWatch:
    """Notices that the process grows, and writes which line and which container it is."""

    def __init__(self, write: Callable[[Record], None]) -> None:
        self._write = write
        self._window: deque[tuple[int, int]] = deque(maxlen=WINDOW)  # resident and allocated bytes after each step
        self._lengths: dict[int, int] = {}  # of containers when the tracing began, by id
        self._began_at: int | None = None  # step
        self._begin_bytes = 0  # resident after the first step that was traced
        self._end_tracing: weakref.finalize[[], HostWatch] | None = None  # also when this is dropped without a stop
        self._is_over = False

    def end_step(self, step: int, host_rss_bytes: int, allocated_bytes: int) -> None:
        """Take note of resident memory and of the device's after a step."""
        if self._is_over:
            return
        self._window.append((host_rss_bytes, allocated_bytes))
        if self._began_at is None:
            if self._climbs() and not tracemalloc.is_tracing():
                self._began_at = step
                self._lengths = {id(found): len(found) for found in _containers()}
                tracemalloc.start(TRACED_FRAMES)
                self._end_tracing = weakref.finalize(self, tracemalloc.stop)
        elif step - self._began_at == 1:
            self._begin_bytes = host_rss_bytes  # from here on: what looking took is no growth
        elif step - self._began_at >= TRACED_STEPS:
            self._report(step, host_rss_bytes)

    def stop(self) -> None:
        """End the tracing: the run is over."""
        if self._end_tracing is not None:
            self._end_tracing()
        self._is_over = True

    def _climbs(self) -> bool:
        """Return whether resident memory rose with nearly every step, and the device's by less than half as much."""
        if len(self._window) < WINDOW:
            return False
        (first, first_allocated), (last, last_allocated) = self._window[0], self._window[-1]
        num_rises = sum(after > before for (before, _), (after, _) in pairwise(self._window))
        is_steady = last - first >= MIN_STEP_BYTES * WINDOW and num_rises >= WINDOW - 2
        return is_steady and 2 * (last_allocated - first_allocated) < last - first

    def _report(self, step: int, host_rss_bytes: int) -> None:
        snapshot = tracemalloc.take_snapshot()
        grown_bytes = host_rss_bytes - self._begin_bytes - tracemalloc.get_tracemalloc_memory()
        self.stop()
        num_steps = step - (self._began_at or 0)
        found: Counter[SourceLine] = Counter()
        for trace in snapshot.traces:
            line = _users_line(trace.traceback)
            if line is not None:
                found[line] += trace.size
        del snapshot
        if found.total() < TRACED_SHARE * max(grown_bytes, MIN_STEP_BYTES * num_steps):
            return
        site, num_bytes = found.most_common(1)[0]
        grown = _grown_containers(self._lengths, num_steps)
        holder = first_users_holder(grown[:MAX_CONTAINERS_ASKED], [grown])
        holder = holder and holder.of_what_was_made(site)
        self._write(
            SurvivorRecord(
                step=step,
                phase=Phase.STEP,
                site=str(site).strip(),
                holder=str(holder or ""),
                bytes_per_step=num_bytes // num_steps,
                num_tensors=0,
                made_by=source_line(site.path, site.line),
                kept_by="" if holder is None else holder.source,
                unit=HOST_STEPS,
            )
        )


def _users_line(frames: tracemalloc.Traceback) -> SourceLine | None:
    """Return the innermost frame of a trace that is the user's; they come outermost first."""
    for frame in reversed(frames):
        if not is_library(frame.filename):
            return SourceLine(frame.filename, frame.lineno, "")
    return None


def _containers() -> list[Any]:
    """Return the larger containers that may grow without end."""
    return [container for container in live_containers() if len(container) >= MIN_MEMBERS]


def _grown_containers(lengths: dict[int, int], num_steps: int) -> list[Any]:
    """Return the containers that have got a member with every step at least, those that got the most bytes first."""
    grown: list[Any] = []
    for found in _containers():
        if len(found) - lengths.get(id(found), len(found)) >= num_steps - 1:
            grown.append(found)
    grown.sort(key=lambda found: -_size_of_last(found, len(found) - lengths[id(found)]))
    return grown


def _size_of_last(container: Any, number: int) -> int:
    """Return about how many bytes the last members of a container take."""
    members = container.values() if isinstance(container, DICTS) else container
    added = islice(members, len(members) - number, None)
    return sum(_size(member, SIZED_DEPTH) for member in islice(added, SIZED_MEMBERS))


def _size(value: Any, depth: int) -> int:
    size = getsizeof(value)
    if depth and isinstance(value, Collection) and isinstance(value, (*CONTAINERS, tuple)):
        members = value.values() if isinstance(value, dict) else value
        size += sum(_size(member, depth - 1) for member in islice(members, SIZED_MEMBERS))
    return size
