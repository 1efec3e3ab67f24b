"""Who made what lived at a moment: folded stacks as a flame graph whose outermost calls are at the top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.peaks import REQUEST
from memory_harness.reports import blocks
from memory_harness.reports.html.drawing import figure, percent, svg
from memory_harness.reports.html.kinds import style_of
from memory_harness.reports.html.markup import Node, node

FRAME_PX = 19
ASKED = "asked"  # style of what did not fit: letters on hatching cannot be read
LEAST_SHARE = 0.008
"""of the whole that a call must hold to be drawn; of a wide page that is eight pixels"""


@dataclass
class Call:
    """A call, or a kind of memory, with what it and the calls below it hold."""

    num_bytes: int = 0
    calls: dict[str, Call] = field(default_factory=dict)


def tree_of(stacks: Mapping[str, int]) -> Call:
    """Return folded stacks as a tree, whose root holds everything."""
    root = Call()
    for stack, num_bytes in stacks.items():
        root.num_bytes += num_bytes
        call = root
        for name in stack.split(";"):
            call = call.calls.setdefault(name, Call())
            call.num_bytes += num_bytes
    return root


def flame_figure(block: blocks.Flame) -> Node:
    """Return the chart."""
    root = tree_of(block.stacks)
    drawn: list[Node] = []
    depth = _draw(root, 0, 0, max(1, root.num_bytes), "", drawn)
    words = "; ".join(f"{name} {format_bytes(call.num_bytes)}" for name, call in _largest(root)[:5])
    title = f"Calls that made what lived, {block.heading}"
    chart = svg(title, words, FRAME_PX * depth, *drawn, css="flame")
    return figure(block.heading, block.explanation, block.source, chart)


def _largest(call: Call) -> list[tuple[str, Call]]:
    return sorted(call.calls.items(), key=lambda item: -item[1].num_bytes)


def _draw(call: Call, begin: int, depth: int, total: int, css: str, drawn: list[Node]) -> int:
    """Append the calls below one, the largest first, and return how deep they go; all are coloured by their kind."""
    deepest = depth
    for name, inner in _largest(call):
        if inner.num_bytes < LEAST_SHARE * total:
            break
        style = css or (ASKED if name == REQUEST else style_of(name))
        drawn.append(_frame(name, inner, begin / total, total, depth, style))
        deepest = max(deepest, _draw(inner, begin, depth + 1, total, style, drawn), depth + 1)
        begin += inner.num_bytes
    return deepest


def _frame(name: str, call: Call, begin: float, total: int, depth: int, css: str) -> Node:
    share = call.num_bytes / total
    place = {"x": percent(begin), "width": percent(share), "y": depth * FRAME_PX, "height": FRAME_PX - 1}
    words = f"{name}: {format_bytes(call.num_bytes)}, {share:.1%}"
    box = node("rect", {"class": css, "width": "100%", "height": "100%"}, node("title", {}, words))
    text = node("text", {"x": "4", "y": "13"}, _short(name)) if share > 0.02 else None
    return node("svg", {"class": "frame", **place}, box, text)


def _short(name: str) -> str:
    """Return the function with its file's name, `forward (modeling_llama.py:300)`, or the end of a tensor's name."""
    place, _, function = name.partition(" ")
    if not function or ":" not in place:
        return ".".join(name.split(".")[-2:])
    return f"{function} ({place.rpartition('/')[2]})"
