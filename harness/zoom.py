"""Looks closely at memory that grows: what made it, and who holds it.

Growth is noticed at equal points of the loop (the end of a step, the begin of an evaluation batch or of a generate
call) from the allocated bytes alone, which are read anyway. Only then the device records who allocates what, for a few
of these units; what was made in one and outlives it, in more than one, is what grows.

Cost, on the tiny model and one core of a simulated card (python -m tests.bench.zoom_cost): a watched step takes 0.21 s
against 0.20 s, the report 0.6 to 0.7 s, once per look.
"""

from __future__ import annotations

import bisect
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from harness.devices.base import Allocation, Device
from harness.holders import Holder, find_holder
from harness.records import Phase, Record, SurvivorRecord
from harness.sources import users_line

STEP = "step"

MIN_RISE_BYTES = 4096
"""Least lasting rise of the floor that counts: a kept scalar takes one block of 512 B, and that is no leak."""

MIN_GROWTH_BYTES = 256 * 1024
"""Least growth in all that is worth a closer look."""

MAX_ZOOMS = 3
"""Closer looks per unit and run."""

REST_STEPS = 200
"""Steps from one look to the next."""

MAX_UNITS = 50
"""Most units that one look takes: what grows every tenth step needs some twenty."""

MAX_RECORDS = 8
MAX_TENSORS_ASKED = 3
"""Tensors of a group whose referrers are followed."""


class Sensitivity(NamedTuple):
    """How much must be seen of a unit before and while it is watched."""

    skipped: int
    """first units, in which what stays for good appears"""
    rises: int
    """lasting rises that start a look"""
    watched_rises: int
    """rises after which the look ends"""


SENSITIVITY = {
    STEP: Sensitivity(skipped=2, rises=4, watched_rises=3),
    # what evaluation hoards is gone when it ends, and it may not get far
    Phase.EVAL.value: Sensitivity(skipped=0, rises=1, watched_rises=2),
    Phase.GENERATE.value: Sensitivity(skipped=0, rises=1, watched_rises=2),
}


@dataclass
class Levels:
    """Lasting rises in a series: each level was never undercut by a later value."""

    skipped: int
    levels: list[int] = field(default_factory=list)
    num_seen: int = 0

    def add(self, value: int) -> bool:
        """Take the next value; return whether it is a lasting rise so far."""
        self.num_seen += 1
        if self.num_seen <= self.skipped:
            return False
        while self.levels and self.levels[-1] > value:
            self.levels.pop()
        rises = not self.levels or value - self.levels[-1] > MIN_RISE_BYTES
        if rises:
            self.levels.append(value)
        return rises and len(self.levels) > 1

    @property
    def num_rises(self) -> int:
        """Rises that have lasted until now."""
        return max(0, len(self.levels) - 1)

    @property
    def growth_bytes(self) -> int:
        """Sum of the rises."""
        return self.levels[-1] - self.levels[0] if self.levels else 0


class _Moment(NamedTuple):
    time: float
    phase: Phase
    unit: int


@dataclass
class _Look:
    """A closer look in progress."""

    unit: str
    moments: list[_Moment]
    num_units: int = 0
    num_rises: int = 0

    def moment_of(self, allocation: Allocation) -> _Moment:
        """Return where the run was when the allocation was made."""
        index = bisect.bisect_right(self.moments, allocation.made_at, key=lambda moment: moment.time)
        return self.moments[max(0, index - 1)]


class Zoom:
    """Notices growth and, while there is some, writes what it is made of.

    Args:
        device: whose allocations are watched.
        write: takes each `SurvivorRecord`.
    """

    def __init__(self, device: Device, write: Callable[[Record], None]) -> None:
        self._device = device
        self._write = write
        self._series = {unit: Levels(s.skipped) for unit, s in SENSITIVITY.items()}
        self._ended_at: dict[str, list[int]] = {unit: [] for unit in SENSITIVITY}
        self._look: _Look | None = None
        self._phase = Phase.LOAD

    def begin_phase(self, phase: Phase, step: int, index: int, allocated_bytes: int) -> None:
        """Take note of a phase that begins; `index` counts evaluation batches and generate calls."""
        self._phase = phase
        if self._look is not None and self._look.unit not in (STEP, phase):
            self.stop()  # the evaluation is over, and with it what it held
        if phase in SENSITIVITY:
            if index == 0:
                self._series[phase] = Levels(SENSITIVITY[phase].skipped)
            self._unit_ends(phase, step, allocated_bytes)
        if self._look is not None:
            self._look.moments.append(_Moment(time.time(), phase, self._look.num_units))

    def end_step(self, step: int, allocated_bytes: int) -> None:
        """Take note of the floor after an optimizer step."""
        self._unit_ends(STEP, step, allocated_bytes)

    def stop(self) -> None:
        """End a look without a result."""
        if self._look is not None:
            self._device.unwatch()
            self._look = None

    def _unit_ends(self, unit: str, step: int, allocated_bytes: int) -> None:
        series, look = self._series[unit], self._look
        rose = series.add(allocated_bytes)
        if look is None:
            if self._is_worth_a_look(unit, step):
                self._look = _Look(unit, [_Moment(time.time(), self._phase, 0)])
                self._device.watch()
        elif look.unit == unit:
            look.num_units += 1
            look.num_rises += rose
            look.moments.append(_Moment(time.time(), self._phase, look.num_units))
            if look.num_rises >= SENSITIVITY[unit].watched_rises or look.num_units == MAX_UNITS:
                self._report(look, step)

    def _is_worth_a_look(self, unit: str, step: int) -> bool:
        series, ended_at = self._series[unit], self._ended_at[unit]
        grows = series.num_rises >= SENSITIVITY[unit].rises and series.growth_bytes >= MIN_GROWTH_BYTES
        rested = not ended_at or step - ended_at[-1] >= REST_STEPS
        return grows and rested and len(ended_at) < MAX_ZOOMS

    def _report(self, look: _Look, step: int) -> None:
        self._look = None
        self._ended_at[look.unit].append(step)
        self._series[look.unit] = Levels(0)
        survivors = [(look.moment_of(a), a) for a in self._device.unwatch()]
        for record in survivor_records(survivors, look.unit, look.num_units, step, self._device):
            self._write(record)


