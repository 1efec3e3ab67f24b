"""The page: verdict first, then why, then what the numbers are and what they rest on."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memory_harness.configs import schema
from memory_harness.configs.flags import field_help, flag_of
from memory_harness.configs.schema import SECTIONS
from memory_harness.configs.units import format_bytes
from memory_harness.configs.values import to_text as value_text
from memory_harness.harness.log.records import MemoryStats, Outcome, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.analysis import End, Failure, analyse_failure, recurrence_in_words
from memory_harness.probes.detectors.causes import load_causes
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.findings import Finding, FixResult
from memory_harness.reports.html.drawing import bar_rows, figure, hatches, legend, level_in_words
from memory_harness.reports.html.excerpt import Excerpt, excerpt
from memory_harness.reports.html.lengths import lengths_figure
from memory_harness.reports.html.markup import Child, Node, add, node, to_text
from memory_harness.reports.html.memory_map import memory_map_figure
from memory_harness.reports.html.timeline import timeline_figure
from memory_harness.reports.summary import (
    EQUIVALENCE,
    ProbeResult,
    basis,
    largest,
    phase_levels,
    scale_bytes,
    source_in_words,
    verdict_sentence,
    verdict_title,
)
from memory_harness.reports.text import Level, of_budget, plural, split_formula, wrap_command

BEGINS = "<!doctype html>\n<!-- QLoRA memory report -->"
"""The file's first characters."""

HEADROOM = 1.06
"""How far above the highest value an axis ends."""

