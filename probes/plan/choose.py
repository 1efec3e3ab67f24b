"""Which fixes to apply: the fastest set that passes with room to spare, found by predicting before running anything.

A prediction is the simulation of a run's worst moments (`probes.plan.predict`); it comes in as a function, so that the
choice itself needs no PyTorch. Time is predicted too: what fixes cost where they were measured, times the tokens that
are computed, padding included.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
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

CountTokens = Callable[[RunConfig], int]
"""counts the tokens that the training of an epoch computes, padding included"""


@dataclass(frozen=True)
class Option:
    """A set of fixes and what it would give."""

    fixes: tuple[str, ...]
    prediction: Prediction
    slowdown: float
    """predicted seconds of the training over those without the fixes"""


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
    """the other sets that were tried"""

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
    count_tokens: CountTokens,
    *,
    goal: Goal,
    budget_bytes: int,
    headroom_bytes: int,
) -> Plan:
    """Return the plan for a configuration; `fixes` are in ladder order, those that would change nothing are left out.

    What passes as configured needs no fix for `speed`; else it takes the fastest set that passes and keeps the samples
    whole, and of what costs no time only what is needed. `memory` takes every fix that lowers the peak and keeps the
    samples whole.
    """
    usable = [fix for fix in fixes if fix.apply(config) is not None]
    search = _Search(config, usable, predict, count_tokens)
    chosen = _lowest_peak(search) if goal == "memory" else _fastest(search)
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
    """Predictions of sets of fixes, each made once; a set is in ladder order."""

    def __init__(self, config: RunConfig, fixes: Sequence[Fix], predict: Predict, count_tokens: CountTokens) -> None:
        self.config = config
        self.fixes = fixes
        self._predict = predict
        self._count_tokens = count_tokens
        self._tokens: dict[tuple[str, ...], int] = {}
        """by the names of fixes that change batches"""
        self._by_config: dict[str, Prediction] = {}
        self.known: dict[tuple[str, ...], Prediction] = {}
        """by the names of the fixes"""

    def predict_all(self, sets: Iterable[Sequence[Fix]]) -> None:
        """Predict all sets that are not known yet, at once."""
        configs = {_names(fixes): apply_all(self.config, fixes) for fixes in map(self.in_order, sets)}
        new = {config.fingerprint(): config for config in configs.values()}
        for key in self._by_config.keys() & new.keys():
            del new[key]
        self._by_config.update(zip(new, self._predict(list(new.values())), strict=True))
        for names, config in configs.items():
            self.known[names] = self._by_config[config.fingerprint()]

    def predict(self, fixes: Sequence[Fix]) -> Prediction:
        """Return the prediction of one set."""
        names = _names(self.in_order(fixes))
        if names not in self.known:
            self.predict_all([fixes])
        return self.known[names]

    def in_order(self, fixes: Sequence[Fix]) -> list[Fix]:
        """Return a set in ladder order."""
        return [fix for fix in self.fixes if fix in fixes]

    def option(self, names: tuple[str, ...]) -> Option:
        """Return a set that was predicted."""
        return Option(names, self.known[names], self.slowdown([fix for fix in self.fixes if fix.name in names]))

    def slowdown(self, fixes: Iterable[Fix]) -> float:
        """Return the predicted seconds of the training with a set of fixes over those without."""
        fixes = list(fixes)
        batching = [fix for fix in fixes if fix.equivalence in ("reordered", "data")]
        seconds = math.prod(fix.slowdown for fix in fixes)
        return seconds * self._tokens_of(batching) / self._tokens_of([]) if batching else seconds

    def _tokens_of(self, fixes: Sequence[Fix]) -> int:
        names = _names(fixes)
        if names not in self._tokens:
            self._tokens[names] = self._count_tokens(apply_all(self.config, fixes))
        return self._tokens[names]


def apply_all(config: RunConfig, fixes: Iterable[Fix]) -> RunConfig:
    """Return the configuration with every fix that still changes something."""
    for fix in fixes:
        config = fix.apply(config) or config
    return config


def _names(fixes: Sequence[Fix]) -> tuple[str, ...]:
    return tuple(fix.name for fix in fixes)


def _fastest(search: _Search) -> list[Fix]:
    """Return the fastest set that passes, without what is needless; where none does, all that help.

    What keeps the samples whole comes first. More fixes are taken to need no more memory; where like lengths together
    do, as they leave pieces of many sizes in the cache, they are left out.
    """
    if search.predict([]).passes:
        return []
    whole = [fix for fix in search.fixes if fix.equivalence != "data"]
    in_order = [fix for fix in whole if fix.equivalence != "reordered"]
    for candidates in (whole, in_order, search.fixes):
        by_time = sorted(candidates, key=lambda fix: _time_first(search, fix))
        passing = _first_that_pass(search, by_time)
        if passing is not None:
            return _fastest_of(search, by_time, passing)
    search.predict_all([fix] for fix in search.fixes)
    return [fix for fix in search.fixes if _helps(search, fix)]


def _time_first(search: _Search, fix: Fix) -> tuple[bool, float, tuple[int, int]]:
    return fix.equivalence == "data", search.slowdown([fix]), rung(fix)


def _first_that_pass(search: _Search, by_time: Sequence[Fix]) -> list[Fix] | None:
    """Return the fewest fixes from the first on that pass together; None where not even all do.

    Those that make the training faster are tried first, then with those that cost no time: most often that is enough.
    """
    num_fast = sum(_makes_faster(search, fix) for fix in by_time)
    num_free = sum(not _is_slow(search, fix) for fix in by_time)
    fails, passes = 0, 0
    for number in (num_fast, num_free, len(by_time)):
        passes = number
        if search.predict(by_time[:number]).passes:
            break
        fails = number
    else:
        return None
    while passes - fails > 1:
        middle = (fails + passes) // 2
        if search.predict(by_time[:middle]).passes:
            passes = middle
        else:
            fails = middle
    return list(by_time[:passes])


def _fastest_of(search: _Search, candidates: Sequence[Fix], passing: Sequence[Fix]) -> list[Fix]:
    """Return the fastest set of the candidates, of which some pass."""
    chosen = _drop_needless(search, passing)
    while faster := _set_that_passes_faster(search, candidates, chosen):
        chosen = _drop_needless(search, faster)
    return search.in_order(chosen)


def _set_that_passes_faster(search: _Search, candidates: Sequence[Fix], chosen: Sequence[Fix]) -> list[Fix] | None:
    """Return a set that passes and takes less time; None where nothing does but what holds other sets' failures.

    Of the sets that are fast enough only those are predicted to which no other fix could be added: where these fail,
    the smaller ones do. Fixes that cost no time are in all of them.
    """
    whole = [fix for fix in candidates if fix.equivalence != "data"]
    slow = [fix for fix in whole if _is_slow(search, fix)]
    free = [fix for fix in whole if fix not in slow]
    limit = search.slowdown(fix for fix in slow if fix in chosen)
    failed = [set(names) for names, prediction in search.known.items() if not prediction.passes]
    sizes = range(len(slow) - 1, 0, -1)
    for added in chain.from_iterable(combinations(slow, size) for size in sizes):
        names = set(_names([*free, *added]))
        if search.slowdown(added) >= limit or any(names <= others for others in failed):
            continue
        if search.predict([*free, *added]).passes:
            return [*free, *added]
        failed.append(names)
    return None


def _helps(search: _Search, fix: Fix) -> bool:
    """Return whether a fix alone passes or lowers a peak."""
    before, after = search.known[()], search.predict([fix])
    if after.passes or after.peak_allocated_bytes < before.peak_allocated_bytes:
        return True
    return after.peak_reserved_bytes < before.peak_reserved_bytes


def _drop_needless(search: _Search, chosen: Sequence[Fix]) -> list[Fix]:
    """Take out every fix that makes nothing faster and without which the rest still passes, dear ones rather."""
    dearest_first = sorted(chosen, key=lambda fix: _time_first(search, fix), reverse=True)
    return _without_needless(search, chosen, [fix for fix in dearest_first if not _makes_faster(search, fix)])


def _without_needless(search: _Search, passing: Sequence[Fix], doubted: Sequence[Fix]) -> list[Fix]:
    """Return what is needed of a set, some of which is doubted: all of that at once, else one half after the other."""
    rest = [fix for fix in passing if fix not in doubted]
    if len(rest) == len(passing) or search.predict(rest).passes:
        return rest
    if len(doubted) == 1:
        return list(passing)
    middle = len(doubted) // 2
    return _without_needless(search, _without_needless(search, passing, doubted[:middle]), doubted[middle:])


def _makes_faster(search: _Search, fix: Fix) -> bool:
    return fix.equivalence != "data" and search.slowdown([fix]) < 1


def _is_slow(search: _Search, fix: Fix) -> bool:
    """Return whether a fix comes after those that cost neither time nor samples."""
    return fix.equivalence == "data" or search.slowdown([fix]) > 1


def _lowest_peak(search: _Search) -> list[Fix]:
    """Go up the ladder and keep what lowers the peak further; the samples stay what they are."""
    search.predict_all([[], *([fix] for fix in search.fixes)])
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
    if _makes_faster(search, fix):
        return f"with it the training takes {search.slowdown([fix]):.2f} times as long (predicted)"
    with_fix = search.predict(chosen)
    without = search.predict([other for other in chosen if other is not fix])
    allocated = without.peak_allocated_bytes - with_fix.peak_allocated_bytes
    reserved = without.peak_reserved_bytes - with_fix.peak_reserved_bytes
    saves = f"{format_bytes(allocated)} of what is allocated" if allocated > 0 else f"{format_bytes(reserved)} of cache"
    if with_fix.passes and not without.passes:
        return f"without it the run would not fit: it saves {saves}"
    return f"it saves {saves}"
