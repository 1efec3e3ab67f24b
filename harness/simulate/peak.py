"""What lived on a simulated card when most was needed, by kind and by line of code."""

from __future__ import annotations

import linecache
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from memory_harness.harness.log.allocator_sizes import block_size
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.peaks import PeakSum, kind_in, kind_of
from memory_harness.harness.log.records import REQUEST, ROUNDING, PeakPart, PeakRecord, Phase
from memory_harness.harness.log.source_lines import SourceLine, is_harness, is_library
from memory_harness.harness.simulate.memoized import MemoizedMemory, ReplayedChain
from memory_harness.harness.simulate.memory import SimulatedMemory
from memory_harness.harness.simulate.trace import pass_on
from memory_harness.harness.simulate.tracer import Place, Site, frames_and_layer, source_lines

_NUMBERS = re.compile(r"(?<=\.)\d+(?=\.|$)")
"""those of layers in the names of parameters"""


class _Made(NamedTuple):
    """One allocation."""

    num_bytes: int
    site: Site
    label: str


_Storage = tuple[Hashable, _Made]


class PeakWatch:
    """An event sink that hands everything on to a simulated card's memory, and remembers what lived at its peak.

    It costs the same for each event, however many there are: beside what lives it keeps only what has begun and what
    has ended since the peak, and forgets both at the next one.
    """

    def __init__(self, memory: SimulatedMemory, label: str) -> None:
        self.memory = memory
        self.label = label
        """category of what is made from now on and gets no name"""
        self._live = {key: _Made(num_bytes, (), label) for key, num_bytes in memory.live()}
        self._peak_bytes = memory.allocator.allocated_bytes
        self._begun: set[Hashable] = set()
        self._ended: list[_Storage] = []
        self._at_failure: list[_Storage] = []
        self._failure_bytes = 0

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate. Raises `DeviceOutOfMemory` where it does not fit."""
        made = _Made(num_bytes, site, self.label)
        try:
            self.memory.alloc(key, num_bytes, site)
        except DeviceOutOfMemory:
            request = ((REQUEST,), made._replace(label=REQUEST))
            self._at_failure = [*self._live.items(), request]
            self._failure_bytes = self.memory.allocator.allocated_bytes + num_bytes
            raise
        self._live[key] = made
        if self.memory.allocator.allocated_bytes > self._peak_bytes:
            self._peak_bytes = self.memory.allocator.allocated_bytes
            self._begun.clear()
            self._ended.clear()
        else:
            self._begun.add(key)

    def free(self, key: Hashable) -> None:
        """Free."""
        made = self._live.pop(key, None)
        self.memory.free(key)
        if key in self._begun:
            self._begun.remove(key)
        elif made is not None:
            self._ended.append((key, made))

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Allocate unless `key` exists."""
        if key not in self._live:
            self.alloc(key, num_bytes, site)

    def empty_cache(self) -> None:
        """Return wholly free segments."""
        self.memory.empty_cache()

    def switch(self, place: Place) -> None:
        """Take where what follows begins."""
        self.memory.switch(place)

    def rename(self, key: Hashable, name: Hashable) -> None:
        """Let a storage be known as `name`."""
        if key not in self._live:  # it lies on another card
            return
        self.memory.handles[name] = self.memory.handles.pop(key)
        self._live[name] = self._live.pop(key)
        if key in self._begun:
            self._begun.remove(key)
            self._begun.add(name)

    def begin_phase(self) -> None:
        """Forget the peak so far: from now on the highest is looked for anew."""
        self._peak_bytes = self.memory.allocator.allocated_bytes
        self._begun.clear()
        self._ended.clear()

    def parts(self, *, of_failure: bool) -> list[PeakPart]:
        """Return what lived at the peak, or when an allocation failed last, together with that one."""
        return _parts(*self._at(of_failure=of_failure))

    def record(self, phase: Phase, step: int, kind_of_size: Mapping[int, str]) -> PeakRecord:
        """Return the same in sums; `kind_of_size` (bytes -> kind) knows some of what has no name."""
        storages, total_bytes = self._at(of_failure=bool(self._at_failure))
        return _record(phase, step, storages, (total_bytes, self.memory.stats().peak_reserved_bytes), kind_of_size)

    def _at(self, *, of_failure: bool) -> tuple[list[_Storage], int]:
        """Return what lived at the peak, or at the failure, and how much that was."""
        if of_failure:
            return self._at_failure, self._failure_bytes
        lasting = [(key, made) for key, made in self._live.items() if key not in self._begun]
        return [*lasting, *self._ended], self._peak_bytes


