"""Peak against padded length: whether memory follows the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import BatchShape, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports.html.drawing import figure, label, legend, line, memory_axis, percent, svg, tooltip
from memory_harness.reports.html.markup import Child, Node, node
from memory_harness.reports.summary import source_in_words
from memory_harness.reports.text import of_budget, plural

PLOT_PX, AXIS_PX = 220, 40
MAX_NAMED, NAME_PX = 5, 15  # most marks that have their words beside them, and the height of these
KINDS = dict.fromkeys((Phase.FORWARD, Phase.BACKWARD, Phase.STEP), "training")
KINDS |= {Phase.EVAL: "evaluation", Phase.GENERATE: "generation", Phase.ROLLOUT: "rollout"}
"""What the batches of a phase are for."""

MARKS = {
    "training": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
    "evaluation": "M-4,-4H4V4H-4Z",
    "generation": "M0,-5L5,4H-5Z",
}
FAILED = "M-5,-5L5,5M-5,5L5,-5"


class Point(NamedTuple):
    """All batches of one shape."""

    kind: str
    batch_size: int
    length: int
    peak_bytes: int
    num_batches: int
    failed: bool = False


def lengths_figure(log: RunLog, top_bytes: int) -> Iterator[Node]:
    """Yield the chart; nothing where the log has no batches."""
    points = shapes(log)
    if all(point.length <= 1 for point in points):  # no sequences
        return
    shown = {point.kind for point in points}
    marks = [(f"mark {kind}", MARKS[kind], kind) for kind in MARKS if kind in shown]
    if any(point.failed for point in points):
        marks.append(("mark failed", FAILED, "the batch that failed, with what it asked for"))
    entries = []
    for css, shape, meaning in marks:
        entries.append((node("path", {"class": css, "d": shape, "transform": "translate(8,6)"}), meaning))
    heading = "Peak against padded length"
    plot = node("div", {"class": "plot"}, _draw(points, log.run.budget_bytes, top_bytes, heading))
    yield figure(heading, _explanation(points), source_in_words(log), legend(entries), plot)


def shapes(log: RunLog) -> list[Point]:
    """Return a point for each kind and shape of batch with the highest of their peaks, then the one that failed."""
    found: dict[tuple[str, int, int], tuple[int, int]] = {}
    for record in log.phases:
        if record.batch is not None and record.phase in KINDS:
            key = (KINDS[record.phase], record.batch.batch_size, record.batch.padded_length)
            peak, count = found.get(key, (0, 0))
            # a micro-batch has a forward and a backward pass
            found[key] = max(peak, record.after.peak_allocated_bytes), count + (record.phase is not Phase.BACKWARD)
    points = [Point(*key, peak, max(1, count)) for key, (peak, count) in sorted(found.items())]
    oom = log.fatal_oom
    if oom is not None and oom.batch is not None and oom.phase in KINDS:
        points.append(_failed(KINDS[oom.phase], oom.batch, oom.allocated_bytes + oom.requested_bytes))
    return points


def _failed(kind: str, batch: BatchShape, needed_bytes: int) -> Point:
    return Point(kind, batch.batch_size, batch.padded_length, needed_bytes, 1, failed=True)


def _draw(points: Sequence[Point], budget: int, top: int, heading: str) -> Node:
    longest = max(point.length for point in points)
    end = -(-longest // 8) * 8 or 1
    parts: list[Child] = [
        *memory_axis(top, PLOT_PX),
        *_budget(budget, top),
        *(_mark(point, end * 1.04, top) for point in points),
        *(_names(points, end * 1.04, top) if len(points) <= MAX_NAMED else ()),
        *(label(str(round(end * part)), part / 1.04, PLOT_PX + 17, "middle", "tick") for part in (0, 0.5, 1)),
        label("padded length in tokens", 0.5 / 1.04, PLOT_PX + 34, "middle", "tick"),
    ]
    return svg(heading, _description(points, budget), PLOT_PX + AXIS_PX, *parts)


def _budget(budget: int, top: int) -> Iterator[Node]:
    if budget <= top:
        y = PLOT_PX * (1 - budget / top)
        yield line("budget", 0, y, 1, y)
        yield label(f"budget {format_bytes(budget)}", 0, y - 5, "start", "budget-words", 6)


def _mark(point: Point, end: float, top: int) -> Node:
    y = PLOT_PX * (1 - point.peak_bytes / top)
    place = {"x": percent(point.length / end), "y": f"{y:.1f}", "overflow": "visible"}
    css, shape = ("mark failed", FAILED) if point.failed else (f"mark {point.kind}", MARKS[point.kind])
    return node("svg", place, node("path", {"class": css, "d": shape}, tooltip(_in_words(point))))


def _names(points: Sequence[Point], end: float, top: int) -> Iterator[Node]:
    """Yield the words of each mark, left of it, those of marks side by side below each other."""
    below = 0.0
    for point in sorted(points, key=lambda point: -point.peak_bytes):
        below = max(below + NAME_PX, PLOT_PX * (1 - point.peak_bytes / top) + 4)
        css = "request-words" if point.failed else "value"
        on_the_right = point.length / end < 0.5
        anchor, shift = ("start", 10) if on_the_right else ("end", -10)
        words = f"{point.batch_size} × {point.length} tokens: {format_bytes(point.peak_bytes)}"
        yield label(words, point.length / end, below, anchor, css, shift)


def _in_words(point: Point) -> str:
    shape = f"{point.batch_size} × {point.length} tokens"
    if point.failed:
        return f"{point.kind}, {shape}: would have needed {format_bytes(point.peak_bytes)}"
    batches = plural(point.num_batches, "batch", "batches")
    return f"{point.kind}, {batches} of {shape}: peak {format_bytes(point.peak_bytes)}"


def _explanation(points: Sequence[Point]) -> str:
    training = {point.length for point in points if point.kind == "training"}
    words = "Each mark is one shape of batch, at the highest peak that any such batch reached. "
    if len(training) == 1:
        return words + f"All training batches are padded to {training.pop()} tokens, so that every step costs the same."
    return words + "Where the marks rise to the right, the longest batches decide whether the run fits."


def _description(points: Sequence[Point], budget: int) -> str:
    highest = max(points, key=lambda point: point.peak_bytes)
    return f"The highest is {of_budget(highest.peak_bytes, budget)}: {_in_words(highest)}."
