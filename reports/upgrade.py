"""What an upgrade of the libraries changed: a comparison of two runs, and the lines that made the difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from memory_harness.configs.units import Increase, format_apart, format_bytes
from memory_harness.harness.log.records import Phase, PhaseRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.compare import Change, Comparison, Verdict
from memory_harness.probes.peak_changes import PartChange, changes_by_category, changes_by_line
from memory_harness.reports.blocks import Paragraph, Section, Table
from memory_harness.reports.comparison import (
    Names,
    changes_sentence,
    comparison_json,
    comparison_sections,
    verdict_section,
)
from memory_harness.reports.next_step import next_section
from memory_harness.reports.summary import NextStep
from memory_harness.reports.terminal import print_sections

MAX_LINES = 12
"""lines of code that are shown; the rest is summed up"""


@dataclass(frozen=True)
class Upgrade:
    """Two runs that differ by versions of libraries alone, A under the older ones."""

    comparison: Comparison
    allowed: Increase | None
    """by how much peaks may rise; None where nothing was said"""

    @property
    def verdict(self) -> Verdict:
        """Whether B ends worse, else whether it takes more in the whole run: a single phase may take what it likes."""
        if self.comparison.outcome != "same":
            return self.comparison.outcome
        found = {change.verdict for change in self._of_run}
        if "worse" in found:
            return "worse"
        return "better" if "better" in found else "same"

    @property
    def sentence(self) -> str:
        """What decides the verdict."""
        if self.verdict == "same" and not any(change.difference for change in self.comparison.changes):
            return "Nothing changed: all peaks are equal to the byte."
        return changes_sentence(self.comparison, self.verdict, self._of_run)

    @property
    def _of_run(self) -> list[Change]:
        """Changes of the run as a whole."""
        return [change for change in self.comparison.changes if change.phase is None]

    @property
    def exceeded(self) -> list[str]:
        """What rose by more than is allowed, a sentence each."""
        found = []
        for change in self._of_run:
            if self.allowed is None or not change.kind.startswith("peak"):
                continue
            before, after = round(change.before or 0), round(change.after or 0)
            if after - before > self.allowed.of(before):
                texts = format_apart(before, after)
                found.append(f"{change.kind} rose from {texts[0]} to {texts[1]} (allowed: {self.allowed.text})")
        return found

    @property
    def by_category(self) -> list[PartChange]:
        """What the peak is made of."""
        return changes_by_category(self.comparison.before.peak_parts, self.comparison.after.peak_parts)

    @property
    def by_line(self) -> list[PartChange]:
        """Which lines take more or less of the peak."""
        return changes_by_line(self.comparison.before.peak_parts, self.comparison.after.peak_parts)


def upgrade_exit_code(upgrade: Upgrade) -> int:
    """Return 1 where more rose than is allowed, or B ends worse; else 0.

    Where nothing was said of what is allowed, it is 1 wherever the verdict is that B is worse.
    """
    if upgrade.allowed is None:
        return int(upgrade.verdict == "worse")
    return int(bool(upgrade.exceeded) or upgrade.comparison.outcome == "worse")


def print_upgrade(upgrade: Upgrade, names: Names, step: NextStep, console: Console) -> None:
    """Print what changed."""
    begin = verdict_section(upgrade.verdict, upgrade.sentence)
    print_sections(
        [begin, next_section(step), *comparison_sections(upgrade.comparison, names, _sections(upgrade))], console
    )


def upgrade_json(upgrade: Upgrade, names: Names, step: NextStep) -> str:
    """Return the content of the JSON file: that of a comparison, and more. Bytes are integers."""
    more = {
        "verdict": upgrade.verdict,
        "sentence": upgrade.sentence,
        "allowed_increase": None if upgrade.allowed is None else upgrade.allowed.text,
        "exceeded": upgrade.exceeded,
        "peak_by_category": list(map(_part_json, upgrade.by_category)),
        "peak_by_line": list(map(_part_json, upgrade.by_line)),
    }
    return comparison_json(upgrade.comparison, names, step, more)


def _part_json(change: PartChange) -> dict[str, Any]:
    return {**asdict(change), "difference_bytes": change.difference_bytes}


def _sections(upgrade: Upgrade) -> Iterator[Section]:
    """Yield what the peak is made of in both runs, and the lines whose share changed."""
    before, after = upgrade.comparison.before, upgrade.comparison.after
    if upgrade.exceeded:
        yield Section("exceeded", body=[Paragraph(f"{line[0].upper()}{line[1:]}.", "bad") for line in upgrade.exceeded])
    if not before.peak_parts or not after.peak_parts:
        yield Section("peak", "The peak", body=[Paragraph("What lived at the peaks was not recorded.", "warning")])
        return
    rows = [(change.category, *_sizes(change)) for change in upgrade.by_category]
    table = Table(("", "A", "B", "change"), rows, right=("A", "B", "change"))
    peaks = [f"A's peak is in {_peak_place(before)}; B's is in {_peak_place(after)}."]
    if _peak_phase(before) != _peak_phase(after):
        peaks.append("The two are not the same moment: what follows compares what each run needed most.")
    yield Section("peak", "What the peak is made of", body=[*map(Paragraph, peaks), table])
    yield Section("lines", "Lines that changed it", aside="largest change first", body=[_lines(upgrade)])


def _lines(upgrade: Upgrade) -> Table | Paragraph:
    changes = upgrade.by_line
    if not changes:
        same = "None: every line that was alive at the peak takes the same in both."
        if any(change.difference for change in upgrade.comparison.changes):
            same += " What differs above lies in other phases, or in the order of allocations, which reserved follows."
        return Paragraph(same)
    rows = [(_place(change), *_sizes(change)) for change in changes[:MAX_LINES]]
    rest = changes[MAX_LINES:]
    if rest:
        sizes = sum(change.before_bytes for change in rest), sum(change.after_bytes for change in rest)
        rows.append((f"{len(rest)} more", *_sizes(PartChange("", "", "", "", "", *sizes))))
    return Table(("", "A", "B", "change"), rows, right=("A", "B", "change"))


def _place(change: PartChange) -> str:
    """Return the line as B has it, or A where B has none, what it says and which other line led there."""
    about = change.category
    if change.site_before and change.site_after and change.site_before != change.site_after:
        about += f"; in A line {change.site_before.partition(':')[2].partition(' ')[0]}"
    site = change.site_after or change.site_before or "not known"
    lines = [site, f"({about})", change.code, change.caller and f"called by {change.caller}"]
    return "\n".join(filter(None, lines))


def _sizes(change: PartChange) -> tuple[str, str, str]:
    difference = change.difference_bytes
    sign = "+" if difference > 0 else ""
    before, after = format_apart(change.before_bytes, change.after_bytes)
    return before, after, f"{sign}{format_bytes(difference)}" if difference else "0"


def _peak_phase(log: RunLog) -> Phase:
    """Return the phase in which most was needed."""
    if log.fatal_oom is not None and log.needed_bytes > log.peak_allocated_bytes:
        return log.fatal_oom.phase
    return _highest(log).phase


def _peak_place(log: RunLog) -> str:
    """Return where most was needed, in words."""
    oom = log.fatal_oom
    if oom is not None and log.needed_bytes > log.peak_allocated_bytes:
        return f"{oom.phase}, step {oom.step}, which did not fit"
    highest = _highest(log)
    return f"{highest.phase}, step {highest.step}"


def _highest(log: RunLog) -> PhaseRecord:
    return max(log.phases, key=lambda record: record.after.peak_allocated_bytes)
