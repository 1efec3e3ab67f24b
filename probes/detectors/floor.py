"""The course of the floor over the steps: what lasts, when it ends the run, and what an explanation of it says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from memory_harness.harness.log.records import COLLECTED_BY_SCRIPT, COLLECTOR, Outcome, SurvivorRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence, StepGrowth
from memory_harness.probes.detectors.reading import fits_without, main_survivor, peak_rise_bytes, survivors_of
from memory_harness.probes.detectors.trends import BURN_IN_STEPS, MIN_GROWTH_BYTES, MIN_STEPS, NOISE_BYTES, robust_slope
from memory_harness.probes.findings import Severity

FREED_SHARE = 0.5
"""Share of the growth that the garbage collector or autocast's cache must give back: some of it went on its own
before."""
EXPLAINED_SHARE = 0.8
"""Share of the growth that must coincide with something before that is called its reason."""
MIN_EVENTS = 3
"""Steps that grew before they make a pattern."""
HIGH_QUANTILE = 0.9
"""Of the levels in the middle of a run, which its end must exceed."""
RESTS = 2
"""How many of the longest stretches between two rises may follow the last one, before what grew has come to its end."""


@dataclass(frozen=True)
class Explanation:
    """Why the floor rises."""

    cause: str
    title: str
    reason: str
    grown_bytes: int
    steps: tuple[int, int]
    survivor: SurvivorRecord | None = None
    evidence: dict[str, int | float | str] = field(default_factory=dict)
    ends_training: bool = False
    """whether no step succeeds any more"""


def growth_events(growth: Sequence[StepGrowth]) -> list[StepGrowth]:
    """Return the steps that left more than noise."""
    return [step for step in growth if step.left_bytes > step.noise_bytes]


def total_left(growth: Sequence[StepGrowth]) -> int:
    """Return what the steps left in all."""
    return sum(step.left_bytes for step in growth)


def span(growth: Sequence[StepGrowth]) -> tuple[int, int]:
    """Return the first and the last step."""
    return growth[0].step, growth[-1].step


def largest_survivor(log: RunLog) -> SurvivorRecord | None:
    """Return what is most of that which steps leave."""
    return main_survivor(survivors_of(log))


def floors(growth: Sequence[StepGrowth]) -> list[int]:
    """Return what was allocated after each step."""
    return [step.floor_bytes for step in growth]


def floor_rise(growth: Sequence[StepGrowth]) -> int:
    """Return by how much the floor is higher at the end than at the begin."""
    return growth[-1].floor_bytes - growth[0].floor_bytes if growth else 0


def keeps_growing(growth: Sequence[StepGrowth]) -> bool:
    """Return whether the lasting floor rises through most of the run and until its end.

    The lasting floor at a step is the lowest from there on: what was let go later does not count as growth. A buffer
    that fills and then stays is flat in the last third, or rests longer than it ever did while it filled; one that is
    emptied now and then has no lasting rise before its last filling.
    """
    return rises_to_the_end(floors(growth), NOISE_BYTES)


def grows_to_the_end(evidence: Evidence) -> bool:
    """Return whether it keeps growing, or has grown in each of the few steps after which memory was full."""
    growth = evidence.later_steps
    if evidence.log.fatal_oom is None or len(growth) >= MIN_STEPS:
        return keeps_growing(growth)
    return len(growth) > 1 and len(growth_events(growth)) == len(growth)


def rises_to_the_end(levels: Sequence[int], noise_bytes: int) -> bool:
    """Return whether what lasts of a series rises through most of it and until its end, each by more than the noise."""
    if len(levels) < MIN_STEPS:
        return False
    backwards = np.array(levels, dtype=np.int64)[::-1]
    lasting = np.minimum.accumulate(backwards)[::-1]
    first, late, last = lasting[0], lasting[2 * len(lasting) // 3], lasting[-1]
    rises = int(late - first) > noise_bytes and int(last - late) > noise_bytes
    return rises and _is_highest_late(levels, noise_bytes) and _goes_on(lasting.tolist(), noise_bytes)


def _is_highest_late(levels: Sequence[int], noise_bytes: int) -> bool:
    """Return whether a series ends above its middle third: what replaces large things by small ones has no end above.

    Of the middle a tenth may be higher, what was there for a moment.
    """
    third = len(levels) // 3
    usual = float(np.quantile(levels[third : 2 * third], HIGH_QUANTILE))
    return max(levels[-max(1, third // 2) :]) - usual > noise_bytes


def _goes_on(lasting: Sequence[int], noise_bytes: int) -> bool:
    """Return whether no longer a rest has followed the last rise than lay between rises: what has filled rests."""
    level, risen_at = lasting[0], list[int]()
    for index, value in enumerate(lasting):
        if value - level > noise_bytes:
            level = value
            risen_at.append(index)
    longest = max(after - before for before, after in pairwise(risen_at))
    return len(lasting) - 1 - risen_at[-1] <= RESTS * longest


def freed_by(evidence: Evidence, name: str) -> int:
    """Return what a probe freed, 0 where that is little or not what had grown until then."""
    probes = [probe for probe in evidence.log.probes if probe.name == name]
    last_probed = max((probe.step for probe in probes), default=0)
    grown = floor_rise([step for step in evidence.later_steps if step.step <= last_probed])
    freed = sum(probe.freed_bytes for probe in probes)
    return freed if freed >= max(MIN_GROWTH_BYTES, FREED_SHARE * grown) else 0


def freed_by_collector(evidence: Evidence) -> int:
    """Return what the collector freed when it was asked, or on its own where that is most of what grew.

    0 where the script asks for it again and again: then nothing waits longer than it is meant to.
    """
    asked = freed_by(evidence, "gc")
    later = [probe for probe in evidence.log.probes if probe.step > BURN_IN_STEPS]
    if sum(probe.name == COLLECTED_BY_SCRIPT for probe in later) >= MIN_EVENTS:
        return 0
    runs = [probe for probe in later if probe.name == COLLECTOR]
    freed = sum(probe.freed_bytes for probe in later if probe.name in (COLLECTOR, "gc"))
    left = total_left([step for step in evidence.later_steps if step.left_bytes > 0])
    is_most = len(runs) >= MIN_EVENTS and freed >= max(MIN_GROWTH_BYTES, FREED_SHARE * left)
    return freed if is_most else asked


def forecast(log: RunLog, growth: Sequence[StepGrowth]) -> tuple[int, int] | None:
    """Return the range of steps within which the budget is reached at the present slope, None where it falls.

    The room above the floor that the largest batch so far needed is kept free. The range is as wide as the slope is
    unsure, and as what lies unused in the allocator's cache may serve the growth or not.
    """
    slope = robust_slope(floors(growth))
    later = [record for record in log.phases if record.step > BURN_IN_STEPS]
    if slope.low <= 0 or not growth or not later:
        return None
    floor, last = growth[-1].floor_bytes, growth[-1].step
    needed = max(peak_rise_bytes(record) for record in later)
    in_last_step = [record.after for record in later if record.step == last]
    unused = min(stats.peak_reserved_bytes - stats.peak_allocated_bytes for stats in in_last_step)
    room = log.run.budget_bytes - needed - floor
    first = last + int(max(0, room - unused) / slope.high)
    return first, last + -int(-max(0, room) // slope.low)


def forecast_in_words(log: RunLog, budget_reached: tuple[int, int] | None) -> str:
    """Return the forecast as a sentence, empty without one or where it lies beyond anything a run would reach."""
    if budget_reached is None or log.fatal_oom is not None:
        return ""
    first, last = budget_reached
    beyond = " (the run has fewer)" if 0 < log.run.total_steps < first else ""
    return f"At this slope the budget is reached between steps {first} and {last}{beyond}."


def growth_severity(
    log: RunLog,
    grown_bytes: int,
    growth: Sequence[StepGrowth],
    budget_reached: tuple[int, int] | None,
    *,
    may_end: bool = False,
) -> Severity:
    """Return `error` where the growth ends the run as planned, or is proved and has no end, else `warning`.

    The rule of all reports, whatever recorded the run: an error is what ended the run, what reaches the budget by the
    forecast within the steps that are planned, or what grows through the whole run, where nothing may end it
    (`may_end`): it ends a longer run.
    """
    if log.fatal_oom is not None:
        return "error" if fits_without(log, grown_bytes) else "warning"
    if budget_reached is None:
        return "warning"
    within_plan = log.outcome is not Outcome.COMPLETED and budget_reached[1] <= log.run.total_steps
    has_no_end = keeps_growing(growth) and not may_end
    return "error" if within_plan or has_no_end else "warning"
