"""States of an optimizer that are there twice: beside those that it works with, or with an optimizer given up."""

from itertools import pairwise

import numpy as np

from memory_harness.configs.optimizers import state_bytes
from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import OPTIMIZER_STATE, Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.floor import EXPLAINED_SHARE
from memory_harness.probes.detectors.kept import is_of_old_optimizer
from memory_harness.probes.detectors.reading import (
    left_bytes,
    line_of,
    line_of_unit,
    records_of,
    severity_without,
    survivors_of,
)
from memory_harness.probes.detectors.trends import MIN_GROWTH_BYTES
from memory_harness.probes.findings import Finding

SAME_SHARE = 0.1
"""Relative difference within which two sizes are the same states: rounding, and counters beside the tensors."""
GRADIENT_SHARE = 0.25
"""Most that gradients may grow with the states, in shares of them: with more, it is more parameters that train."""


def optimizer_states_twice(evidence: Evidence) -> Finding | None:
    """Find states that are there twice after resuming, or from a later step on."""
    return _after_resuming(evidence) or _made_again(evidence)


def second_states_bytes(evidence: Evidence) -> int:
    """Return the states that resuming has left beside the optimizer's, 0 where it has left anything else."""
    log, model = evidence.log, evidence.log.run.model
    if log.run.script or model is None or not evidence.has_config:
        return 0
    train = evidence.config.train
    states = round(model.num_trainable_parameters * state_bytes(train.optimizer, train.optim_args))
    kept = [survivor for survivor in survivors_of(log, Phase.RESUME) if OPTIMIZER_STATE not in survivor.holder]
    extra = sum(survivor.bytes_per_step for survivor in kept)
    return extra if extra >= MIN_GROWTH_BYTES and _is_same(extra, states) else 0


def _is_same(size: float, states: float) -> bool:
    return abs(size - states) <= SAME_SHARE * states


def _after_resuming(evidence: Evidence) -> Finding | None:
    log, extra = evidence.log, second_states_bytes(evidence)
    if not extra:
        return None
    step = survivors_of(log, Phase.RESUME)[0].step
    return Finding(
        cause="optimizer-states-twice",
        severity=severity_without(log, extra),
        title=f"The optimizer's states are there twice since resuming: {format_bytes(extra)} more",
        explanation=f"Of what restoring the checkpoint put on the GPU, {format_bytes(extra)} belongs to no optimizer "
        "and is still referenced: what the optimizer's states take. They are the checkpoint's own.",
        phase=Phase.RESUME,
        steps=(step, step),
        bytes=extra,
        where=line_of_unit(log, Phase.RESUME),
        evidence={"second_states_bytes": extra},
    )


def _made_again(evidence: Evidence) -> Finding | None:
    """Find steps of the optimizer that make all states again, while the earlier ones stay."""
    log = evidence.log
    made = _states_made(log)
    if 1 not in made:
        return None
    states = made.pop(1)
    again = [step for step, num_bytes in made.items() if _is_same(num_bytes, states) and _stays(evidence, step, states)]
    if states < MIN_GROWTH_BYTES or not again:
        return None
    total = len(again) * round(states)
    return Finding(
        cause="optimizer-states-twice",
        severity=severity_without(log, total),
        title=f"The optimizer's states were made {len(again) + 1} times, and all are still there",
        explanation=f"At step {again[0]} the optimizer allocated {format_bytes(round(states))}, as at the first step, "
        "and what was allocated between the steps is higher since by as much. An optimizer was made anew, and "
        "something (a scheduler, a list) refers to the one before with its states.",
        phase=Phase.OPTIMIZER,
        steps=(again[0], again[-1]),
        bytes=total,
        where=line_of(next(filter(is_of_old_optimizer, survivors_of(log)), None)),
        evidence={"states_bytes": round(states), "num_made_again": len(again)},
    )


def _states_made(log: RunLog) -> dict[int, float]:
    """Return by step what the optimizer left beyond what its steps usually leave, where that is worth a look."""
    left = {record.step: left_bytes(record) for record in records_of(log, Phase.OPTIMIZER)}
    usual = float(np.median(list(left.values()))) if left else 0.0
    return {step: num_bytes - usual for step, num_bytes in left.items() if num_bytes - usual >= MIN_GROWTH_BYTES}


def _stays(evidence: Evidence, step: int, states: float) -> bool:
    """Return whether the floor is higher by the states from a step on than ever before, and the gradients are not."""
    before = [growth.floor_bytes for growth in evidence.steps if growth.step < step]
    since = [growth.floor_bytes for growth in evidence.steps if growth.step >= step]
    if not before or len(since) < 2:
        return False
    gradients = _gradient_bytes(evidence.log)
    if step - 1 not in gradients or step not in gradients:
        return False
    has_more_gradients = gradients[step] - gradients[step - 1] > GRADIENT_SHARE * states
    # an old optimizer that was let go had its states until then
    return min(since) - max(before) >= EXPLAINED_SHARE * states and not has_more_gradients


def _gradient_bytes(log: RunLog) -> dict[int, int]:
    """Return by step what is allocated when backward is over and the optimizer begins, less the floor before."""
    floors = {step.step: step.allocated_bytes for step in log.steps}
    found = {}
    for before, record in pairwise(log.phases):
        if before.phase is Phase.BACKWARD and record.phase is Phase.OPTIMIZER and record.step - 1 in floors:
            found[record.step] = before.after.allocated_bytes - floors[record.step - 1]
    return found
