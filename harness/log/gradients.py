"""Gradients that train nothing, step after step: a norm of zero, or one that is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from memory_harness.harness.log.errors import GradientError
from memory_harness.harness.log.records import StepRecord

Useless = Literal["zero", "not finite"]

MAX_STEPS: dict[Useless, int] = {"zero": 2, "not finite": 20}
"""Steps in a row before a run is stopped. A loss with a gradient of exactly zero is never right; the second step rules
out a batch that is odd. A loss scale begins at 2^16 and halves at each overflow, so that 16 steps may be skipped before
float16 has its scale; what is still not finite after them stays so."""


class GradientGuard:
    """Watches the steps of a run and stops one whose adapter cannot learn."""

    def __init__(self) -> None:
        self._in_a_row: list[StepRecord] = []

    def check(self, step: StepRecord) -> None:
        """Count the step. Raises GradientError where it is the last of so many that no update can come of."""
        kind = uselessness(step)
        self._in_a_row = useless_end([*self._in_a_row, step])
        if kind is not None and len(self._in_a_row) >= MAX_STEPS[kind]:
            raise GradientError(described(self._in_a_row))


def uselessness(step: StepRecord) -> Useless | None:
    """Return what is wrong with the step's gradient; None where it is sound, or where nothing was computed."""
    if step.loss is None or step.grad_norm is None:
        return None
    if not (math.isfinite(step.grad_norm) and math.isfinite(step.loss)):
        return "not finite"
    return "zero" if step.grad_norm == 0 and step.loss != 0 else None


def useless_end(steps: Sequence[StepRecord]) -> list[StepRecord]:
    """Return the steps in a row, up to the last, whose gradients are useless in the same way."""
    kind = uselessness(steps[-1]) if steps else None
    first = len(steps)
    while kind is not None and first > 0 and uselessness(steps[first - 1]) == kind:
        first -= 1
    return list(steps[first:])


def described(steps: Sequence[StepRecord]) -> str:
    """Return `steps 1 to 2: the gradient's norm is 0 while the loss is 11.76`."""
    first, last = steps[0], steps[-1]
    return (
        f"steps {first.step} to {last.step}: the gradient's norm is {last.grad_norm:g} while the loss is "
        f"{last.loss:.4g}, so that the adapter learns nothing"
    )