@dataclass
class _Group:
    """Survivors of one place in the code and one phase."""

    allocations: list[Allocation] = field(default_factory=list)
    units: list[int] = field(default_factory=list)

    def bytes_per_unit(self, num_units: int) -> int:
        """Bytes left behind by a unit, the last one apart: its own may be on their way out."""
        kept = (a.num_bytes for a, unit in zip(self.allocations, self.units, strict=True) if unit < num_units - 1)
        return sum(kept) // (num_units - 1)


def survivor_records(
    survivors: Iterable[tuple[_Moment, Allocation]], unit: str, num_units: int, step: int, device: Device
) -> list[SurvivorRecord]:
    """Return what more than one of the units left behind, the most bytes first."""
    groups: dict[tuple[Phase, str], _Group] = defaultdict(_Group)
    for moment, allocation in survivors:
        if moment.unit < num_units:
            group = groups[moment.phase, str(users_line(allocation.frames) or "")]
            group.allocations.append(allocation)
            group.units.append(moment.unit)
    growing = [(key, g, g.bytes_per_unit(num_units)) for key, g in groups.items() if len(set(g.units)) > 1]
    growing = sorted((item for item in growing if item[2] >= MIN_RISE_BYTES), key=lambda item: -item[2])[:MAX_RECORDS]
    if not growing:
        return []
    tensors = _tensors_by_handle(device)
    graph = _graph_holder(tensors)
    return [
        _record(phase, site, group, num_bytes, unit, step, tensors, graph)
        for (phase, site), group, num_bytes in growing
    ]


def _record(
    phase: Phase,
    site: str,
    group: _Group,
    num_bytes: int,
    unit: str,
    step: int,
    tensors: dict[Hashable, list[torch.Tensor]],
    graph: Holder | None,
) -> SurvivorRecord:
    # the oldest first: those of the last unit may be held by a variable that the next one overwrites
    held = [tensors[a.handle] for a in group.allocations if a.handle in tensors]
    holder = next((h for h in (_holder(items) for items in held[:MAX_TENSORS_ASKED]) if h is not None), None)
    # what no Python object refers to is saved by a graph, and that hangs on a tensor that one does refer to
    in_graph = holder is None and graph is not None
    largest = max((tensor for items in held for tensor in items), key=torch.Tensor.numel, default=None)
    return SurvivorRecord(
        step=step,
        phase=phase,
        site=site,
        holder=f"graph of {graph}" if in_graph else str(holder or ""),
        bytes_per_step=num_bytes,
        num_tensors=len(group.allocations),
        has_grad_fn=in_graph or any(tensor.grad_fn is not None for items in held for tensor in items),
        shape=() if largest is None else tuple(largest.shape),
        dtype="" if largest is None else str(largest.dtype).removeprefix("torch."),
        unit=unit,
    )


def _holder(tensors: list[torch.Tensor]) -> Holder | None:
    """Return the user's holder of one of the tensors that share a storage, else any."""
    found = [find_holder(tensor, [tensors]) for tensor in tensors]
    return next((h for h in found if h is not None and h.is_users), next((h for h in found if h is not None), None))


def _tensors_by_handle(device: Device) -> dict[Hashable, list[torch.Tensor]]:
    """Return the tensors that Python knows of, by the allocation that they lie in."""
    found: dict[Hashable, list[torch.Tensor]] = defaultdict(list)
    for item in gc.get_objects():
        if issubclass(type(item), torch.Tensor) and item.layout is torch.strided:
            handle = device.handle_of(item)
            if handle is not None:
                found[handle].append(item)
    return dict(found)


def _graph_holder(tensors: dict[Hashable, list[torch.Tensor]]) -> Holder | None:
    """Return who holds a tensor that has a graph: between two steps nobody should."""
    fallback = None
    for items in tensors.values():
        for tensor in items:
            if tensor.grad_fn is not None:
                holder = find_holder(tensor, [items])
                if holder is not None and holder.is_users:
                    return holder
                fallback = fallback or holder
    return fallback
