"""What a report consists of: sections and their blocks, pure data. A renderer draws them and decides nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding
from memory_harness.reports.levels import Level

Tone = Literal["", "strong", "muted", "good", "bad", "warning"]


@dataclass(frozen=True)
class Banner:
    """The verdict of a report, and where its numbers come from."""

    title: str
    sentence: str
    tone: Tone
    source: str = ""


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
    """A text in a table that does not look like the others."""

    text: str
    tone: Tone


@dataclass(frozen=True)
class Table:
    """Rows of cells under titles; columns whose title is in `right` hold numbers. An empty row sets groups apart."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    right: Sequence[str] = ()


@dataclass(frozen=True)
class Explanation:
    """A finding with its arithmetic taken out, what helps against it, and the log to find its line of code with."""

    finding: Finding
    before: str
    formula: str
    legend: str
    after: str
    remedy: str
    log: RunLog


@dataclass(frozen=True)
class Findings:
    """Findings in full, or in a line or two each where there is no room."""

    items: Sequence[Explanation]
    in_full: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar for each level; without a budget, they are compared with each other only."""

    heading: str
    explanation: str
    source: str
    rows: Sequence[tuple[str, Level]]
    scale_bytes: int
    budget_bytes: int = 0


@dataclass(frozen=True)
class TriedFix:
    """A fix and what its re-run showed; the explanation of the bars says it in a line."""

    name: str
    title: str
    causes: str
    state: str
    helped: bool
    remarks: Sequence[str]
    peaks: Bars


@dataclass(frozen=True)
class PhaseBars:
    """The levels of the phases in each run, where it reached them; numbers beside the bars are in `unit_bytes`."""

    phases: Sequence[Phase]
    levels: Mapping[str, Mapping[Phase, Level]]
    source: str
    scale_bytes: int
    budget_bytes: int
    unit_bytes: int

    @property
    def has_failed(self) -> bool:
        """Whether a request failed in one of the runs."""
        everything = chain.from_iterable(levels.values() for levels in self.levels.values())
        return any(level.requested_bytes for level in everything)


@dataclass(frozen=True)
class Timeline:
    """A reference to the chart of a run over time; its axis ends at `top_bytes`."""

    name: str
    log: RunLog
    top_bytes: int


@dataclass(frozen=True)
class Lengths:
    """A reference to the chart of peaks against padded lengths; its axis ends at `top_bytes`."""

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


Block = Banner | Paragraph | Command | Facts | Table | Findings | TriedFix | PhaseBars | Timeline
"""What every renderer draws."""

Detail = Block | Bars | Lengths | MemoryMap | Folded
"""What a renderer draws that has room for details."""


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; one without anything to draw is left out. The first of a report has no heading.

    Sections of one name that follow each other are about several runs, `part` says which, or about several findings.
    `aside` is a few words beside the title, `intro` the same in sentences, and `details` follow the body: both are
    shown where there is room, on a page and not in a terminal.
    """

    name: str
    title: str = ""
    part: str = ""
    aside: str = ""
    intro: str = ""
    body: Sequence[Block] = ()
    details: Sequence[Detail] = ()


def facts(rows: Mapping[str, str]) -> Facts:
    """Return the rows that have a value."""
    return Facts([(name, value) for name, value in rows.items() if value])
