"""Which fixes to apply: the fastest set that passes with room to spare, found by predicting before running anything.

A prediction is the simulation of a run's worst moments (`probes.plan.predict`); it comes in as a function, so that the
choice itself needs no PyTorch. Time is predicted too: what fixes cost where they were measured, times the tokens that
are computed, padding included; and of what spends memory for time, its arithmetic and traffic (`probes.plan.seconds`).
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from memory_harness.configs.inputs import MAX_TEXT_BYTES, read_input
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.records import Count, Size
from memory_harness.probes.findings import Fix
from memory_harness.probes.fixes import BY_NAME, RUNGS, SPEEDUPS, rung
from memory_harness.probes.fixes.fast_path import FAST_PATH
from memory_harness.probes.fixes.fewest_recomputed import (
    FEWEST_RECOMPUTED,
    NOTHING_RECOMPUTED,
    recomputed_by,
)
from memory_harness.probes.fixes.step_graphs import STEP_GRAPHS

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


class Forecast(Protocol):
    """What is predicted of a run."""

    def predict(self, configs: Sequence[RunConfig]) -> list[Prediction]:
        """Return what several configurations take, predicted at once."""

    def count_tokens(self, config: RunConfig) -> int:
        """Return the tokens that the training of an epoch computes, padding included."""

    def start_longest_step(self, config: RunConfig) -> Callable[[], int]:
        """Begin to predict the bytes that steps with the longest batch reserve; return what waits for it."""

    def start_seconds(self, configs: Sequence[RunConfig]) -> Callable[[], list[float]]:
        """Begin to predict how long the training of an epoch takes on the card; return what waits for it."""

    def fewest_recomputed(self, config: RunConfig) -> tuple[str, Prediction | None]:
        """Return the rules by which as little is computed again as fits, as `--recompute` takes them; what they take.

        `all` and None where nothing less fits.
        """


OF_TRAINING = {"logits-fp32-copies", "attention-math-fallback"}
"""causes that take what a pass of training keeps"""

LEAST_GAIN, LEAST_ROOM = 0.99, 0.98
"""of the time, and of the memory that a run takes which computes nothing again: less is not worth another setting"""


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
    recompute: str = ""
    """the rules of `fewest-recomputed`, where that is in"""
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


def planned_fix(plan: Plan | None, name: str) -> Fix:
    """Return the fix of that name, as the plan has found it. Raises KeyError: there is none."""
    if plan is not None and name == FEWEST_RECOMPUTED.name:
        return recomputed_by(plan.recompute)
    return BY_NAME[name]


class _PlanFile(msgspec.Struct):
    plan: Plan | None
    limits: Limits | None


def make_plan(
    config: RunConfig,
    fixes: Iterable[Fix],
    forecast: Forecast,
    *,
    goal: Goal,
    budget_bytes: int,
    headroom_bytes: int,
) -> Plan:
    """Return the plan for a configuration; `fixes` are in ladder order, those that would change nothing are left out.

    `speed` takes the fastest set that passes and keeps the samples whole, of what costs no time what is needed, and
    then spends the memory that is left. `memory` takes every fix that lowers the peak and keeps the samples whole.
    """
    ladder = list(fixes) if goal == "memory" else [*fixes, FAST_PATH]
    search = _Search(config, [fix for fix in ladder if fix.apply(config) is not None], forecast)
    chosen = _lowest_peak(search) if goal == "memory" else _fastest(search)
    needed = chosen
    if goal == "speed" and search.predict(chosen).passes:
        chosen = _spend_what_is_left(search, chosen)
    rules = apply_all(config, chosen).model.recompute
    reasons = {
        fix.name: _reason(search, chosen, fix) if fix in needed else _gain(search, chosen, fix) for fix in chosen
    }
    return Plan(
        goal=goal,
        budget_bytes=budget_bytes,
        headroom_bytes=headroom_bytes,
        as_configured=search.known[()],
        chosen=search.option(_names(chosen)),
        recompute=rules if FEWEST_RECOMPUTED.name in _names(chosen) else "",
        reasons=reasons,
        alternatives=tuple(search.option(names) for names in search.known if names and names != _names(chosen)),
    )


class _Search:
    """Predictions of sets of fixes, each made once; a set is in ladder order."""

    def __init__(self, config: RunConfig, fixes: Sequence[Fix], forecast: Forecast) -> None:
        self.config = config
        self.fixes = list(fixes)
        """all that may be in a set"""
        self.forecast = forecast
        self._tokens: dict[tuple[str, ...], int] = {}
        """by the names of fixes that change batches"""
        self.company: list[Fix] = []
        """with which seconds are worked out, such as a loss without which there are no graphs"""
        self._alone: dict[str, float] = {}
        """slowdowns of single fixes, by name"""
        self._seconds: dict[str, float] = {}
        """by the configuration"""
        self._longest: dict[str, Callable[[], int]] = {}
        """by the configuration, what waits for the bytes of its longest step"""
        self._by_config: dict[str, Prediction] = {}
        self.known: dict[tuple[str, ...], Prediction] = {}
        """by the names of the fixes"""
        self._sets: dict[tuple[str, ...], Sequence[Fix]] = {}
        """the fixes of those names"""
        self._order = [fix.name for fix in fixes] + list(SPEEDUPS)

    def predict_all(self, sets: Iterable[Sequence[Fix]]) -> None:
        """Predict all sets that are not known yet, at once."""
        ordered = {_names(fixes): fixes for fixes in map(self.in_order, sets)}
        configs = {names: apply_all(self.config, fixes) for names, fixes in ordered.items()}
        new = {config.fingerprint(): config for config in configs.values()}
        for key in self._by_config.keys() & new.keys():
            del new[key]
        self._by_config.update(zip(new, self.forecast.predict(list(new.values())), strict=True))
        self._sets.update(ordered)
        for names, config in configs.items():
            self.known[names] = self._by_config[config.fingerprint()]

    def predict(self, fixes: Sequence[Fix]) -> Prediction:
        """Return the prediction of one set."""
        names = _names(self.in_order(fixes))
        if names not in self.known:
            self.predict_all([fixes])
        return self.known[names]

    def start_longest_step(self, fixes: Sequence[Fix]) -> Callable[[], int]:
        """Begin to predict what the longest step of a set reserves, unless that has begun; return what waits for it."""
        config = apply_all(self.config, self.in_order(fixes))
        key = config.fingerprint()
        if key not in self._longest:
            self._longest[key] = self.forecast.start_longest_step(config)
        return self._longest[key]

    def learn(self, fixes: Sequence[Fix], prediction: Prediction | None) -> None:
        """Take the prediction of a set from elsewhere, where there is one."""
        if prediction is not None:
            fixes = self.in_order(fixes)
            self._sets[_names(fixes)], self.known[_names(fixes)] = fixes, prediction

    def in_order(self, fixes: Sequence[Fix]) -> list[Fix]:
        """Return a set in ladder order, then what spends memory for time."""
        return sorted(fixes, key=lambda fix: self._order.index(fix.name))

    def option(self, names: tuple[str, ...]) -> Option:
        """Return a set that was predicted."""
        return Option(names, self.known[names], self.slowdown(self._sets[names]))

    def slowdown(self, fixes: Iterable[Fix]) -> float:
        """Return the predicted seconds of the training with a set of fixes over those without."""
        fixes = list(fixes)
        batching, worked_out = _told_by_work(fixes)
        slowdown = math.prod(fix.slowdown for fix in fixes if fix.slowdown is not None)
        if batching:
            slowdown *= self._tokens_of(batching) / self._tokens_of([])
        if worked_out:
            slowdown *= self._seconds_of([*batching, *worked_out]) / self._seconds_of(batching)
        return slowdown

    def slowdown_alone(self, fix: Fix) -> float:
        """Return the same of one fix; it is kept from when it was asked for first, without any company."""
        if fix.name not in self._alone:
            self._alone[fix.name] = self.slowdown([fix])
        return self._alone[fix.name]

    def _tokens_of(self, fixes: Sequence[Fix]) -> int:
        names = _names(fixes)
        if names not in self._tokens:
            self._tokens[names] = self.forecast.count_tokens(apply_all(self.config, fixes))
        return self._tokens[names]

    def work_out(self, sets: Iterable[Sequence[Fix]]) -> None:
        """Predict at once the seconds that the slowdowns of sets need."""
        self.start_to_work_out(sets)()

    def start_to_work_out(self, sets: Iterable[Sequence[Fix]]) -> Callable[[], None]:
        """Begin to predict them; return what waits for them."""
        new: dict[str, RunConfig] = {}
        for batching, worked_out in map(_told_by_work, sets):
            for fixes in ([*batching, *worked_out], batching) if worked_out else ():
                config = self._in_company(fixes)
                new[config.fingerprint()] = config
        for key in self._seconds.keys() & new.keys():
            del new[key]
        wait = self.forecast.start_seconds(list(new.values()))
        return lambda: self._seconds.update(zip(new, wait(), strict=True))

    def _seconds_of(self, fixes: Sequence[Fix]) -> float:
        config = self._in_company(fixes)
        key = config.fingerprint()
        if key not in self._seconds:
            (self._seconds[key],) = self.forecast.start_seconds([config])()
        return self._seconds[key]

    def _in_company(self, fixes: Sequence[Fix]) -> RunConfig:
        return apply_all(self.config, self.in_order([*self.company, *fixes]))


def _told_by_work(fixes: Sequence[Fix]) -> tuple[list[Fix], list[Fix]]:
    """Return the fixes of a set that change batches, and those whose time is worked out with these batches."""
    batching = [fix for fix in fixes if fix.equivalence in ("reordered", "data")]
    return batching, [fix for fix in fixes if fix.slowdown is None]


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
    or the fast path do, which leave pieces of many sizes in the cache, or need a buffer, they are left out.
    """
    if search.predict([]).passes:
        return _faster_that_pass(search)
    search.work_out([fix] for fix in search.fixes)
    fast = [fix for fix in search.fixes if _makes_faster(search, fix)]
    for fix in (None, *_that_make_room(search, fast)):  # most often these pass: meanwhile
        _start_longest_step(search, fast, fix)
    whole = [fix for fix in search.fixes if fix.equivalence != "data"]
    in_order = [fix for fix in whole if fix.equivalence != "reordered"]
    slow_path = [fix for fix in in_order if fix is not FAST_PATH]
    for candidates in (whole, in_order, slow_path, search.fixes):
        by_time = sorted(candidates, key=lambda fix: _time_first(search, fix))
        passing = _first_that_pass(search, by_time)
        if passing is not None:
            return _fastest_of(search, by_time, passing)
    search.predict_all([fix] for fix in search.fixes)
    return [fix for fix in search.fixes if _helps(search, fix)]


