"""Memory that grows between equal points of the loop: what explains the growth names the cause.

The order of the questions matters. What an experiment decides goes first (a collector that frees it, a cache that held
it), then what the growth coincides with (caught failures, new lengths, ends of epochs, an interval), then what it is
made of.
"""

from collections.abc import Callable

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import (
    ADDED_TO_MODEL,
    AUTOCAST,
    CAUGHT_BEFORE,
    COLLECTOR_OFF,
    OWN_GRAPHS,
    Phase,
)
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.floor import (
    EXPLAINED_SHARE,
    Explanation,
    floor_rise,
    floors,
    forecast,
    forecast_in_words,
    freed_by,
    growth_severity,
)
from memory_harness.probes.detectors.growth_contents import every_step, unknown
from memory_harness.probes.detectors.growth_holders import (
    between_steps,
    in_caches,
    in_collections,
    in_exceptions,
    in_graphs,
    in_hooks,
    in_metrics,
    in_old_optimizers,
    in_optimizer,
    in_outputs,
)
from memory_harness.probes.detectors.growth_timing import (
    after_failures,
    at_interval,
    at_new_lengths,
    has_few_lengths,
    in_autocast,
    in_cycles,
    never_recovered,
    until_epoch_ends,
)
from memory_harness.probes.detectors.kept import ends_within, is_of_optimizer
from memory_harness.probes.detectors.reading import (
    error_at_failure,
    how_it_is_kept,
    line_of,
    main_survivor,
    records_of,
    survivors_at_failure,
    survivors_of,
)
from memory_harness.probes.detectors.trends import BURN_IN_STEPS, NOISE_BYTES, robust_slope
from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Finding, Severity

QUESTIONS: tuple[Callable[[Evidence], Explanation | None], ...] = (
    never_recovered,
    after_failures,
    in_cycles,
    in_autocast,
    at_new_lengths,
    in_exceptions,
    until_epoch_ends,
    in_caches,
    in_metrics,
    in_hooks,
    in_optimizer,
    in_old_optimizers,
    in_outputs,
    at_interval,
    every_step,
    in_graphs,
    between_steps,
    in_collections,
    unknown,
)

BYTES_PER_ADDED = 4
"""Of a trained parameter's bytes, what it takes with its gradient and two states of an optimizer."""
MAY_END = (UNEXPLAINED_GROWTH, "epoch-hoard", "recompile-per-shape", "reference-cycle")
"""Growth that something can end: the collector, the end of the epoch, the last new length."""


def growth_in_training(evidence: Evidence) -> Finding | None:
    """Find growth from step to step, and name the first cause that explains it."""
    log, growth = evidence.log, evidence.later_steps
    explanation = _explain(evidence)
    if explanation is None:
        return _graphs_of_one_step(log) or _tried_while_caught(log) or _cast_in_short_trainings(evidence)
    slope = robust_slope(floors(growth))
    budget_reached = forecast(log, growth)
    outlook = forecast_in_words(log, budget_reached)
    numbers: dict[str, int | float | str] = {
        "bytes_per_step": round(slope.middle),
        "bytes_per_step_low": round(slope.low),
        "bytes_per_step_high": round(slope.high),
    }
    if budget_reached is not None:
        numbers["budget_from_step"], numbers["budget_until_step"] = budget_reached
    numbers |= {"burn_in_steps": BURN_IN_STEPS, "noise_bytes": NOISE_BYTES}
    return Finding(
        cause=explanation.cause,
        severity=_severity(evidence, explanation, budget_reached),
        title=explanation.title,
        explanation=f"{explanation.reason}{how_it_is_kept(explanation.survivor)} {outlook}".rstrip(),
        phase=explanation.survivor.phase if explanation.survivor else None,
        steps=explanation.steps,
        bytes=explanation.grown_bytes,
        where=line_of(explanation.survivor),
        evidence=numbers | explanation.evidence,
    )


