"""Which fixes to apply: the cheapest set that passes with room to spare, found by predicting before running anything.

A prediction is the simulation of a run's worst moments (`probes.plan.predict`); it comes in as a function, so that the
choice itself needs no PyTorch. Fixes are judged by what they cost (`rung`: what becomes of the result, then of the
time) and by what the prediction says that they save, alone and together.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from memory_harness.configs.inputs import MAX_TEXT_BYTES, read_input
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.records import Count, Size
from memory_harness.probes.findings import Fix
from memory_harness.probes.fixes import rung

Goal = Literal["speed", "memory"]


@dataclass(frozen=True)
class Prediction:
    """What a run's worst moments take."""

    passes: bool
    """within the budget less the headroom, and without the allocator having to give its cache back: each time it does
    the GPU waits, and it is the last thing before memory runs out"""
    peak_allocated_bytes: Size
    """with as much memory as it wants"""
    peak_reserved_bytes: Size


@dataclass(frozen=True)
class Limits:
    """The largest that fit, each with all else as configured; 0 where not even the smallest does."""

    micro_batch: Count
    """sequences of the maximum length in one training batch"""
    length: Count
    """tokens of a sequence, in training and in evaluation at their batch sizes"""
    batch_tokens: Count
    """padded tokens of one training batch, whatever its lengths"""
    multiple_of: Count
    """length and tokens are multiples of this"""


Predict = Callable[[Sequence[RunConfig]], list[Prediction]]
"""predicts several configurations at once"""


@dataclass(frozen=True)
class Option:
    """A set of fixes and what it would give."""

    fixes: tuple[str, ...]
    prediction: Prediction
    slowdown: float
    """predicted seconds of a step over those without the fixes"""


@dataclass(frozen=True)
class Plan:
    """The choice, why each part of it is in, and what else there was."""

    goal: Goal
    budget_bytes: Size
    headroom_bytes: Size
    as_configured: Prediction
    chosen: Option
    """no fixes where none is needed"""
    reasons: dict[str, str] = field(default_factory=dict)
    """fix -> why it is in"""
    alternatives: tuple[Option, ...] = ()
    """each fix alone, then each set that was tried"""

    @property
    def passes(self) -> bool:
        """Return whether what was chosen fits with the headroom."""
        return self.chosen.prediction.passes


def write_plan(path: Path, plan: Plan | None, limits: Limits | None) -> None:
    """Write what was planned as JSON, for `read_plan`."""
    data = {
        "plan": None if plan is None else dataclasses.asdict(plan),
        "limits": None if limits is None else dataclasses.asdict(limits),
    }
    write_whole(path, json.dumps(data, indent=1) + "\n")


