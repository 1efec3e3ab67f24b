"""What changed from one run to another: memory, its growth and time, phase by phase, and whether it got worse.

A change counts only beyond the noise of its kind. Runs that did not both end are compared up to the last step that both
reached: what only one of them got to is no difference between them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from memory_harness.configs.flags import flag_of
from memory_harness.configs.schema import SECTIONS, RunConfig
from memory_harness.configs.units import MIB
from memory_harness.configs.values import to_text
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.reading import config_of, has_config
from memory_harness.probes.detectors.trends import (
    BURN_IN_STEPS,
    MIN_GROWTH_BYTES,
    MIN_STEPS,
    NOISE_BYTES,
    Slope,
    robust_slope,
)

ALLOCATED_NOISE_SHARE = 0.001
"""Share of the larger value within which two allocated peaks are equal: five times the largest difference between
measured and simulated peaks of one recipe (0.02 % over 32 recipes, tests/bench/agreement.py)."""
RESERVED_NOISE_SHARE = 0.01
"""The same for reserved: it also follows the addresses that the driver gives out (0.7 % in the same comparison)."""
PEAK_NOISE_BYTES = 2 * MIB
"""Difference of two peaks that is never reported: the smallest segment."""
TIME_NOISE_SHARE = 0.1
"""Share of the larger value within which two median times are equal: clocks and other users of a machine."""
TIME_NOISE_SECONDS = 0.001
"""Difference of two median times that is never reported."""
MIN_TIMED = 5
"""Records of a phase after the burn-in, in either run, before its times are compared."""
Verdict = Literal["worse", "better", "same"]
Kind = Literal["peak allocated", "peak reserved", "floor", "growth per step", "time"]
Presence = Literal["only in A", "only in B"]

Pair = tuple[float | None, float | None]
"""A quantity of A and of B; None where a run lacks it."""
OUTCOME_RANKS = {Outcome.COMPLETED: 0, Outcome.STOPPED: 1, Outcome.ERROR: 1, Outcome.OOM: 2}
"""The higher, the worse; a run that was stopped or cut off is not known to fit."""


@dataclass(frozen=True)
class Change:
    """One quantity in both runs: bytes, bytes per step, or the median of seconds."""

    kind: Kind
    phase: Phase | None
    """None for the whole run"""
    before: float | None
    after: float | None
    verdict: Verdict | Presence

    @property
    def difference(self) -> float:
        """How much it rose; 0 where one run lacks it."""
        return 0 if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class Difference:
    """A setting, or another condition of the runs, that is not the same in both."""

    name: str
    """the flag, or what the condition is called"""
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side, A before and B after."""

    before: RunLog
    after: RunLog
    up_to_step: int | None
    """last step that was compared; None where both runs were compared whole"""
    outcome: Verdict
    """whether B ended worse than A"""
    changes: list[Change]
    differences: list[Difference]

    @property
    def verdict(self) -> Verdict:
        """That of the outcome, where the runs ended differently: to go on takes more than to die.

        Else `worse` where anything is worse, and `better` where something is better and nothing worse.
        """
        if self.outcome != "same":
            return self.outcome
        found = {self.outcome, *(change.verdict for change in self.changes)}
        if "worse" in found:
            return "worse"
        return "better" if "better" in found else "same"

    @property
    def sources(self) -> tuple[str, str]:
        """Where each run's numbers come from: `cuda` or `simulated`."""
        return self.before.run.source, self.after.run.source

    @property
    def times_compared(self) -> bool:
        """Whether times were compared: those of a simulation are not the card's."""
        return self.sources == ("cuda", "cuda")


def compare(before: RunLog, after: RunLog) -> Comparison:
    """Return what changed from `before` to `after`.

    Raises:
        LogError: no phase ended in one of them, so that there is nothing to compare.
    """
    for name, log in (("A", before), ("B", after)):
        if not log.phases:
            raise LogError(f"--compare: no phase ended in {name}, so that there is nothing to compare")
    up_to = _common_end(before, after)
    changes = [*_peaks(before, after, up_to), *_floors(before, after, up_to), *_times(before, after, up_to)]
    return Comparison(before, after, up_to, _outcome(before, after), changes, list(_differences(before, after)))