def _faster_that_pass(search: _Search) -> list[Fix]:
    """Return what makes a run faster that passes as configured, and lets it pass."""
    chosen: list[Fix] = []
    for fix in search.fixes:
        if _makes_faster(search, fix) and search.predict([*chosen, fix]).passes:
            chosen.append(fix)
    return chosen


def _spend_what_is_left(search: _Search, chosen: list[Fix]) -> list[Fix]:
    """Return the fastest of a set that passes and the same with what spends memory for time."""
    roomy = _with_more_room(search, chosen)
    search.company = [fix for fix in roomy if fix.slowdown is not None and fix.equivalence in ("exact", "numerical")]
    wait = search.start_to_work_out([chosen])
    sets = [chosen, *_with_fewest_recomputed(search, roomy)]
    wait()
    search.work_out([*sets, *_with_step_graphs(search, sets[-1])])
    sets += _with_step_graphs(search, _fastest_passing(search, sets))
    return _fastest_passing(search, sets)


def _with_more_room(search: _Search, chosen: list[Fix]) -> list[Fix]:
    """Return the set with those that take hardly any time and free much where nothing is computed again."""
    cheap = _that_make_room(search, chosen)
    waiting = [_start_longest_step(search, chosen, fix) for fix in (None, *cheap)]
    needed, *with_one = (wait() for wait in waiting)
    more = [fix for fix, peak in zip(cheap, with_one, strict=True) if peak < LEAST_ROOM * needed]
    return [*chosen, *_without_overwritten(apply_all(search.config, chosen), more)]


