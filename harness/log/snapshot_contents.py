"""What a memory snapshot holds: what lived at its highest moment and who made it, what grew, what lies unused.

A snapshot may have millions of events: each pass over them is one plain loop, and what is grouped is what lived.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from memory_harness.configs.printable import inert
from memory_harness.harness.log.allocator_sizes import MIN_BLOCK_BYTES
from memory_harness.harness.log.peaks import BEFORE as MADE_BEFORE
from memory_harness.harness.log.peaks import PeakSum, kind_of
from memory_harness.harness.log.source_lines import SourceLine, users_line

MAX_SHOWN = 8
"""Lines, stacks and marks that are kept; the others are summed up."""
NUM_STRETCHES = 10
"""Equal stretches of events in which the lowest and the highest memory is looked for."""
BEFORE = "made before the recording began"
NO_LINE = "no line of Python"
"""The maker of what autograd's own threads allocate, and of what is recorded without stacks."""
MADE_ELSEWHERE = "made elsewhere"
OTHER = "other"

Event = dict[str, Any]
Level = tuple[int, int]
"""Allocated bytes after an event, and the event's index."""


class Held(NamedTuple):
    """Memory of one maker: a line of code, a stack or a part of the run."""

    maker: str
    num_bytes: int
    num_blocks: int
    frames: tuple[SourceLine, ...] = ()
    """of a stack, innermost first, those of PyTorch left out"""


class Stretch(NamedTuple):
    """The lowest and the highest allocated memory in some consecutive events."""

    lowest: Level
    highest: Level


class Mark(NamedTuple):
    """An annotation of the user's: how often it was set, and what was allocated the first and the last time."""

    name: str
    times: int
    first_bytes: int
    last_bytes: int


@dataclass(frozen=True)
class Contents:
    """What a snapshot holds."""

    peak_allocated_bytes: int
    by_part: tuple[Held, ...]
    """what lived at the peak, by the part of the run that made it"""
    by_line: tuple[Held, ...]
    by_stack: tuple[Held, ...]
    course: tuple[Stretch, ...]
    growth_bytes: int
    """from the lowest moment after the first stretch to that of the last one"""
    grown: tuple[Held, ...]
    """by line of code, what there is more of at the second of these moments"""
    marks: tuple[Mark, ...]
    reserved_bytes: int
    unused_bytes: int
    num_free_pieces: int
    largest_free_block_bytes: int
    peak: PeakSum
    """what lived at the peak, by kind, layer and calls"""


def contents_of(
    events: Sequence[Event],
    segments: Sequence[dict[str, Any]],
    before_bytes: int,
    part_of: Callable[[Event], str | None],
    annotations: Sequence[dict[str, Any]] = (),
) -> Contents:
    """Return what a device's events and segments hold.

    Args:
        events: of one device, in order.
        segments: of the device, as they were after the last event.
        before_bytes: allocated before the first event.
        part_of: the part of the run that an event says it belongs to.
        annotations: `external_annotations` of the device.
    """
    course = _course(events, before_bytes)
    peak = max((stretch.highest for stretch in course), default=(before_bytes, -1))
    floors = [stretch.lowest for stretch in course[1:]]
    moments = {peak[1], *(index for _, index in floors[:1] + floors[-1:])}
    live = _live_at(events, moments)
    blocks = list(chain.from_iterable(map(itemgetter("blocks"), segments)))
    held = _pieces(live[peak[1]])
    held += _from_before(events, peak[1], blocks) if events else _pieces(_active(blocks))
    free = [block["size"] for block in blocks if block["state"] == "inactive"]
    has_floors = len(floors) > 1
    return Contents(
        peak_allocated_bytes=max(peak[0], 0),
        by_part=_grouped(held, lambda event: part_of(event) or OTHER),
        by_line=_grouped(held, maker_of),
        by_stack=_stacks(held),
        course=tuple(course),
        growth_bytes=floors[-1][0] - floors[0][0] if has_floors else 0,
        grown=more_of(_pieces(live[floors[0][1]]), _pieces(live[floors[-1][1]])) if has_floors else (),
        marks=_marks(events, before_bytes, annotations),
        reserved_bytes=sum(map(itemgetter("total_size"), segments)),
        unused_bytes=sum(free),
        num_free_pieces=len(free),
        largest_free_block_bytes=max(free, default=0),
        peak=_sum_of(held, part_of),
    )


