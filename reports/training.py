"""What a training run came to: losses, scores with the adapter and without, memory, where everything lies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from memory_harness.harness.log.manifest import ADAPTER, LOG_FILE
from memory_harness.harness.log.records import EvalRecord, MetricsRecord, Outcome, RunRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.results.experiments import EXPERIMENTS, RESPONSES, RESPONSES_CSV, experiment_id
from memory_harness.probes.findings import Finding
from memory_harness.reports.json import finding_to_json, run_to_json
from memory_harness.reports.live import in_words, tokens_per_second
from memory_harness.reports.summary import WEIGHTS
from memory_harness.reports.terminal import heading, show
from memory_harness.reports.text import of_budget, plural

MEAN_STEPS = 10
"""most steps at either end whose mean loss is shown: a single batch's says little"""


@dataclass(frozen=True)
class TrainingResult:
    """Everything that a report on a training run shows."""

    log: RunLog
    findings: list[Finding]
    artefacts: dict[str, Path]
    """what -> where"""
    predicted_peak_bytes: int | None = None
    """reserved, of the probe that let it in"""


def artefacts_in(run: Path) -> dict[str, Path]:
    """Return what a training run has left, and where."""
    there = {
        "adapter": run / ADAPTER,
        "replies": run.parent / RESPONSES,
        "replies as a table": run.parent / RESPONSES_CSV,
        "experiments": run.parent / EXPERIMENTS,
        "checkpoints": run,
        "log": run / LOG_FILE,
    }
    return {what: path for what, path in there.items() if path.exists()}


def training_exit_code(log: RunLog) -> int:
    """Return 0 where it trained to the end, 1 where memory ran out, 3 where something else ended it."""
    return {Outcome.COMPLETED: 0, Outcome.OOM: 1}.get(log.outcome, 3)


def print_training(result: TrainingResult, console: Console) -> None:
    """Print the report."""
    sections = (_end(result), _losses(result.log), _scores(result.log.metrics), _findings(result), _rests_on(result))
    show(Padding(Group(*(part for section in sections for part in section)), (0, 1)), console)


def _end(result: TrainingResult) -> Iterator[RenderableType]:
    log = result.log
    title, style = {
        Outcome.COMPLETED: ("TRAINED", "green"),
        Outcome.STOPPED: ("STOPPED", "yellow"),
        Outcome.OOM: ("OUT OF MEMORY", "red"),
        Outcome.ERROR: ("FAILED", "red"),
    }[log.outcome]
    subtitle = "measured on: " if log.run.source == "cuda" else "trained on the CPU, memory simulated on: "
    yield Panel(
        Text(end_sentence(log)),
        title=Text(title, f"bold {style}"),
        title_align="left",
        subtitle=Text(subtitle + log.run.gpu_name, "default"),
        subtitle_align="right",
        border_style=style,
        padding=(0, 1),
    )


def end_sentence(log: RunLog) -> str:
    """Return how far the run came, in what time and memory, in one sentence."""
    step = log.steps[-1].step if log.steps else 0
    peak = of_budget(log.peak_reserved_bytes, log.run.budget_bytes)
    took = f" in {in_words(log.seconds)}" if log.seconds is not None else ""
    why = f" ({log.end.message})" if log.end and log.end.message else ""
    return f"{step} of {plural(log.run.total_steps, 'step')}{took}; PyTorch reserved at most {peak}{why}."


def _losses(log: RunLog) -> Iterator[RenderableType]:
    ends = mean_losses(log)
    evals = [record for record in log.evals if record.loss is not None]
    if ends is None and not evals:
        return
    yield from heading("Loss", "per target token")
    table = Table.grid(padding=(0, 2, 0, 0))
    if ends is not None:
        number = _num_mean(len(log.steps))
        table.add_row(
            Text("training", "bright_black"),
            f"{ends[0]:.4f} → {ends[1]:.4f}",
            f"mean of the first and last {plural(number, 'step')}",
        )
    for record in evals:
        table.add_row(Text("held out", "bright_black"), f"{record.loss:.4f}", _when(record))
    yield Padding(table, (0, 0, 0, 2))


def _when(record: EvalRecord) -> str:
    return f"step {record.step}" + ("" if record.model == "tuned" else ", without the adapter")


