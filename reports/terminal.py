"""Reports for people at a terminal: readable at 80 columns, without colour, and when piped."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, assert_never

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports import bars, blocks
from memory_harness.reports.bars import ALLOCATED_STYLE, BUDGET_STYLE, REQUESTED_STYLE, RESERVED_STYLE
from memory_harness.reports.blocks import Cell, Section, Tone
from memory_harness.reports.levels import Level, column_levels
from memory_harness.reports.screen import cleaned
from memory_harness.reports.sections import probe_sections
from memory_harness.reports.summary import ProbeResult
from memory_harness.reports.text import table_unit, wrap_command

PIPED_WIDTH = 80
PIPED_HEIGHT = 25  # without one, COLUMNS is read all the same
MIN_WIDTH = 20  # columns in which something can be shown
MAX_WIDTH = 120  # wider lines are hard to read, however wide the terminal
ROWS_BELOW_BUDGET = 5
AXIS_WIDTH = 7
GAP = 2  # blanks between the columns of a table
PHASE_WIDTH = 10
RUN_WIDTH = 31  # least columns of a run beside others, its name whole; below it, they are drawn below each other

STYLES: dict[Tone, str] = {
    "": "",
    "strong": "bold",
    "muted": "bright_black",
    "good": "green",
    "bad": "red",
    "warning": "yellow",
}
SEVERITY_STYLES = {"error": "red", "warning": "yellow", "info": ""}


def make_console(file: IO[str] | None = None) -> Console:
    """Return a console for reports: as wide as the terminal, 80 columns where the output is piped."""
    file = file or sys.stdout
    columns = os.environ.get("COLUMNS")
    is_usable = columns is not None and re.fullmatch(r"\d{2,4}", columns) is not None and int(columns) >= MIN_WIDTH
    takes_default = not is_usable and (columns is not None or not file.isatty())
    width, height = (PIPED_WIDTH, PIPED_HEIGHT) if takes_default else (None, None)
    console = Console(file=file, width=width, height=height, highlight=False, force_jupyter=False)
    return cleaned(console)


def print_report(result: ProbeResult, console: Console) -> None:
    """Print the report on a probe."""
    print_sections(probe_sections(result), console)


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """Print a report."""
    show(render(sections, min(console.width, MAX_WIDTH)), console)


def show(content: RenderableType, console: Console) -> None:
    """Print; in ASCII where the console cannot show more, without trailing blanks where it is piped."""
    width = min(console.width, MAX_WIDTH)
    can_show_all = console.encoding.startswith("utf")
    if can_show_all and console.is_terminal:
        console.print(content, width=width)
        return
    with console.capture() as capture:
        console.print(content, width=width)
    text = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    console.file.write(text if can_show_all else bars.to_ascii(text))


def svg_text(result: ProbeResult, width: int = 100) -> str:
    """Return the report on a probe as an SVG picture of a terminal."""
    return sections_svg(probe_sections(result), width)


def sections_svg(sections: Sequence[Section], width: int = 100) -> str:
    """Return a report as an SVG picture of a terminal."""
    console = cleaned(
        Console(
            record=True, file=io.StringIO(), width=width, force_terminal=True, highlight=False, legacy_windows=False
        )
    )
    console.print(render(sections, width))
    picture = console.export_svg(title="python run_probe.py", unique_id="report")
    # rich's template loads its font from the web, which a picture in a page may not; any monospaced font does
    return re.sub(r"\s*@font-face {.*?}", "", picture, flags=re.DOTALL)


def render(sections: Sequence[Section], width: int) -> RenderableType:
    """Return a report for a console of `width` columns."""
    first, *others = [section for section in sections if section.body]
    drawn = [_block(block, width - 2) for block in first.body]
    for section in others:
        drawn += [Text(), *_heading(section)]
        for block in section.body:
            indent = 0 if isinstance(block, blocks.Timeline) else 2  # its axis is a margin itself
            drawn.append(Padding(_block(block, width - 4), (0, 0, 0, indent)))
    return Padding(Group(*drawn), (0, 1))


def _heading(section: Section) -> Iterator[Text]:
    if section.title:
        title = f"{section.title}, {section.part}" if section.part else section.title
        yield Text.assemble((title, "bold"), (f"  {section.aside}" if section.aside else "", "bright_black"))


def _block(block: blocks.Block, width: int) -> RenderableType:
    """Return a block for `width` columns."""
    match block:
        case blocks.Banner():
            return _banner(block)
        case blocks.Paragraph():
            return Text(block.text, STYLES[block.tone])
        case blocks.Command():
            return Group(*(Text(line, "bold cyan", overflow="fold") for line in wrap_command(block.text, width)))
        case blocks.Facts():
            return _table(blocks.Table(("", ""), [(Cell(name, "muted"), value) for name, value in block.rows]))
        case blocks.Table():
            return Group(*map(_table, _parts(block, width)))
        case blocks.Findings():
            if block.in_full:
                return Group(*chain.from_iterable(map(_explanation, block.items)))
            return _findings(block, width)
        case blocks.TriedFix():
            return Group(*_tried_fix(block))
        case blocks.PhaseBars():
            runs = [block._replace(levels={name: block.levels[name]}) for name in block.levels]
            beside = width >= PHASE_WIDTH + len(runs) * RUN_WIDTH
            return Group(*(_phase_bars(part, width) for part in ([block] if beside else runs)), _legend(block))
        case blocks.Timeline():
            return Group(*_chart(block, width - AXIS_WIDTH))
    assert_never(block)


def _banner(banner: blocks.Banner) -> Panel:
    style = STYLES[banner.tone] or "default"
    return Panel(
        Text(banner.sentence),
        title=Text(banner.title, f"bold {style}"),
        title_align="left",
        subtitle=Text(banner.source, "default") if banner.source else None,
        subtitle_align="right",
        border_style=style,
        padding=(0, 1),
    )


def _table(content: blocks.Table) -> Table:
    has_titles = any(content.titles)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=has_titles, header_style="bright_black")
    for title in content.titles:
        is_number = title in content.right
        table.add_column(title, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in content.rows:
        table.add_row(*(_cell(cell) for cell in row))
    return table


def _parts(table: blocks.Table, width: int) -> Iterator[blocks.Table]:
    """Yield a table, or parts of it where its numbers take more than the width; each part has the first column."""
    columns = list(zip(table.titles, *table.rows, strict=True)) if all(table.rows) else []
    widths = [max(len(_cell(cell)) for cell in column) + GAP for column in columns]
    room = width - min([*widths[:1], width // 3]) + GAP
    if sum(widths[1:]) <= room or not all(title in table.right for title in table.titles[1:]):
        yield table
        return
    shown = [0]
    for i in range(1, len(columns)):
        if len(shown) > 1 and sum(widths[j] for j in shown[1:]) + widths[i] > room:
            yield _of_columns(table, shown)
            shown = [0]
        shown.append(i)
    yield _of_columns(table, shown)


def _of_columns(table: blocks.Table, shown: Sequence[int]) -> blocks.Table:
    rows = [[row[i] for i in shown] for row in table.rows]
    return blocks.Table([table.titles[i] for i in shown], rows, table.right)


def _cell(cell: str | Cell) -> Text:
    if isinstance(cell, str):
        return Text(cell)
    return Text(cell.text, STYLES[cell.tone])


def _explanation(item: blocks.Explanation) -> Iterator[RenderableType]:
    yield Text(item.finding.title, "bold red")
    yield Text(item.before)
    if item.formula:
        yield Padding(Text(item.formula, "bold"), (0, 0, 0, 4))
        yield Padding(Text(item.legend, "bright_black"), (0, 0, 0, 4))
        yield Text(item.after)
    if item.finding.where:
        yield _place(item.finding.where)
    if item.flags:
        yield _flags(item.flags)


def _flags(flags: str) -> Text:
    return Text.assemble(("against it: ", "bright_black"), (flags, "cyan"))


def _place(where: str) -> Text:
    return Text.assemble(("at ", "bright_black"), where)


def _findings(block: blocks.Findings, width: int) -> Table:
    """Return causes and their words side by side, or one above the other where names take most of the width."""
    is_wide = max(len(item.finding.cause) for item in block.items) * 3 <= width
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=is_wide, overflow="fold")
    table.add_column(overflow="fold")
    for item in block.items:
        finding = item.finding
        words = Text(finding.title)
        if "budget_from_step" in finding.evidence:  # it grows: until when is what one wants to know
            words.append(f"\n{finding.explanation}")
        if finding.where:
            words.append("\n").append_text(_place(finding.where))
        if item.flags:
            words.append("\n").append_text(_flags(item.flags))
        cause = Text(finding.cause, SEVERITY_STYLES[finding.severity])
        if is_wide:
            table.add_row(cause, words)
        else:
            table.add_row(cause)
            table.add_row(Padding(words, (0, 0, 0, 2)))
    return table


def _tried_fix(block: blocks.TriedFix) -> Iterator[RenderableType]:
    mark = ("✓ ", "green") if block.helped else ("– ", "yellow")
    yield Text.assemble(mark, (block.fix.name, "bold"), f"  {block.fix.title}")
    yield Padding(Text(block.peaks.explanation), (0, 0, 0, 2))
    for remark in block.remarks:
        yield Padding(Text(remark, "bright_black"), (0, 0, 0, 2))


def _phase_bars(block: blocks.PhaseBars, width: int) -> Table:
    bar_width = max(4, (width - PHASE_WIDTH) // len(block.levels) - 20)
    table = Table(box=None, padding=0, pad_edge=False, show_header=True, header_style="bright_black")
    has_room = max(map(len, block.levels)) + 2 <= bar_width + 4
    if not has_room:
        table.title, table.title_justify = Text(", ".join(block.levels), "bright_black"), "left"
    table.add_column("", width=PHASE_WIDTH)
    for name in block.levels:
        table.add_column("alloc", justify="right", width=7)
        table.add_column("reserved", justify="right", width=9)
        table.add_column(Padding(Text(name if has_room else ""), (0, 0, 0, 2)), width=bar_width + 4)
    for phase in block.phases:
        cells: list[Text] = []
        for levels in block.levels.values():
            cells.extend(_phase_cells(levels.get(phase), bar_width, block))
        table.add_row(str(phase), *cells)
    return table


def _phase_cells(level: Level | None, width: int, block: blocks.PhaseBars) -> list[Text]:
    if level is None:
        return [Text("–", "bright_black"), Text("–", "bright_black"), Text("  not reached", "bright_black")]
    style = "bold red" if level.requested_bytes else ""
    numbers = [Text(f"{n / block.unit_bytes:.2f}", style) for n in (level.allocated_bytes, level.reserved_bytes)]
    return [*numbers, Text("  ").append_text(bars.bar(level, width, block.scale_bytes, block.budget_bytes))]


def _legend(block: blocks.PhaseBars) -> Text:
    legend = Text.assemble(("█", ALLOCATED_STYLE), " allocated  ", (bars.RESERVED, RESERVED_STYLE), " reserved  ")
    if block.has_failed:
        legend.append_text(Text.assemble((bars.REQUESTED, REQUESTED_STYLE), " the request that failed  "))
    if block.budget_bytes:
        legend.append_text(Text.assemble((bars.BUDGET_UP, BUDGET_STYLE), " budget"))
    return legend


def _chart(block: blocks.Timeline, num_columns: int) -> Iterator[RenderableType]:
    log = block.log
    columns = column_levels(log, num_columns)
    highest = max(level.top_bytes for level in columns)
    # a budget beyond the axis would leave nothing to be seen of the columns
    has_line = log.run.budget_bytes <= block.top_bytes
    budget = log.run.budget_bytes if has_line else highest
    unit, unit_bytes = table_unit(budget)
    rows = bars.column_chart(columns, budget, ROWS_BELOW_BUDGET, has_line=has_line)
    failed = next((i for i, level in enumerate(columns) if level.requested_bytes), None)
    for i, (row, is_budget) in enumerate(rows):
        if i == 0 and failed is not None:
            row = _with_sum(row, failed, columns[failed], unit, unit_bytes)
        label, axis = (f"{budget / unit_bytes:.2f}", "┤") if is_budget else ("", "│")
        style = BUDGET_STYLE if has_line else "bright_black"
        yield Text.assemble((f"{label:>{AXIS_WIDTH}} ", style), (axis, "bright_black"), row)
    yield Text(f"{'0':>{AXIS_WIDTH}} └{'─' * num_columns}", "bright_black")
    yield Text(" " * (AXIS_WIDTH + 2)).append_text(_steps_axis(log, num_columns, failed))


def _with_sum(row: Text, column: int, level: Level, unit: str, unit_bytes: int) -> Text:
    """Write what was allocated and asked for beside the failing column, or the sum alone, wherever there is room."""
    sizes = (level.allocated_bytes, level.requested_bytes, level.allocated_bytes + level.requested_bytes)
    allocated, requested, total = (f"{size / unit_bytes:.2f}" for size in sizes)
    for words in (f"{allocated} + {requested} = {total} {unit}", f"{total} {unit}"):
        text, room = Text(words, REQUESTED_STYLE), len(words) + 1
        if column + room < len(row):
            return row[: column + 2] + text + row[column + 1 + room :]
        if column >= room:
            return row[: column - room] + text + row[column - 1 :]
    return row


def _steps_axis(log: RunLog, num_columns: int, failed: int | None) -> Text:
    """Name the first, the last and the failing step under their columns, as far as there is room."""
    last_step = log.run.total_steps or max((p.step for p in log.phases), default=0)
    first, last, oom = "step 1", str(last_step), log.fatal_oom
    axis = Text()
    if oom is not None and failed is not None:
        mark = f"step {oom.step}, {oom.phase}"
        right = failed + 2 + len(mark) <= num_columns
        mark, start = (f"▲ {mark}", failed) if right else (f"{mark} ▲", failed - len(mark) - 1)
        before = first if start > len(first) else ""
        axis.append(before.ljust(max(0, start)), "bright_black").append(mark, REQUESTED_STYLE)
    else:
        axis.append(first, "bright_black")
    room = num_columns - len(axis)
    return axis.append(last.rjust(room), "bright_black") if room > len(last) else axis
