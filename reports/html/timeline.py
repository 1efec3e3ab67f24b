"""The run over time: what was allocated and reserved against the budget, and which phases ran when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter
from typing import TypeVar

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import OomRecord, Phase, PhaseRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports.html.drawing import figure, label, line, memory_axis, memory_legend, rect, svg
from memory_harness.reports.html.markup import Child, Node, node
from memory_harness.reports.levels import Level
from memory_harness.reports.summary import source_in_words
from memory_harness.reports.text import gib, in_unit, of_budget

MAX_COLUMNS = 320  # columns that the run is cut into: each two to three pixels wide on a large screen
SETUP_SHARE = 0.05  # share of the width for what comes before the first step
PLOT_PX, LANE_PX, AXIS_PX = 230, 16, 26
NUM_SHADES, MAX_EPOCHS = 6, 12
CURVES = {"viewBox": f"0 0 1000 {PLOT_PX}", "width": "100%", "height": f"{PLOT_PX}", "preserveAspectRatio": "none"}
"""The drawing of the curves: 1000 units across, stretched to the width of the chart."""
COLUMN_WIDE = 1000 / MAX_COLUMNS

T = TypeVar("T")

Entry = PhaseRecord | OomRecord


@dataclass
class Column:
    """A part of the run that is drawn as one column: the highest of what happened in it."""

    steps: tuple[int, int] = (0, 0)
    level: Level = field(default_factory=Level)
    highest: Phase | None = None  # the phase with the highest peak
    floor_bytes: int | None = None  # least that was allocated between two phases
    phases: dict[Phase, int] = field(default_factory=dict)  # peak of each phase that ran

    def note(self, record: PhaseRecord) -> None:
        """Take a phase that ran in this part."""
        peak = record.after.peak_allocated_bytes
        if self.highest is None:
            self.steps = (record.step, record.step)
        if self.highest is None or peak > self.level.allocated_bytes:
            self.highest = record.phase
        reserved = max(self.level.reserved_bytes, record.after.peak_reserved_bytes)
        self.level = Level(max(self.level.allocated_bytes, peak), reserved)
        self.steps = (min(self.steps[0], record.step), max(self.steps[1], record.step))
        self.phases[record.phase] = max(self.phases.get(record.phase, 0), peak)
        after = record.after.allocated_bytes
        self.floor_bytes = after if self.floor_bytes is None else min(self.floor_bytes, after)


def timeline_figure(log: RunLog, name: str, top_bytes: int) -> Iterator[Node]:
    """Yield the chart of one run; nothing where no phase ended. `top_bytes` is where the axis ends."""
    placed = list(place(log))
    if not placed:
        return
    columns = cut(placed)
    plot = node("div", {"class": "plot"}, _draw(log, placed, columns, top_bytes, f"Memory over time, {name}"))
    entries = [
        ("allocated", "allocated: held by tensors"),
        ("reserved", "reserved: held by PyTorch's allocator"),
        ("floor", "least between phases"),
    ]
    has_budget = log.run.budget_is_known and log.run.budget_bytes <= top_bytes
    explained = memory_legend(entries, failed=log.fatal_oom is not None, has_budget=has_budget)
    yield figure(name.capitalize(), _explanation(columns), source_in_words(log), explained, plot)


def place(log: RunLog) -> Iterator[tuple[float, float, Entry]]:
    """Yield every phase and the fatal failure with the share of the run where it begins and ends.

    Optimizer steps are equally wide; within one, its phases are, where it has room for them. Without steps, as in a
    memory snapshot, phases are.
    """
    entries: list[Entry] = [*log.phases, *([log.fatal_oom] if log.fatal_oom else [])]
    last = max((entry.step for entry in entries), default=0)
    if last == 0:
        for i, entry in enumerate(entries):
            yield i / len(entries), (i + 1) / len(entries), entry
        return
    setup, total, by_step = _setup_share(log), max(log.run.total_steps, last), attrgetter("step")
    for step, group in groupby(sorted(entries, key=by_step), key=by_step):
        of_step = list(group)
        begin, width = 0.0, setup
        if step:
            begin, width = step_place(step, setup, total), (1 - setup) / total
        # a step with fewer columns than phases is one place for all of them
        share = shift = width / len(of_step)
        if width * MAX_COLUMNS < len(of_step):
            share, shift = width, 0.0
        for i, entry in enumerate(of_step):
            yield begin + shift * i, begin + shift * i + share, entry


def _setup_share(log: RunLog) -> float:
    return SETUP_SHARE if any(record.step == 0 for record in log.phases) else 0.0


def step_place(step: int, setup: float, total: int) -> float:
    """Return the share of the width where a step begins."""
    return setup + (1 - setup) * (step - 1) / total


def cut(placed: Sequence[tuple[float, float, Entry]]) -> list[Column]:
    """Return the run in equally wide columns; those in which nothing ran are empty."""
    columns = [Column() for _ in range(MAX_COLUMNS)]
    for begin, end, entry in placed:
        first = min(MAX_COLUMNS - 1, int(begin * MAX_COLUMNS + 1e-6))
        last = max(first, min(MAX_COLUMNS, math.ceil(end * MAX_COLUMNS - 1e-6)) - 1)
        if isinstance(entry, PhaseRecord):
            for column in columns[first : last + 1]:
                column.note(entry)
    return columns


def _draw(
    log: RunLog, placed: Sequence[tuple[float, float, Entry]], columns: list[Column], top: int, heading: str
) -> Node:
    seen = set(chain.from_iterable(column.phases for column in columns))
    lanes = [phase for phase in Phase if phase in seen]
    if log.fatal_oom and log.fatal_oom.phase not in seen:
        lanes.append(log.fatal_oom.phase)
    height = PLOT_PX + AXIS_PX + LANE_PX * len(lanes) + 6
    at = next((begin for begin, _, entry in placed if isinstance(entry, OomRecord)), None)
    parts: list[Child] = [
        *memory_axis(top, PLOT_PX),
        node(
            "svg",
            {"class": "curves", **CURVES},
            node("path", {"class": "reserved", "d": _area([c.level.reserved_bytes for c in columns], top)}),
            node("path", {"class": "allocated", "d": _area([c.level.allocated_bytes for c in columns], top)}),
            node("path", {"class": "floor", "d": _course([c.floor_bytes for c in columns], top)}),
            *_phase_curves(lanes, columns, top),
        ),
        node("g", {"class": "moves"}, *_rest(columns, at)),
        *_budget(log, top),
        *_lanes(lanes, columns, log, at),
        node(
            "g",
            {"class": "moves"},
            *(_request(log.fatal_oom, at, top) if log.fatal_oom and at is not None else ()),
            *_step_marks(log, at),
            *_hover(columns, log, top),
        ),
    ]
    chart = svg(heading, _description(log, columns, top), height, *parts, css="timeline")
    chart.set("data-setup", f"{_setup_share(log):g}")
    chart.set("data-total", str(max([log.run.total_steps, *(record.step for record in log.phases)])))
    return chart


def _phase_curves(lanes: Sequence[Phase], columns: Sequence[Column], top: int) -> Iterator[Node]:
    """Yield the peaks of each phase on its own, which are seen where one phase is chosen."""
    for phase in lanes:
        peaks = [column.phases.get(phase) for column in columns]
        yield node("path", {"class": "phase-curve", "data-curve": str(phase), "d": _course(peaks, top)})


def _stretches(values: Iterable[T]) -> Iterator[tuple[T, int, int]]:
    """Yield the value of each run of equal neighbours, and the columns where the run begins and ends."""
    begin = 0
    for value, group in groupby(values):
        end = begin + len(list(group))
        yield value, begin, end
        begin = end


def _area(heights: Sequence[int], top: int) -> str:
    """Return the outline of what lies under a stepped curve."""
    path = f"M0,{PLOT_PX}"
    for height, _, end in _stretches(heights):
        path += f"V{PLOT_PX * (1 - height / top):.1f}H{end * COLUMN_WIDE:.1f}"
    return f"{path}V{PLOT_PX}Z"


def _course(heights: Sequence[int | None], top: int) -> str:
    """Return a stepped curve; columns without a height are gaps."""
    path, after_gap = "", True
    for height, begin, end in _stretches(heights):
        if height is not None:
            y = f"{PLOT_PX * (1 - height / top):.1f}"
            path += f"M{begin * COLUMN_WIDE:.1f},{y}" if after_gap else f"V{y}"
            path += f"H{end * COLUMN_WIDE:.1f}"
        after_gap = height is None
    return path


def _rest(columns: Sequence[Column], at: float | None) -> Iterator[Node]:
    """Yield what says that the run did not get further."""
    reached = max((i + 1 for i, column in enumerate(columns) if column.phases), default=0) / len(columns)
    begin = reached if at is None else max(reached, at)
    if begin > 1 - 2 / MAX_COLUMNS:
        return
    yield rect("unreached", begin, 1, 0, PLOT_PX)
    if begin < 0.75:
        yield label("not reached", (begin + 1) / 2, PLOT_PX - 12, "middle", "muted")


def _budget(log: RunLog, top: int) -> Iterator[Node]:
    if not log.run.budget_is_known:
        return
    if log.run.budget_bytes > top:
        yield label(f"budget {format_bytes(log.run.budget_bytes)}, far above", 1, -8, "end", "budget-words")
        return
    y = PLOT_PX * (1 - log.run.budget_bytes / top)
    yield line("budget", 0, y, 1, y)
    yield label(f"budget {format_bytes(log.run.budget_bytes)}", 1, y - 5, "end", "budget-words")


def _request(oom: OomRecord, at: float, top: int) -> Iterator[Node]:
    """Yield the request that failed, on top of what was allocated, and their sum in words."""
    total = oom.allocated_bytes + oom.requested_bytes
    high, low = PLOT_PX * (1 - total / top), PLOT_PX * (1 - oom.allocated_bytes / top)
    words = f"{format_bytes(oom.requested_bytes)} asked for on top of {format_bytes(oom.allocated_bytes)}"
    bar = rect("request outlined", at, at, high, low - high, words)
    bar.set("width", "7")
    yield bar
    side, shift = ("end", -6) if at > 0.35 else ("start", 13)
    lines = (f"out of memory, {oom.phase}", f"{gib(oom.allocated_bytes)} + {gib(oom.requested_bytes)} GiB")
    for number, text in enumerate(lines):
        yield label(text, at, max(11, high - 15) + 15 * number, side, "request-words", shift)


def _step_marks(log: RunLog, at: float | None) -> Iterator[Node]:
    """Yield the first, last and failing step, and where epochs begin."""
    y, total = PLOT_PX + 17, max([log.run.total_steps, *(p.step for p in log.phases)])
    if not total:
        yield label("phases in order", 0, y, css="tick")
        return
    setup, each = _setup_share(log), log.run.steps_per_epoch
    if each and total / each <= MAX_EPOCHS:
        for step in range(each + 1, total + 1, each):
            x = step_place(step, setup, total)
            yield line("epoch", x, 0, x, PLOT_PX)
            yield label(f"epoch {(step - 1) // each + 1}", x, 12, "start", "tick over", 5)
    oom = log.fatal_oom
    if at is not None and oom is not None and oom.step:
        anchor = "middle"
        if not 0.2 <= at <= 0.8:
            anchor = "start" if at < 0.2 else "end"
        yield label(f"step {oom.step}", at, y, anchor, "request-words")
    if at is None or at > 0.2:
        yield label("step 1", setup, y, css="tick")
    if at is None or at < 0.75:
        yield label(f"{total}", 1, y, "end", "tick")


def _lanes(lanes: Sequence[Phase], columns: Sequence[Column], log: RunLog, at: float | None) -> Iterator[Node]:
    """Yield a lane a phase: where it ran, the darker the closer its peak came to the budget."""
    for number, phase in enumerate(lanes):
        y = PLOT_PX + AXIS_PX + number * LANE_PX
        name = label(str(phase), 0, y + LANE_PX - 4, "end", "lane-name", -8)
        ran: list[Node] = []
        shades = [_shade(column.phases.get(phase), log.run.budget_bytes) for column in columns]
        for shade, begin, end in _stretches(shades):
            if shade:
                ran.append(rect(f"shade{shade}", begin / MAX_COLUMNS, end / MAX_COLUMNS, y + 2, LANE_PX - 4))
        if at is not None and log.fatal_oom and log.fatal_oom.phase is phase:
            mark = rect("request outlined", at, at, y + 1, LANE_PX - 2)
            mark.set("width", "7")
            ran.append(mark)
        moving = node("g", {"class": "moves"}, *ran)
        yield node("g", {"data-phase": str(phase)}, name, rect("track", 0, 1, y + 2, LANE_PX - 4), moving)


def _shade(peak: int | None, budget: int) -> int:
    if peak is None:
        return 0
    return 1 + max(0, min(NUM_SHADES - 1, int(NUM_SHADES * peak / max(1, budget))))


def _hover(columns: Sequence[Column], log: RunLog, top: int) -> Iterator[Node]:
    """Yield what is shown where the pointer rests; neighbours that say the same are one."""
    for words, begin, end in _stretches(_in_words(column, log, top) for column in columns):
        if words:
            yield rect("hover", begin / MAX_COLUMNS, end / MAX_COLUMNS, 0, PLOT_PX, words)


def _in_words(column: Column, log: RunLog, top: int) -> str:
    if column.highest is None:
        return ""
    first, last = column.steps
    when = f"step {first}" if first == last else f"steps {first} to {last}"
    if not log.run.total_steps:
        when = str(column.highest)
    elif last == 0:
        when = "before step 1"
    peak = f"peak {in_unit(column.level.allocated_bytes, top)} in {column.highest}"
    return f"{when}: {peak}, reserved {in_unit(column.level.reserved_bytes, top)}"


def _explanation(columns: Sequence[Column]) -> str:
    steps = max(column.steps[1] - column.steps[0] + 1 for column in columns)
    return f"Each column is the highest of up to {steps} steps." if steps > 1 else "Nothing is left out."


def _description(log: RunLog, columns: Sequence[Column], top: int) -> str:
    highest = max(columns, key=lambda column: column.level.allocated_bytes)
    budget = log.run.budget_bytes
    words = f"Highest allocated {of_budget(highest.level.allocated_bytes, budget)}, {_in_words(highest, log, top)}."
    if log.fatal_oom is not None:
        oom = log.fatal_oom
        words += f" Out of memory in {oom.phase} at step {oom.step}: {format_bytes(oom.requested_bytes)} asked for."
    return words
