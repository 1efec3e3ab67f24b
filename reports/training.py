"""What a training run came to: losses, scores with the adapter and without, memory, where everything lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from memory_harness.configs.inputs import read_json
from memory_harness.harness.log.manifest import ADAPTER, LOG_FILE
from memory_harness.harness.log.records import MetricsRecord, Outcome, RunRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.results.experiments import EXPERIMENTS, RESPONSES, RESPONSES_CSV, experiment_id
from memory_harness.harness.results.replies import VETTED
from memory_harness.probes.findings import Finding
from memory_harness.reports.blocks import (
    Banner,
    Block,
    Cell,
    Command,
    Course,
    Detail,
    Findings,
    Paragraph,
    Section,
    Table,
    Tone,
    facts,
)
from memory_harness.reports.html import page_text
from memory_harness.reports.json import finding_to_json, run_to_json
from memory_harness.reports.live import in_words, tokens_per_second
from memory_harness.reports.next_step import after_training
from memory_harness.reports.ranks import ranks_section, ranks_to_json
from memory_harness.reports.sections import explain, run_sections
from memory_harness.reports.summary import ProbeResult, source_in_words
from memory_harness.reports.terminal import print_sections, show
from memory_harness.reports.text import of_budget, plural, wording

MEAN_STEPS = 10  # most steps at either end whose mean loss is shown: a single batch's says little


class TrainingResult(NamedTuple):
    """Everything that a report on a training run shows."""

    log: RunLog
    findings: list[Finding]
    artefacts: dict[str, Path]  # what -> where
    predicted_peak_bytes: int | None = None  # reserved, of the probe that let it in
    ranks: Sequence[RunLog] = ()  # of all its GPUs, where there are several


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
    log = result.log
    sections = [_end(log), _losses(log), _scores(log.metrics), ranks_section(result.ranks)]
    sections += [_findings(result), _left_behind(result), _next(result)]
    print_sections(sections, console)


def _next(result: TrainingResult) -> Section:
    if result.log.outcome is not Outcome.COMPLETED or "adapter" not in result.artefacts:
        return Section("next", "Next")
    step = after_training(result.artefacts["adapter"].parent)
    return Section("next", "Next", body=[Paragraph(step.words), Command(step.command)])


def training_page(result: TrainingResult, replies: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the report as a page: the course of the training, what it takes, and its replies."""
    log = result.log
    found = [_end(log), course_section(log), _losses(log), _scores(log.metrics), _replies(replies)]
    found += [ranks_section(result.ranks), _findings(result)]
    found += [*run_sections(ProbeResult(log, result.findings, "pass")), _left_behind(result)]
    banner = found[0].body[0]
    assert isinstance(banner, Banner)
    model = log.run.model.name if log.run.model else ""
    facts_of_run = [model, log.run.gpu_name, log.run.started_at.replace("T", " ")[:16]]
    return page_text(found, banner, facts_of_run, banner.source[:1].upper() + banner.source[1:], log.run.source)


def course_section(log: RunLog) -> Section:
    """Return the losses, learning rates and gradient norms of all steps."""
    source = source_in_words(log) if log.run.source == "cuda" else "computed on the CPU"
    series = {
        "Loss": [(step.step, step.loss) for step in log.steps if step.loss is not None],
        "Learning rate": [(step.step, step.learning_rate) for step in log.steps],
        "Gradient norm": [(step.step, step.grad_norm) for step in log.steps if step.grad_norm is not None],
        "Seconds of each step": [(step.step, step.seconds) for step in log.steps],
    }
    held_out = []
    for record in log.evals:
        if record.loss is not None:
            held_out.append((record.step, record.loss, f"held out, {record.model}"))
    details: list[Detail] = []
    for heading, points in series.items():
        marks = held_out if heading == "Loss" else []
        if points or marks:
            words = "Of training steps, and of held-out data, per target token." if heading == "Loss" else ""
            details.append(Course(heading, words, source, points, marks, log.run.total_steps))
    return Section("course", "Over the training", details=details)


def _replies(replies: Sequence[Mapping[str, Any]]) -> Section:
    rows = [[str(reply["question"]), str(reply["response"])] for reply in replies[:MAX_REPLIES]]
    aside = f"the first {plural(len(rows), 'reply', 'replies')} of {len(replies)}"
    table = Table(("question", "reply"), rows)
    return Section("replies", "Replies", intro=aside if rows else "", details=[table] if rows else [])


def replies_of(folder: Path, run: RunRecord) -> list[dict[str, Any]]:
    """Return the replies of a run among all that lie in a folder."""
    path = folder / RESPONSES
    if not path.exists():
        return []
    content = read_json(path)
    return [reply for reply in content["responses"] if reply["experiment_id"] == experiment_id(run)]


OUTCOMES: dict[Outcome, tuple[str, Tone]] = {
    Outcome.COMPLETED: ("TRAINED", "good"),
    Outcome.STOPPED: ("STOPPED", "warning"),
    Outcome.OOM: ("OUT OF MEMORY", "bad"),
    Outcome.ERROR: ("FAILED", "bad"),
}


def _end(log: RunLog) -> Section:
    title, tone = OUTCOMES[log.outcome]
    how = "measured on" if log.run.source == "cuda" else "trained on the CPU, memory simulated on"
    body: list[Block] = [Banner(title, end_sentence(log), tone, f"{how}: {log.run.gpu_name}")]
    if log.num_unreadable_lines:
        body.append(Paragraph(f"{plural(log.num_unreadable_lines, 'line')} of the log could not be read.", "warning"))
    return Section("end", body=body)


