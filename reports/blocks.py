"""What a report consists of: sections and their blocks, pure data. A renderer draws them and decides nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple

from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.findings import Finding, FixResult
from memory_harness.reports.levels import Level

Tone = Literal["", "strong", "muted", "good", "bad", "warning"]


class Banner(NamedTuple):
    """The verdict of a report, and where its numbers come from."""

    title: str
    sentence: str
    tone: Tone
    source: str = ""


class Paragraph(NamedTuple):
    """One or several sentences."""

    text: str
    tone: Tone = ""


class Command(NamedTuple):
    """What to type next."""

    text: str


class Facts(NamedTuple):
    """Names and values; a value may have several lines."""

    rows: Sequence[tuple[str, str]]


class Cell(NamedTuple):
    """A text in a table that does not look like the others."""

    text: str
    tone: Tone


ONLY_JUST = Cell("only just: the cache has to be given back", "warning")
"""where what is allocated fits, but not what PyTorch would reserve"""


class Table(NamedTuple):
    """Rows of cells under titles; columns whose title is in `right` hold numbers. An empty row sets groups apart."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    right: Sequence[str] = ()


class Explanation(NamedTuple):
    """A finding with its arithmetic taken out, what helps, and the log to find its line of code with."""

    finding: Finding
    before: str
    formula: str
    legend: str
    after: str
    remedy: str
    log: RunLog
    flags: str = ""
    """of the cheapest fix for this configuration; empty without one"""


class Findings(NamedTuple):
    """Findings in full, or in a line or two each where there is no room."""

    items: Sequence[Explanation]
    in_full: bool = False


class Bars(NamedTuple):
    """A bar for each level; without a budget, they are compared with each other only."""

    heading: str
    explanation: str
    source: str
    rows: Sequence[tuple[str, Level]]
    scale_bytes: int
    budget_bytes: int = 0


class TriedFix(NamedTuple):
    """A fix and what its re-run showed; the explanation of the bars says it in a line."""

    fix: FixResult
    state: str
    helped: bool
    remarks: Sequence[str]
    peaks: Bars


class PhaseBars(NamedTuple):
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
        everything = chain.from_iterable(map(Mapping.values, self.levels.values()))
        return any(level.requested_bytes for level in everything)


class Timeline(NamedTuple):
    """A reference to the chart of a run over time; its axis ends at `top_bytes`."""

    name: str
    log: RunLog
    top_bytes: int


class Lengths(NamedTuple):
    """A reference to the chart of peaks against padded lengths; its axis ends at `top_bytes`."""

    log: RunLog
    top_bytes: int


class MemoryMap(NamedTuple):
    """A reference to the map of a run's segments at its worst moment."""

    name: str
    log: RunLog


class Course(NamedTuple):
    """A number of each step, and those that were measured now and then, such as held-out losses."""

    heading: str
    explanation: str
    source: str
    points: Sequence[tuple[int, float]]  # step and value
    marks: Sequence[tuple[int, float, str]] = ()  # step, value and what it is
    total_steps: int = 0


class Kinds(NamedTuple):
    """What memory is for, a bar for each phase in one unit; `scale_bytes` is what a full bar stands for."""

    heading: str
    explanation: str
    source: str
    rows: Sequence[tuple[str, Mapping[str, int]]]
    scale_bytes: int


class Flame(NamedTuple):
    """Who made what lived at a moment: folded stacks, each with its bytes."""

    heading: str
    explanation: str
    source: str
    stacks: Mapping[str, int]


class Folded(NamedTuple):
    """A block of which only the summary is seen at first."""

    summary: str
    block: Facts | Table | Flame
    is_open: bool = False


Block = Banner | Paragraph | Command | Facts | Table | Findings | TriedFix | PhaseBars | Timeline
"""What every renderer draws."""

Detail = (
    Block | Bars | Lengths | MemoryMap | Course | Kinds | Flame | Folded
)  # what a renderer draws that has room for details


class Section(NamedTuple):
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
