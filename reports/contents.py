"""Where memory goes at the peak of each phase: by kind, and by the calls that made it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.peaks import KINDS
from memory_harness.harness.log.records import PeakRecord, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports import blocks
from memory_harness.reports.blocks import Section, Table
from memory_harness.reports.summary import source_in_words
from memory_harness.reports.text import table_unit

MAX_COLUMNS = 5
"""Phases that a table has room for: those with the highest peaks."""
MIN_SHOWN = 0.005
"""Least size of a kind, in the unit of the table, that is worth a row."""
UNUSED = "cached, unused"
_OUTERMOST = "memory;"  # how a file of folded stacks begins: the outermost frame of all


def highest_peaks(log: RunLog) -> dict[Phase, PeakRecord]:
    """Return of each phase the highest peak that was looked at, in the order of phases."""
    found: dict[Phase, PeakRecord] = {}
    for record in log.peaks_seen:
        if record.phase not in found or record.allocated_bytes > found[record.phase].allocated_bytes:
            found[record.phase] = record
    return {phase: found[phase] for phase in Phase if phase in found}


def memory_section(log: RunLog, part: str, *, in_terminal: bool) -> Section:
    """Return the section about a run; without a body where only a page has room for it."""
    peaks = highest_peaks(log)
    if not peaks:
        return Section("memory")
    largest = max(record.allocated_bytes for record in peaks.values())
    unit, unit_bytes = table_unit(largest)
    shown = sorted(peaks.values(), key=lambda record: -record.allocated_bytes)[:MAX_COLUMNS]
    columns = [record for record in peaks.values() if record in shown]
    table = _table(columns, unit_bytes)
    intro = (
        "What lived at the highest moment of each phase that was looked at closely. What nothing names is told by the "
        "phase that made it."
    )
    details: list[blocks.Detail] = [_kinds(log, part, peaks.values())]
    if not in_terminal:
        details.append(blocks.Folded(f"The numbers, {part}", table))
    details += _by_calls(log, peaks.values() if in_terminal else shown[:1], largest)
    body = [table] if in_terminal else []
    return Section("memory", "Where memory goes", part, f"at the peaks of phases, in {unit}", intro, body, details)


def _table(peaks: Sequence[PeakRecord], unit_bytes: int) -> Table:
    names = [str(record.phase) for record in peaks]
    rows: list[list[str | blocks.Cell]] = []
    for kind in kinds_of(peaks):
        sizes = [record.kinds.get(kind, 0) for record in peaks]
        if max(sizes) < MIN_SHOWN * unit_bytes:
            continue
        rows.append([kind, *(number(size, unit_bytes) for size in sizes)])
    totals = [number(record.allocated_bytes, unit_bytes) for record in peaks]
    rows.append([blocks.Cell("allocated", "strong"), *(blocks.Cell(total, "strong") for total in totals)])
    unused = [max(0, record.reserved_bytes - record.allocated_bytes) for record in peaks]
    rows.append([UNUSED, *(number(size, unit_bytes) for size in unused)])
    return Table(("", *names), rows, right=names)


def number(num_bytes: int, unit_bytes: int) -> str:
    """Return a size without its unit; what is there and would round to nothing is no 0."""
    if not num_bytes:
        return "–"
    words = f"{num_bytes / unit_bytes:.2f}"
    return "<0.01" if words == "0.00" else words


def kinds_of(peaks: Iterable[PeakRecord]) -> list[str]:
    """Return the kinds that the records have, in the order in which they are shown."""
    found: dict[str, None] = {}
    for record in peaks:
        found.update(dict.fromkeys(record.kinds))
    return [kind for kind in KINDS if kind in found] + [kind for kind in found if kind not in KINDS]


def _kinds(log: RunLog, part: str, peaks: Iterable[PeakRecord]) -> blocks.Kinds:
    rows = []
    for record in peaks:
        unused = max(0, record.reserved_bytes - record.allocated_bytes)
        rows.append((str(record.phase), {**record.kinds, UNUSED: unused} if unused else record.kinds))
    scale = max(sum(sizes.values()) for _, sizes in rows)
    words = f"A full bar is {format_bytes(scale)}: what was allocated, and what lay cached beside it."
    return blocks.Kinds(part.capitalize(), words, source_in_words(log), rows, scale)


def _by_calls(log: RunLog, peaks: Iterable[PeakRecord], largest: int) -> Iterator[blocks.Folded]:
    for record in peaks:
        size = format_bytes(record.allocated_bytes)
        words = "The outermost call is at the top; each box is as wide as what it and the calls below it hold."
        flame = blocks.Flame(f"{record.phase}: {size}", words, source_in_words(log), record.stacks)
        is_highest = record.allocated_bytes == largest
        yield blocks.Folded(f"By calls, at the peak of {record.phase}", flame, is_open=is_highest)


def folded_text(log: RunLog) -> str:
    """Return the stacks of all peaks as text that flame graph viewers read: frames, a blank, bytes."""
    lines = []
    for phase, record in highest_peaks(log).items():
        lines += [f"{_OUTERMOST}{phase};{stack} {num_bytes}" for stack, num_bytes in record.stacks.items()]
    return "".join(f"{line}\n" for line in lines)