def _sum_of(held: Sequence[tuple[Event, int]], part_of: Callable[[Event], str | None]) -> PeakSum:
    """Return the sums of what lived at the peak; what no simulated run names is told by the part that made it."""
    found = PeakSum()
    for event, num_bytes in held:
        frames = event.get("frames", ())
        if _has_name(frames):
            category, name = str(frames[0]["filename"]), inert(str(frames[0]["name"]))
            found.add(kind_of(category, name), num_bytes, name=name)
        else:
            part = part_of(event)
            elsewhere = MADE_ELSEWHERE if "action" in event else MADE_BEFORE
            found.add(f"made in {part}" if part else elsewhere, num_bytes, frames=source_lines(frames))
    return found


def _has_name(frames: Sequence[Event]) -> bool:
    """Return whether a simulated run names the tensor in the first of its frames."""
    return bool(frames) and frames[0]["line"] == 0 and frames[0]["filename"].isidentifier()


def live_blocks(segments: Iterable[dict[str, Any]]) -> list[tuple[Event, int]]:
    """Return what is in use at the end, each block with its bytes."""
    return _pieces(_active(chain.from_iterable(map(itemgetter("blocks"), segments))))


def _active(blocks: Iterable[Event]) -> list[Event]:
    return [block for block in blocks if block["state"] != "inactive"]