def replayed_parts(memoized: MemoizedMemory, *, of_failure: bool) -> list[PeakPart]:
    """Return the same of a memory on which phases were replayed, by running those of the peak once more."""
    chain = memoized.recent[-1] if of_failure else memoized.peak_chain
    watch = PeakWatch(memoized.memory_at(chain.start), "activation")
    with suppress(DeviceOutOfMemory):  # it is what is asked for, or comes after the peak
        for phase in chain.phases:
            pass_on(phase, watch)
    return watch.parts(of_failure=of_failure)


def replayed_peak(
    memoized: MemoizedMemory, chain: ReplayedChain, phase: Phase, step: int, kind_of_size: Mapping[int, str]
) -> PeakRecord:
    """Return what lived at the peak of the last of a chain's phases, by running them once more."""
    watch = PeakWatch(memoized.memory_at(chain.start), "activation")
    with suppress(DeviceOutOfMemory):  # the record is about that moment then
        for events in chain.phases:
            watch.begin_phase()
            watch.memory.reset_peaks()
            pass_on(events, watch)
    return watch.record(phase, step, kind_of_size)


def _record(
    phase: Phase,
    step: int,
    storages: Iterable[_Storage],
    totals: tuple[int, int],
    kind_of_size: Mapping[int, str],
) -> PeakRecord:
    """Return storages in sums; `totals` are allocated and reserved bytes."""
    found = PeakSum()
    for key, made in storages:
        if made.label == REQUEST:
            found.add(REQUEST, made.num_bytes, frames=source_lines(made.site))
        elif isinstance(key, tuple):
            name = _name_of(key)
            found.add(kind_of(str(key[0]), name), block_size(made.num_bytes), name=name)
        else:
            kind = kind_of_size.get(made.num_bytes, kind_in(phase))
            _, layer = frames_and_layer(made.site)
            found.add(kind, block_size(made.num_bytes), frames=source_lines(made.site), layer=layer)
    return found.record(phase, step, *totals)


def _name_of(key: tuple[Hashable, ...]) -> str:
    category, *names = map(str, key)
    return ".".join(["layers", *names] if category == "kv_cache" else names)


def _parts(storages: Iterable[_Storage], total_bytes: int) -> list[PeakPart]:
    """Return the storages by what made them, the most bytes first, with what makes them the total."""
    sizes: Counter[tuple[str, str, str, str]] = Counter()
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for key, made in storages:
        place = _place(key, made)
        sizes[place] += block_size(made.num_bytes) if made.label != REQUEST else made.num_bytes
        counts[place] += 1
    rest = total_bytes - sizes.total()
    if rest:
        sizes[ROUNDING, "", "", ""] = rest
    return [PeakPart(*place, num_bytes, counts[place]) for place, num_bytes in sizes.most_common()]


def _place(key: Hashable, made: _Made) -> tuple[str, str, str, str]:
    """Return the category, site, code and caller of a `PeakPart`."""
    if isinstance(key, tuple) and made.label != REQUEST:
        category, *names = key
        return str(category), _NUMBERS.sub("*", ".".join(map(str, names))), "", ""
    lines = source_lines(made.site)
    if not lines:
        return made.label, "", "", ""
    index = _innermost(lines)
    line = lines[index]
    caller = _caller(lines[index:])
    code = linecache.getline(line.path, line.line).strip()
    return made.label, str(line), code, "" if caller is None or caller.path == line.path else str(caller)


def _innermost(lines: Sequence[SourceLine]) -> int:
    """Return the position of the innermost line that is not the harness's, 0 where all are."""
    for index, line in enumerate(lines):
        if not is_harness(line.path):
            return index
    return 0


def _caller(lines: Sequence[SourceLine]) -> SourceLine | None:
    """Return the innermost line of a model or of a user."""
    for line in lines:
        of_model = "/transformers/models/" in line.path.replace("\\", "/")
        if of_model or not (is_library(line.path) or is_harness(line.path)):
            return line
    return None
