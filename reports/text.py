"""Sizes, counts and commands in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from memory_harness.configs.tables import read_toml
from memory_harness.configs.units import GIB, KIB, MIB, format_bytes


@cache
def wording(table: str) -> dict[str, str]:
    """Return a table of wording.toml."""
    tables: dict[str, dict[str, str]] = read_toml(Path(__file__).with_name("wording.toml"))
    return tables[table]


def gib(num_bytes: int) -> str:
    """Return a size in GiB without its unit, for tables whose heading names it."""
    return f"{num_bytes / GIB:.2f}"


def table_unit(largest_bytes: int) -> tuple[str, int]:
    """Return the unit, and its bytes, that shows what a table's largest size is."""
    if largest_bytes >= GIB:
        return "GiB", GIB
    return ("MiB", MIB) if largest_bytes >= MIB else ("KiB", KIB)


def in_unit(num_bytes: int, largest_bytes: int) -> str:
    """Return a size in the unit of the largest one that it is shown with; what is there is never 0.00."""
    unit, unit_bytes = table_unit(largest_bytes)
    words = f"{num_bytes / unit_bytes:.2f}"
    return f"{'<0.01' if num_bytes and words == '0.00' else words} {unit}"


def of_budget(num_bytes: int, budget_bytes: int) -> str:
    """Return `12.36 of 14.40 GiB`; budgets below one GiB in their own unit."""
    if budget_bytes < GIB:
        return f"{format_bytes(num_bytes)} of {format_bytes(budget_bytes)}"
    return f"{gib(num_bytes)} of {gib(budget_bytes)} GiB"


def plural(count: int, noun: str, plural_noun: str | None = None) -> str:
    """Return `1 fix`, `2 fixes`."""
    return f"{count} {noun if count == 1 else plural_noun or noun + 's'}"


_FORMULA = re.compile(r"\s*((?:\S+ × )+\d+ B(?: more)? = [\d.]+ [KMGT]?i?B)(?: \(([^()]* × [^()]*)\))?[.;,]?\s*")


def split_formula(explanation: str) -> tuple[str, str, str, str]:
    """Return what comes before the first product of sizes, the product, its legend (or nothing), and what follows."""
    match = _FORMULA.search(explanation)
    if match is None:
        return explanation, "", "", ""
    return explanation[: match.start()], match[1], match[2] or "", explanation[match.end() :]


_INDENT = "    "
_RULES = re.compile(r"\d+:[\d+]+(,\d+:[\d+]+)+")
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")


def _words(command: str, room: int) -> Iterator[str]:
    """Yield each flag with its value, or one after the other where the two have no room."""
    for word in re.split(r" (?=--)", command):
        yield from [word] if len(word) <= room else _WORD.findall(word)


def _quoted_lines(rules: str, room: int) -> list[str]:
    """Return rules in quotation marks, in lines that a shell joins."""
    lines = ['"']
    for rule in rules.split(","):
        if len(lines[-1]) + len(rule) + len(',"') > room:
            lines[-1] += "\\"
            lines.append("")
        lines[-1] += f"{rule},"
    lines[-1] = f'{lines[-1][:-1]}"'
    return lines


def wrap_command(command: str, width: int) -> list[str]:
    """Return the command in lines of at most `width`, joined by backslashes so that it can be pasted as it is.

    A flag stays beside its value where there is room for both; a word that is longer than a line is left whole, but for
    the rules of --recompute, whose reader leaves out blanks.
    """
    lines = [""]
    room = width - len(_INDENT) - len(" \\")
    for word in _words(command, room):
        if len(word) > room and _RULES.fullmatch(word):
            lines[-1] += " \\"
            lines += [_INDENT + line for line in _quoted_lines(word, room)]
            continue
        joined = f"{lines[-1]} {word}"
        if len(lines) == 1:
            joined = joined.strip()
        if lines[-1] and len(joined) > width - 2:
            lines[-1] += " \\"
            lines.append(_INDENT + word)
        else:
            lines[-1] = joined
    return lines
