"""The blocks of a report as elements of a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports import blocks
from memory_harness.reports.blocks import Cell, facts
from memory_harness.reports.html.course import course_figure
from memory_harness.reports.html.drawing import bar_rows, figure, memory_legend
from memory_harness.reports.html.excerpt import Excerpt, excerpt
from memory_harness.reports.html.flame import flame_figure
from memory_harness.reports.html.kinds import kinds_figure
from memory_harness.reports.html.lengths import lengths_figure
from memory_harness.reports.html.markup import Node, add, node
from memory_harness.reports.html.memory_map import memory_map_figure
from memory_harness.reports.html.timeline import timeline_figure
from memory_harness.reports.levels import Level
from memory_harness.reports.text import wrap_command

COMMAND_WIDTH = 78
LONG_CELL = 40  # letters from which on a cell needs a width of its own
LEVELS = (("allocated", "allocated"), ("reserved", "reserved"))

_ICONS = {"good": "M5,12.5l4.5,4.5L19,7.5", "bad": "M7,7l10,10M17,7L7,17", "warning": "M8,12h8"}


def block_nodes(block: blocks.Detail) -> Iterable[Node]:
    """Return what shows a block; nothing where a log has nothing for its chart."""
    match block:
        case blocks.Banner():
            return [_banner(block)]
        case blocks.Paragraph():
            return [node("p", {"class": block.tone or None}, block.text)]
        case blocks.Command():
            text = "\n".join(wrap_command(block.text, COMMAND_WIDTH))
            return [node("pre", {"class": "command", **_scrolling("Command")}, text)]
        case blocks.Facts():
            return [_definitions(block)]
        case blocks.Table():
            return [_table(block)]
        case blocks.Folded():
            is_open = "open" if block.is_open else None
            return [node("details", {"open": is_open}, node("summary", {}, block.summary), *block_nodes(block.block))]
        case blocks.Findings():
            return [_explanation(item) for item in block.items]
        case blocks.TriedFix():
            return [_tried_fix(block)]
        case blocks.Bars():
            return [_bars(block)]
        case blocks.PhaseBars():
            return _phase_bars(block)
        case blocks.Timeline():
            return timeline_figure(block.log, block.name, block.top_bytes)
        case blocks.Lengths():
            return lengths_figure(block.log, block.top_bytes)
        case blocks.Course():
            return [course_figure(block)]
        case blocks.Kinds():
            return [kinds_figure(block)]
        case blocks.Flame():
            return [flame_figure(block)]
        case blocks.MemoryMap():
            return memory_map_figure(block.log, block.name)
    assert_never(block)


def _scrolling(what: str) -> dict[str, str]:
    """Return the attributes of what scrolls by itself where it is wider than the page."""
    return {"tabindex": "0", "role": "region", "aria-label": what}


def _banner(banner: blocks.Banner) -> Node:
    icon = node("svg", {"class": "icon", "viewBox": "0 0 24 24", "width": "44", "height": "44", "aria-hidden": "true"})
    add(icon, [node("circle", {"cx": "12", "cy": "12", "r": "11"}), node("path", {"d": _ICONS[banner.tone]})])
    heading = node("h1", {"id": "verdict-heading"}, banner.title.capitalize())
    return node("div", {"class": "banner"}, icon, node("div", {}, heading, node("p", {}, banner.sentence)))


def _definitions(block: blocks.Facts) -> Node:
    rows = node("dl")
    for name, text in block.rows:
        add(rows, [node("dt", {}, name), node("dd", {}, text)])
    return rows


def _table(table: blocks.Table) -> Node:
    headings = []
    for title in table.titles:
        css = {"class": "num" if title in table.right else None}
        headings.append(node("th", {"scope": "col", **css}, title) if title else node("td"))
    body = node("tbody")
    for row in table.rows:
        add(body, [node("tr", {}, *_cells(row, table))])
    named = f"Table: {', '.join(title for title in table.titles if title)}"
    head = node("thead", {}, node("tr", {}, *headings))
    return node("div", {"class": "table", **_scrolling(named)}, node("table", {}, head, body))


def _cells(row: Iterable[str | Cell], table: blocks.Table) -> Iterator[Node]:
    for number, cell in enumerate(row):
        found = Cell(cell, "") if isinstance(cell, str) else cell
        is_number = bool(number) and table.titles[number] in table.right
        css = {"class": f"{found.tone} {_width_of(found.text, is_number=is_number)}".strip() or None}
        yield node("td", css, found.text) if number else node("th", {"scope": "row", **css}, found.text)


def _width_of(text: str, *, is_number: bool) -> str:
    """Return the class that says how a cell may be broken into lines: numbers and single words are not."""
    if is_number:
        return "num"
    if len(text) > LONG_CELL:
        return "long"
    return "short" if " " not in text else ""


def _explanation(item: blocks.Explanation) -> Node:
    finding = item.finding
    badge = node("span", {"class": f"badge {finding.severity}"}, finding.severity)
    cause = node("p", {"class": "cause"}, badge, " ", node("code", {}, finding.cause))
    article = node("article", {"class": "finding"}, cause, node("h3", {}, finding.title), node("p", {}, item.before))
    if item.formula:
        formula = node("strong", {}, item.formula)
        add(article, [node("p", {"class": "formula"}, formula, node("br"), item.legend), node("p", {}, item.after)])
    if finding.where:
        add(article, [_place(finding.where, item.log)])
    if item.remedy:
        add(article, [node("p", {}, node("strong", {}, "What helps: "), item.remedy)])
    if item.flags:
        add(article, [node("p", {}, node("strong", {}, "Against it: "), node("code", {}, item.flags))])
    add(article, _evidence(finding.evidence))
    return article


def _place(where: str, log: RunLog) -> Node:
    """Return where the memory is made or held, with the lines of code around it where they are here."""
    place = node("div", {"class": "place"}, node("p", {}, "Made or held at ", node("code", {}, where)))
    frames = [survivor.site for survivor in log.survivors]
    for oom in log.ooms:
        frames.extend(oom.frames)
    functions = [frame.removeprefix(where).strip() for frame in frames if frame.startswith(f"{where} ")]
    found = excerpt(where, functions, log.run.environment)
    if found is not None:
        add(place, [_listing(where, found)])
    return place


def _listing(where: str, found: Excerpt) -> Node:
    line: str | Node
    listing = node("pre", {"class": "code", **_scrolling(f"Code around {where}")})
    for number, text in enumerate(found.lines, found.first):
        css, sign, line = "line", " ", text
        if number == found.marked:
            css, sign, line = "line marked", "▸", node("mark", {}, text)
        gutter = node("span", {"class": "number", "aria-hidden": "true"}, f"{sign}{number:>5}  ")
        add(listing, [node("span", {"class": css}, gutter, line, "\n")])
    return listing


def _evidence(evidence: dict[str, int | float | str]) -> Iterable[Node]:
    if not evidence:
        return []
    rows = {name.replace("_", " "): _evidence_value(name, value) for name, value in evidence.items()}
    return block_nodes(blocks.Folded("Evidence", facts(rows)))


def _evidence_value(name: str, value: float | str) -> str:
    is_size = name.endswith("_bytes") or name.startswith("live:")
    if is_size and isinstance(value, int) and abs(value) >= 1024:
        return f"{format_bytes(value)} ({value} bytes)"
    return str(value)


def _tried_fix(block: blocks.TriedFix) -> Node:
    badge = node("span", {"class": f"badge {'good' if block.helped else 'info'}"}, block.state)
    cause = node("p", {"class": "cause"}, badge, " ", node("code", {}, ", ".join(block.fix.addresses)))
    remarks = [node("p", {"class": "muted"}, remark) for remark in block.remarks]
    peaks = block.peaks
    shown = _bars(peaks) if peaks.rows else figure(peaks.heading, peaks.explanation, peaks.source)
    return node("article", {"class": "fix"}, cause, shown, *remarks)


def _bars(block: blocks.Bars) -> Node:
    rows = [(name, level, level.words(block.scale_bytes)) for name, level in block.rows]
    words = "; ".join(f"{name}: {text}" for name, _, text in rows)
    if block.budget_bytes:
        words += f"; the budget is {format_bytes(block.budget_bytes)}"
    chart = bar_rows(rows, block.scale_bytes, block.budget_bytes, title=block.heading, description=words)
    failed = any(level.requested_bytes for _, level in block.rows)
    explained = None
    if any(level.reserved_bytes for _, level in block.rows):
        explained = memory_legend(LEVELS, failed=failed, has_budget=block.budget_bytes > 0)
    return figure(block.heading, block.explanation, block.source, explained, chart)


def _phase_bars(block: blocks.PhaseBars) -> list[Node]:
    charts = node("div", {"class": "side-by-side"})
    for name, levels in block.levels.items():
        rows = []
        for phase in block.phases:
            level = levels.get(phase)
            reached = "not reached" if level is None else level.words(block.scale_bytes)
            rows.append((str(phase), level or Level(), reached))
        words = "; ".join(f"{phase} {text}" for phase, _, text in rows)
        title = f"Peak by phase, {name}"
        chart = bar_rows(rows, block.scale_bytes, block.budget_bytes, title=title, description=words)
        explanation = f"The line is the budget, {format_bytes(block.budget_bytes)}." if block.budget_bytes else ""
        add(charts, [figure(name.capitalize(), explanation, block.source, chart)])
    return [memory_legend(LEVELS, failed=block.has_failed, has_budget=block.budget_bytes > 0), charts]
