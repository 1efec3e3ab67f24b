"""Recorded allocations of one phase, and what they become at another batch size and length.

The sequence of events of a phase does not depend on the length; each size does, in one of a few simple ways. So a phase
is recorded at two shapes, the sizes are fitted, a third shape checks the fit, and any other shape follows without
running the model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Protocol

from memory_harness.harness.simulate.attention import FLASH_BLOCK
from memory_harness.harness.simulate.tracer import EventSink, Place, Site

FREE, RENAME, ENSURE, EMPTY_CACHE, SWITCH = -1, -2, -3, -4, -5
"""in place of a size: the storage ends; it gets a lasting name; it begins unless it exists; the cache is emptied; what
follows begins in another place"""

Event = tuple[Hashable, int, object]
"""(key, size in bytes, site) or (key, FREE, None) or (key, RENAME, name) or (key, ENSURE, (size, site)) or (None,
SWITCH, place)"""

Shape = tuple[int, ...]
"""(batch size B, length L), and real tokens N where padding is cut out, or parts P of a packed sequence"""


class TraceRecorder:
    """An event sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Record an allocation."""
        self.events.append((key, num_bytes, site))

    def free(self, key: Hashable) -> None:
        """Record a free."""
        self.events.append((key, FREE, None))

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Record a lasting workspace."""
        self.events.append((key, ENSURE, (num_bytes, site)))

    def empty_cache(self) -> None:
        """Record that wholly free segments are returned."""
        self.events.append((None, EMPTY_CACHE, None))

    def switch(self, place: Place) -> None:
        """Record where what follows begins."""
        self.events.append((None, SWITCH, place))

    def rename(self, key: Hashable, name: Hashable) -> None:
        """Record that the storage is known as `name` from now on."""
        self.events.append((key, RENAME, name))


class NamingSink(EventSink, Protocol):
    """A sink whose storages get lasting names."""

    def rename(self, key: Hashable, name: Hashable) -> None:
        """Take that the storage is known as `name` from now on."""


def pass_on(events: Sequence[Event], sink: NamingSink) -> None:
    """Tell a sink of recorded events. Raises what it raises, such as `DeviceOutOfMemory`."""
    for key, size, extra in events:
        if size >= 0:
            sink.alloc(key, size, extra)  # type: ignore[arg-type]
        elif size == FREE:
            sink.free(key)
        elif size == RENAME:
            sink.rename(key, extra)
        elif size == ENSURE:
            sink.ensure(key, *extra)  # type: ignore[misc]
        elif size == EMPTY_CACHE:
            sink.empty_cache()
        elif size == SWITCH:
            sink.switch(extra)  # type: ignore[arg-type]


class Sinks:
    """An event sink that passes on what it is told to several, in their order."""

    def __init__(self, *sinks: EventSink) -> None:
        self._sinks = sinks

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Take that a storage begins."""
        for sink in self._sinks:
            sink.alloc(key, num_bytes, site)

    def free(self, key: Hashable) -> None:
        """Take that it ends."""
        for sink in self._sinks:
            sink.free(key)

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Take that a lasting one begins."""
        for sink in self._sinks:
            sink.ensure(key, num_bytes, site)

    def empty_cache(self) -> None:
        """Take that wholly free segments are returned."""
        for sink in self._sinks:
            sink.empty_cache()

    def switch(self, place: Place) -> None:
        """Take where what follows begins."""
        for sink in self._sinks:
            sink.switch(place)


