"""The segments that were reserved when memory ran out: what of them was in use, and what lay free in which pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.units import GIB, MIB, format_bytes
from harness.records import OomRecord, SegmentRuns
from harness.runlog import RunLog
from harness.simulate.blocks import segment_size
from reports.html.drawing import figure, label, legend, rect, svg
from reports.html.markup import Child, Node
from reports.summary import source_in_words
from reports.text import plural

ROW_PX, GAP_PX, HEAD_PX = 15, 4, 18
TARGET_ROWS = 26
LEAST_SHOWN = 1 / 2000
"""Share of a row below which a run is drawn together with its neighbour."""


@dataclass(frozen=True)
class Piece:
    """Consecutive bytes that are drawn alike; `begin` counts from the first byte of the map."""

    css: str
    begin: int
    num_bytes: int
    words: str


def memory_map_figure(log: RunLog) -> Node | None:
    """Return the map of what was reserved at the failure, or None where the log does not have it."""
    oom = log.fatal_oom
    if oom is None or not oom.segments:
        return None
    heading = "What lay where when memory ran out"
    entries = [
        ("allocated", "in use"),
        ("free", "reserved, but free"),
        ("budget-left", "not reserved"),
        ("request", "the request that failed"),
    ]
    rows = _draw(oom, heading)
    return figure(heading, _explanation(oom), source_in_words(log), legend(entries), rows)


def free_pieces(segments: Sequence[SegmentRuns]) -> list[int]:
    """Return the free pieces' bytes, largest first."""
    return sorted((size for segment in segments for size in segment.runs[1::2]), reverse=True)


def row_bytes(total_bytes: int) -> int:
    """Return the bytes of a row: a power of two, such that the map has about `TARGET_ROWS` rows."""
    return max(MIB, 1 << max(0, round(math.log2(max(1, total_bytes) / TARGET_ROWS))))


def pieces(oom: OomRecord) -> list[Piece]:
    """Return what is drawn, in order: the large segments, the small ones, what is left of the budget, the request."""
    found: list[Piece] = []
    at = 0
    for pool in ("large", "small"):
        of_pool = [segment for segment in oom.segments if segment.pool == pool]
        for number, segment in enumerate(of_pool, 1):
            name = f"{pool} segment {number} of {len(of_pool)}, {format_bytes(sum(segment.runs))}"
            for i, size in enumerate(segment.runs):
                css, state = ("free", "free") if i % 2 else ("allocated", "in use")
                if size:
                    found.append(Piece(css, at, size, f"{name}: {format_bytes(size)} {state}"))
                at += size
    left = oom.budget_bytes - at
    if left > 0:
        found.append(Piece("budget-left", at, left, f"{format_bytes(left)} of the budget not reserved"))
    words = f"the request that failed: {format_bytes(oom.requested_bytes)} in one piece"
    request = Piece("request", max(at, oom.budget_bytes), oom.requested_bytes, words)
    return [*merged(found, row_bytes(at + max(0, left))), request]


def merged(found: Sequence[Piece], row: int) -> list[Piece]:
    """Return the pieces with those that are too small to be seen added to the one before."""
    shown: list[Piece] = []
    for piece in found:
        if shown and piece.num_bytes < row * LEAST_SHOWN:
            last = shown.pop()
            piece = Piece(last.css, last.begin, piece.begin + piece.num_bytes - last.begin, last.words)
        shown.append(piece)
    return shown


def _draw(oom: OomRecord, heading: str) -> Node:
    *body, request = pieces(oom)
    row = row_bytes(max(oom.budget_bytes, oom.reserved_bytes))
    parts: list[Child] = [label(f"a row is {row // MIB} MiB", 0, 11, css="tick")]
    offset = HEAD_PX
    end = max((piece.begin + piece.num_bytes for piece in body), default=0)
    for piece in body:
        parts += _wrapped(piece, row, offset, piece.begin)
    height = offset + ROW_PX * math.ceil(end / row) + 8
    asked = f"asked for: {format_bytes(request.num_bytes)} in one piece"
    parts.append(label(asked, 0, height + 12, css="request-words"))
    parts += _wrapped(request, row, height + HEAD_PX, 0)
    height += HEAD_PX + ROW_PX * math.ceil(request.num_bytes / row)
    return svg(heading, _description(oom), height, *parts, css="map")


def _wrapped(piece: Piece, row: int, top: float, begin: int) -> Iterator[Node]:
    """Yield the rectangles of a piece that begins at byte `begin`, one for each row that it reaches into."""
    end = begin + piece.num_bytes
    while begin < end:
        number = begin // row
        stop = min(end, (number + 1) * row)
        left, right = begin / row - number, stop / row - number
        yield rect(f"{piece.css} cell", left, right, top + number * ROW_PX, ROW_PX - GAP_PX, piece.words)
        begin = stop


def _explanation(oom: OomRecord) -> str:
    free = free_pieces(oom.segments)
    unused = sum(free)
    large = sum(segment.pool == "large" for segment in oom.segments)
    segments = f"{plural(large, 'large segment')} and {len(oom.segments) - large} small"
    reserved = f"{format_bytes(oom.reserved_bytes)} in {segments}"
    words = f"All that PyTorch's allocator had reserved, {reserved}, read like lines of text. "
    if not free:
        return words + "Nothing of it was free."
    words += f"{format_bytes(unused)} of it was free, in {plural(len(free), 'piece')}; "
    words += f"the largest has {format_bytes(free[0])}. "
    needed = oom.requested_bytes
    if unused >= needed > free[0]:
        return words + "Together they would have held the request, but an allocation needs one piece: fragmentation."
    left = max(0, oom.budget_bytes - oom.reserved_bytes)
    short = segment_size(needed) - left
    return words + (
        "No piece holds the request, and a new segment for it needs "
        f"{format_bytes(max(0, short))} more than the budget has left."
        if short > 0
        else ""
    )


def _description(oom: OomRecord) -> str:
    free = sum(free_pieces(oom.segments))
    share = f"{oom.allocated_bytes / max(1, oom.reserved_bytes):.0%}"
    return f"{share} of {oom.reserved_bytes / GIB:.2f} GiB reserved is in use, {format_bytes(free)} is free."
