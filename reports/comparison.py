"""A comparison shown: in the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from rich.console import Console

from memory_harness.configs.printable import json_text
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.compare import Change, Comparison, Verdict
from memory_harness.reports.blocks import Banner, Cell, Facts, Paragraph, Section, Table, Tone
from memory_harness.reports.json import head
from memory_harness.reports.next_step import next_section
from memory_harness.reports.summary import NextStep, source_in_words
from memory_harness.reports.terminal import print_sections
from memory_harness.reports.text import plural

VERDICT_TITLES = {"worse": "WORSE", "better": "BETTER", "same": "NO CHANGE"}
TONES: dict[str, Tone] = {"worse": "bad", "better": "good", "same": ""}
OUTCOMES = {
    Outcome.COMPLETED: "completes",
    Outcome.OOM: "runs out of memory",
    Outcome.STOPPED: "was stopped",
    Outcome.ERROR: "did not end",
}


class Names(NamedTuple):
    """What the user called the two runs."""

    before: str
    after: str


def comparison_exit_code(comparison: Comparison) -> int:
    """Return 1 where B is worse, else 0."""
    return int(comparison.verdict == "worse")


def print_comparison(comparison: Comparison, names: Names, step: NextStep, console: Console) -> None:
    """Print the comparison."""
    print_sections(comparison_report(comparison, names, step), console)


def comparison_report(comparison: Comparison, names: Names, step: NextStep) -> list[Section]:
    """Return the whole report, the verdict first, then what to do next."""
    begin = verdict_section(comparison.verdict, comparison_sentence(comparison))
    return [begin, next_section(step), *comparison_sections(comparison, names)]


def verdict_section(verdict: Verdict, sentence: str) -> Section:
    """Return what stands first."""
    return Section("verdict", body=[Banner(VERDICT_TITLES[verdict], sentence, TONES[verdict])])


def comparison_sections(comparison: Comparison, names: Names, more: Iterable[Section] = ()) -> list[Section]:
    """Return what follows the verdict; `more` comes before what was set up differently."""
    return [_runs(comparison, names), _changes(comparison), *more, _setup(comparison)]


def comparison_json(comparison: Comparison, names: Names, step: NextStep, more: Mapping[str, Any] | None = None) -> str:
    """Return the content of the JSON file, with what `more` adds or says better. Bytes are integers."""
    content = {
        **head("comparison", step),
        "verdict": comparison.verdict,
        "sentence": comparison_sentence(comparison),
        "before": _run(comparison.before, names.before),
        "after": _run(comparison.after, names.after),
        "compared_up_to_step": comparison.up_to_step,
        "times_compared": comparison.times_compared,
        "outcome": comparison.outcome,
        "changes": [dataclasses.asdict(change) for change in comparison.changes],
        "differences": [dataclasses.asdict(difference) for difference in comparison.differences],
        **(more or {}),
    }
    return json_text(content)


def comparison_sentence(comparison: Comparison) -> str:
    """Return what decides the verdict, in one sentence."""
    return changes_sentence(comparison, comparison.verdict, comparison.changes)


def changes_sentence(comparison: Comparison, verdict: Verdict, changes: Iterable[Change]) -> str:
    """Return which of the changes, or whose outcome, makes the verdict."""
    if verdict == "same":
        return "Nothing changed beyond the noise."
    parts = []
    if comparison.outcome == verdict:
        parts.append(f"A {OUTCOMES[comparison.before.outcome]}, B {OUTCOMES[comparison.after.outcome]}")
    found = [change for change in changes if change.verdict == verdict]
    if found:
        largest = max(found, key=_weight)
        more = f", and {plural(len(found) - 1, 'other quantity', 'other quantities')}" if len(found) > 1 else ""
        parts.append(f"{_title(largest)}: {_value(largest, largest.before)} → {_value(largest, largest.after)}{more}")
    return "; ".join(parts) + "."


def _weight(change: Change) -> tuple[bool, float]:
    """Growth comes first, as it ends every run that is long enough; then the largest number of bytes."""
    return change.kind == "growth per step", abs(change.difference)


def _run(log: RunLog, name: str) -> dict[str, Any]:
    run = log.run
    return {
        "log": name,
        "source": run.source,
        "outcome": str(log.outcome),
        "gpu": {"name": run.gpu_name, "budget_bytes": run.budget_bytes},
        "fingerprint": run.fingerprint,
        "started_at": run.started_at,
        "versions": run.environment,
        "configuration": run.config or None,
    }


def _runs(comparison: Comparison, names: Names) -> Section:
    rows = []
    for letter, name, log in (("A", names.before, comparison.before), ("B", names.after, comparison.after)):
        rows.append((letter, f"{name}\n{source_in_words(log)} · {OUTCOMES[log.outcome]}"))
    return Section("runs", body=[Facts(rows), *(Paragraph(note, "warning") for note in notes(comparison))])


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield what limits the comparison."""
    if comparison.sources[0] != comparison.sources[1]:
        words = {"cuda": "measured", "simulated": "simulated"}
        first, second = (words.get(source, source) for source in comparison.sources)
        yield f"A is {first} and B {second}: part of the difference may come from that."
    if comparison.up_to_step is not None:
        yield f"Not both came to their end: compared up to step {comparison.up_to_step}, which both reached."
    if not comparison.times_compared:
        yield "Times are not compared: only those of measured runs are the card's."
    for letter, log in (("A", comparison.before), ("B", comparison.after)):
        if log.num_unreadable_lines:
            yield f"{plural(log.num_unreadable_lines, 'line')} of {letter} could not be read."


def _changes(comparison: Comparison) -> Section:
    rows: list[list[str | Cell]] = []
    kind = None
    for change in comparison.changes:
        if change.kind != kind and kind is not None:
            rows.append([])
        kind = change.kind
        verdict = Cell("", "")
        if change.verdict != "same":
            verdict = Cell(change.verdict, TONES.get(change.verdict, "warning"))
        values = (_value(change, change.before), _value(change, change.after), _difference(change))
        rows.append([_title(change), *values, verdict])
    changes = Table(("", "A", "B", "change", ""), rows, right=("A", "B", "change"))
    return Section("changes", "What changed", aside="from A to B", body=[changes])


def _title(change: Change) -> str:
    if change.phase is not None:
        return f"{change.kind} {change.phase}"
    return "time step" if change.kind == "time" else change.kind


def _value(change: Change, value: float | None) -> str:
    if value is None:
        return "–"
    if change.kind == "time":
        return f"{value:.3f} s"
    return format_bytes(round(value))


def _difference(change: Change) -> str:
    if change.before is None or change.after is None:
        return ""
    if not change.difference:
        return "0"
    sign = "+" if change.difference > 0 else ""
    return f"{sign}{_value(change, change.difference)}"


def _setup(comparison: Comparison) -> Section:
    rows = [(difference.name, difference.before, difference.after) for difference in comparison.differences]
    return Section("setup", "Set up differently", body=[Table(("", "A", "B"), rows)] if rows else [])
