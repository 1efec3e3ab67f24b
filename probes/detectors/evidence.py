"""What a log says about growth, before any cause is named: the floor, what parts of the loop left, slopes, forecasts.

The floor is what stays allocated between two steps. It tells a leak from a long sample: the peak follows the length of
the batch, the floor does not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import numpy.typing as npt

from memory_harness.configs.units import KIB
from memory_harness.harness.log.records import Outcome, Phase, PhaseRecord, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog

BURN_IN_STEPS = 2
"""Steps in which memory may appear for good: optimizer states, workspaces, gradients of the first accumulation."""

NOISE_BYTES = 4 * KIB
"""What a step or a batch may leave without being said to grow: eight kept scalars of one 512-byte block each. The
allocator's counters are exact, so that nothing else moves the floor of a run that keeps nothing."""

KEPT_SCALARS_BYTES = 2 * 512
"""The same for each micro-step: a kept loss, and one more number, in a block each."""

MIN_GROWTH_BYTES = 64 * KIB
"""Least growth that is reported: what some hundred kept scalars take."""

MIN_STEPS = 6
"""Steps after the burn-in before a course is called growth."""

FREED_SHARE = 0.5
"""Share of the growth that the garbage collector or autocast's cache must give back: some of it went on its own
before."""

LIBRARIES = ("torch/", "transformers/", "peft/", "bitsandbytes/", "accelerate/", "harness/")
"""Begin of the paths whose lines are not the user's."""

_FILE_AND_LINE = re.compile(r"[^\s:`()]+:\d+")

MAX_POINTS = 400
"""Points of the floor that a slope is computed from, the latest ones: the pairs grow with the square."""

IN_STEP = (Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.STEP)

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class StepGrowth:
    """What one optimizer step left allocated, and what it did."""

    step: int
    epoch: int
    floor_bytes: int
    """allocated when the step was over"""
    left_bytes: int
    """of it, what the step itself added"""
    micro_steps: int
    tokens: int
    """padded tokens of its micro-batches"""
    forward_bytes: int
    """what its forward passes added: the graph, while it lives"""
    has_new_length: bool
    """one of its padded lengths was not seen before"""
    has_new_longest: bool
    """one of them exceeds all before"""
    failed_phases: tuple[Phase, ...]
    """phases in which an allocation failed and somebody caught the error"""

    @property
    def noise_bytes(self) -> int:
        """What it may leave without being said to grow."""
        return NOISE_BYTES + KEPT_SCALARS_BYTES * self.micro_steps


def step_growth(log: RunLog) -> list[StepGrowth]:
    """Return what each finished step left, in order, of the longest training where there are several."""
    parts = {step: list(records) for step, records in groupby(_in_step(log), key=lambda record: record.step)}
    longest = _longest_training(log)
    seen: set[int] = set()
    failures = _caught_failures(log)
    result = []
    for record in log.steps:
        phases = parts.get(record.step, [])
        if not phases or record.training != longest:
            continue
        forwards = [p for p in phases if p.phase is Phase.FORWARD]
        batches = [p.batch for p in forwards or phases if p.batch]
        lengths = {batch.padded_length for batch in batches}
        result.append(
            StepGrowth(
                step=record.step,
                epoch=record.epoch,
                floor_bytes=record.allocated_bytes,
                left_bytes=record.allocated_bytes - phases[0].allocated_before_bytes,
                micro_steps=record.micro_steps,
                tokens=sum(batch.padded_tokens for batch in batches),
                forward_bytes=sum(p.after.allocated_bytes - p.allocated_before_bytes for p in forwards),
                has_new_length=not lengths <= seen,
                has_new_longest=max(lengths, default=0) > max(seen, default=0),
                failed_phases=tuple(failures.get(record.step, ())),
            )
        )
        seen |= lengths
    return result


def _longest_training(log: RunLog) -> int:
    """Return which training has the most steps, of a script that trains one model after another."""
    return Counter(s.training for s in log.steps).most_common(1)[0][0] if log.steps else 1


def _in_step(log: RunLog) -> Iterable[PhaseRecord]:
    return (p for p in log.phases if p.phase in IN_STEP and p.step > 0)


def _caught_failures(log: RunLog) -> dict[int, list[Phase]]:
    """Return the phases, by step, in which the allocator's count of failures rose."""
    found: dict[int, list[Phase]] = {}
    before = 0
    for record in log.phases:
        if record.after.num_ooms > before and record.phase in IN_STEP:
            found.setdefault(record.step, []).append(record.phase)
        before = max(before, record.after.num_ooms)
    return found


