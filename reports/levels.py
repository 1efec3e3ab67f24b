"""Memory as bars and columns show it: per phase, at the worst moment, over the run."""

from __future__ import annotations

from dataclasses import dataclass

from memory_harness.configs.units import GIB, format_bytes
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports.text import gib, in_unit


@dataclass(frozen=True)
class Level:
    """What is drawn as one bar or one column."""

    allocated_bytes: int = 0
    reserved_bytes: int = 0
    requested_bytes: int = 0  # the request that failed, on top of what was allocated
    freed_bytes: int = 0
    """of the highest that was allocated, what the request no longer met: an earlier batch of the phase took more"""

    @property
    def met_bytes(self) -> int:
        """What was allocated when the request failed."""
        return self.allocated_bytes - self.freed_bytes

    @property
    def top_bytes(self) -> int:
        """Where the drawing ends."""
        return max(self.allocated_bytes, self.met_bytes + self.requested_bytes, self.reserved_bytes)

    def words(self, largest_bytes: int) -> str:
        """Return the same as `str` in the unit of the largest level that it is shown with."""
        if not self.requested_bytes:
            return in_unit(self.allocated_bytes, largest_bytes)
        met = in_unit(self.met_bytes, largest_bytes).partition(" ")[0]
        return f"{met} + {in_unit(self.requested_bytes, largest_bytes)}"

    def __str__(self) -> str:
        """Return `11.54 + 7.83 GiB`, or `12.34 GiB`."""
        if not self.requested_bytes:
            return format_bytes(self.allocated_bytes)
        if min(self.met_bytes, self.requested_bytes) >= GIB:
            return f"{gib(self.met_bytes)} + {gib(self.requested_bytes)} GiB"
        return f"{format_bytes(self.met_bytes)} + {format_bytes(self.requested_bytes)}"


def phase_levels(log: RunLog) -> dict[Phase, Level]:
    """Return per phase the peaks, in order of first occurrence; the phase that failed with what it asked for."""
    levels = {
        phase: Level(stats.peak_allocated_bytes, stats.peak_reserved_bytes) for phase, stats in log.peaks().items()
    }
    oom = log.fatal_oom
    if oom is not None:
        before = levels.get(oom.phase, Level())
        allocated = max(before.allocated_bytes, oom.allocated_bytes)
        reserved = max(before.reserved_bytes, oom.reserved_bytes)
        levels[oom.phase] = Level(allocated, reserved, oom.requested_bytes, allocated - oom.allocated_bytes)
    return levels


def worst_level(log: RunLog) -> Level:
    """Return the failure, or the highest of the run where none ended it."""
    oom = log.fatal_oom
    if oom is not None:
        return Level(oom.allocated_bytes, oom.reserved_bytes, oom.requested_bytes)
    return Level(log.peak_allocated_bytes, log.peak_reserved_bytes)


def column_levels(log: RunLog, num_columns: int) -> list[Level]:
    """Return the run cut into columns of equally many steps, each with its highest level; not reached is empty."""
    total = max(log.run.total_steps, max((p.step for p in log.phases), default=0), 1)
    num_columns = max(1, num_columns)
    columns = [Level()] * num_columns
    for record in log.phases:
        if record.step > 0:
            i = (record.step - 1) * num_columns // total
            allocated = max(columns[i].allocated_bytes, record.after.peak_allocated_bytes)
            columns[i] = Level(allocated, max(columns[i].reserved_bytes, record.after.peak_reserved_bytes))
    oom = log.fatal_oom
    if oom is not None and oom.step > 0:
        i = min(num_columns - 1, (oom.step - 1) * num_columns // total)
        columns[i] = worst_level(log)
    return columns