def _that_make_room(search: _Search, chosen: Sequence[Fix]) -> list[Fix]:
    """Return the fixes that could be added to a set to keep more activations; none where all are kept."""
    config = apply_all(search.config, chosen)
    if FEWEST_RECOMPUTED.apply(config) is None:
        return []
    return [fix for fix in search.fixes if _makes_room(fix) and fix not in chosen and fix.apply(config) is not None]


def _start_longest_step(search: _Search, chosen: Sequence[Fix], added: Fix | None) -> Callable[[], int]:
    """Begin to predict the longest step of a set, with one fix more or none, where nothing is computed again."""
    more = [NOTHING_RECOMPUTED] if added is None else [added, NOTHING_RECOMPUTED]
    return search.start_longest_step([*chosen, *more])


def _without_overwritten(config: RunConfig, fixes: Sequence[Fix]) -> list[Fix]:
    """Leave out what another one sets anew, as a loss by another loss."""
    whole = apply_all(config, fixes)
    return [fix for fix in fixes if apply_all(config, [other for other in fixes if other is not fix]) != whole]


def _makes_room(fix: Fix) -> bool:
    """Return whether a fix frees what passes of training keep, and takes hardly any time."""
    return bool(OF_TRAINING & set(fix.addresses)) and rung(fix) <= RUNGS["numerical"]