def mean_losses(log: RunLog) -> tuple[float, float] | None:
    """Return the mean loss of the first steps and of the last, None where nothing was computed."""
    losses = [step.loss for step in log.steps if step.loss is not None]
    number = _num_mean(len(losses))
    first, last = losses[:number], losses[-number:]
    return (sum(first) / len(first), sum(last) / len(last)) if losses else None


def _num_mean(num_steps: int) -> int:
    return max(1, min(MEAN_STEPS, num_steps // 2))


METRICS = {
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}


def _scores(records: Iterable[MetricsRecord]) -> Iterator[RenderableType]:
    by_model = {record.model: record for record in records}
    if not by_model:
        return
    num_replies = max(record.num_replies for record in by_model.values())
    yield from heading("Scores on held-out questions", f"{plural(num_replies, 'reply', 'replies')} compared")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    table.add_column("")
    models = [name for name in ("base", "tuned") if name in by_model]
    for name in models:
        table.add_column(name, justify="right")
    for field, words in METRICS.items():
        values = [getattr(by_model[name], field) for name in models]
        if any(value is not None for value in values):
            table.add_row(words, *("–" if value is None else f"{value:.4g}" for value in values))
    yield Padding(table, (0, 0, 0, 2))


def _findings(result: TrainingResult) -> Iterator[RenderableType]:
    shown = [finding for finding in result.findings if finding.severity != "info"]
    if not shown:
        return
    yield from heading("Found in the run")
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in shown:
        table.add_row(Text(finding.cause, "red" if finding.severity == "error" else "yellow"), finding.title)
    yield Padding(table, (0, 0, 0, 2))


def _rests_on(result: TrainingResult) -> Iterator[RenderableType]:
    log = result.log
    speed = tokens_per_second(log.steps)
    predicted = result.predicted_peak_bytes
    rows = {
        "let in by": log.run.let_in_by,
        "weights": WEIGHTS.get(log.run.model.weights, "") if log.run.model else "",
        "speed": f"{speed:.0f} tokens/s, padding not counted" if speed else "",
        "memory": f"the probe's peak was {of_budget(predicted, log.run.budget_bytes)}" if predicted else "",
        **{what: str(path) for what, path in result.artefacts.items()},
    }
    yield from heading("What there is")
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        if value:
            table.add_row(Text(name, "bright_black"), Text(value, overflow="fold"))
    yield Padding(table, (0, 0, 0, 2))


SHOWN_REPLIES = 3


def print_replies(folder: Path, run: RunRecord, console: Console) -> None:
    """Print where a run's replies lie, and the first of them."""
    content = json.loads((folder / RESPONSES).read_text(encoding="utf-8"))
    replies = [reply for reply in content["responses"] if reply["experiment_id"] == experiment_id(run)]
    lines = [f"{plural(len(replies), 'reply', 'replies')} added to {folder / RESPONSES} and {RESPONSES_CSV}"]
    for reply in replies[:SHOWN_REPLIES]:
        lines += ["", f"question: {reply['question']}", f"reply: {reply['response']}"]
    show(Text("\n".join(lines)), console)


def training_to_json(result: TrainingResult) -> dict[str, Any]:
    """Return the section `training` of the JSON report."""
    log = result.log
    ends = mean_losses(log)
    return {
        "source": log.run.source,
        "let_in_by": log.run.let_in_by,
        "fingerprint": log.run.fingerprint,
        "step": log.steps[-1].step if log.steps else 0,
        "total_steps": log.run.total_steps,
        "weights": log.run.model.weights if log.run.model else None,
        "first_loss": ends[0] if ends else None,
        "last_loss": ends[1] if ends else None,
        "evals": [{"step": e.step, "model": e.model, "loss": e.loss} for e in log.evals],
        "metrics": [dataclasses.asdict(record) for record in log.metrics],
        "tokens_per_second": tokens_per_second(log.steps),
        "peak_allocated_bytes": log.peak_allocated_bytes,
        "peak_reserved_bytes": log.peak_reserved_bytes,
        "predicted_peak_reserved_bytes": result.predicted_peak_bytes,
        **run_to_json(log),
        "findings": [finding_to_json(finding) for finding in result.findings],
        "artefacts": {what: str(path) for what, path in result.artefacts.items()},
    }
