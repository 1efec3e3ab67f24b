"""The report for people: readable at 80 columns, without colour, and when piped."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import MemoryStats, Outcome, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.analysis import End, analyse_failure, recurrence_in_words
from memory_harness.probes.detectors.peaks import length_limit
from memory_harness.probes.findings import Finding, FixResult
from memory_harness.probes.plan.choose import Limits, Option, Plan
from memory_harness.reports.summary import (
    EQUIVALENCE,
    ProbeResult,
    agreement_in_words,
    basis,
    largest,
    phase_levels,
    scale_bytes,
    source_in_words,
    timeline,
    verdict_sentence,
    verdict_title,
)
from memory_harness.reports.text import (
    ALLOCATED_STYLE,
    BUDGET_STYLE,
    BUDGET_UP,
    REQUESTED,
    REQUESTED_STYLE,
    RESERVED,
    RESERVED_STYLE,
    Level,
    bar,
    column_chart,
    gib,
    of_budget,
    plural,
    split_formula,
    table_unit,
    to_ascii,
    wrap_command,
)

PIPED_WIDTH = 80
MAX_WIDTH = 120
"""Wider lines are hard to read, however wide the terminal."""

ROWS_BELOW_BUDGET = 5
AXIS_WIDTH = 7
PHASE_WIDTH = 10

MAX_READINGS, MAX_FRAMES = 2, 3

VERDICT_STYLES = {"pass": "green", "pass_with_fixes": "green", "fail": "red"}

SVG_BEGINS = "<svg "
"""First characters of a picture."""


def make_console(file: IO[str] | None = None) -> Console:
    """Return a console for reports: as wide as the terminal, 80 columns where the output is piped."""
    file = file or sys.stdout
    piped = not file.isatty() and "COLUMNS" not in os.environ
    return Console(file=file, width=PIPED_WIDTH if piped else None, highlight=False, force_jupyter=False)


def print_report(result: ProbeResult, console: Console) -> None:
    """Print the report."""
    show(render(result, min(console.width, MAX_WIDTH)), console)


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
    console.file.write(text if can_show_all else to_ascii(text))


def svg_text(result: ProbeResult, width: int = 100) -> str:
    """Return the report as an SVG picture of a terminal."""
    console = Console(
        record=True, file=io.StringIO(), width=width, force_terminal=True, highlight=False, legacy_windows=False
    )
    console.print(render(result, width))
    picture = console.export_svg(title="python run_probe.py", unique_id="report")
    # rich's template loads its font from the web, which a picture in a page may not; any monospaced font does
    return re.sub(r"\s*@font-face {.*?}", "", picture, flags=re.DOTALL)


def render(result: ProbeResult, width: int = PIPED_WIDTH) -> RenderableType:
    """Return the report for a console of `width` columns."""
    sections = (
        _verdict(result),
        _why(result.findings),
        _asked_for(result),
        _memory_by_phase(result, width - 2),
        _by_length(result),
        _over_the_run(result, width - 2),
        _plan(result.plan),
        _fixes(result.fixes),
        _limits(result.limits),
        _other_counts(result),
        _prediction(result),
        _also(result.findings),
        _basis(result),
        _next(result.next_command, width - 2),
    )
    return Padding(Group(*(part for section in sections for part in section)), (0, 1))


def heading(title: str, aside: str = "") -> Iterator[RenderableType]:
    """Yield an empty line and the heading of a section."""
    yield Text()
    yield Text.assemble((title, "bold"), (f"  {aside}" if aside else "", "bright_black"))


def _verdict(result: ProbeResult) -> Iterator[RenderableType]:
    style = VERDICT_STYLES[result.verdict]
    yield Panel(
        Text(verdict_sentence(result)),
        title=Text(verdict_title(result), f"bold {style}"),
        title_align="left",
        subtitle=Text(source_in_words(result.as_configured), "default"),
        subtitle_align="right",
        border_style=style,
        padding=(0, 1),
    )
    if fault := result.as_configured.run.fault:
        yield Text(f"The mistake {fault} was planted in this run on purpose.", "bold yellow")


def _why(findings: Iterable[Finding]) -> Iterator[RenderableType]:
    for finding in (f for f in findings if f.severity == "error"):
        yield from heading("Why", finding.cause)
        yield Padding(Text(finding.title, "bold red"), (0, 0, 0, 2))
        before, formula, legend, after = split_formula(finding.explanation)
        yield Padding(Text(before), (0, 0, 0, 2))
        if formula:
            yield Padding(Text(formula, "bold"), (0, 0, 0, 6))
            yield Padding(Text(legend, "bright_black"), (0, 0, 0, 6))
            yield Padding(Text(after), (0, 0, 0, 2))
        if finding.where:
            yield Padding(Text.assemble(("at ", "bright_black"), finding.where), (0, 0, 0, 2))


def _asked_for(result: ProbeResult) -> Iterator[RenderableType]:
    """What the failed request was for, who asked, and what took the memory then."""
    failure = analyse_failure(result.as_configured)
    if failure is None:
        return
    oom = failure.oom
    retries = f"; the allocator retried {plural(oom.num_alloc_retries, 'time')}" if oom.num_alloc_retries else ""
    rows = {
        "size of": "\n".join(f"{product.what}: {product}" for product in failure.products[:MAX_READINGS]),
        "asked by": "\n".join(oom.frames[:MAX_FRAMES]),
        "live then": " · ".join(f"{name} {format_bytes(num_bytes)}" for name, num_bytes in largest(failure.live)),
        "unused": f"{format_bytes(failure.free_bytes)}, in pieces of at most "
        f"{format_bytes(oom.largest_free_block_bytes)}{retries}",
    }
    yield from heading("What was asked for", f"{format_bytes(oom.requested_bytes)} in {oom.phase}")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for name, value in rows.items():
        if value:
            table.add_row(Text(name, "bright_black"), Text(value, overflow="fold"))
    yield Padding(table, (0, 0, 0, 2))


def _memory_by_phase(result: ProbeResult, width: int) -> Iterator[RenderableType]:
    budget, scale = result.as_configured.run.budget_bytes, scale_bytes(result)
    runs = [("as configured", phase_levels(result.as_configured))]
    if result.with_fixes is not None:
        runs.append(("with fixes", phase_levels(result.with_fixes)))
    phases = [phase for phase in Phase if any(phase in levels for _, levels in runs)]
    if not phases:
        return
    unit, unit_bytes = table_unit(max(level.top_bytes for _, levels in runs for level in levels.values()))
    bar_width = max(4, (width - PHASE_WIDTH - 2) // len(runs) - 20)
    table = Table(box=None, padding=0, pad_edge=False, show_header=True, header_style="bright_black")
    table.add_column("", width=PHASE_WIDTH)
    for name, _ in runs:
        table.add_column("alloc", justify="right", width=7)
        table.add_column("reserved", justify="right", width=9)
        table.add_column(f"  {name}", width=bar_width + 4)
    for phase in phases:
        cells: list[Text] = []
        for _, levels in runs:
            cells.extend(_phase_cells(levels.get(phase), bar_width, scale, budget, unit_bytes))
        table.add_row(str(phase), *cells)
    shown_budget = gib(budget) if unit == "GiB" else format_bytes(budget)
    yield from heading("Memory by phase", f"peaks in {unit}; the budget is {shown_budget}")
    yield Padding(table, (0, 0, 0, 2))
    failed = any(level.requested_bytes for _, levels in runs for level in levels.values())
    yield Padding(_legend(failed=failed, budget_mark=BUDGET_UP), (0, 0, 0, 2))


def _phase_cells(level: Level | None, width: int, scale: int, budget: int, unit_bytes: int) -> list[Text]:
    if level is None:
        return [Text("–", "bright_black"), Text("–", "bright_black"), Text("  not reached", "bright_black")]
    style = "bold red" if level.requested_bytes else ""
    numbers = [Text(f"{n / unit_bytes:.2f}", style) for n in (level.allocated_bytes, level.reserved_bytes)]
    return [*numbers, Text("  ").append_text(bar(level, width, scale, budget))]


def _legend(*, failed: bool, budget_mark: str) -> Text:
    legend = Text.assemble(("█", ALLOCATED_STYLE), " allocated  ", (RESERVED, RESERVED_STYLE), " reserved  ")
    if failed:
        legend.append_text(Text.assemble((REQUESTED, REQUESTED_STYLE), " the request that failed  "))
    return legend.append_text(Text.assemble((budget_mark, BUDGET_STYLE), " budget"))


def _by_length(result: ProbeResult) -> Iterator[RenderableType]:
    """How long a training batch may get: whether the next longer text will do is what one wants to know."""
    limit = length_limit(result.as_configured)
    if limit is None:
        return
    batch = plural(limit.batch_size, "sequence")
    if limit.longest < limit.tried_up_to:
        share = f"{limit.share_beyond:.1%}" if limit.share_beyond else "none"
        beyond = f"{share} of the {limit.num_samples} samples seen {'are' if limit.share_beyond else 'is'} longer"
        words = f"A training batch of {batch} reaches the budget beyond {limit.longest} tokens; {beyond}."
    else:
        words = f"A training batch of {batch} stays within the budget up to {limit.tried_up_to} tokens at least."
    yield Padding(Text(words), (0, 0, 0, 2))


def _over_the_run(result: ProbeResult, width: int) -> Iterator[RenderableType]:
    runs = [("as configured", result.as_configured)]
    if result.with_fixes is not None:
        runs.append(("with fixes", result.with_fixes))
    if not any(p.step for p in result.as_configured.phases):
        return
    for name, log in runs:
        unit, _ = table_unit(log.run.budget_bytes)
        yield from heading(f"Over the run, {name}", f"peak of each step in {unit}")
        yield from _chart(log, width - AXIS_WIDTH - 2)


def _chart(log: RunLog, num_columns: int) -> Iterator[RenderableType]:
    budget = log.run.budget_bytes
    unit, unit_bytes = table_unit(budget)
    columns = timeline(log, num_columns)
    rows = column_chart(columns, budget, ROWS_BELOW_BUDGET)
    failed = next((i for i, level in enumerate(columns) if level.requested_bytes), None)
    for i, (row, is_budget) in enumerate(rows):
        if i == 0 and failed is not None:
            row = _with_sum(row, failed, columns[failed], unit, unit_bytes)
        label = f"{f'{budget / unit_bytes:.2f}' if is_budget else '':>{AXIS_WIDTH}} "
        yield Text.assemble((label, BUDGET_STYLE), ("┤" if is_budget else "│", "bright_black"), row)
    yield Text(f"{'0':>{AXIS_WIDTH}} └{'─' * num_columns}", "bright_black")
    yield Text(" " * (AXIS_WIDTH + 2)).append_text(_steps_axis(log, num_columns, failed))


def _with_sum(row: Text, column: int, level: Level, unit: str, unit_bytes: int) -> Text:
    """Write what was allocated and asked for beside the failing column, on whichever side has room."""
    sizes = (level.allocated_bytes, level.requested_bytes, level.allocated_bytes + level.requested_bytes)
    allocated, requested, total = (f"{size / unit_bytes:.2f}" for size in sizes)
    words = f" {allocated} + {requested} = {total} {unit} "
    if column + 1 + len(words) <= len(row):
        return row[: column + 1] + Text(words, REQUESTED_STYLE) + row[column + 1 + len(words) :]
    start = max(0, column - len(words))
    return row[:start] + Text(words[: column - start], REQUESTED_STYLE) + row[column:]


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


def _fixes(fixes: list[FixResult]) -> Iterator[RenderableType]:
    if not fixes:
        return
    yield from heading("Fixes", "each tried by running again")
    for fix in fixes:
        yield from _fix(fix)


def _fix(fix: FixResult) -> Iterator[RenderableType]:
    mark, style = ("✓", "green") if fix.applied and fix.verified else ("–", "yellow")
    state = "verified" if fix.verified else "did not help"
    if fix.verified and not fix.applied:
        state = "helps, not needed"
    yield Padding(Text.assemble((f"{mark} ", style), (fix.name, "bold"), f"  {fix.title}"), (0, 0, 0, 2))
    slowdown = "" if fix.slowdown is None else f" · {fix.slowdown:.2f}× the time"
    peaks = f"peak {format_bytes(fix.before_peak_bytes)} → {format_bytes(fix.after_peak_bytes)}"
    details = f"{peaks} · {state} · {EQUIVALENCE[fix.equivalence]}{slowdown}"
    yield Padding(Text(details), (0, 0, 0, 4))
    if fix.agreement is not None and fix.agreement.agrees:
        yield Padding(Text(agreement_in_words(fix.agreement), "bright_black"), (0, 0, 0, 4))
    if fix.reason:
        yield Padding(Text(fix.reason, "bright_black"), (0, 0, 0, 4))
    if fix.note:
        yield Padding(Text(fix.note, "bright_black"), (0, 0, 0, 4))


def _plan(plan: Plan | None) -> Iterator[RenderableType]:
    if plan is None:
        return
    room = f"{format_bytes(plan.headroom_bytes)} of {format_bytes(plan.budget_bytes)}"
    yield from heading("Plan", f"for {plan.goal}, leaving {room} free; peaks in GiB, all predicted")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    table.add_column("fixes")
    for title in ("alloc", "reserved", "time", "fits"):
        table.add_column(title, justify="right", no_wrap=True)
    others = [Option((), plan.as_configured, 1.0), *plan.alternatives]
    for option in [plan.chosen, *(option for option in others if option.fixes != plan.chosen.fixes)]:
        table.add_row(*_option_cells(option, "bold" if option is plan.chosen else ""))
    yield Padding(table, (0, 0, 0, 2))


def _option_cells(option: Option, style: str) -> tuple[Text, ...]:
    prediction = option.prediction
    return (
        Text(" + ".join(option.fixes) or "as configured", style, overflow="fold"),
        Text(gib(prediction.peak_allocated_bytes), style),
        Text(gib(prediction.peak_reserved_bytes), style),
        Text(f"{option.slowdown:.2f}×", style),
        Text("yes", "green") if prediction.passes else Text("no", "red"),
    )


def _limits(limits: Limits | None) -> Iterator[RenderableType]:
    if limits is None:
        return
    rows = {
        "micro-batch": f"{limits.micro_batch} sequences of the maximum length",
        "length": f"{limits.length} tokens, at the batch sizes of training and evaluation",
        "token cap": f"{limits.batch_tokens} padded tokens in a training batch",
    }
    yield from heading("Largest that fit", f"each with all else unchanged; in multiples of {limits.multiple_of} tokens")
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, "bright_black"), value)
    yield Padding(table, (0, 0, 0, 2))


def _other_counts(result: ProbeResult) -> Iterator[RenderableType]:
    if not result.other_counts:
        return
    yield from heading("The same run at other sample counts", "as configured")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    table.add_column("samples", justify="right")
    table.add_column("ends at")
    table.add_column("of the run", justify="right")
    table.add_column("outcome")
    for count in result.other_counts:
        style = "red" if count.outcome is Outcome.OOM else ""
        outcome = "out of memory" if count.outcome is Outcome.OOM else str(count.outcome)
        share = f"{count.step / count.total_steps:.0%}" if count.total_steps else "–"
        table.add_row(str(count.samples), f"step {count.step} of {count.total_steps}", share, Text(outcome, style))
    yield Padding(table, (0, 0, 0, 2))
    ends = [End(count.step, count.total_steps) for count in result.other_counts if count.outcome is Outcome.OOM]
    if sentence := recurrence_in_words(ends):
        yield Padding(Text(sentence), (0, 0, 0, 2))


def _prediction(result: ProbeResult) -> Iterator[RenderableType]:
    if result.predicted is None:
        return
    yield from heading("Measured against simulated", "peaks in bytes")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    table.add_column("")
    for title in ("allocated", "difference", "reserved", "difference"):
        table.add_column(title, justify="right")
    predicted = result.predicted.peaks()
    for phase, measured in (result.with_fixes or result.as_configured).peaks().items():
        simulated = predicted.get(phase, MemoryStats())
        allocated = _difference(measured.peak_allocated_bytes, simulated.peak_allocated_bytes)
        reserved = _difference(measured.peak_reserved_bytes, simulated.peak_reserved_bytes)
        table.add_row(str(phase), *allocated, *reserved)
    yield Padding(table, (0, 0, 0, 2))
    if (whole := result.whole_run) is None:
        return
    end = "passes" if whole.outcome is Outcome.COMPLETED else "runs out of memory"
    peak = of_budget(whole.peak_allocated_bytes, whole.run.budget_bytes)
    sentence = f"All {whole.run.total_steps} steps, simulated: the run {end}, with a peak of {peak}."
    yield Padding(Text(sentence), (0, 0, 0, 2))


def _difference(measured: int, simulated: int) -> tuple[str, str]:
    return str(measured), f"{simulated - measured:+d}" if simulated != measured else "0"


def _also(findings: Iterable[Finding]) -> Iterator[RenderableType]:
    others = [finding for finding in findings if finding.severity != "error"]
    if not others:
        return
    yield from heading("Also costs memory or time")
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in others:
        words = Text(finding.title)
        if finding.where:
            words.append_text(Text.assemble(("\nat ", "bright_black"), finding.where))
        table.add_row(Text(finding.cause, "yellow" if finding.severity == "warning" else ""), words)
    yield Padding(table, (0, 0, 0, 2))


def _basis(result: ProbeResult) -> Iterator[RenderableType]:
    rows = basis(result)
    yield from heading("What this rests on")
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        if value:
            table.add_row(Text(name, "bright_black"), Text(value))
    yield Padding(table, (0, 0, 0, 2))


def _next(command: str, width: int) -> Iterator[RenderableType]:
    if not command:
        return
    yield from heading("Next")
    for line in wrap_command(command, width - 2):
        yield Padding(Text(line, "bold cyan", overflow="fold"), (0, 0, 0, 2))