def _with_fewest_recomputed(search: _Search, chosen: list[Fix]) -> list[list[Fix]]:
    config = apply_all(search.config, chosen)
    if FEWEST_RECOMPUTED.apply(config) is None:
        return []
    rules, prediction = search.forecast.fewest_recomputed(config)
    if rules == "all":
        return []
    fixes = [*chosen, recomputed_by(rules)]
    search.learn(fixes, prediction)
    return [fixes]


def _with_step_graphs(search: _Search, chosen: list[Fix]) -> list[list[Fix]]:
    return [] if STEP_GRAPHS.apply(apply_all(search.config, chosen)) is None else [[*chosen, STEP_GRAPHS]]


def _fastest_passing(search: _Search, sets: Sequence[list[Fix]]) -> list[Fix]:
    """Return the first set, or one that passes and takes noticeably less time than those before it."""
    best, *others = sets
    for each in others:
        if search.slowdown(each) < LEAST_GAIN * search.slowdown(best) and search.predict(each).passes:
            best = each
    return search.in_order(best)


def _time_first(search: _Search, fix: Fix) -> tuple[bool, float, tuple[int, int]]:
    return fix.equivalence == "data", search.slowdown_alone(fix), rung(fix)


def _first_that_pass(search: _Search, by_time: Sequence[Fix]) -> list[Fix] | None:
    """Return the fewest fixes from the first on that pass together; None where not even all do.

    All that make the training faster are among them. Those that cost no time come next: most often that is enough.
    """
    num_fast = sum(_makes_faster(search, fix) for fix in by_time)
    num_free = sum(not _is_slow(search, fix) for fix in by_time)
    fails = passes = num_fast
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
    return fix.equivalence != "data" and search.slowdown_alone(fix) < 1


def _is_slow(search: _Search, fix: Fix) -> bool:
    """Return whether a fix comes after those that cost neither time nor samples."""
    return fix.equivalence == "data" or search.slowdown_alone(fix) > 1


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


def _gain(search: _Search, chosen: Sequence[Fix], fix: Fix) -> str:
    """Return what a fix is for that spends memory, or makes room for one that does."""
    if fix.slowdown is not None:
        return "with it less has to be computed again"
    others = search.slowdown(other for other in chosen if other is not fix)
    return f"with it the training takes {search.slowdown(chosen) / others:.2f} times as long (predicted)"


def _reason(search: _Search, chosen: Sequence[Fix], fix: Fix) -> str:
    if _makes_faster(search, fix):
        return f"with it the training takes {search.slowdown_alone(fix):.2f} times as long (predicted)"
    with_fix = search.predict(chosen)
    without = search.predict([other for other in chosen if other is not fix])
    allocated = without.peak_allocated_bytes - with_fix.peak_allocated_bytes
    reserved = without.peak_reserved_bytes - with_fix.peak_reserved_bytes
    saves = f"{format_bytes(allocated)} of what is allocated" if allocated > 0 else f"{format_bytes(reserved)} of cache"
    if with_fix.passes and not without.passes:
        return f"without it the run would not fit: it saves {saves}"
    return f"it saves {saves}"
