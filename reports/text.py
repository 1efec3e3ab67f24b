"""Words, bars and columns that reports are made of. Characters outside ASCII have a stand-in of the same width."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from memory_harness.configs.units import GIB, MIB, format_bytes

EIGHTHS_ACROSS = " ▏▎▍▌▋▊▉█"
EIGHTHS_UP = " ▁▂▃▄▅▆▇█"
RESERVED, REQUESTED, BUDGET_ACROSS, BUDGET_UP = "░", "▒", "╌", "│"

ALLOCATED_STYLE, RESERVED_STYLE, REQUESTED_STYLE, BUDGET_STYLE = "cyan", "bright_black", "bold red", "yellow"

_TO_ASCII = str.maketrans(
    "×→–—…·✓✗▏▎▍▌▋▊▉█▁▂▃▄▅▆▇░▒╌│─┤┼┴└▲╭╮╰╯",
    "x>--.-+x" + ":::::::#" + ":::::::" + ".x-|-|+++^++++",
)


@dataclass(frozen=True)
class Level:
    """What is drawn as one bar or one column."""

    allocated_bytes: int = 0
    reserved_bytes: int = 0
    requested_bytes: int = 0
    """the request that failed, on top of what was allocated"""
    freed_bytes: int = 0
    """of the highest that was allocated, what the request no longer met: an earlier batch of the phase took more"""

    @property
    def met_bytes(self) -> int:
        """What was allocated when the request failed."""
        return self.allocated_bytes - self.freed_bytes

    @property
    def top_bytes(self) -> int:
        """Where the drawing ends."""
        return max(self.allocated_bytes, self.met_bytes + self.requested_bytes, self.reserved_bytes)


def to_ascii(text: str) -> str:
    """Return the text with every character outside ASCII replaced by one of the same width."""
    return text.translate(_TO_ASCII).encode("ascii", "replace").decode("ascii")


def gib(num_bytes: int) -> str:
    """Return a size in GiB without its unit, for tables whose heading names it."""
    return f"{num_bytes / GIB:.2f}"


def table_unit(largest_bytes: int) -> tuple[str, int]:
    """Return the unit, and its bytes, that shows what a table's largest size is."""
    return ("GiB", GIB) if largest_bytes >= GIB else ("MiB", MIB)


def of_budget(num_bytes: int, budget_bytes: int) -> str:
    """Return `12.36 of 14.40 GiB`; budgets below one GiB in their own unit."""
    if budget_bytes < GIB:
        return f"{format_bytes(num_bytes)} of {format_bytes(budget_bytes)}"
    return f"{gib(num_bytes)} of {gib(budget_bytes)} GiB"


def plural(count: int, noun: str, plural_noun: str | None = None) -> str:
    """Return `1 fix`, `2 fixes`."""
    return f"{count} {noun if count == 1 else plural_noun or noun + 's'}"


def bar(level: Level, width: int, scale_bytes: int, budget_bytes: int) -> Text:
    """Return a bar of `width` cells that stand for `scale_bytes`: allocated, reserved, request and budget."""
    cell = max(1, scale_bytes) / width
    budget_cell = min(width - 1, int(budget_bytes / cell))
    text = Text()
    for i in range(width):
        eighths = min(8, max(0, round(8 * (level.allocated_bytes / cell - i))))
        middle = (i + 0.5) * cell
        if eighths == 8:
            text.append("█", ALLOCATED_STYLE)
        elif i == budget_cell:
            text.append(BUDGET_UP, BUDGET_STYLE)
        elif level.requested_bytes and middle < level.top_bytes and not eighths:
            text.append(REQUESTED, REQUESTED_STYLE)
        elif eighths:
            text.append(EIGHTHS_ACROSS[eighths], ALLOCATED_STYLE)
        else:
            text.append(*((RESERVED, RESERVED_STYLE) if middle < level.reserved_bytes else (" ", "")))
    return text


def column_chart(columns: Sequence[Level], budget_bytes: int, rows_below: int) -> list[tuple[Text, bool]]:
    """Return rows, top first, one character per column, each with whether it is the one with the budget line.

    The budget is as high as `rows_below` rows; its line is in the row above these, where only what exceeds it reaches.
    """
    cell = max(1, budget_bytes) / rows_below
    top = max((level.top_bytes for level in columns), default=0)
    num_rows = max(rows_below + 1, math.ceil(top / cell))
    return [(_chart_row(columns, row, cell, row == rows_below), row == rows_below) for row in reversed(range(num_rows))]


def _chart_row(columns: Sequence[Level], row: int, cell: float, is_budget: bool) -> Text:
    text = Text()
    for level in columns:
        eighths = min(8, max(0, round(8 * (level.allocated_bytes / cell - row))))
        middle = (row + 0.5) * cell
        if level.requested_bytes and level.allocated_bytes < middle < level.top_bytes:
            text.append(REQUESTED, REQUESTED_STYLE)
        elif eighths:
            text.append(EIGHTHS_UP[eighths], ALLOCATED_STYLE)
        elif is_budget:
            text.append(BUDGET_ACROSS, BUDGET_STYLE)
        else:
            text.append(*((RESERVED, RESERVED_STYLE) if middle < level.reserved_bytes else (" ", "")))
    return text


_FORMULA = re.compile(r"\s*((?:\S+ × )+\d+ B(?: more)? = [\d.]+ [KMGT]?i?B)(?: \(([^()]* × [^()]*)\))?[.;,]?\s*")


def split_formula(explanation: str) -> tuple[str, str, str, str]:
    """Return what comes before the first product of sizes, the product, its legend (or nothing), and what follows."""
    match = _FORMULA.search(explanation)
    if match is None:
        return explanation, "", "", ""
    return explanation[: match.start()], match[1], match[2] or "", explanation[match.end() :]


def wrap_command(command: str, width: int) -> list[str]:
    """Return the command in lines of at most `width`, joined by backslashes so that it can be pasted as it is."""
    lines = [""]
    for word in re.split(r" (?=--)", command):
        joined = f"{lines[-1]} {word}".strip() if len(lines) == 1 else f"{lines[-1]} {word}"
        if lines[-1] and len(joined) > width - 2:
            lines[-1] += " \\"
            lines.append("    " + word)
        else:
            lines[-1] = joined
    return lines
