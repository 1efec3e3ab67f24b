"""What a memory snapshot adds to a report: what lived at the peak, what grew, what is unused; and two side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from memory_harness.configs.printable import json_text
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.snapshot import read_live_blocks
from memory_harness.harness.log.snapshot_contents import MAX_SHOWN, Contents, Held, more_of
from memory_harness.probes.compare import is_noise
from memory_harness.reports.blocks import Banner, Block, Folded, Paragraph, Section, Table
from memory_harness.reports.json import head
from memory_harness.reports.next_step import next_section
from memory_harness.reports.summary import NextStep
from memory_harness.reports.text import plural

MAX_FRAMES = 6
"""Frames of a stack that are shown."""


def contents_sections(contents: Contents) -> list[Section]:
    """Return what a snapshot adds to a report."""
    peak = format_bytes(contents.peak_allocated_bytes)
    titles = ("made by", "bytes", "blocks")
    body: list[Block] = [
        Table(("made in", *titles[1:]), _rows(contents.by_part), right=titles[1:]),
        Table(titles, _rows(contents.by_line), right=titles[1:]),
    ]
    stacks = Table(("stack, the innermost first", *titles[1:]), _stack_rows(contents.by_stack), right=titles[1:])
    details = [Folded("The largest by their stacks", stacks)]
    unused, largest = format_bytes(contents.unused_bytes), format_bytes(contents.largest_free_block_bytes)
    pieces = plural(contents.num_free_pieces, "piece")
    words = f"At the end {format_bytes(contents.reserved_bytes)} is reserved, {unused} of it unused"
    words += f" in {pieces}, the largest {largest}." if contents.num_free_pieces else "."
    return [
        Section(
            "held",
            "What lived at the peak" if contents.course else "What was in use at the end",
            aside=f"{peak} allocated",
            body=body,
            details=details,
        ),
        Section("course", "Over the recording", aside="allocated", body=list(_course(contents))),
        Section("unused", "Unused", body=[Paragraph(words)]),
    ]


def _course(contents: Contents) -> Iterator[Block]:
    if len(contents.course) < 2:
        return
    rows = []
    for number, stretch in enumerate(contents.course, 1):
        lowest, highest = format_bytes(max(0, stretch.lowest[0])), format_bytes(max(0, stretch.highest[0]))
        rows.append([f"{number} of {len(contents.course)}", lowest, highest])
    yield Table(("part of the events", "lowest", "highest"), rows, right=("lowest", "highest"))
    if not is_noise(0, contents.growth_bytes, contents.peak_allocated_bytes) and contents.grown:
        yield Paragraph(f"What stays grew by {format_bytes(contents.growth_bytes)}. There is more of:", "warning")
        yield Table(("made by", "bytes", "blocks"), _rows(contents.grown), right=("bytes", "blocks"))
    if contents.marks:
        marks = [
            [m.name, str(m.times), format_bytes(m.first_bytes), format_bytes(m.last_bytes)] for m in contents.marks
        ]
        yield Table(("annotation", "times", "first", "last"), marks, right=("times", "first", "last"))


def _rows(held: Sequence[Held]) -> list[list[str]]:
    return [[one.maker, format_bytes(one.num_bytes), str(one.num_blocks)] for one in held]


def _stack_rows(held: Sequence[Held]) -> list[list[str]]:
    rows = []
    for one in held:
        frames = "\n".join(map(str, one.frames[:MAX_FRAMES])) or one.maker
        rows.append([frames, format_bytes(one.num_bytes), str(one.num_blocks)])
    return rows


def contents_json(contents: Contents) -> dict[str, Any]:
    """Return what a snapshot holds as plain data. Bytes are integers."""
    content = {item.name: getattr(contents, item.name) for item in dataclasses.fields(contents)}
    del content["peak"]  # the log has it
    for name in ("by_part", "by_line", "by_stack", "grown"):
        content[name] = [_held_json(held) for held in getattr(contents, name)]
    content["course"] = [{"lowest": low[0], "highest": high[0]} for low, high in contents.course]
    content["marks"] = [mark._asdict() for mark in contents.marks]
    return content


def _held_json(held: Held) -> dict[str, Any]:
    frames = [str(line) for line in held.frames]
    return {"maker": held.maker, "bytes": held.num_bytes, "blocks": held.num_blocks, "frames": frames}


class Difference(NamedTuple):
    """Two snapshots: what is in use at the end of each, and by line of code what there is more and less of."""

    names: tuple[str, str]
    before_bytes: int
    after_bytes: int
    more: tuple[Held, ...]
    less: tuple[Held, ...]

    @property
    def verdict(self) -> str:
        """`worse`, `better` or `same`."""
        if is_noise(self.before_bytes, self.after_bytes, max(self.before_bytes, self.after_bytes)):
            return "same"
        return "worse" if self.after_bytes > self.before_bytes else "better"


def difference_of(paths: Sequence[Path]) -> Difference:
    """Return what changed from one snapshot to another. Raises LogError: one cannot be read."""
    before, after = (read_live_blocks(path, "--compare") for path in paths)
    sizes = [sum(size for _, size in pieces) for pieces in (before, after)]
    names = str(paths[0]), str(paths[1])
    return Difference(names, sizes[0], sizes[1], more_of(before, after), more_of(after, before))


def difference_sections(difference: Difference, step: NextStep) -> list[Section]:
    """Return the report on two snapshots."""
    sizes = format_bytes(difference.before_bytes), format_bytes(difference.after_bytes)
    sign = "+" if difference.after_bytes > difference.before_bytes else ""
    change = sign + format_bytes(difference.after_bytes - difference.before_bytes)
    titles = {"worse": "GREW", "better": "SHRANK", "same": "NO CHANGE"}
    tones = {"worse": "bad", "better": "good", "same": ""}
    sentence = f"In use at the end: {sizes[0]} in A, {sizes[1]} in B ({change})."
    banner = Banner(titles[difference.verdict], sentence, tones[difference.verdict])  # type: ignore[arg-type]
    names = Table(("", ""), [["A", difference.names[0]], ["B", difference.names[1]]])
    sections = [Section("verdict", body=[banner]), next_section(step), Section("runs", body=[names])]
    for name, title, held in (("more", "More in B", difference.more), ("less", "Less in B", difference.less)):
        table = Table(("made by", "bytes", "blocks"), _rows(held), right=("bytes", "blocks"))
        aside = f"by line of code, at most {MAX_SHOWN}"
        sections.append(Section(name, title, aside=aside, body=[table] if held else []))
    return sections


def difference_json(difference: Difference, step: NextStep) -> str:
    """Return the content of the JSON file. Bytes are integers."""
    content = {
        **head("snapshots", step),
        "verdict": difference.verdict,
        "before": {"snapshot": difference.names[0], "in_use_bytes": difference.before_bytes},
        "after": {"snapshot": difference.names[1], "in_use_bytes": difference.after_bytes},
        "more": [_held_json(held) for held in difference.more],
        "less": [_held_json(held) for held in difference.less],
    }
    return json_text(content)
