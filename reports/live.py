"""A training run shown while it trains: how far it is, how it learns, what memory it takes, what was found.

Where standard output is no terminal, a line now and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from memory_harness.harness.log.records import EvalRecord, Phase, StepRecord
from memory_harness.harness.log.runlog import FollowedLog, RunLog
from memory_harness.probes.detectors import detect
from memory_harness.probes.findings import Finding
from memory_harness.reports.bars import bar
from memory_harness.reports.levels import Level
from memory_harness.reports.screen import Printable, can_redraw
from memory_harness.reports.terminal import MAX_WIDTH, show
from memory_harness.reports.text import gib, of_budget

RECENT_STEPS = 20  # steps that the rates shown are of
SECONDS_BETWEEN_LINES = 30.0
SPARK_STEPS, SPARKS = 40, "▁▂▃▄▅▆▇█"
"""parts of the run whose mean losses are shown side by side, and how high each can be"""
SECONDS_BETWEEN_DIAGNOSES = 5.0
DIAGNOSIS_SHARE = 0.05
"""most of the time that may go into looking for findings: detectors read the whole log, which grows"""

STYLES = {"error": "bold red", "warning": "yellow", "info": ""}


@contextmanager
def follow(log: Path, console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[], None]]:
    """Yield a function that, called a few times a second, shows what the log has come to say."""
    watcher = Watcher(FollowedLog(log), clock)
    if not can_redraw(console):
        lines = Lines(console, clock)
        yield lambda: lines.update(watcher.look())
        lines.update(watcher.look(), at_end=True)
        return
    begin = clock()
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def update() -> None:
            if (view := watcher.look()) is not None:
                live.update(Printable(render(*view, min(console.width, MAX_WIDTH))))
            else:
                live.update(waiting(clock() - begin))

        yield update


def waiting(seconds: float) -> Text:
    """Return what is shown before the run has written anything."""
    return Text(f"{in_words(seconds)}: the worker imports PyTorch and reads the data, then it loads the model", "dim")


View = tuple[RunLog, list[Finding]]


class Watcher:
    """Reads a growing log, and looks for findings in it every few seconds."""

    def __init__(self, followed: FollowedLog, clock: Callable[[], float]) -> None:
        self._followed = followed
        self._clock = clock
        self._findings: list[Finding] = []
        self._next = clock() + SECONDS_BETWEEN_DIAGNOSES

    def look(self) -> View | None:
        """Return the log so far and what was found in it last; None before there is a log."""
        log = self._followed.poll()
        if log is None:
            return None
        begin = self._clock()
        if begin >= self._next and log.steps:
            self._findings = [finding for finding in detect(log) if finding.severity != "info"]
            end = self._clock()
            self._next = end + max(SECONDS_BETWEEN_DIAGNOSES, (end - begin) / DIAGNOSIS_SHARE)
        return log, self._findings


class Lines:
    """Prints a line when something has happened, or some time has passed."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._next = 0.0
        self._num_evals = 0
        self._step = 0
        self._known: set[str] = set()

    def update(self, view: View | None, at_end: bool = False) -> None:
        """Print what is new."""
        if view is None:
            return
        log, findings = view
        for record in log.evals[self._num_evals :]:
            self._say(eval_line(record, log))
        self._num_evals = len(log.evals)
        for finding in findings:
            if finding.cause not in self._known:
                self._known.add(finding.cause)
                self._say(f"{finding.severity}: {finding.cause}: {finding.title}")
        step = log.last_step
        if step != self._step and (at_end or self._clock() >= self._next):
            self._step, self._next = step, self._clock() + SECONDS_BETWEEN_LINES
            self._say(" · ".join([f"step {step} of {log.run.total_steps}", *facts(log), memory_in_words(log)]))

    def _say(self, line: str) -> None:
        show(Text(line), self._console)
        self._console.file.flush()


def eval_line(record: EvalRecord, log: RunLog) -> str:
    """Return what an evaluation found."""
    loss = "nothing was computed" if record.loss is None else f"held-out loss {record.loss:.4f}"
    return f"evaluation at step {record.step} of {log.run.total_steps} ({record.model}): {loss}"