COMMAND_WIDTH = 78

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing."""

_WORDS = {
    "allocated": "Bytes held by live tensors, as PyTorch's allocator counts them.",
    "reserved": "Bytes that the allocator has taken from the card: allocated, and what it keeps cached for later.",
    "budget": "What PyTorch may reserve: the card's memory less the CUDA context, or what was asked for.",
    "peak": "The highest value during a phase, however short it lasted.",
    "segment": "One piece of memory taken from the card at once; tensors are placed into its blocks.",
    "padded length": "The length in tokens to which all sequences of a batch are filled up.",
    "step": "One update of the weights, from one or several micro-batches.",
}

_PHASES = {
    Phase.LOAD: "loading the model",
    Phase.DATA: "a batch to the card",
    Phase.RESUME: "from a checkpoint",
    Phase.FORWARD: "the loss",
    Phase.BACKWARD: "the gradients",
    Phase.OPTIMIZER: "the update",
    Phase.STEP: "a whole training step",
    Phase.EVAL: "held-out samples",
    Phase.CHECKPOINT: "saving",
    Phase.GENERATE: "replies",
}

_ICONS = {"pass": "M5,12.5l4.5,4.5L19,7.5", "fail": "M7,7l10,10M17,7L7,17", "open": "M8,12h8"}


def html_text(result: ProbeResult) -> str:
    """Return the content of the file."""
    sections = [*_sections(result)]
    title = f"{verdict_title(result).capitalize()} · QLoRA memory report"
    head = node(
        "head",
        {},
        node("meta", {"charset": "utf-8"}),
        node("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        node("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        node("meta", {"name": "color-scheme", "content": "light dark"}),
        node("title", {}, title),
        node("style", {}, Path(__file__).with_name("page.css").read_text(encoding="utf-8")),
    )
    body = node("body", {}, node("a", {"class": "skip", "href": "#verdict"}, "Skip to the verdict"), hatches())
    add(body, [_header(result), _contents(sections), node("main", {}, _verdict(result), *sections), _footer(result)])
    return f"{BEGINS}\n{to_text(node('html', {'lang': 'en'}, head, body))}\n"


def _sections(result: ProbeResult) -> Iterator[Node]:
    top = int(scale_bytes(result) * HEADROOM) or 1
    candidates = (
        ("why", "Why", list(_why(result))),
        ("request", "What was asked for", list(_asked_for(result))),
        ("phases", "Memory by phase", list(_by_phase(result))),
        ("time", "Over time", list(_over_time(result, top))),
        ("lengths", "Memory and length", _present([lengths_figure(result.as_configured, top)])),
        ("map", "Fragmentation", _present([memory_map_figure(log, name) for name, log in _runs(result)])),
        ("fixes", "Fixes", list(_fixes(result))),
        ("counts", "Other numbers of samples", list(_other_counts(result))),
        ("prediction", "Measured against simulated", list(_prediction(result))),
        ("also", "What else costs memory or time", list(_also(result))),
        ("next", "What to run next", list(_next(result.next_command))),
        ("configuration", "Configuration", list(_configuration(result))),
        ("environment", "What this rests on", list(_environment(result))),
        ("words", "Words used here", [_definitions(_WORDS)]),
    )
    for name, heading, content in candidates:
        if content:
            labelled = {"id": name, "aria-labelledby": f"{name}-heading"}
            yield node("section", labelled, node("h2", {"id": f"{name}-heading"}, heading), *content)


def _present(nodes: Sequence[Node | None]) -> list[Node]:
    return [found for found in nodes if found is not None]


def _runs(result: ProbeResult) -> list[tuple[str, RunLog]]:
    """Return the runs that are shown, with their names."""
    if result.with_fixes is None:
        return [("the run", result.as_configured)]
    return [("as configured", result.as_configured), ("with fixes", result.with_fixes)]


def _header(result: ProbeResult) -> Node:
    run = result.as_configured.run
    facts = [run.model.name if run.model else "", run.gpu_name, run.started_at.replace("T", " ")[:16]]
    return node(
        "header",
        {},
        node("p", {"class": "kicker"}, "QLoRA memory report"),
        node("p", {"class": "facts"}, " · ".join(fact for fact in facts if fact)),
        node("p", {"class": f"chip {run.source}"}, _how(result.as_configured)),
    )


def _how(log: RunLog) -> str:
    if log.run.source == "cuda":
        return "Measured on a GPU"
    return "Simulated: no GPU used, nothing measured"


def _contents(sections: Sequence[Node]) -> Node:
    links = [node("li", {}, node("a", {"href": f"#{s.get('id')}"}, s[0].text or "")) for s in sections]
    return node("nav", {"aria-label": "Contents"}, node("ul", {}, *links))


def _verdict(result: ProbeResult) -> Node:
    undecided = result.as_configured.outcome in (Outcome.STOPPED, Outcome.ERROR)
    kind = "open" if undecided else "fail" if result.verdict == "fail" else "pass"
    icon = node("svg", {"class": "icon", "viewBox": "0 0 24 24", "width": "44", "height": "44", "aria-hidden": "true"})
    add(icon, [node("circle", {"cx": "12", "cy": "12", "r": "11"}), node("path", {"d": _ICONS[kind]})])
    return node(
        "section",
        {"id": "verdict", "class": f"verdict {kind}", "aria-labelledby": "verdict-heading", "tabindex": "-1"},
        node(
            "div",
            {"class": "banner"},
            icon,
            node(
                "div",
                {},
                node("h1", {"id": "verdict-heading"}, verdict_title(result).capitalize()),
                node("p", {}, verdict_sentence(result)),
            ),
        ),
        _needed(result),
    )


def _needed(result: ProbeResult) -> Node | None:
    """Return what each run needed at its worst moment, against the budget."""
    rows = []
    for name, log in _runs(result):
        worst = max(phase_levels(log).values(), key=lambda level: level.top_bytes, default=None)
        if worst is not None:
            oom = log.fatal_oom
            if oom is not None:
                worst = Level(oom.allocated_bytes, oom.reserved_bytes, oom.requested_bytes)
            else:
                worst = Level(log.peak_allocated_bytes, log.peak_reserved_bytes)
            rows.append((name, worst, level_in_words(worst)))
    if not rows:
        return None
    budget = result.as_configured.run.budget_bytes
    words = "; ".join(f"{name}: {value}" for name, _, value in rows)
    chart = bar_rows(
        rows,
        int(scale_bytes(result) * 1.02),
        budget,
        title="Worst moment against the budget",
        description=f"{words}; the budget is {format_bytes(budget)}",
    )
    explanation = f"The worst moment of the run against the {format_bytes(budget)} that PyTorch may use of the card."
    return figure("What it needs", explanation, source_in_words(result.as_configured), _memory_legend(result), chart)


def _memory_legend(result: ProbeResult) -> Node:
    failed = any(log.fatal_oom for _, log in _runs(result))
    entries = [("allocated", "allocated"), ("reserved", "reserved")]
    entries += [("request", "the request that failed")] if failed else []
    return legend([*entries, ("budget", "budget")])


def _why(result: ProbeResult) -> Iterator[Node]:
    for finding in result.findings:
        if finding.severity == "error":
            yield _finding(finding, result.as_configured)


def _also(result: ProbeResult) -> Iterator[Node]:
    for finding in result.findings:
        if finding.severity != "error":
            yield _finding(finding, result.as_configured)


def _finding(finding: Finding, log: RunLog) -> Node:
    before, formula, factors, after = finding.explanation, "", "", ""
    if finding.severity == "error":
        before, formula, factors, after = split_formula(finding.explanation)
    badge = node("span", {"class": f"badge {finding.severity}"}, finding.severity)
    cause = load_causes().get(finding.cause)
    return node(
        "article",
        {"class": "finding"},
        node("p", {"class": "cause"}, badge, " ", node("code", {}, finding.cause)),
        node("h3", {}, finding.title),
        node("p", {}, before) if before else None,
        node("p", {"class": "formula"}, node("strong", {}, formula), node("br"), factors) if formula else None,
        node("p", {}, after) if after else None,
        _place(finding, log),
        node("p", {}, node("strong", {}, "What helps: "), cause.fix) if cause else None,
        _evidence(finding),
    )


def _place(finding: Finding, log: RunLog) -> Node | None:
    """Return where the memory is made or held, with the lines of code around it where they are here."""
    if not finding.where:
        return None
    return node(
        "div",
        {"class": "place"},
        node("p", {}, "Made or held at ", node("code", {}, finding.where)),
        _code(finding.where, _source(finding.where, log)),
    )


def _source(where: str, log: RunLog) -> Excerpt | None:
    frames = [*(frame for oom in log.ooms for frame in oom.frames), *(survivor.site for survivor in log.survivors)]
    functions = [frame.removeprefix(where).strip() for frame in frames if frame.startswith(f"{where} ")]
    return excerpt(where, functions, log.run.environment)


def _code(where: str, found: Excerpt | None) -> Node | None:
    if found is None:
        return None
    listing = node("pre", {"class": "code", "tabindex": "0", "role": "region", "aria-label": f"Code around {where}"})
    for number, text in enumerate(found.lines, found.first):
        marked = number == found.marked
        row = node("span", {"class": "line marked" if marked else "line"})
        gutter = node("span", {"class": "number", "aria-hidden": "true"}, f"{'▸' if marked else ' '}{number:>5}  ")
        add(row, [gutter, node("mark", {}, text) if marked else text, "\n"])
        add(listing, [row])
    return listing


def _evidence(finding: Finding) -> Node | None:
    if not finding.evidence:
        return None
    rows = [(name.replace("_", " "), _evidence_value(name, value)) for name, value in finding.evidence.items()]
    return node("details", {}, node("summary", {}, "Evidence"), _table(("what", "value"), rows))


def _evidence_value(name: str, value: float | str) -> str:
    is_size = isinstance(value, int) and (name.endswith("_bytes") or name.startswith("live:"))
    return f"{format_bytes(int(value))} ({value} bytes)" if is_size and abs(int(value)) >= 1024 else str(value)


def _asked_for(result: ProbeResult) -> Iterator[Node]:
    failure = analyse_failure(result.as_configured)
    if failure is None:
        return
    oom = failure.oom
    retries = f" after {plural(oom.num_alloc_retries, 'retry', 'retries')}" if oom.num_alloc_retries else ""
    yield node(
        "p",
        {},
        node("strong", {}, format_bytes(oom.requested_bytes)),
        f" in {oom.phase} did not fit{retries}: {format_bytes(oom.allocated_bytes)} of "
        f"{format_bytes(oom.budget_bytes)} was allocated, {format_bytes(failure.free_bytes)} reserved but unused, in"
        f" pieces of at most {format_bytes(oom.largest_free_block_bytes)}.",
    )
    if failure.products:
        readings = [node("li", {}, f"{product.what}: {product} ({product.legend})") for product in failure.products[:3]]
        yield node("p", {}, "The size is that of:")
        yield node("ul", {}, *readings)
    if oom.frames:
        frames = [node("li", {}, node("code", {}, frame)) for frame in oom.frames]
        yield node("p", {}, "Who asked, the innermost call first:")
        yield node("ol", {"class": "frames"}, *frames)
    yield from _live(failure, result.as_configured)


def _live(failure: Failure, log: RunLog) -> Iterator[Node]:
    live = largest(failure.live)
    if live:
        rows = [(name, Level(size), format_bytes(size)) for name, size in live]
        words = "; ".join(f"{name} {value}" for name, _, value in rows)
        chart = bar_rows(rows, max(size for _, size in live), 0, title="Live memory by kind", description=words)
        explanation = "What held memory when the request failed."
        yield figure("What lived then", explanation, source_in_words(log), chart)


def _by_phase(result: ProbeResult) -> Iterator[Node]:
    levels = [(name, log, phase_levels(log)) for name, log in _runs(result)]
    phases = [phase for phase in Phase if any(phase in found for _, _, found in levels)]
    if not phases:
        return
    budget, scale = result.as_configured.run.budget_bytes, scale_bytes(result)
    yield node("p", {}, "The highest memory in each part of the training loop, in the order in which they first run.")
    yield _memory_legend(result)
    charts = node("div", {"class": "side-by-side"})
    for name, log, found in levels:
        rows = [(str(phase), found.get(phase, Level()), _phase_value(found.get(phase))) for phase in phases]
        words = "; ".join(f"{phase} {value}" for phase, _, value in rows)
        chart = bar_rows(rows, scale, budget, title=f"Peak by phase, {name}", description=words)
        explanation = f"The line is the budget, {format_bytes(budget)}."
        add(charts, [figure(name.capitalize(), explanation, source_in_words(log), chart)])
    yield charts
    headings = ["phase", "what runs"]
    for name, _, _ in levels:
        headings += [f"{what}, {name}" for what in ("allocated", "reserved", "failed request")]
    numbers = [(str(p), _PHASES[p], *(c for _, _, found in levels for c in _cells(found.get(p)))) for p in phases]
    yield node("details", {}, node("summary", {}, "The numbers, in bytes"), _table(headings, numbers))


def _phase_value(level: Level | None) -> str:
    return "not reached" if level is None else level_in_words(level)


def _cells(level: Level | None) -> tuple[str, str, str]:
    if level is None:
        return "–", "–", "–"
    return str(level.allocated_bytes), str(level.reserved_bytes), str(level.requested_bytes or "–")


def _over_time(result: ProbeResult, top_bytes: int) -> Iterator[Node]:
    figures = _present([timeline_figure(log, name, top_bytes) for name, log in _runs(result)])
    if figures:
        yield node(
            "p",
            {},
            "From left to right, the run from loading the model to its end; upwards, memory. An allocation fails where"
            " it would lift what is reserved above the budget. Below the curve is a lane for each phase of the loop: it"
            " shows where the phase ran, the stronger in colour the closer its peak came to the budget.",
        )
        yield from figures


def _fixes(result: ProbeResult) -> Iterator[Node]:
    if not result.fixes:
        return
    budget = result.as_configured.run.budget_bytes
    scale = max([budget, *(max(fix.before_peak_bytes, fix.after_peak_bytes) for fix in result.fixes)])
    yield node("p", {}, "Each fix was tried by running again from nothing; it counts only where its cause is gone.")
    for fix in result.fixes:
        yield _fix(fix, scale, budget, source_in_words(result.as_configured))


def _fix(fix: FixResult, scale: int, budget: int, source: str) -> Node:
    state = "verified" if fix.verified else "did not help"
    if fix.verified and not fix.applied:
        state = "helps, not needed"
    rows = [
        ("before", Level(fix.before_peak_bytes), format_bytes(fix.before_peak_bytes)),
        ("after", Level(fix.after_peak_bytes), format_bytes(fix.after_peak_bytes)),
    ]
    title = f"Needed before and after {fix.name}"
    chart = bar_rows(rows, scale, budget, title=title, description="; ".join(f"{n} {v}" for n, _, v in rows))
    slowdown = "" if fix.slowdown is None else f" It takes {fix.slowdown:.2f} times as long."
    words = f"Needed at the worst moment. {EQUIVALENCE[fix.equivalence].capitalize()}.{slowdown}"
    shown = figure(f"{fix.name}: {fix.title}", words, source, chart)
    badge = node("span", {"class": f"badge {'good' if fix.applied and fix.verified else 'info'}"}, state)
    cause = node("p", {"class": "cause"}, badge, " ", node("code", {}, ", ".join(fix.addresses)))
    return node("article", {"class": "fix"}, cause, shown, node("p", {}, fix.note) if fix.note else None)


def _other_counts(result: ProbeResult) -> Iterator[Node]:
    if not result.other_counts:
        return
    ends = [End(count.step, count.total_steps) for count in result.other_counts if count.outcome is Outcome.OOM]
    yield node("p", {}, f"The same run, as configured, with other numbers of samples. {recurrence_in_words(ends)}")
    rows = [
        (
            str(count.samples),
            f"step {count.step} of {count.total_steps}",
            f"{count.step / count.total_steps:.0%}" if count.total_steps else "–",
            "out of memory" if count.outcome is Outcome.OOM else str(count.outcome),
        )
        for count in result.other_counts
    ]
    yield _table(("samples", "ends at", "of the run", "outcome"), rows)


def _prediction(result: ProbeResult) -> Iterator[Node]:
    if result.predicted is None:
        return
    yield node("p", {}, "What was measured on the GPU beside what was simulated for it without one; peaks in bytes.")
    predicted = result.predicted.peaks()
    rows = []
    for phase, measured in (result.with_fixes or result.as_configured).peaks().items():
        simulated = predicted.get(phase, MemoryStats())
        allocated = _difference(measured.peak_allocated_bytes, simulated.peak_allocated_bytes)
        reserved = _difference(measured.peak_reserved_bytes, simulated.peak_reserved_bytes)
        rows.append((str(phase), *allocated, *reserved))
    kinds = [f"{name} {what}" for name in ("allocated", "reserved") for what in ("measured", "simulated", "difference")]
    yield _table(("phase", *kinds), rows)
    if (whole := result.whole_run) is not None:
        end = "passes" if whole.outcome is Outcome.COMPLETED else "runs out of memory"
        peak = of_budget(whole.peak_allocated_bytes, whole.run.budget_bytes)
        yield node("p", {}, f"All {whole.run.total_steps} steps, simulated: the run {end}, with a peak of {peak}.")


def _difference(measured: int, simulated: int) -> tuple[str, str, str]:
    return str(measured), str(simulated), f"{simulated - measured:+d}" if simulated != measured else "0"


def _next(command: str) -> Iterator[Node]:
    if command:
        yield node("p", {}, "The run that passed:")
        text = "\n".join(wrap_command(command, COMMAND_WIDTH))
        yield node("pre", {"class": "command", "tabindex": "0", "role": "region", "aria-label": "Command"}, text)


def _configuration(result: ProbeResult) -> Iterator[Node]:
    run = result.as_configured.run
    if not has_config(result.as_configured):
        yield node("p", {}, "The log does not say how the run was configured.")
        return
    before = config_of(result.as_configured)
    after = before if result.with_fixes is None else config_of(result.with_fixes)
    meanings = field_help(inspect.getsource(schema))
    yield node("p", {}, f"Every setting of the run, by its flag; {run.fingerprint} stands for all of them.")
    for section, cls in SECTIONS.items():
        rows = [
            (*_setting(item, getattr(before, section), getattr(after, section)), meanings[cls.__name__, item.name])
            for item in dataclasses.fields(cls)
        ]
        changed = sum(bool(row[2]) for row in rows)
        heading = f"{section} ({changed} changed by fixes)" if changed else section
        table = _table(("flag", "value", "with fixes", "meaning"), rows)
        yield node("details", {"open": "open" if changed else None}, node("summary", {}, heading), table)


def _setting(item: dataclasses.Field[Any], before: object, after: object) -> tuple[str, str, str]:
    """Return a setting's flag, its value, and what the fixes made of it, empty where they left it."""
    old, new = (value_text(getattr(section, item.name), item) for section in (before, after))
    return flag_of(item), old, "" if new == old else new


