"""What all charts are made of.

Places across are percentages and places down are pixels: a chart is as wide as the page, its letters stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from memory_harness.configs.units import GIB, KIB, MIB, format_bytes
from memory_harness.harness.log.records import Phase
from memory_harness.reports.html.markup import Child, Node, add, node
from memory_harness.reports.levels import Level
from memory_harness.reports.text import table_unit

BAR_PX, ROW_PX = 14, 44
LABEL_PX = 14
MAX_TICKS = 5


def percent(share: float) -> str:
    """Return a share of the width, to what can be seen."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def svg(title: str, description: str, height: float, *children: Child, css: str = "") -> Node:
    """Return a chart that a screen reader reads as its title and description."""
    attributes = {
        "class": f"chart {css}".strip(),
        "role": "img",
        "aria-label": f"{title}. {description}",
        "width": "100%",
        "height": f"{height:.0f}",
    }
    return node("svg", attributes, *children)


def figure(heading: str, explanation: str, source: str, *children: Child) -> Node:
    """Return a chart with its heading, what it shows in a sentence or two, and whose numbers these are."""
    caption = node("figcaption", {}, explanation, " ", node("span", {"class": "source"}, source))
    return node("figure", {}, node("h3", {}, heading), caption, *children)


def rect(css: str, left: float, right: float, top: float, height: float, title: str | None = None) -> Node:
    """Return a rectangle; `left` and `right` are shares of the width."""
    place = {"x": percent(left), "width": percent(right - left), "y": f"{top:.1f}", "height": f"{max(0, height):.1f}"}
    return node("rect", {"class": css, **place}, tooltip(title))


def line(css: str, x1: float, y1: float, x2: float, y2: float) -> Node:
    """Return a line; `x1` and `x2` are shares of the width."""
    ends = {"x1": percent(x1), "y1": f"{y1:.1f}", "x2": percent(x2), "y2": f"{y2:.1f}"}
    return node("line", {"class": css, **ends})


def label(text: str, x: float, y: float, anchor: str = "start", css: str = "", shift: int = 0) -> Node:
    """Return a text whose baseline is at `y`, `shift` pixels to the right of `x`."""
    attributes = {"class": css or None, "x": percent(x), "y": f"{y:.1f}", "text-anchor": anchor, "dx": shift or None}
    return node("text", attributes, text)


def tooltip(text: str | None) -> Node | None:
    """Return what a browser shows where the pointer rests."""
    return None if text is None else node("title", {}, text)


def memory_axis(top_bytes: int, height: float) -> list[Node]:
    """Return the lines and numbers of an axis of memory that ends at `top_bytes`."""
    step, unit = tick_bytes(top_bytes)
    marks: list[Node] = []
    for value in range(0, top_bytes + 1, step):
        y = height * (1 - value / top_bytes)
        marks.append(line("grid", 0, y, 1, y))
        marks.append(label(f"{value / unit:g}", 0, y + 4, "end", "tick", -8))
    marks.append(label(table_unit(unit)[0], 0, -8, "end", "tick", -8))
    return marks


def tick_bytes(top_bytes: int) -> tuple[int, int]:
    """Return a round distance of the marks of an axis, and the unit to write them in."""
    unit = next((unit for unit in (GIB, MIB) if top_bytes >= 2 * unit), KIB)
    rough = max(1.0, top_bytes / unit / MAX_TICKS)
    power = 10 ** math.floor(math.log10(rough))
    factor = next(factor for factor in (1, 2, 4, 5, 10) if factor * power >= rough)
    return int(factor * power) * unit, unit


def bar_rows(
    rows: Sequence[tuple[str, Level, str]], scale_bytes: int, budget_bytes: int, *, title: str, description: str
) -> Node:
    """Return one bar a row under its name and its numbers: allocated, reserved, and the request that failed."""
    scale, height = max(1, scale_bytes), ROW_PX * len(rows)
    parts: list[Child] = []
    for number, (name, level, words) in enumerate(rows):
        top = number * ROW_PX
        row: list[Child] = [label(name, 0, top + LABEL_PX, css="name"), label(words, 1, top + LABEL_PX, "end", "value")]
        row += _bar(level, scale, top + LABEL_PX + 6)
        if budget_bytes:
            at = budget_bytes / scale
            row.append(line("budget", at, top + LABEL_PX + 2, at, top + LABEL_PX + 10 + BAR_PX))
        parts.append(node("g", {"data-phase": name if name in Phase.__members__ else None}, *row))
    return svg(title, description, height, *parts)


def _bar(level: Level, scale: int, top: float) -> list[Node]:
    drawn = [rect("track", 0, 1, top, BAR_PX)]
    if level.reserved_bytes:
        title = f"reserved {format_bytes(level.reserved_bytes)}"
        drawn.append(rect("reserved", 0, level.reserved_bytes / scale, top, BAR_PX, title))
    title = f"allocated {format_bytes(level.allocated_bytes)}"
    drawn.append(rect("allocated", 0, level.allocated_bytes / scale, top, BAR_PX, title))
    if level.requested_bytes:
        title = f"request that failed: {format_bytes(level.requested_bytes)}"
        ends = level.met_bytes / scale, (level.met_bytes + level.requested_bytes) / scale
        drawn.append(rect("request", *ends, top, BAR_PX, title))
    return drawn


def memory_legend(entries: Iterable[tuple[str, str]], *, failed: bool, has_budget: bool) -> Node:
    """Return a legend that also names the request that failed and the budget, where they are drawn."""
    request = [("request", "the request that failed")] if failed else []
    budget = [("budget", "budget")] if has_budget else []
    return legend([*entries, *request, *budget])


def legend(entries: Iterable[tuple[str | Node, str]]) -> Node:
    """Return what the colours mean; an entry is a style, or what is drawn for it, and its meaning."""
    listed = node("ul", {"class": "legend", "aria-label": "Legend"})
    for key, meaning in entries:
        drawn = _key(key) if isinstance(key, str) else key
        swatch = node("svg", {"width": "16", "height": "12", "aria-hidden": "true"}, drawn)
        add(listed, [node("li", {}, swatch, meaning)])
    return listed


def _key(css: str) -> Node:
    if css in ("budget", "floor"):
        return node("line", {"class": css, "x1": "0", "y1": "6", "x2": "16", "y2": "6"})
    return node("rect", {"class": css, "x": "0", "y": "0", "width": "16", "height": "12"})


def hatches() -> Node:
    """Return the patterns that charts fill with: what is hatched is told apart without colours."""
    patterns = node("defs")
    for name in ("request", "free"):
        size = {"id": f"hatch-{name}", "width": "6", "height": "6", "patternUnits": "userSpaceOnUse"}
        ground = node("rect", {"class": f"{name}-line-ground", "width": "6", "height": "6"})
        stripe = node("line", {"class": f"{name}-line", "x1": "0", "y1": "0", "x2": "0", "y2": "6"})
        add(patterns, [node("pattern", {**size, "patternTransform": "rotate(45)"}, ground, stripe)])
    return node("svg", {"width": "0", "height": "0", "class": "hidden", "aria-hidden": "true"}, patterns)