def rounded(num_bytes: int) -> int:
    """Return the bytes of the block that a request takes."""
    return -(-num_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES


def _pieces(events: Iterable[Event]) -> list[tuple[Event, int]]:
    return [(event, rounded(event["size"])) for event in events]


def _course(events: Sequence[Event], before_bytes: int) -> list[Stretch]:
    """Return the lowest and highest allocated memory of equal stretches."""
    length = max(1, -(-len(events) // NUM_STRETCHES))
    course = []
    level = before_bytes
    for begin in range(0, len(events), length):
        lowest = highest = (level, begin - 1)
        for index in range(begin, min(begin + length, len(events))):
            event = events[index]
            action = event["action"]
            if action == "alloc":
                level += -(-event["size"] // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES
                if level > highest[0]:
                    highest = (level, index)
            elif action == "free_completed":
                level -= -(-event["size"] // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES
                if level < lowest[0]:
                    lowest = (level, index)
        course.append(Stretch(lowest, highest))
    return course


def _live_at(events: Sequence[Event], moments: set[int]) -> dict[int, list[Event]]:
    """Return the allocations that live after each of some events; -1 is before the first."""
    live: dict[int, Event] = {}
    found: dict[int, list[Event]] = {}
    begin = 0
    for moment in sorted(moments):
        for index in range(begin, moment + 1):
            event = events[index]
            action = event["action"]
            if action == "alloc":
                live[event["addr"]] = event
            elif action == "free_completed":
                live.pop(event["addr"], None)
        begin = max(begin, moment + 1)
        found[moment] = list(live.values())
    return found


def _from_before(events: Sequence[Event], moment: int, blocks: Iterable[Event]) -> list[tuple[Event, int]]:
    """Return what was allocated before the first event and still lived after that of `moment`."""
    seen = set()
    for index in range(moment + 1):
        event = events[index]
        if event["action"] in ("alloc", "free_completed"):
            seen.add(event["addr"])
    found: list[tuple[Event, int]] = []
    for index in range(moment + 1, len(events)):
        event = events[index]
        action = event["action"]
        if action in ("alloc", "free_completed") and event["addr"] not in seen:
            seen.add(event["addr"])
            if action == "free_completed":  # freed later, by a stack that did not make it
                found.append(({}, rounded(event["size"])))
    for block in _active(blocks):
        if block.get("address") not in seen:
            found.append((block, block["size"]))
    return found


def _grouped(held: Sequence[tuple[Event, int]], key: Callable[[Event], str]) -> tuple[Held, ...]:
    """Return the largest groups, and the rest as one."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event, num_bytes in held:
        maker = key(event)
        sizes[maker] += num_bytes
        counts[maker] += 1
    shown = [Held(maker, size, counts[maker]) for maker, size in sizes.most_common(MAX_SHOWN)]
    return _with_rest(shown, sizes.total(), counts.total())


def _with_rest(shown: list[Held], num_bytes: int, num_blocks: int) -> tuple[Held, ...]:
    rest = num_bytes - sum(held.num_bytes for held in shown)
    if rest > 0:
        shown.append(Held(OTHER, rest, num_blocks - sum(held.num_blocks for held in shown)))
    return tuple(shown)


def _stacks(held: Sequence[tuple[Event, int]]) -> tuple[Held, ...]:
    """Return the stacks that made most; the same frames may be one object in many events, or many that are equal."""
    of_objects: dict[tuple[object, ...], list[int]] = {}
    events: dict[tuple[object, ...], Event] = {}
    for event, num_bytes in held:
        key = (_without_line(event), *map(id, event.get("frames", ())))
        events[key] = event
        of_objects.setdefault(key, []).append(num_bytes)
    sizes: Counter[tuple[str, tuple[SourceLine, ...]]] = Counter()
    counts: Counter[tuple[str, tuple[SourceLine, ...]]] = Counter()
    for key, found in of_objects.items():
        event = events[key]
        stack = (_without_line(event), tuple(source_lines(event.get("frames", ()))))
        sizes[stack] += sum(found)
        counts[stack] += len(found)
    shown = []
    for stack, size in sizes.most_common(MAX_SHOWN):
        without, lines = stack
        place = users_line(lines)
        shown.append(Held(str(place) if place else without, size, counts[stack], lines))
    return _with_rest(shown, sizes.total(), counts.total())


def more_of(before: Sequence[tuple[Event, int]], after: Sequence[tuple[Event, int]]) -> tuple[Held, ...]:
    """Return by line of code what there is more of after than before, the most first."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for pieces, sign in ((before, -1), (after, 1)):
        for event, num_bytes in pieces:
            maker = maker_of(event)
            sizes[maker] += sign * num_bytes
            counts[maker] += sign
    return tuple(Held(maker, size, counts[maker]) for maker, size in sizes.most_common(MAX_SHOWN) if size > 0)


def maker_of(event: Event) -> str:
    """Return the user's line that made memory, or the kind of tensor where a simulated run names it."""
    frames = event.get("frames", ())
    if _has_name(frames):
        return str(frames[0]["filename"])
    place = users_line(source_lines(frames))
    return str(place) if place else _without_line(event)


def _without_line(event: Event) -> str:
    """Return what stands for the line of code where none is known; a block has no action, and no stack from before."""
    return NO_LINE if "action" in event or event.get("frames") else BEFORE


def source_lines(frames: Sequence[Event]) -> list[SourceLine]:
    """Return the Python frames outside PyTorch, innermost first, with nothing that a terminal would obey."""
    lines = map(SourceLine._make, map(itemgetter("filename", "line", "name"), frames))
    own = [line for line in lines if line.path.endswith(".py") and "/site-packages/torch/" not in line.path]
    return [SourceLine(inert(line.path), int(line.line), inert(line.function)) for line in own]


def _marks(events: Sequence[Event], before_bytes: int, annotations: Sequence[dict[str, Any]]) -> tuple[Mark, ...]:
    """Return the user's annotations with what was allocated when each was set the first and the last time."""
    starts = []
    for annotation in annotations:
        if annotation.get("stage", "START") == "START":
            starts.append((int(annotation.get("time_us", 0)), inert(annotation.get("name", ""))))
    if not starts or not events or "time_us" not in events[0]:
        return ()
    starts.sort()
    times = [event.get("time_us", 0) for event in events]
    wanted = {bisect_right(times, time_us) - 1: None for time_us, _ in starts}
    levels = _levels_at(events, before_bytes, sorted(wanted))
    found: dict[str, Mark] = {}
    for time_us, name in starts:
        level = levels[bisect_right(times, time_us) - 1]
        earlier = found.get(name, Mark(name, 0, level, level))
        found[name] = Mark(name, earlier.times + 1, earlier.first_bytes, level)
    ordered = sorted(found.values(), key=lambda mark: mark.first_bytes - mark.last_bytes)
    return tuple(ordered[:MAX_SHOWN])


def _levels_at(events: Sequence[Event], level: int, indices: Sequence[int]) -> dict[int, int]:
    """Return what is allocated after each of some events."""
    found, begin = {}, 0
    for wanted in indices:
        for event in events[begin : wanted + 1]:
            if event["action"] == "alloc":
                level += rounded(event["size"])
            elif event["action"] == "free_completed":
                level -= rounded(event["size"])
        begin = max(begin, wanted + 1)
        found[wanted] = level
    return found
