"""Series of equally spaced values: their slope, and below what size a change says nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memory_harness.configs.units import KIB

BURN_IN_STEPS = 2
"""Steps in which memory may appear for good: optimizer states, workspaces, gradients of the first accumulation."""
NOISE_BYTES = 4 * KIB
"""What a step or a batch may leave without being said to grow: eight kept scalars of one 512-byte block each. The
allocator's counters are exact, so that nothing else moves the floor of a run that keeps nothing."""
MIN_GROWTH_BYTES = 64 * KIB
"""Least growth that is reported: what some hundred kept scalars take."""
MIN_STEPS = 6
"""Steps after the burn-in before a course is called growth."""
MAX_POINTS = 400
"""Points that a slope is computed from, the latest ones: the pairs grow with the square."""


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