def end_sentence(log: RunLog) -> str:
    """Return how far the run came, in what time and memory, in one sentence."""
    step = log.last_step
    peak = of_budget(log.peak_reserved_bytes, log.run.budget_bytes)
    took = f" in {in_words(log.seconds)}" if log.seconds is not None else ""
    why = f" ({log.end.message})" if log.end and log.end.message else ""
    return f"{step} of {plural(log.run.total_steps, 'step')}{took}; PyTorch reserved at most {peak}{why}."


def _losses(log: RunLog) -> Section:
    rows = []
    ends = mean_losses(log)
    if ends is not None:
        when = f"mean of the first and last {plural(_num_mean(len(log.steps)), 'step')}"
        rows.append((Cell("training", "muted"), f"{ends[0]:.4f} → {ends[1]:.4f}", when))
    for record in log.evals:
        if record.loss is not None:
            when = f"step {record.step}"
            if record.model != "tuned":
                when += ", without the adapter"
            rows.append((Cell("held out", "muted"), f"{record.loss:.4f}", when))
    return Section("loss", "Loss", aside="per target token", body=[Table(("", "", ""), rows)] if rows else [])


def mean_losses(log: RunLog) -> tuple[float, float] | None:
    """Return the mean loss of the first steps and of the last, None where nothing was computed."""
    losses = [step.loss for step in log.steps if step.loss is not None]
    number = _num_mean(len(losses))
    first, last = losses[:number], losses[-number:]
    return (sum(first) / len(first), sum(last) / len(last)) if losses else None


def _num_mean(num_steps: int) -> int:
    return max(1, min(MEAN_STEPS, num_steps // 2))


def _scores(records: Sequence[MetricsRecord]) -> Section:
    by_model = {record.model: record for record in records}
    models = [name for name in ("base", "tuned") if name in by_model]
    rows = []
    for field, words in wording("metrics").items():
        values = [getattr(by_model[name], field) for name in models]
        if any(value is not None for value in values):
            rows.append([words, *("–" if value is None else f"{value:.4g}" for value in values)])
    num_replies = max((record.num_replies for record in records), default=0)
    return Section(
        "scores",
        "Scores on held-out questions",
        aside=f"{plural(num_replies, 'reply', 'replies')} compared",
        body=[Table(("", *models), rows, right=models)] if records else [],
    )


def _findings(result: TrainingResult) -> Section:
    shown = [dataclasses.replace(finding, where=None) for finding in result.findings if finding.severity != "info"]
    items = [explain(finding, result.log) for finding in shown]
    return Section("findings", "Found in the run", body=[Findings(items)] if items else [])


def _left_behind(result: TrainingResult) -> Section:
    log = result.log
    speed = tokens_per_second(log.steps)
    predicted = result.predicted_peak_bytes
    rows = {"let in by": log.run.let_in_by}
    if log.run.model:
        rows["weights"] = wording("weights").get(log.run.model.weights, "")
    if speed:
        rows["speed"] = f"{speed:.0f} tokens/s, padding not counted"
    if predicted:
        rows["memory"] = f"the probe's peak was {of_budget(predicted, log.run.budget_bytes)}"
    for what, path in result.artefacts.items():
        rows[what] = str(path)
    return Section("left", "What there is", body=[facts(rows)])


SHOWN_REPLIES, MAX_REPLIES = 3, 40
"""replies that a terminal and a page show"""


def print_replies(folder: Path, run: RunRecord, console: Console) -> None:
    """Print where a run's replies lie, and the first of them."""
    replies = replies_of(folder, run)
    lines = [f"{plural(len(replies), 'reply', 'replies')} added to {folder / RESPONSES} and {RESPONSES_CSV}"]
    vetted = [reply for reply in replies if reply["answered_by"] == VETTED]
    others = [reply for reply in replies if reply["answered_by"] != VETTED]
    for reply in (*vetted, *others[:SHOWN_REPLIES]):
        lines += ["", f"question: {reply['question']}", f"{_reply_words(reply)}: {reply['response']}"]
    if len(others) > SHOWN_REPLIES:
        lines += ["", f"{len(others) - SHOWN_REPLIES} more: {folder / RESPONSES_CSV}"]
    show(Text("\n".join(lines)), console)


def _reply_words(reply: dict[str, Any]) -> str:
    if reply["answered_by"] == VETTED:
        return "reply that people have vetted"
    return "reply" if reply["stopped"] else "reply, cut at --max-new-tokens"


def training_to_json(result: TrainingResult) -> dict[str, Any]:
    """Return the section `training` of the JSON report."""
    log = result.log
    first, last = mean_losses(log) or (None, None)
    return {
        "source": log.run.source,
        "let_in_by": log.run.let_in_by,
        "fingerprint": log.run.fingerprint,
        "step": log.last_step,
        "total_steps": log.run.total_steps,
        "weights": log.run.model and log.run.model.weights,
        "first_loss": first,
        "last_loss": last,
        "evals": [{"step": e.step, "model": e.model, "loss": e.loss} for e in log.evals],
        "metrics": [dataclasses.asdict(record) for record in log.metrics],
        "tokens_per_second": tokens_per_second(log.steps),
        "peak_allocated_bytes": log.peak_allocated_bytes,
        "peak_reserved_bytes": log.peak_reserved_bytes,
        "predicted_peak_reserved_bytes": result.predicted_peak_bytes,
        **run_to_json(log),
        "gpus": ranks_to_json(result.ranks),
        "findings": [finding_to_json(finding) for finding in result.findings],
        "artefacts": {what: str(path) for what, path in result.artefacts.items()},
    }