def render(log: RunLog, findings: list[Finding], width: int) -> RenderableType:
    """Return the display: progress, numbers, the memory bar, evaluations and findings."""
    run, step = log.run, log.last_step
    head = Table.grid(padding=(0, 2, 0, 0))
    head.add_row(
        Text(f"step {step} of {run.total_steps}", "bold"),
        ProgressBar(total=max(1, run.total_steps), completed=step, width=max(10, width // 3)),
        Text(log.last_phase or "starting", "bright_black"),
    )
    words, level, budget = memory_in_words(log), current_level(log), run.budget_bytes
    memory = bar(level, max(10, width - len(words) - 4), max(budget, level.top_bytes), budget).append(f"  {words}")
    lines: list[RenderableType] = [head, Text(" · ".join(facts(log))), memory]
    if curve := sparkline([step.loss for step in log.steps if step.loss is not None]):
        lines.insert(2, Text.assemble(("loss  ", "bright_black"), curve[0], (f"  {curve[1]}", "bright_black")))
    for record in log.evals[-3:]:
        lines.append(Text(eval_line(record, log), "bright_black"))
    for finding in findings:
        style = STYLES[finding.severity]
        lines.append(Text(f"{finding.cause}: {finding.title}", style, no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def sparkline(losses: Sequence[float]) -> tuple[str, str] | None:
    """Return the course of the loss in a row of blocks, and from where to where it went; None of fewer than two."""
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < 2:
        return None
    num_parts = min(SPARK_STEPS, len(known))
    means = []
    for part in range(num_parts):
        values = known[part * len(known) // num_parts : (part + 1) * len(known) // num_parts]
        means.append(sum(values) / len(values))
    low, high = min(means), max(means)
    span = high - low or 1.0
    blocks = [SPARKS[round((mean - low) / span * (len(SPARKS) - 1))] for mean in means]
    return "".join(blocks), f"{means[0]:.3f} → {means[-1]:.3f}"


def memory_in_words(log: RunLog) -> str:
    """Return `allocated 9.12, reserved 10.02 of 14.40 GiB` and the peak so far."""
    level = current_level(log)
    peak = gib(log.peak_reserved_bytes)
    reserved = of_budget(level.reserved_bytes, log.run.budget_bytes)
    return f"allocated {gib(level.allocated_bytes)}, reserved {reserved} (peak {peak})"


def current_level(log: RunLog) -> Level:
    """Return the peaks of the phase that ended last: between phases little is allocated, and that says nothing."""
    if not log.phases:
        return Level()
    after = log.phases[-1].after
    return Level(after.peak_allocated_bytes, after.peak_reserved_bytes)


def facts(log: RunLog) -> list[str]:
    """Return loss, speed and the time that is left, as far as the log knows them."""
    recent = log.steps[-RECENT_STEPS:]
    losses = [step.loss for step in recent if step.loss is not None]
    found = [f"epoch {recent[-1].epoch}"] if recent else []
    if losses:
        found.append(f"loss {sum(losses) / len(losses):.4f}")
    if speed := tokens_per_second(recent):
        found.append(f"{speed:,.0f} tokens/s".replace(",", " "))
    if (left := seconds_left(log)) is not None:
        found.append(f"about {in_words(left)} left")
    return found


_AFTER_TRAINING = (Phase.GENERATE,)
"""phases in which no more steps come, and how long they take nothing tells"""


def tokens_per_second(steps: list[StepRecord]) -> float:
    """Return real tokens, without padding, per second of training; 0 where nothing is known."""
    seconds = sum(step.seconds for step in steps)
    return sum(sum(step.lengths) for step in steps) / seconds if seconds > 0 else 0.0


def seconds_left(log: RunLog) -> float | None:
    """Return the time for the steps that are left, from what those done took with their share of all phases."""
    is_training = log.last_phase not in _AFTER_TRAINING and log.last_step < log.run.total_steps
    if not log.steps or not is_training:
        return None
    done = len(log.steps)
    spent = sum(p.seconds for p in log.phases if p.phase not in (Phase.LOAD, Phase.RESUME, Phase.GENERATE))
    return max(0, log.run.total_steps - log.steps[-1].step) * spent / done


def in_words(seconds: float) -> str:
    """Return `45 s`, `12 min` or `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
