"""A number over the steps of a training run, such as its loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memory_harness.reports import blocks
from memory_harness.reports.html.drawing import figure, label, legend, line, percent, rect, svg, tooltip
from memory_harness.reports.html.markup import Child, Node, node

PLOT_PX, AXIS_PX = 170, 24
MAX_COLUMNS = 240
TICKS = 4


class Part(NamedTuple):
    """Steps that are drawn as one: the mean of their values, and the lowest and highest."""

    steps: tuple[int, int]
    mean: float
    lowest: float
    highest: float


class Axis(NamedTuple):
    """An axis upwards, from a round number to another one."""

    low: float
    high: float
    step: float

    def y(self, value: float) -> float:
        """Return the pixels from the top."""
        return PLOT_PX * (1 - (value - self.low) / (self.high - self.low))


def course_figure(block: blocks.Course) -> Node:
    """Return the chart."""
    points = [(step, value) for step, value in block.points if math.isfinite(value)]
    marks = [mark for mark in block.marks if math.isfinite(mark[1])]
    total = max([block.total_steps, 1, *(step for step, _ in points), *(step for step, _, _ in marks)])
    parts = parts_of(points, total)
    axis = axis_of([part.mean for part in parts] + [value for _, value, _ in marks])
    curve = node("path", {"class": "course", "d": _path(parts, axis, total)})
    size = {"viewBox": f"0 0 1000 {PLOT_PX}", "width": "100%", "height": f"{PLOT_PX}", "preserveAspectRatio": "none"}
    moving = [*_hover(parts, total, block.heading), *(_mark(mark, axis, total) for mark in marks)]
    drawn: list[Child] = [
        *_lines(axis),
        node("svg", {"class": "curves", **size}, curve),
        node("g", {"class": "moves"}, *moving, *_steps(total)),
    ]
    chart = svg(block.heading, _description(points, marks), PLOT_PX + AXIS_PX, *drawn, css="timeline")
    chart.set("data-total", str(total))
    key = [(node("circle", {"class": "point", "cx": "8", "cy": "6", "r": "4"}), "held out")] if marks else []
    explained = legend(key) if key else None
    return figure(block.heading, block.explanation, block.source, explained, node("div", {"class": "plot"}, chart))


def parts_of(points: Sequence[tuple[int, float]], total: int) -> list[Part]:
    """Return the steps in at most `MAX_COLUMNS` parts."""
    columns: dict[int, list[tuple[int, float]]] = {}
    for step, value in points:
        columns.setdefault((step - 1) * MAX_COLUMNS // max(total, MAX_COLUMNS), []).append((step, value))
    parts = []
    for column in sorted(columns):
        steps = [step for step, _ in columns[column]]
        values = [value for _, value in columns[column]]
        parts.append(Part((min(steps), max(steps)), sum(values) / len(values), min(values), max(values)))
    return parts


def axis_of(values: Sequence[float]) -> Axis:
    """Return an axis that the values fill; from 0 where they come near to it."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if 0 <= low < high / 2 or low == high >= 0:
        low = 0.0
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * TICKS >= span)
    low = math.floor(low / step) * step
    return Axis(low, max(low + step, math.ceil(high / step - 1e-9) * step), step)


def _lines(axis: Axis) -> Iterator[Node]:
    for number in range(round((axis.high - axis.low) / axis.step) + 1):
        value = axis.low + number * axis.step
        yield line("grid", 0, axis.y(value), 1, axis.y(value))
        yield label(f"{value:.4g}", 0, axis.y(value) + 4, "end", "tick", -8)


def _middle(steps: tuple[int, int], total: int) -> float:
    return ((steps[0] + steps[1]) / 2 - 0.5) / total


def _path(parts: Sequence[Part], axis: Axis, total: int) -> str:
    places = [f"{1000 * _middle(part.steps, total):.1f},{axis.y(part.mean):.1f}" for part in parts]
    return f"M{'L'.join(places)}" if places else ""


def _hover(parts: Sequence[Part], total: int, heading: str) -> Iterator[Node]:
    for part in parts:
        first, last = part.steps
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        words = f"{when}: {heading.lower()} {part.mean:.4g}"
        if first != last:
            words += f" ({part.lowest:.4g} to {part.highest:.4g})"
        yield rect("hover", (first - 1) / total, last / total, 0, PLOT_PX, words)


def _mark(mark: tuple[int, float, str], axis: Axis, total: int) -> Node:
    step, value, what = mark
    place = {"class": "point", "cx": 0, "cy": 0, "r": 5}
    words = f"step {step}: {value:.4g}, {what}"
    at = {"x": percent((step - 0.5) / total), "y": f"{axis.y(value):.1f}", "class": "frame-less", "overflow": "visible"}
    return node("svg", at, node("circle", place, tooltip(words)))


def _steps(total: int) -> Iterator[Node]:
    yield label("step 1", 0, PLOT_PX + 17, css="tick")
    yield label(str(total), 1, PLOT_PX + 17, "end", "tick")


def _description(points: Sequence[tuple[int, float]], marks: Sequence[tuple[int, float, str]]) -> str:
    words = [f"{value:.4g} at step {step}, {what}" for step, value, what in marks[-5:]]
    if points:
        words.insert(
            0, f"From {points[0][1]:.4g} at step {points[0][0]} to {points[-1][1]:.4g} at step {points[-1][0]}"
        )
    return "; ".join(words) or "Nothing was measured in this training run."