def read_plan(path: Path) -> tuple[Plan | None, Limits | None]:
    """Return what `write_plan` wrote, nothing where there is no such file.

    Raises:
        LogError: it is damaged, or another release's.
    """
    if not path.exists():
        return None, None
    try:
        found = msgspec.json.decode(read_input(path, MAX_TEXT_BYTES), type=_PlanFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LogError(
            f"{path}: damaged, or of another release; without it the rest of the probe can be read"
        ) from None
    return found.plan, found.limits


class _PlanFile(msgspec.Struct):
    plan: Plan | None
    limits: Limits | None


def make_plan(
    config: RunConfig,
    fixes: Iterable[Fix],
    predict: Predict,
    *,
    goal: Goal,
    budget_bytes: int,
    headroom_bytes: int,
) -> Plan:
    """Return the plan for a configuration; `fixes` are in ladder order, those that would change nothing are left out.

    `speed` takes the cheapest set that passes, `memory` every fix that lowers the peak and keeps the samples whole.
    """
    usable = [fix for fix in fixes if fix.apply(config) is not None]
    search = _Search(config, usable, predict)
    search.predict_all([[], *([fix] for fix in usable)])
    chosen = _lowest_peak(search) if goal == "memory" else _cheapest(search)
    reasons = {fix.name: _reason(search, chosen, fix) for fix in chosen}
    return Plan(
        goal=goal,
        budget_bytes=budget_bytes,
        headroom_bytes=headroom_bytes,
        as_configured=search.known[()],
        chosen=search.option(_names(chosen)),
        reasons=reasons,
        alternatives=tuple(search.option(names) for names in search.known if names and names != _names(chosen)),
    )


class _Search:
    """Predictions of sets of fixes, each made once."""

    def __init__(self, config: RunConfig, fixes: Sequence[Fix], predict: Predict) -> None:
        self.config = config
        self.fixes = fixes
        self._predict = predict
        self.known: dict[tuple[str, ...], Prediction] = {}
        """by the names of the fixes"""

    def predict_all(self, sets: Iterable[Sequence[Fix]]) -> None:
        """Predict all sets that are not known yet, at once."""
        new = {_names(fixes): apply_all(self.config, fixes) for fixes in sets if _names(fixes) not in self.known}
        self.known.update(zip(new, self._predict(list(new.values())), strict=True))

    def predict(self, fixes: Sequence[Fix]) -> Prediction:
        """Return the prediction of one set."""
        self.predict_all([fixes])
        return self.known[_names(fixes)]

    def option(self, names: tuple[str, ...]) -> Option:
        """Return a set with its prediction."""
        slowdowns = {fix.name: fix.slowdown for fix in self.fixes}
        return Option(names, self.known[names], math.prod(map(slowdowns.__getitem__, names)))


def apply_all(config: RunConfig, fixes: Iterable[Fix]) -> RunConfig:
    """Return the configuration with every fix that still changes something."""
    for fix in fixes:
        config = fix.apply(config) or config
    return config


def _names(fixes: Sequence[Fix]) -> tuple[str, ...]:
    return tuple(fix.name for fix in fixes)


def _cost(fix: Fix) -> tuple[tuple[int, int], float]:
    return rung(fix), fix.slowdown


def _cheapest(search: _Search) -> list[Fix]:
    """Return the cheapest set that passes; where none does, all that help."""
    if search.known[()].passes:
        return []
    for fix in sorted(search.fixes, key=_cost):
        if search.predict([fix]).passes:
            return _cheaper_pair(search, fix) or [fix]
    helpful = [fix for fix in search.fixes if _helps(search, fix)]
    chosen: list[Fix] = []
    for fix in sorted(helpful, key=_cost):
        if apply_all(search.config, [*chosen, fix]) == apply_all(search.config, chosen):
            continue
        chosen.append(fix)
        if search.predict(chosen).passes:
            return _drop_needless(search, chosen)
    return chosen


def _cheaper_pair(search: _Search, alone: Fix) -> list[Fix] | None:
    """Return all fixes of a lower rung than the one that passes alone, less the needless, where they pass together."""
    lower = [fix for fix in search.fixes if rung(fix) < rung(alone) and _helps(search, fix)]
    if len(lower) < 2 or not search.predict(lower).passes:
        return None
    return _drop_needless(search, lower)


def _helps(search: _Search, fix: Fix) -> bool:
    """Return whether a fix alone passes or lowers a peak."""
    before, after = search.known[()], search.predict([fix])
    if after.passes or after.peak_allocated_bytes < before.peak_allocated_bytes:
        return True
    return after.peak_reserved_bytes < before.peak_reserved_bytes


def _drop_needless(search: _Search, chosen: Sequence[Fix]) -> list[Fix]:
    """Take out, dearest first, every fix without which the rest still passes."""
    kept = list(chosen)
    for fix in sorted(chosen, key=_cost, reverse=True):
        rest = [other for other in kept if other is not fix]
        if search.predict(rest).passes:
            kept = rest
    return kept


def _lowest_peak(search: _Search) -> list[Fix]:
    """Go up the ladder and keep what lowers the peak further; the samples stay what they are."""
    chosen: list[Fix] = []
    for fix in search.fixes:
        if fix.equivalence == "data" or not _helps(search, fix):
            continue
        if _peaks(search.predict([*chosen, fix])) < _peaks(search.predict(chosen)):
            chosen.append(fix)
    return chosen


def _peaks(prediction: Prediction) -> tuple[int, int]:
    return prediction.peak_allocated_bytes, prediction.peak_reserved_bytes


def _reason(search: _Search, chosen: Sequence[Fix], fix: Fix) -> str:
    with_fix = search.predict(chosen)
    without = search.predict([other for other in chosen if other is not fix])
    allocated = without.peak_allocated_bytes - with_fix.peak_allocated_bytes
    reserved = without.peak_reserved_bytes - with_fix.peak_reserved_bytes
    saves = f"{format_bytes(allocated)} of what is allocated" if allocated > 0 else f"{format_bytes(reserved)} of cache"
    if with_fix.passes and not without.passes:
        return f"without it the run would not fit: it saves {saves}"
    return f"it saves {saves}"