def _outcome(before: RunLog, after: RunLog) -> Verdict:
    """Return whether B ended worse; a run cut off before the step at which the other died says nothing of that one."""
    for died, other in ((before, after), (after, before)):
        is_cut_off = other.outcome in (Outcome.STOPPED, Outcome.ERROR)
        if is_cut_off and died.fatal_oom is not None and _last_step(other) < died.fatal_oom.step:
            return "same"
    return _judged(OUTCOME_RANKS[before.outcome], OUTCOME_RANKS[after.outcome], 0)


def _last_step(log: RunLog) -> int:
    return max(record.step for record in log.phases)


def _common_end(before: RunLog, after: RunLog) -> int | None:
    """Return the last step that both runs reached, None where both came to their end."""
    if before.outcome is Outcome.COMPLETED and after.outcome is Outcome.COMPLETED:
        return None
    return min(_last_step(before), _last_step(after))


def _judged(before: float, after: float, noise: float) -> Verdict:
    """Return whether the quantity rose, which is worse, or fell, by more than the noise."""
    if abs(after - before) <= noise:
        return "same"
    if after > before:
        return "worse"
    return "better"


def _change(kind: Kind, phase: Phase | None, values: Pair, noise: float) -> Change:
    before, after = values
    if before is None:
        return Change(kind, phase, before, after, "only in B")
    if after is None:
        return Change(kind, phase, before, after, "only in A")
    return Change(kind, phase, before, after, _judged(before, after, noise))


def is_noise(before: int, after: int, of_bytes: int) -> bool:
    """Return whether two allocated sizes differ by less than says something in memory of `of_bytes`."""
    return abs(after - before) <= max(PEAK_NOISE_BYTES, ALLOCATED_NOISE_SHARE * of_bytes)


def _noise(values: Pair, share: float, least: float) -> float:
    """Return the difference that says nothing; it is the same whichever run comes first."""
    return max(least, share * max(value or 0 for value in values))


def _peaks(before: RunLog, after: RunLog, up_to: int | None) -> Iterator[Change]:
    """Yield the peaks of the whole run, then of each phase; a phase that failed counts with what it asked for."""
    first, second = needed(before, up_to), needed(after, up_to)
    noise: tuple[tuple[Kind, float], ...] = (
        ("peak allocated", ALLOCATED_NOISE_SHARE),
        ("peak reserved", RESERVED_NOISE_SHARE),
    )
    for index, (kind, share) in enumerate(noise):
        for phase in (None, *Phase):
            values = _highest(first, phase, index), _highest(second, phase, index)
            if values != (None, None):
                yield _change(kind, phase, values, _noise(values, share, PEAK_NOISE_BYTES))


def _highest(found: Mapping[Phase, tuple[int, int]], phase: Phase | None, index: int) -> int | None:
    """Return a phase's peak, the highest of all for None, or None where it did not run."""
    if phase is not None:
        return found[phase][index] if phase in found else None
    return max((peaks[index] for peaks in found.values()), default=None)


def needed(log: RunLog, up_to: int | None) -> dict[Phase, tuple[int, int]]:
    """Return the highest allocated and reserved bytes of each phase up to a step, failed requests on top."""
    found: dict[Phase, tuple[int, int]] = {}

    def add(phase: Phase, allocated_bytes: int, reserved_bytes: int) -> None:
        allocated, reserved = found.get(phase, (0, 0))
        found[phase] = max(allocated, allocated_bytes), max(reserved, reserved_bytes)

    for record in log.phases:
        if _is_compared(record.step, up_to):
            add(record.phase, record.after.peak_allocated_bytes, record.after.peak_reserved_bytes)
    oom = log.fatal_oom
    if oom is not None and _is_compared(oom.step, up_to):
        add(oom.phase, oom.allocated_bytes + oom.requested_bytes, oom.reserved_bytes)
    return found


