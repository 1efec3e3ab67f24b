"""What a report consists of: sections and their blocks, pure data. A renderer draws them and decides nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding
from memory_harness.reports.levels import Level

Tone = Literal["", "strong", "muted", "good", "bad", "warning"]


@dataclass(frozen=True)
class Banner:
    """The verdict of a report."""

    title: str
    sentence: str
    tone: Tone
    source: str = ""
    """where the numbers come from"""


@dataclass(frozen=True)
class Paragraph:
    """One or several sentences."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Command:
    """What to type next."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values; a value may have several lines."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """A text in a table."""

    text: str
    tone: Tone


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    """of numbers"""
    detail: bool = False
    """shown only where there is room"""


@dataclass(frozen=True)
class Table:
    """Rows of cells. A row without cells sets groups apart."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Cell]]


@dataclass(frozen=True)
class Code:
    """A reference to a line of source code."""

    where: str
    """`file:line`"""
    functions: Sequence[str] = ()
    """names of which one must enclose the line, where they are known"""
    versions: Mapping[str, str] = field(default_factory=dict)
    """of the packages that ran"""


@dataclass(frozen=True)
class Explanation:
    """A finding in full."""

    finding: Finding
    before: str
    """what its explanation says before the arithmetic, or all of it"""
    formula: str = ""
    legend: str = ""
    after: str = ""
    remedy: str = ""
    code: Code | None = None


@dataclass(frozen=True)
class FindingList:
    """Findings in a line or two each; in full where there is room."""

    items: Sequence[Explanation]


@dataclass(frozen=True)
class Bars:
    """A bar for each of several levels."""

    heading: str
    explanation: str
    source: str
    rows: Sequence[tuple[str, Level]]
    scale_bytes: int
    budget_bytes: int = 0
    """0 where there is none to compare with"""


@dataclass(frozen=True)
class TriedFix:
    """A fix and what its re-run showed."""

    name: str
    title: str
    causes: str
    state: str
    helped: bool
    facts: str
    remarks: Sequence[str]
    peaks: Bars


@dataclass(frozen=True)
class PhaseBars:
    """The level of each phase in one run or in two."""

    phases: Sequence[Phase]
    levels: Mapping[str, Mapping[Phase, Level]]
    """run -> phase -> its level; a phase that was not reached is missing"""
    source: str
    scale_bytes: int
    budget_bytes: int
    unit_bytes: int
    """of the numbers beside the bars"""

    @property
    def has_failed(self) -> bool:
        """Whether a request failed in one of the runs."""
        return any(level.requested_bytes for levels in self.levels.values() for level in levels.values())


@dataclass(frozen=True)
class Timeline:
    """A reference to the chart of a run over time. An axis of memory ends at `top_bytes`."""

    name: str
    log: RunLog
    top_bytes: int


@dataclass(frozen=True)
class Lengths:
    """A reference to the chart of peaks against padded lengths."""

    log: RunLog
    top_bytes: int


@dataclass(frozen=True)
class MemoryMap:
    """A reference to the map of a run's segments at its worst moment."""

    name: str
    log: RunLog


@dataclass(frozen=True)
class Folded:
    """A block of which only the summary is seen at first."""

    summary: str
    block: Facts | Table
    is_open: bool = False


Block = Banner | Paragraph | Command | Facts | Table | Explanation | FindingList | TriedFix | PhaseBars | Timeline
"""What every renderer draws."""

Detail = Block | Bars | Lengths | MemoryMap | Folded
"""What a renderer draws that has room for details."""


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; the first section of a report has none. One without anything to draw is left out."""

    name: str
    """sections of one name that follow each other may share a heading"""
    title: str = ""
    part: str = ""
    """which of several runs it is about"""
    aside: str = ""
    """a few words beside the title"""
    intro: str = ""
    """the same in a sentence or two, where there is room"""
    blocks: Sequence[Block] = ()
    details: Sequence[Detail] = ()
    """shown after the blocks where there is room: on a page, not in a terminal"""


def facts(rows: Mapping[str, str]) -> Facts:
    """Return the rows that have a value."""
    return Facts([(name, value) for name, value in rows.items() if value])


def table(*titles: str, right: Sequence[str] = (), rows: Sequence[Sequence[str | Cell]]) -> Table:
    """Return a table; the columns named in `right` are of numbers."""
    return Table([Column(title, right=title in right) for title in titles], rows)