def settled(growth: Sequence[StepGrowth]) -> list[StepGrowth]:
    """Return the steps after the burn-in."""
    return list(growth[BURN_IN_STEPS:])


def lasting_floor(growth: Sequence[StepGrowth]) -> npt.NDArray[np.int64]:
    """Return, for each step, the lowest floor from there on: what was let go later does not count as growth."""
    floors = np.array([g.floor_bytes for g in growth], dtype=np.int64)
    return np.minimum.accumulate(floors[::-1])[::-1]


def keeps_growing(growth: Sequence[StepGrowth]) -> bool:
    """Whether the lasting floor rises through most of the run and until its end.

    A buffer that fills and then stays is flat in the last third; one that is emptied now and then has no lasting rise
    before its last filling.
    """
    if len(growth) < MIN_STEPS:
        return False
    floor = lasting_floor(growth)
    late = 2 * len(floor) // 3
    return int(floor[late] - floor[0]) > NOISE_BYTES and int(floor[-1] - floor[late]) > NOISE_BYTES


def lasting(growth: Sequence[StepGrowth]) -> int:
    """Return by how much the floor is higher at the end than at the begin."""
    return growth[-1].floor_bytes - growth[0].floor_bytes if growth else 0


def freed_by(log: RunLog, growth: Sequence[StepGrowth], name: str) -> int:
    """Return what a probe freed, 0 where that is little or not what had grown until then."""
    probes = [p for p in log.probes if p.name == name]
    grown = lasting([g for g in growth if g.step <= max((p.step for p in probes), default=0)])
    freed = sum(p.freed_bytes for p in probes)
    return freed if freed >= max(MIN_GROWTH_BYTES, FREED_SHARE * grown) else 0


@dataclass(frozen=True)
class Slope:
    """Bytes per unit: the median over pairs of points far apart, and the range that most pairs lie in."""

    low: float
    middle: float
    high: float