def _environment(result: ProbeResult) -> Iterator[Node]:
    run = result.as_configured.run
    rows = {
        **basis(result),
        "parameters": f"{run.model.num_parameters:,}, of which {run.model.num_trainable_parameters:,} are trained"
        if run.model
        else "",
        "started": run.started_at,
        **run.environment,
    }
    yield _definitions({name: value for name, value in rows.items() if value})


def _definitions(rows: dict[str, str]) -> Node:
    pairs = ((node("dt", {}, name), node("dd", {}, text)) for name, text in rows.items())
    return node("dl", {}, *(part for pair in pairs for part in pair))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Node:
    """Return a table that scrolls by itself where it is wider than the page."""
    head = node("thead", {}, node("tr", {}, *(node("th", {"scope": "col"}, text) for text in headings)))
    body = node("tbody")
    for first, *rest in rows:
        cells: list[Child] = [node("th", {"scope": "row"}, first), *(node("td", {}, text) for text in rest)]
        add(body, [node("tr", {}, *cells)])
    box = {"class": "table", "tabindex": "0", "role": "region", "aria-label": f"Table: {', '.join(headings)}"}
    return node("div", box, node("table", {}, head, body))


def _footer(result: ProbeResult) -> Node:
    words = f"{_how(result.as_configured)}. This file needs no network and runs no scripts."
    return node("footer", {}, node("p", {}, words))
