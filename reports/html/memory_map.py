"""The segments that were reserved at the worst moment: what of them was in use, and what lay free in which pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.allocator_sizes import segment_size
from memory_harness.harness.log.records import SegmentRuns
from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports.html.drawing import figure, label, legend, rect, svg
from memory_harness.reports.html.markup import Child, Node
from memory_harness.reports.summary import source_in_words
from memory_harness.reports.text import plural

ROW_PX, GAP_PX, HEAD_PX = 15, 4, 18
TARGET_ROWS = 26
LEAST_SHOWN = 1 / 2000  # share of a row below which a run is drawn together with its neighbour


class Piece(NamedTuple):
    """Consecutive bytes that are drawn alike; `begin` counts from the first byte of the map."""

    css: str
    begin: int
    num_bytes: int
    words: str


class Moment(NamedTuple):
    """The moment that is drawn."""

    segments: tuple[SegmentRuns, ...]
    budget_bytes: int
    requested_bytes: int = 0  # the request that failed; 0 where none did

    @property
    def reserved_bytes(self) -> int:
        """All segments together."""
        return sum(sum(segment.runs) for segment in self.segments)

    @property
    def free_pieces(self) -> list[int]:
        """The free pieces' bytes, largest first."""
        return sorted(chain.from_iterable(segment.runs[1::2] for segment in self.segments), reverse=True)


def memory_map_figure(log: RunLog, name: str) -> Iterator[Node]:
    """Yield the map of a run's worst moment; nothing where the log does not have it."""
    moment = moment_of(log)
    if not moment.segments:
        return
    entries = [("allocated", "in use"), ("free", "reserved, but free"), ("budget-left", "not reserved")]
    if moment.requested_bytes:
        entries.append(("request", "the request that failed"))
    when = "when memory ran out" if moment.requested_bytes else "when most was allocated"
    heading = f"{name.capitalize()}, {when}"
    yield figure(heading, _explanation(moment), source_in_words(log), legend(entries), _draw(moment, heading))


def moment_of(log: RunLog) -> Moment:
    """Return the failure, else the highest moment; without segments where the log does not have them."""
    oom = log.fatal_oom
    if oom is not None:
        return Moment(oom.segments, oom.budget_bytes, oom.requested_bytes)
    return Moment(log.end.segments if log.end else (), log.run.budget_bytes)


def row_bytes(total_bytes: int) -> int:
    """Return the bytes of a row: a power of two, such that the map has about `TARGET_ROWS` rows."""
    return max(MIB, 1 << max(0, round(math.log2(max(1, total_bytes) / TARGET_ROWS))))


def pieces(moment: Moment) -> list[Piece]:
    """Return what is drawn, in order: the large segments, the small ones, what is left of the budget."""
    found: list[Piece] = []
    at = 0
    for pool in ("large", "small"):
        of_pool = [segment for segment in moment.segments if segment.pool == pool]
        for number, segment in enumerate(of_pool, 1):
            name = f"{pool} segment {number} of {len(of_pool)}, {format_bytes(sum(segment.runs))}"
            for i, size in enumerate(segment.runs):
                css, state = ("free", "free") if i % 2 else ("allocated", "in use")
                if size:
                    found.append(Piece(css, at, size, f"{name}: {format_bytes(size)} {state}"))
                at += size
    left = moment.budget_bytes - at
    if left > 0:
        found.append(Piece("budget-left", at, left, f"{format_bytes(left)} of the budget not reserved"))
    return merged(found, row_bytes(at + max(0, left)))


def merged(found: Sequence[Piece], row: int) -> list[Piece]:
    """Return the pieces with those that are too small to be seen added to the one before."""
    shown: list[Piece] = []
    for piece in found:
        if shown and piece.num_bytes < row * LEAST_SHOWN:
            last = shown.pop()
            piece = Piece(last.css, last.begin, piece.begin + piece.num_bytes - last.begin, last.words)
        shown.append(piece)
    return shown


def _draw(moment: Moment, heading: str) -> Node:
    found, row = pieces(moment), row_bytes(max(moment.budget_bytes, moment.reserved_bytes))
    parts: list[Child] = [label(f"a row is {row // MIB} MiB", 0, 11, css="tick")]
    for piece in found:
        parts += _wrapped(piece, row, HEAD_PX)
    end = max((piece.begin + piece.num_bytes for piece in found), default=0)
    height = HEAD_PX + ROW_PX * math.ceil(end / row)
    if moment.requested_bytes:
        words = f"asked for: {format_bytes(moment.requested_bytes)} in one piece"
        parts.append(label(words, 0, height + HEAD_PX, css="request-words"))
        height += HEAD_PX + 8
        parts += _wrapped(Piece("request", 0, moment.requested_bytes, words), row, height)
        height += ROW_PX * math.ceil(moment.requested_bytes / row)
    return svg(heading, _description(moment), height, *parts, css="map")


def _wrapped(piece: Piece, row: int, top: float) -> Iterator[Node]:
    """Yield the rectangles of a piece, one for each row that it reaches into."""
    begin, end = piece.begin, piece.begin + piece.num_bytes
    while begin < end:
        number = begin // row
        stop = min(end, (number + 1) * row)
        left, right = begin / row - number, stop / row - number
        yield rect(f"{piece.css} cell", left, right, top + number * ROW_PX, ROW_PX - GAP_PX, piece.words)
        begin = stop


def _explanation(moment: Moment) -> str:
    free, segments = moment.free_pieces, moment.segments
    large = sum(segment.pool == "large" for segment in segments)
    counts = f"{plural(large, 'large segment')} and {len(segments) - large} small"
    reserved = f"{format_bytes(moment.reserved_bytes)} in {counts}"
    words = f"All that PyTorch's allocator had reserved, {reserved}, read like lines of text."
    if not free:
        return f"{words} Nothing of it was free."
    pieces_of_it = f"{plural(len(free), 'piece')}; the largest has {format_bytes(free[0])}"
    return f"{words} {format_bytes(sum(free))} of it was free, in {pieces_of_it}.{_why_not(moment, free)}"


def _why_not(moment: Moment, free: Sequence[int]) -> str:
    """Return why the request found no place, or nothing where none failed."""
    needed = moment.requested_bytes
    if sum(free) >= needed > free[0]:
        return " Together they would have held the request, but an allocation needs one piece: fragmentation."
    short = segment_size(needed) - max(0, moment.budget_bytes - moment.reserved_bytes)
    if not needed or short <= 0:
        return ""
    return f" No piece holds the request, and a new segment for it needs {format_bytes(short)} more than is left."


def _description(moment: Moment) -> str:
    free = sum(moment.free_pieces)
    return f"{format_bytes(moment.reserved_bytes)} is reserved, of which {format_bytes(free)} is free."
