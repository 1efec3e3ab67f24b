"""What memory is for: a stacked bar for each phase."""

from __future__ import annotations

from collections.abc import Mapping

from memory_harness.harness.log.peaks import KINDS
from memory_harness.reports import blocks
from memory_harness.reports.contents import UNUSED
from memory_harness.reports.html.drawing import BAR_PX, LABEL_PX, ROW_PX, figure, label, legend, rect, svg
from memory_harness.reports.html.markup import Child, Node, node
from memory_harness.reports.text import in_unit

_COLOURS = {
    "weights": 1, "adapters": 2, "gradients": 3, "optimizer": 4, "activations": 5, "logits": 6, "kv cache": 7,
    "inputs": 8, "workspaces": 9,
}  # fmt: skip
_STYLES = {UNUSED: "reserved", "did not fit": "request"}


def style_of(kind: str) -> str:
    """Return the class that draws a kind; what has no colour of its own shares one."""
    return _STYLES.get(kind) or f"kind{_COLOURS.get(kind, 0)}"


def kinds_figure(block: blocks.Kinds) -> Node:
    """Return the chart with a legend of the kinds that it shows."""
    seen: dict[str, None] = {}
    parts: list[Child] = []
    for number, (phase, sizes) in enumerate(block.rows):
        seen.update(dict.fromkeys(sizes))
        parts.append(_row(phase, sizes, block.scale_bytes, number * ROW_PX))
    words = "; ".join(f"{phase} {_in_words(sizes, block.scale_bytes)}" for phase, sizes in block.rows)
    title = f"What memory is for, {block.heading}"
    chart = svg(title, words, ROW_PX * len(block.rows), *parts, css="kinds")
    in_order = sorted(seen, key=_place)
    meanings = [(style_of(kind), kind) for kind in in_order]
    return figure(block.heading, block.explanation, block.source, legend(meanings), chart)


def _place(kind: str) -> int:
    """Return where a kind stands in the legend: what has no colour of its own after the others, what is free last."""
    if kind == UNUSED:
        return len(KINDS) + 1
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def _row(phase: str, sizes: Mapping[str, int], scale: int, top: float) -> Node:
    total = sum(size for kind, size in sizes.items() if kind != UNUSED)
    parts: list[Child] = [
        label(phase, 0, top + LABEL_PX, css="name"),
        label(in_unit(total, scale), 1, top + LABEL_PX, "end", "value"),
        rect("track", 0, 1, top + LABEL_PX + 6, BAR_PX),
    ]
    begin = 0
    for kind, size in sizes.items():
        words = f"{phase}: {kind} {in_unit(size, scale)}"
        ends = begin / scale, (begin + size) / scale
        parts.append(rect(f"{style_of(kind)} piece", *ends, top + LABEL_PX + 6, BAR_PX, words))
        begin += size
    return node("g", {"data-phase": phase}, *parts)


def _in_words(sizes: Mapping[str, int], scale: int) -> str:
    return ", ".join(f"{kind} {in_unit(size, scale)}" for kind, size in sizes.items())