def _is_compared(step: int, up_to: int | None) -> bool:
    """Return whether the step is not beyond the last one that is compared."""
    return up_to is None or step <= up_to


def _floors(before: RunLog, after: RunLog, up_to: int | None) -> Iterator[Change]:
    """Yield what stays between steps, and by how much that grows with each."""
    first, second = _floor_course(before, up_to), _floor_course(after, up_to)
    if first and second:
        lowest = min(first), min(second)
        yield _change("floor", None, lowest, _noise(lowest, ALLOCATED_NOISE_SHARE, PEAK_NOISE_BYTES))
    if min(len(first), len(second)) >= MIN_STEPS:
        yield _growth(robust_slope(first), robust_slope(second), min(len(first), len(second)))


def _floor_course(log: RunLog, up_to: int | None) -> list[int]:
    compared = [step for step in log.steps if step.step > BURN_IN_STEPS and _is_compared(step.step, up_to)]
    return [step.allocated_bytes for step in compared]


def _growth(before: Slope, after: Slope, num_steps: int) -> Change:
    """Return the change of the slope: it counts where the slopes' ranges lie apart and the steps make it matter."""
    low, high = sorted((before, after), key=lambda slope: slope.middle)
    apart = low.high < high.low
    noise = max(NOISE_BYTES, MIN_GROWTH_BYTES / num_steps)
    values = round(before.middle), round(after.middle)
    return _change("growth per step", None, values, noise if apart else float("inf"))


def _times(before: RunLog, after: RunLog, up_to: int | None) -> Iterator[Change]:
    """Yield the median time of each phase that ran often enough, and of a step; of measured runs only."""
    if before.run.source != "cuda" or after.run.source != "cuda":
        return
    first, second = _seconds(before, up_to), _seconds(after, up_to)
    for phase in (None, *Phase):
        samples = first.get(phase, []), second.get(phase, [])
        if min(map(len, samples)) >= MIN_TIMED:
            values = median(samples[0]), median(samples[1])
            yield _change("time", phase, values, _noise(values, TIME_NOISE_SHARE, TIME_NOISE_SECONDS))


def _seconds(log: RunLog, up_to: int | None) -> Mapping[Phase | None, Sequence[float]]:
    """Return the seconds of every phase after the burn-in, and of every step under None."""
    found: dict[Phase | None, list[float]] = {}
    timed: list[tuple[Phase | None, int, float]] = [(p.phase, p.step, p.seconds) for p in log.phases]
    timed += [(None, s.step, s.seconds) for s in log.steps]
    for phase, step, seconds in timed:
        if step > BURN_IN_STEPS and _is_compared(step, up_to):
            found.setdefault(phase, []).append(seconds)
    return found


def _differences(before: RunLog, after: RunLog) -> Iterator[Difference]:
    """Yield settings and conditions that differ; where the results go is none."""
    if has_config(before) and has_config(after):
        yield from _different_settings(config_of(before), config_of(after))
    of_before, of_after = _conditions(before), _conditions(after)
    for name in of_before | of_after:
        values = str(of_before.get(name, "unknown")), str(of_after.get(name, "unknown"))
        if values[0] != values[1]:
            yield Difference(name, *values)


def _different_settings(before: RunConfig, after: RunConfig) -> Iterator[Difference]:
    for section, cls in SECTIONS.items():
        if section == "output":
            continue
        first, second = getattr(before, section), getattr(after, section)
        for item in dataclasses.fields(cls):
            values = to_text(getattr(first, item.name), item), to_text(getattr(second, item.name), item)
            if values[0] != values[1]:
                yield Difference(flag_of(item), *values)


def _conditions(log: RunLog) -> dict[str, Any]:
    run = log.run
    model = {} if run.model is None else {"model": run.model.name, "weights": run.model.weights}
    card = {"card": run.gpu_name, "budget in bytes": run.budget_bytes, "corpus": run.corpus, "steps": run.total_steps}
    return {**card, **model, **run.environment}
