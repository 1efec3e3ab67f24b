"""Bars and columns made of characters. Those outside ASCII have a stand-in of the same width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from memory_harness.reports.levels import Level

EIGHTHS_ACROSS = " ▏▎▍▌▋▊▉█"
EIGHTHS_UP = " ▁▂▃▄▅▆▇█"
RESERVED, REQUESTED, BUDGET_ACROSS, BUDGET_UP = "░", "▒", "╌", "│"

ALLOCATED_STYLE, RESERVED_STYLE, REQUESTED_STYLE, BUDGET_STYLE = "cyan", "bright_black", "bold red", "yellow"

_TO_ASCII = str.maketrans(
    "×→–—…·✓✗▏▎▍▌▋▊▉█▁▂▃▄▅▆▇░▒╌│─┤┼┴└▲╭╮╰╯",
    "x>--.-+x" + ":::::::#" + ":::::::" + ".x-|-|+++^++++",
)


def to_ascii(text: str) -> str:
    """Return the text with every character outside ASCII replaced by one of the same width."""
    return text.translate(_TO_ASCII).encode("ascii", "replace").decode("ascii")


def bar(level: Level, width: int, scale_bytes: int, budget_bytes: int) -> Text:
    """Return a bar of `width` cells that stand for `scale_bytes`: allocated, reserved, request and budget."""
    cell = max(1, scale_bytes) / width
    budget_cell = min(width - 1, int(budget_bytes / cell)) if budget_bytes else -1
    text = Text()
    for i in range(width):
        eighths = _eighths(level, i, cell)
        middle = (i + 0.5) * cell
        if eighths == 8:
            text.append("█", ALLOCATED_STYLE)
        elif i == budget_cell:
            text.append(BUDGET_UP, BUDGET_STYLE)
        elif level.requested_bytes and middle < level.top_bytes and not eighths:
            text.append(REQUESTED, REQUESTED_STYLE)
        elif eighths:
            text.append(EIGHTHS_ACROSS[eighths], ALLOCATED_STYLE)
        elif middle < level.reserved_bytes:
            text.append(RESERVED, RESERVED_STYLE)
        else:
            text.append(" ")
    return text


def _eighths(level: Level, i: int, cell: float) -> int:
    """Return how many eighths of cell `i` what was allocated fills."""
    return min(8, max(0, round(8 * (level.allocated_bytes / cell - i))))


def column_chart(
    columns: Sequence[Level], budget_bytes: int, rows_below: int, *, has_line: bool = True
) -> list[tuple[Text, bool]]:
    """Return rows, top first, one character per column, each with whether it is the one with the budget line.

    Without the line, `budget_bytes` is another height that the axis names.

    The budget is as high as `rows_below` rows; its line is in the row above these, where only what exceeds it reaches.
    """
    cell = max(1, budget_bytes) / rows_below
    top = max((level.top_bytes for level in columns), default=0)
    num_rows = max(rows_below + 1, math.ceil(top / cell))
    return [
        (_chart_row(columns, row, cell, has_line and row == rows_below), row == rows_below)
        for row in reversed(range(num_rows))
    ]


def _chart_row(columns: Sequence[Level], row: int, cell: float, is_budget: bool) -> Text:
    text = Text()
    for level in columns:
        eighths = _eighths(level, row, cell)
        middle = (row + 0.5) * cell
        if level.requested_bytes and level.allocated_bytes < middle < level.top_bytes:
            text.append(REQUESTED, REQUESTED_STYLE)
        elif eighths:
            text.append(EIGHTHS_UP[eighths], ALLOCATED_STYLE)
        elif is_budget:
            text.append(BUDGET_ACROSS, BUDGET_STYLE)
        elif middle < level.reserved_bytes:
            text.append(RESERVED, RESERVED_STYLE)
        else:
            text.append(" ")
    return text
