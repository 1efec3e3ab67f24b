"""Explanations of growth by when the floor rises: at caught failures, new lengths, ends of epochs, an interval."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import AUTOCAST, CAUGHT_FAILURE, COLLECTOR_OFF, CYCLE, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence, StepGrowth
from memory_harness.probes.detectors.floor import (
    EXPLAINED_SHARE,
    MIN_EVENTS,
    Explanation,
    floor_rise,
    floors,
    freed_by,
    freed_by_collector,
    growth_events,
    keeps_growing,
    largest_survivor,
    span,
    total_left,
)
from memory_harness.probes.detectors.growth_contents import hang_on_graphs, is_collection
from memory_harness.probes.detectors.reading import is_tight, main_survivor, survivors_of
from memory_harness.probes.detectors.trends import MIN_GROWTH_BYTES, NOISE_BYTES

NEVER_LONGEST = 2
"""Of the new lengths with growth, so many must be shorter than one before: a buffer that grows with the longest is
none."""
STEPS_OF_FEW_LENGTHS = 8
"""Steps for each length that has come up, from which the lengths are a few that are known: their table is soon full."""
MATTERING_SHARE = 0.25
"""Share of the peak that a list must reach, whose falls alone tell of epochs: one that is emptied every few steps takes
less, as it is meant to."""
LASTING_SHARE = 0.5
"""Share of what new lengths left that must still be there at the end."""
WHAT_STAYS = {
    "backward": "What the interrupted backward pass had computed is still referenced, with its graph.",
    "forward": "An exception that is kept, or handled inside its except block, keeps its traceback, and that every "
    "frame with its tensors.",
}
"""By where an allocation failed."""


def never_recovered(evidence: Evidence) -> Explanation | None:
    """Explain an out-of-memory that is kept, and after which no step has ended: whatever is tried then fails too."""
    log = evidence.log
    survivor = main_survivor(survivors_of(log, CAUGHT_FAILURE))
    if not log.run.script or survivor is None or len(log.ooms) < MIN_EVENTS:
        return None
    first = log.ooms[0]
    if any(step.step >= first.step for step in log.steps):
        return None
    return Explanation(
        cause="exception-holds-frames",
        title=f"A caught out-of-memory keeps {format_bytes(survivor.bytes_per_step)}, and no step ended after it",
        reason=f"At step {first.step} an allocation failed and the run went on; {len(log.ooms) - 1} more have failed "
        f"since. The first one's exception is kept by {survivor.holder}: its traceback keeps every frame with its "
        "tensors.",
        grown_bytes=survivor.bytes_per_step,
        steps=(first.step, log.ooms[-1].step),
        survivor=survivor,
        evidence={"num_failures": len(log.ooms), "grown_bytes": survivor.bytes_per_step},
        ends_training=True,
    )


def after_failures(evidence: Evidence) -> Explanation | None:
    """Explain a floor that rises where somebody caught an out-of-memory."""
    log, growth = evidence.log, evidence.later_steps
    events = growth_events(growth)
    failed = [step for step in events if step.failed_phases]
    total = total_left(failed)
    if total < max(MIN_GROWTH_BYTES, EXPLAINED_SHARE * total_left(events)):
        return None
    first = failed[0]
    if growth[-1].step == first.step and (log.fatal_oom is None or log.fatal_oom.step <= first.step):
        return None  # no step has followed that could show whether it stays
    lowest_since = min(floors([step for step in growth if step.step >= first.step]))
    if lowest_since - first.floor_bytes + first.left_bytes <= NOISE_BYTES:
        return None
    survivor = main_survivor(survivors_of(log, CAUGHT_FAILURE))
    if survivor is None and log.caught_ooms and not log.given_up:
        return None  # nobody is known to keep an error, and a script that did the work again may hold its parts
    in_backward = all(Phase.BACKWARD in step.failed_phases for step in failed)
    where = "backward" if in_backward else "forward"
    return Explanation(
        cause="oom-in-backward" if in_backward else "exception-holds-frames",
        title=f"Each out-of-memory that was caught in {where} leaves {format_bytes(total // len(failed))} behind",
        reason=f"At {len(failed)} steps an allocation failed in {where} and the run went on; after each of them the "
        f"floor was higher, by {format_bytes(total)} in all, and at no other step did it rise so. {WHAT_STAYS[where]}",
        grown_bytes=total,
        steps=span(failed),
        survivor=survivor,
        evidence={"num_failures": len(failed), "grown_bytes": total},
    )


def in_cycles(evidence: Evidence) -> Explanation | None:
    """Explain garbage that one run of the collector frees."""
    log, growth = evidence.log, evidence.later_steps
    freed = freed_by_collector(evidence)
    if not freed or not growth:
        return None
    circle = main_survivor(survivors_of(log, CYCLE))
    switched_off = log.run.settings_at.get(COLLECTOR_OFF)
    return Explanation(
        cause="reference-cycle",
        title=f"{format_bytes(freed)} waited for Python's garbage collector",
        reason=f"The collector lowered allocated by {format_bytes(freed)}: objects that refer to "
        "each other in a circle keep their tensors until the collector comes by, which counts objects, not bytes."
        + (f" It is switched off at {switched_off}." if switched_off else "")
        + _risen_since(growth, freed),
        grown_bytes=max(freed, floor_rise(growth)),
        steps=span(growth),
        survivor=circle or largest_survivor(log) or main_survivor(survivors_of(log, Phase.EVAL)),
        evidence={"freed_by_gc_bytes": freed, "floor_rise_bytes": floor_rise(growth)},
    )


def in_autocast(evidence: Evidence) -> Explanation | None:
    """Explain copies of weights that autocast keeps until its context is left."""
    growth = evidence.later_steps
    freed = freed_by(evidence, "autocast_cache")
    if not freed or not growth:
        return None
    return Explanation(
        cause="autocast-cache",
        title=f"Autocast's cache held {format_bytes(freed)} of cast weights",
        reason=f"Clearing autocast's weight cache lowered allocated by {format_bytes(freed)}. The cache "
        "is emptied when the outermost autocast context is left; one that stays open for the whole run never is."
        + _risen_since(growth, freed),
        grown_bytes=max(freed, floor_rise(growth)),
        steps=span(growth),
        survivor=main_survivor(survivors_of(evidence.log, AUTOCAST)) or largest_survivor(evidence.log),
        evidence={"freed_by_clearing_bytes": freed, "floor_rise_bytes": floor_rise(growth)},
    )


def _risen_since(growth: Sequence[StepGrowth], freed: int) -> str:
    """Return a sentence on what has come to stay in the whole run, where that is more than a probe amid it freed."""
    rise = floor_rise(growth)
    if rise <= freed:
        return ""
    return f" From step {growth[0].step} to {growth[-1].step} {format_bytes(rise)} came to stay."


def at_new_lengths(evidence: Evidence) -> Explanation | None:
    """Explain growth at lengths not seen before, and only there."""
    events = [step for step in growth_events(evidence.steps[1:]) if step.step > 1]
    at_new = [step for step in events if step.has_new_length]
    num_repeated = sum(not step.has_new_length for step in evidence.later_steps)
    num_shorter = sum(not step.has_new_longest for step in at_new)
    total = total_left(at_new)
    if len(at_new) < MIN_EVENTS or num_repeated < MIN_EVENTS or num_shorter < NEVER_LONGEST:
        return None
    if total < max(MIN_GROWTH_BYTES, EXPLAINED_SHARE * total_left(events)):
        return None
    if floor_rise(evidence.later_steps) < LASTING_SHARE * total:
        return None
    return Explanation(
        cause="recompile-per-shape",
        title=f"Each new length leaves {format_bytes(total // len(at_new))} behind for good",
        reason=f"The floor rose at {len(at_new)} steps that brought a padded length not seen before, by "
        f"{format_bytes(total)} in all, and at none of {num_repeated} steps whose lengths were known: something is "
        "compiled, captured or cached for each shape.",
        grown_bytes=total,
        steps=span(at_new),
        survivor=largest_survivor(evidence.log),
        evidence={"num_new_lengths": len(at_new), "num_repeated": num_repeated, "grown_bytes": total},
    )


def has_few_lengths(evidence: Evidence) -> bool:
    """Return whether a few lengths came up again and again, in a run with room: what is kept for each is bounded."""
    num_lengths = sum(step.has_new_length for step in evidence.steps)
    return len(evidence.steps) >= STEPS_OF_FEW_LENGTHS * num_lengths and not is_tight(evidence.log)


def until_epoch_ends(evidence: Evidence) -> Explanation | None:
    """Explain a floor that climbs through each epoch and falls at its end."""
    if not evidence.later_steps:
        return None
    growth = _with_epochs_by_falls(evidence.log, evidence.later_steps)
    by_epoch: dict[int, list[StepGrowth]] = {}
    for step in growth:
        by_epoch.setdefault(step.epoch, []).append(step)
    ended = [epoch for epoch in by_epoch if epoch + 1 in by_epoch]
    rises = [_climb(by_epoch[epoch]) for epoch in ended]
    if not ended or min(rises) < MIN_GROWTH_BYTES or len(growth_events(growth)) < len(growth) / 2:
        return None
    for epoch, rise in zip(ended, rises, strict=True):
        if _fall(by_epoch[epoch], by_epoch[epoch + 1][0]) < EXPLAINED_SHARE * rise:
            return None
    per_step = sum(rises) // sum(len(by_epoch[epoch]) for epoch in ended)
    return Explanation(
        cause="epoch-hoard",
        title=f"Each step leaves {format_bytes(per_step)} until its epoch ends",
        reason=f"The floor climbs by {format_bytes(max(rises))} within an epoch and falls back at its end: outputs "
        "are kept for an end-of-epoch summary. The peak is at the end of each epoch, so the run dies at the same "
        "fraction of an epoch only where the epochs are long enough.",
        grown_bytes=max(map(_climb, by_epoch.values())),
        steps=span(growth),
        survivor=largest_survivor(evidence.log),
        evidence={"num_epochs_ended": len(ended), "rise_per_epoch_bytes": max(rises)},
    )


def _with_epochs_by_falls(log: RunLog, growth: Sequence[StepGrowth]) -> Sequence[StepGrowth]:
    """Return the steps with epochs told by the floor's falls, of a script whose epochs nothing else tells.

    As many steps from fall to fall, no more after the last one, and a list that grew from one step to the next: else
    the epochs are as they were.
    """
    survivor = largest_survivor(log)
    if not log.run.script or growth[-1].epoch > 1 or survivor is None or not is_collection(survivor):
        return growth
    epoch, lowest = 1, growth[0].floor_bytes
    falls: list[int] = []
    numbered = [growth[0]]
    for before, step in pairwise(growth):
        fall = before.floor_bytes - step.floor_bytes
        if fall >= EXPLAINED_SHARE * max(MIN_GROWTH_BYTES, before.floor_bytes - lowest):
            epoch, lowest = epoch + 1, step.floor_bytes
            falls.append(step.step)
        numbered.append(replace(step, epoch=epoch))
    periods = {after - before for before, after in pairwise(falls)}
    is_periodic = len(periods) == 1 and growth[-1].step - falls[-1] <= max(periods)
    is_large = max(floors(growth)) - lowest >= MATTERING_SHARE * log.peak_allocated_bytes
    return numbered if is_periodic and is_large else growth


def _climb(steps: Sequence[StepGrowth]) -> int:
    """Return by how much an epoch's floor climbs to its end, 0 where it falls in between.

    What its first step lets go may be what the epoch before has kept.
    """
    left = [step.left_bytes for step in steps]
    first, later = max(0, left[0]), left[1:]
    rises = sum(num_bytes for num_bytes in later if num_bytes > 0)
    return first + sum(later) if sum(later) >= EXPLAINED_SHARE * rises else 0


def _fall(steps: Sequence[StepGrowth], following: StepGrowth) -> int:
    """Return by how much the floor fell when an epoch ended, before the next one's first step or within it."""
    usual = round(float(np.median([step.left_bytes for step in steps])))
    left = following.left_bytes if following.left_bytes >= 0 else max(0, usual)
    return steps[-1].floor_bytes - following.floor_bytes + left


def at_interval(evidence: Evidence) -> Explanation | None:
    """Explain growth every k steps, k of at least 2."""
    log, growth = evidence.log, evidence.later_steps
    events = growth_events(growth)
    gaps = {after.step - before.step for before, after in pairwise(events)}
    if len(events) < MIN_EVENTS or len(gaps) != 1 or gaps == {1} or not keeps_growing(growth):
        return None
    (interval,) = gaps
    survivor = largest_survivor(log)
    if hang_on_graphs(log):
        return None
    if log.run.script and survivor is None:
        return None  # a loop of one's own may do anything every so many steps
    total = max(total_left(events), floor_rise(growth))  # some of it may come between the steps
    return Explanation(
        cause="tensors-logged",
        title=f"Every {interval} steps {format_bytes(total // len(events))} of tensors is kept",
        reason=f"The floor rises every {interval} steps and at no other: {len(events)} times, {format_bytes(total)} "
        "in all. That is the beat of a logger, which keeps tensors of the device where it should keep numbers.",
        grown_bytes=total,
        steps=span(events),
        survivor=survivor,
        evidence={"interval_steps": interval, "num_events": len(events), "grown_bytes": total},
    )