class DiscardingSink:
    """An event sink for what the simulation does behind the program's back; emptying the cache still counts."""

    def __init__(self, empty_cache: Callable[[], None]) -> None:
        self.empty_cache = empty_cache

    def alloc(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Ignore."""

    def free(self, key: Hashable) -> None:
        """Ignore."""

    def ensure(self, key: Hashable, num_bytes: int, site: Site) -> None:
        """Ignore."""

    def switch(self, place: Place) -> None:
        """Ignore."""


class DerivedPhase(Sequence[Event]):
    """A phase's events at a shape that was not recorded.

    Tokens are decoded at hundreds of lengths: with a tuple for each event of each, the garbage collector would take as
    long as the model.

    Args:
        keys, extras: of each event, shared by all shapes.
        sizes: of each event at this shape.
    """

    def __init__(self, keys: Sequence[Hashable], sizes: Sequence[int], extras: Sequence[object]) -> None:
        self._columns = (keys, sizes, extras)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[Event]:
        return zip(*self._columns, strict=True)


def on_card(events: Sequence[Event], card: int) -> list[Event]:
    """Return what of a phase that drives several cards happens on one of them, as if there were no other.

    It begins on the first; of what lies elsewhere only the ends are left in, which mean nothing there.
    """
    here, found = 0, []
    for event in events:
        _, size, extra = event
        if size == SWITCH:
            here = extra.card  # type: ignore[attr-defined]
        elif here == card or size in (FREE, RENAME):
            found.append(event)
    return found


Chain = Sequence[Sequence[Event]]
"""events of phases that follow one another, with keys that are local to the chain or lasting names"""


def canonical(chain: Chain) -> Chain:
    """Return the chain with its local keys numbered from 0 in order of first use, to compare two recordings.

    Workspace events that repeat within the chain are left out.
    """
    numbers: dict[int, int] = {}
    ensured: set[Hashable] = set()
    renumbered: list[list[Event]] = []
    for phase in chain:
        renumbered.append([])
        for key, size, extra in phase:
            if isinstance(key, int):
                key = numbers.setdefault(key, len(numbers))
            if size != ENSURE or key not in ensured:
                renumbered[-1].append((key, size, extra))
            if size == ENSURE:
                ensured.add(key)
            elif size == SWITCH:
                ensured.clear()  # another card has its own
    return renumbered


class TraceFamily:
    """Chains of the same code at different shapes. `get` answers a recorded shape, or one that the fit covers."""

    NUM_SAMPLES = 3
    """two to fit the sizes, one to check them"""

    def __init__(self) -> None:
        self.recorded: dict[Shape, Chain] = {}
        self._sizes: list[SizeOf] | None = None
        self._derived: dict[Shape, Chain] = {}
        self._common: list[tuple[list[Hashable], list[object]]] = []

    def add(self, shape: Shape, chain: Chain) -> None:
        """Keep a recording; with enough of them, fit the sizes (or find that they cannot be fitted)."""
        self.recorded[shape] = canonical(chain)
        if len(self.recorded) >= self.NUM_SAMPLES:
            self._sizes = fit_sizes(self.recorded)
            self._derived.clear()
            self._common.clear()

    def get(self, shape: Shape) -> Chain | None:
        """Return the chain at a shape, or None when it has to be recorded."""
        if shape in self.recorded:
            return self.recorded[shape]
        if self._sizes is None or not self._covers(shape):
            return None
        if shape not in self._derived:
            self._derived[shape] = self._derive(shape, self._sizes)
        return self._derived[shape]

    def _covers(self, shape: Shape) -> bool:
        """Return whether the recordings tell how sizes depend on what is new in a shape: batch size, length or both."""
        aspects = zip(*map(_aspects, self.recorded), strict=True)
        for value, recorded_values in zip(_aspects(shape), aspects, strict=True):
            if value not in recorded_values and len(set(recorded_values)) == 1:
                return False
        return True

    def _derive(self, shape: Shape, rules: Sequence[SizeOf]) -> Chain:
        """Return the first recording with its sizes at another shape."""
        known = {rule: rule(shape) for rule in set(rules)}  # most allocations of a model share theirs with others
        sizes = map(known.__getitem__, rules)
        chain: list[DerivedPhase] = []
        for keys, extras in self._columns():
            chain.append(DerivedPhase(keys, list(itertools.islice(sizes, len(keys))), extras))
        return chain

    def _columns(self) -> list[tuple[list[Hashable], list[object]]]:
        """Return of each phase what derived ones have in common."""
        if not self._common:
            for phase in next(iter(self.recorded.values())):
                self._common.append(([key for key, _, _ in phase], [extra for _, _, extra in phase]))
        return self._common


def _aspects(shape: Shape) -> tuple[float, ...]:
    """Return what has to vary among recordings: the sizes, and the share of N or P, which tells these from B·L."""
    batch, length, *real = shape
    return (*shape, *(tokens / (batch * length) for tokens in real))


SizeOf = Callable[[Shape], int]


def fit_sizes(recorded: dict[Shape, Chain]) -> list[SizeOf] | None:
    """Return one function per event that gives its size at any shape, or None when the recordings do not agree.

    They must have the same events; each size must follow one of `MONOMIALS`, or grow linearly with B·L, at all shapes.
    """
    flat = [list(itertools.chain.from_iterable(recording)) for recording in recorded.values()]
    first = _without_sizes(flat[0])
    if any(_without_sizes(events) != first for events in flat[1:]):
        return None
    shapes = list(recorded)
    rules: dict[tuple[int, ...], SizeOf | None] = {}
    sizes: list[SizeOf] = []
    for events in zip(*flat, strict=True):
        found = tuple(size for _, size, _ in events)
        if found not in rules:
            rules[found] = fit_size(shapes, found)
        size_of = rules[found]
        if size_of is None:
            return None
        sizes.append(size_of)
    return sizes


def _without_sizes(events: Sequence[Event]) -> list[tuple[Hashable, int]]:
    return [(key, min(size, 0)) for key, size, _ in events]


def _rounded_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


LENGTHS: tuple[Callable[[int], int], ...] = (
    lambda length: 1,
    lambda length: length,
    lambda length: length + 1,
    lambda length: length * length,
    lambda length: _rounded_up(length, 32),
    lambda length: _rounded_up(length, 128),
    lambda length: length * _rounded_up(length, 8),
    lambda length: length * _rounded_up(length, 16),
)
"""how a size can depend on the length: not, per token, with one more (labels that are shifted), per pair of tokens, and
with a kernel's rounding"""


def _monomial(power: int, of_length: Callable[[int], int]) -> Callable[[Shape], int]:
    return lambda shape: shape[0] ** power * of_length(shape[1])


OF_REAL_TOKENS: tuple[Callable[[Shape], int], ...] = (
    lambda shape: shape[2],
    lambda shape: shape[2] + FLASH_BLOCK * shape[0],
    lambda shape: shape[0] + 1,
)
"""how a size can depend on real tokens: in proportion, with a kernel's margin; and the places where sequences begin"""

OF_PARTS: tuple[Callable[[Shape], int], ...] = (
    lambda shape: shape[1] + FLASH_BLOCK * shape[2],
    lambda shape: shape[2] + 1,
)
"""the same of the parts of a packed sequence: with a kernel's margin for each, and the places where they begin"""

MONOMIALS = (*(_monomial(1, of_length) for of_length in LENGTHS), *(_monomial(0, of_length) for of_length in LENGTHS))


def fit_size(shapes: Sequence[Shape], sizes: Sequence[int]) -> SizeOf | None:
    """Return the simplest rule that gives every size, or None."""
    if len(set(sizes)) == 1:
        constant = sizes[0]
        return lambda shape: constant
    for monomial in MONOMIALS if len(shapes[0]) == 2 else (*MONOMIALS, *OF_REAL_TOKENS, *OF_PARTS):
        factor = Fraction(sizes[0], monomial(shapes[0]))
        if all(factor * monomial(shape) == size for shape, size in zip(shapes, sizes, strict=True)):
            return _scaled(factor, monomial)
    return _fit_affine(shapes, sizes)


def _scaled(factor: Fraction, monomial: Callable[[Shape], int]) -> SizeOf:
    numerator, denominator = factor.as_integer_ratio()  # a fraction takes ten times as long to multiply
    return lambda shape: numerator * monomial(shape) // denominator


def _fit_affine(shapes: Sequence[Shape], sizes: Sequence[int]) -> SizeOf | None:
    tokens = [shape[0] * shape[1] for shape in shapes]
    if tokens[0] == tokens[1]:
        return None
    slope = Fraction(sizes[1] - sizes[0], tokens[1] - tokens[0])
    offset = sizes[0] - slope * tokens[0]
    if [offset + slope * count for count in tokens] != list(sizes):
        return None
    numerator, denominator = slope.as_integer_ratio()
    # both shares of the offset are of the slope's denominator
    constant = int(offset * denominator)
    return lambda shape: (constant + numerator * shape[0] * shape[1]) // denominator