def _graphs_of_one_step(log: RunLog) -> Finding | None:
    """Find graphs of several passes that wait for one backward pass, of which one alone would have fitted."""
    oom, graphs = log.fatal_oom, main_survivor(survivors_at_failure(log, OWN_GRAPHS))
    if oom is None or graphs is None:
        return None
    forwards = [record for record in records_of(log, Phase.FORWARD) if record.step == oom.step]
    if not forwards:
        return None
    num_bytes = (
        (oom.allocated_bytes - forwards[-1].allocated_before_bytes) * (graphs.num_tensors - 1) // graphs.num_tensors
    )
    return error_at_failure(
        log,
        graphs,
        num_bytes,
        cause="retained-graph",
        title=f"The graphs of {graphs.num_tensors} passes wait for one backward pass: {format_bytes(num_bytes)}",
        explanation=f"Their losses are kept by {graphs.holder} `{graphs.kept_by}`. They have nothing in common but "
        "parameters: backward of each, divided by their number, gives the same gradients, and lets go of its graph.",
        evidence={"num_graphs": graphs.num_tensors, "graphs_bytes": num_bytes},
    )


def _tried_while_caught(log: RunLog) -> Finding | None:
    """Find work that is tried again while the exception of the first try still holds what that had made."""
    held = main_survivor(survivors_at_failure(log, CAUGHT_BEFORE))
    if held is None:
        return None
    return error_at_failure(
        log,
        held,
        held.bytes_per_step,
        cause="exception-holds-frames",
        title=f"An exception that was caught holds {format_bytes(held.bytes_per_step)} while the work is tried again",
        explanation=f"What failed first is still there, in the frames of the traceback of {held.holder} "
        f"`{held.kept_by}`. Until its `except` block is left Python keeps them: trying again after the block has that "
        "room.",
        evidence={"held_bytes": held.bytes_per_step},
    )


def _cast_in_short_trainings(evidence: Evidence) -> Finding | None:
    """Find copies that autocast keeps of what trainings in a row train, none of them long enough to show growth."""
    log, freed = evidence.log, freed_by(evidence, "autocast_cache")
    context = main_survivor(survivors_of(log, AUTOCAST))
    if evidence.later_steps or not freed or context is None:
        return None
    return Finding(
        cause="autocast-cache",
        severity="warning",
        title=f"Autocast's cache held {format_bytes(freed)} of cast weights",
        explanation=f"Clearing it lowered allocated by {format_bytes(freed)}: the casts of what "
        f"{log.steps[-1].training} trainings train are kept as long as {context.holder} is open. One context for each "
        "training lets them go.",
        phase=context.phase,
        steps=(log.steps[0].step, log.steps[-1].step),
        bytes=freed,
        where=line_of(context),
        evidence={"freed_by_clearing_bytes": freed, "num_trainings": log.steps[-1].training},
    )


def _explain(evidence: Evidence) -> Explanation | None:
    """Return the first explanation that holds."""
    survivors = survivors_of(evidence.log)
    if survivors and all(is_of_optimizer(survivor) for survivor in survivors):
        return in_optimizer(evidence)  # it keeps as much as it is configured to, unless that has no end
    if _is_of_added_parameters(evidence) or _fills_within_room(evidence.log):
        return None
    for question in QUESTIONS:
        explanation = question(evidence)
        if explanation is not None:
            is_bounded = question is at_new_lengths and has_few_lengths(evidence)
            return None if is_bounded else explanation
    return None


def _fills_within_room(log: RunLog) -> bool:
    """Return whether all that grows has limits, with which the run still fits."""
    survivors, room = survivors_of(log), log.run.budget_bytes - log.peak_allocated_bytes
    is_bounded = bool(survivors) and all(ends_within(survivor, room // len(survivors)) for survivor in survivors)
    return is_bounded and log.fatal_oom is None


def _is_of_added_parameters(evidence: Evidence) -> bool:
    """Return whether what grows is the model itself, with gradients and optimizer states of what was added to it."""
    added = sum(record.bytes_per_step for record in survivors_of(evidence.log, ADDED_TO_MODEL))
    return added > 0 and EXPLAINED_SHARE * floor_rise(evidence.later_steps) <= BYTES_PER_ADDED * added


def _severity(evidence: Evidence, explanation: Explanation, budget_reached: tuple[int, int] | None) -> Severity:
    """Return how bad the growth is; a run that ended may have been about to end it too."""
    if explanation.ends_training:
        return "error"
    may_end = explanation.cause in MAY_END
    if explanation.cause == "reference-cycle" and COLLECTOR_OFF in evidence.log.run.settings_at:
        may_end = False
    return growth_severity(evidence.log, explanation.grown_bytes, evidence.later_steps, budget_reached, may_end=may_end)
