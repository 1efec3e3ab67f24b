"""What the peaks of two runs are made of, and what of that is not the same: by category, and by line of code.

Lines of two versions of a library are taken for the same where file, function and text are, whatever their numbers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from memory_harness.harness.log.records import PeakPart

_LINE_NUMBER = re.compile(r":\d+(?= |$)")


@dataclass(frozen=True)
class PartChange:
    """A share of the peak in both runs."""

    category: str
    site_before: str
    """empty where that run has none of it, or it is a whole category"""
    site_after: str
    caller: str
    code: str
    before_bytes: int
    after_bytes: int

    @property
    def difference_bytes(self) -> int:
        """How much it rose."""
        return self.after_bytes - self.before_bytes


def changes_by_category(before: Sequence[PeakPart], after: Sequence[PeakPart]) -> list[PartChange]:
    """Return every category of either run, the largest change first."""
    return _changes(before, after, lambda part: part.category, whole=True)


def changes_by_line(before: Sequence[PeakPart], after: Sequence[PeakPart]) -> list[PartChange]:
    """Return the lines, or names of tensors, whose bytes are not the same in both runs, the largest change first.

    A line that only one run has, and another that only the other one has, are no change where both hold the same bytes
    in as many tensors: the code was rewritten, not what it takes.
    """
    first, second = _without_rewritten(before, after)
    changes = _changes(first, second, _line_of, whole=False)
    return [change for change in changes if change.difference_bytes]


def _line_of(part: PeakPart) -> Hashable:
    return part.category, _LINE_NUMBER.sub("", part.site), part.code, _LINE_NUMBER.sub("", part.caller)


def _without_rewritten(before: Iterable[PeakPart], after: Iterable[PeakPart]) -> tuple[list[PeakPart], list[PeakPart]]:
    """Return the parts without those that one run has at one line and the other at another."""
    first, second = list(before), list(after)
    known = set(map(_line_of, first)) & set(map(_line_of, second))
    for part in [part for part in first if _line_of(part) not in known]:
        for other in second:
            if _line_of(other) not in known and _amount(other) == _amount(part):
                first.remove(part)
                second.remove(other)
                break
    return first, second


def _amount(part: PeakPart) -> tuple[str, int, int]:
    return part.category, part.num_bytes, part.num_tensors


def _changes(
    before: Iterable[PeakPart], after: Iterable[PeakPart], key_of: Callable[[PeakPart], Hashable], *, whole: bool
) -> list[PartChange]:
    groups: dict[Hashable, tuple[list[PeakPart], list[PeakPart]]] = defaultdict(lambda: ([], []))
    for index, parts in enumerate((before, after)):
        for part in parts:
            groups[key_of(part)][index].append(part)
    changes = [_change(*group, whole=whole) for group in groups.values()]
    return sorted(changes, key=lambda change: -abs(change.difference_bytes))


def _change(before: Sequence[PeakPart], after: Sequence[PeakPart], *, whole: bool) -> PartChange:
    newest = (*after, *before)[0]
    sizes = sum(part.num_bytes for part in before), sum(part.num_bytes for part in after)
    if whole:
        return PartChange(newest.category, "", "", "", "", *sizes)
    sites = before[0].site if before else "", after[0].site if after else ""
    return PartChange(newest.category, *sites, newest.caller, newest.code, *sizes)