def robust_slope(values: Sequence[int]) -> Slope:
    """Return the Theil-Sen slope of equally spaced values, over pairs at least half the series apart.

    Single outliers, such as one step's leftovers, do not move it. The range is that of the 10th to the 90th percentile.
    """
    points = np.array(values[-MAX_POINTS:], dtype=np.float64)
    first, second = np.triu_indices(len(points), k=max(1, len(points) // 2))
    slopes = (points[second] - points[first]) / (second - first)
    if not len(slopes):
        return Slope(0.0, 0.0, 0.0)
    low, middle, high = np.percentile(slopes, [10, 50, 90])
    return Slope(float(low), float(middle), float(high))


def forecast(log: RunLog, growth: Sequence[StepGrowth]) -> tuple[int, int] | None:
    """Return the range of steps within which the budget is reached at the present slope, None where it falls.

    The room above the floor that the largest batch so far needed is kept free. The range is as wide as the slope is
    unsure, and as what lies unused in the allocator's cache may serve the growth or not.
    """
    slope = robust_slope([g.floor_bytes for g in growth])
    later = [p for p in log.phases if p.step > BURN_IN_STEPS]
    if slope.low <= 0 or not growth or not later:
        return None
    floor, last = growth[-1].floor_bytes, growth[-1].step
    needed = max(p.after.peak_allocated_bytes - p.allocated_before_bytes for p in later)
    unused = min(p.after.peak_reserved_bytes - p.after.peak_allocated_bytes for p in later if p.step == last)
    room = log.run.budget_bytes - needed - floor
    first = last + int(max(0, room - unused) / slope.high)
    return first, last + -int(-max(0, room) // slope.low)


def forecast_in_words(log: RunLog, growth: Sequence[StepGrowth]) -> str:
    """Return the forecast as a sentence, empty without one or where it lies beyond anything a run would reach."""
    steps = forecast(log, growth)
    if steps is None or log.fatal_oom is not None:
        return ""
    beyond = " (the run has fewer)" if 0 < log.run.total_steps < steps[0] else ""
    return f"At this slope the budget is reached between steps {steps[0]} and {steps[1]}{beyond}."


def growth_severity(log: RunLog, grown_bytes: int, growth: Sequence[StepGrowth]) -> Severity:
    """Return `error` where the growth ended the run or will end it, else `warning`."""
    if log.fatal_oom is not None:
        return "error" if fits_without(log, grown_bytes) else "warning"
    steps = forecast(log, growth)
    if log.run.script:  # as long as it was watched: growth that does not end is an error in a longer run
        return "error" if steps is not None and keeps_growing(growth) else "warning"
    ended = log.outcome is Outcome.COMPLETED
    return "error" if not ended and steps is not None and steps[1] <= log.run.total_steps else "warning"


def fits_without(log: RunLog, num_bytes: int) -> bool:
    """Whether the request that failed would have fitted had these bytes not been taken."""
    oom = log.fatal_oom
    return oom is not None and oom.allocated_bytes - num_bytes + oom.requested_bytes <= oom.budget_bytes


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: the batches that ended, in order."""

    step: int
    batches: tuple[PhaseRecord, ...]

    @property
    def before_bytes(self) -> int:
        """Allocated when it began."""
        return self.batches[0].allocated_before_bytes

    @property
    def left_bytes(self) -> list[int]:
        """What each batch left allocated."""
        return [p.after.allocated_bytes - p.allocated_before_bytes for p in self.batches]

    @property
    def grown_bytes(self) -> int:
        """What all batches left allocated."""
        return self.batches[-1].after.allocated_bytes - self.before_bytes


def evaluations(log: RunLog) -> list[Evaluation]:
    """Return the evaluations in order; a batch that went out of memory is not among them."""
    batches = [p for p in log.phases if p.phase is Phase.EVAL]
    if log.fatal_oom is not None and log.fatal_oom.phase is Phase.EVAL:
        batches = batches[:-1]
    found = [Evaluation(step, tuple(group)) for step, group in groupby(batches, key=lambda p: p.step)]
    # a watched script's last batch lasts until something else happens, when what was evaluated is over and let go
    return [_without_last(e) for e in found] if log.run.script and log.fatal_oom is None else found


def _without_last(evaluation: Evaluation) -> Evaluation:
    return Evaluation(evaluation.step, evaluation.batches[:-1] or evaluation.batches)


def kept_after(log: RunLog, evaluation: Evaluation) -> int | None:
    """Return what of an evaluation is still allocated one step later, None where no step followed."""
    following = next((g for g in step_growth(log) if g.step > evaluation.step), None)
    if following is None:
        return None
    usual = np.median([g.left_bytes for g in settled(step_growth(log))] or [0])
    # at the same point of the loop, where there is one: its own input is there before the first batch begins
    floor = next((s.allocated_bytes for s in log.steps if s.step == evaluation.step), evaluation.before_bytes)
    return int(following.floor_bytes - min(floor, evaluation.before_bytes) - max(0.0, float(usual)))


def survivors_of(log: RunLog, unit: str = "step") -> list[SurvivorRecord]:
    """Return what the closer look found of a unit, the most bytes first."""
    return sorted((s for s in log.survivors if s.unit == unit), key=lambda s: -s.bytes_per_step)


def place(survivor: SurvivorRecord | None) -> str | None:
    """Return `file:line` of what holds a survivor, or of what made it; the user's own line where there is one."""
    if survivor is None:
        return None
    found = [line for text in (survivor.holder, survivor.site) for line in reversed(_FILE_AND_LINE.findall(text))]
    return next((line for line in found if not line.startswith(LIBRARIES)), next(iter(found), None))


def main_survivor(survivors: Sequence[SurvivorRecord]) -> SurvivorRecord | None:
    """Return the survivor with the most bytes, of those that lead to the user's own code where any does."""
    users = [s for s in survivors if not (place(s) or LIBRARIES[0]).startswith(LIBRARIES)]
    return next(iter(users or survivors), None)


def called_at(records: Iterable[PhaseRecord]) -> str | None:
    """Return `file:line` that called the model in the first of the phases that knows; only watched scripts do."""
    return next((p.forward.where for p in records if p.forward is not None and p.forward.where), None)


def where_of(log: RunLog, unit: str = "step") -> str | None:
    """Return `file:line` of what holds the most of what a unit leaves."""
    return place(main_survivor(survivors_of(log, unit)))


def blocks(num_bytes: int) -> int:
    """Return a size as the allocator counts it. Source: torch CUDACachingAllocator, kMinBlockSize."""
    return -(-num_bytes // 512) * 512
