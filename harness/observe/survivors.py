"""Looks closely at memory that stays or grows: what made it, and who holds it.

Three occasions, each noticed from the allocated bytes, which are read anyway:
- Growth at equal points of the loop (the end of a step, the begin of an evaluation batch or of a generate call). The
  device then records who allocates what, for a few of these units; what was made in one and outlives it, in more than
  one, is what grows.
- A phase that a run has few of (RESUME, EVAL, CHECKPOINT, GENERATE) is watched the first time: what it leaves, and for
  a checkpoint what its peak is made of, would be gone before a second one.
- Memory that is there before the model is loaded, that stays after somebody has caught an out-of-memory, or that fills
  the host: nobody has watched it being made, but it can be asked who holds it.

Cost, on the tiny model and one core of a simulated card (python -m tests.bench.zoom_cost): a watched step takes 0.21 s
against 0.20 s, the report 0.6 to 0.7 s, once per look. A replayed phase allocates nothing and costs nothing.
"""

from __future__ import annotations

import bisect
import gc
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from memory_harness.harness.devices.base import Allocation, ObservableDevice
from memory_harness.harness.log.records import (
    BEFORE_LOAD,
    CAUGHT_FAILURE,
    GROWING_TENSOR,
    HOST,
    OLD_MODEL,
    MemoryStats,
    Phase,
    Record,
    SurvivorRecord,
    peak_of,
)
from memory_harness.harness.log.source_lines import users_line
from memory_harness.harness.observe.holders import Holder, find_holder, local_variables, referred

STEP = "step"

MIN_RISE_BYTES = 4096
"""Least lasting rise of the floor that counts: a kept scalar takes one block of 512 B, and that is no leak."""

MIN_GROWTH_BYTES = 256 * 1024
"""Least growth over the steps that is worth a closer look."""

MIN_LEFT_BYTES = 64 * 1024
"""Least that a phase watched as a whole must leave, or have at its peak, to be worth a report."""

MIN_HOST_BYTES = 16 * 2**20
"""Least that resident memory must rise within an evaluation; a process's own caches grow by a few MiB."""

SETTLING_BATCHES = 2
"""First evaluation batches, in which the process grows for reasons of its own."""

MAX_ZOOMS = 3
"""Closer looks per unit and run."""

REST_STEPS = 200
"""Steps from one look to the next."""

MAX_UNITS = 50
"""Most units that one look takes: what grows every tenth step needs some twenty."""

MAX_RECORDS = 8
MAX_TENSORS_ASKED = 3
"""Tensors of a group whose referrers are followed."""

MAX_GRAPHS_ASKED = 12
"""The same of tensors with a graph, the smallest first."""

MAX_GRAPHS_LOOKED_AT = 500
"""Tensors with a graph among which those are looked for that anybody refers to."""

SKIPPED_STEPS = 2
"""First steps, in which what stays for good appears."""

STEP_RISES = 4
"""Lasting rises of the floor that start a look at the steps."""

WATCHED_RISES: dict[str, int] = {STEP: 3, Phase.EVAL: 2, Phase.GENERATE: 2, Phase.RESUME: 1, Phase.CHECKPOINT: 1}
"""Lasting rises within a look after which it ends, by its unit; what evaluation hoards is gone when it ends, and it may
not get far."""


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
    begin_bytes: int
    """allocated when it began"""
    num_units: int = 0
    num_rises: int = 0

    def next_unit(self, phase: Phase) -> None:
        """Take note that a unit is over."""
        self.num_units += 1
        self.moments.append(_Moment(time.time(), phase, self.num_units))

    def moment_of(self, allocation: Allocation) -> _Moment:
        """Return where the run was when the allocation was made."""
        index = bisect.bisect_right(self.moments, allocation.made_at, key=lambda moment: moment.time)
        return self.moments[max(0, index - 1)]


class Zoom:
    """Notices what stays or grows and, where something does, writes what it is made of.

    Args:
        device: whose allocations are watched.
        write: takes each `SurvivorRecord`.
    """

    def __init__(self, device: ObservableDevice, write: Callable[[Record], None]) -> None:
        self._device = device
        self._write = write
        self._series = {unit: Levels(SKIPPED_STEPS if unit == STEP else 0) for unit in WATCHED_RISES}
        self._ended_at: dict[str, list[int]] = {unit: [] for unit in WATCHED_RISES}
        self._look: _Look | None = None
        self._phase = Phase.LOAD
        self._step = 0
        self._num_ooms = 0
        self._floor_bytes = 0
        self._host_rss_bytes = 0

    def begin_phase(self, phase: Phase, step: int, index: int, allocated_bytes: int) -> None:
        """Take note of a phase that begins; `index` counts evaluation batches and generate calls."""
        self._phase, self._step = phase, step
        look = self._look
        if look is not None and look.unit != STEP and (look.unit != phase or index == 0):
            self._end_phase(look, allocated_bytes)
        if phase is Phase.LOAD and allocated_bytes >= MIN_GROWTH_BYTES:
            self._ask_for_holders(BEFORE_LOAD, allocated_bytes)
        if phase in WATCHED_RISES:
            if index == 0:
                self._series[phase] = Levels(0)
            self._unit_ends(phase, allocated_bytes)
        if self._look is not None:
            self._look.moments.append(_Moment(time.time(), phase, self._look.num_units))

    def begin_evaluation_batch(self, index: int, host_rss_bytes: int) -> None:
        """Take note of resident memory; a host that fills up during an evaluation is asked once for its tensors."""
        if index <= SETTLING_BATCHES:
            self._host_rss_bytes = host_rss_bytes
        elif host_rss_bytes - self._host_rss_bytes >= MIN_HOST_BYTES and not self._ended_at.get(HOST):
            self._ended_at[HOST] = [self._step]
            self._ask_for_holders(HOST, host_rss_bytes - self._host_rss_bytes)

    def end_step(self, step: int, stats: MemoryStats) -> None:
        """Take note of the floor after an optimizer step."""
        self._step = step
        left = stats.allocated_bytes - self._floor_bytes
        if stats.num_ooms > self._num_ooms and left >= MIN_LEFT_BYTES and not self._ended_at.get(CAUGHT_FAILURE):
            self._ended_at[CAUGHT_FAILURE] = [step]
            self._ask_for_holders(CAUGHT_FAILURE, left)
        self._num_ooms, self._floor_bytes = stats.num_ooms, stats.allocated_bytes
        self._unit_ends(STEP, stats.allocated_bytes)

    def end_run(self, allocated_bytes: int) -> None:
        """Report what a look in progress has seen: the run is over."""
        look = self._look
        if look is None:
            return
        if look.unit != STEP:
            self._end_phase(look, allocated_bytes)
        elif look.num_rises > 1:
            self._report(look)
        else:
            self._stop(look)

    def stop(self) -> None:
        """End a look without a result: memory ran out, and what lives is the frames' that are unwinding."""
        if self._look is not None:
            self._stop(self._look)

    def _stop(self, look: _Look) -> None:
        self._look = None
        self._ended_at[look.unit].append(self._step)
        self._series[look.unit] = Levels(0)
        self._device.stop_recording_allocations()

    def _unit_ends(self, unit: str, allocated_bytes: int) -> None:
        series, look = self._series[unit], self._look
        rose = series.add(allocated_bytes)
        if look is None:
            if self._is_worth_a_look(unit):
                self._look = _Look(unit, [_Moment(time.time(), self._phase, 0)], allocated_bytes)
                self._device.record_allocations(with_peak=unit == Phase.CHECKPOINT)
        elif look.unit == unit:
            look.next_unit(self._phase)
            look.num_rises += rose
            enough = look.num_rises >= WATCHED_RISES[unit] and allocated_bytes - look.begin_bytes >= MIN_LEFT_BYTES
            if enough or look.num_units == MAX_UNITS:
                self._report(look)

    def _is_worth_a_look(self, unit: str) -> bool:
        series, ended_at = self._series[unit], self._ended_at[unit]
        rested = not ended_at or self._step - ended_at[-1] >= REST_STEPS
        grows = series.num_rises >= STEP_RISES and series.growth_bytes >= MIN_GROWTH_BYTES
        return (grows or unit != STEP) and rested and len(ended_at) < MAX_ZOOMS

    def _report(self, look: _Look) -> None:
        survivors = [(look.moment_of(a), a) for a in self._device.live_allocations()]
        grown = self._series[look.unit].growth_bytes
        self._stop(look)
        records = survivor_records(survivors, look.unit, look.num_units, self._step, self._device)
        for record in records or _growing_tensor(survivors, look, grown, self._step, self._device):
            self._write(record)

    def _end_phase(self, look: _Look, allocated_bytes: int) -> None:
        """Report what a phase that is over has left, and what the peak of a checkpoint was made of."""
        phase = look.moments[0].phase
        moment = _Moment(0.0, phase, 0)
        left = self._device.live_allocations() if allocated_bytes - look.begin_bytes >= MIN_LEFT_BYTES else []
        peak = self._device.live_allocations_at_peak() if look.unit == Phase.CHECKPOINT else []
        self._stop(look)
        if sum(allocation.num_bytes for allocation in peak) >= MIN_LEFT_BYTES:
            for record in peak_records(peak, phase, self._step):
                self._write(record)
        for record in survivor_records([(moment, a) for a in left], look.unit, 1, self._step, self._device):
            self._write(record)

    def _ask_for_holders(self, unit: str, num_bytes: int) -> None:
        """Report who holds memory that nobody has watched being made."""
        tensors = _tensors_by_handle(self._device)
        if unit == CAUGHT_FAILURE:
            holder = _failure_holder(self._device) or _graph_holder(tensors)
        elif unit == HOST:
            holder = _host_holder(self._device)
        else:
            holder = _model_holder(tensors)
        if holder is not None:
            self._write_holder(holder, unit, num_bytes, len(tensors))

    def note_old_model(self, model: torch.nn.Module, num_bytes: int) -> None:
        """Report who holds a model that is no longer trained."""
        holder = find_holder(model)
        if holder is not None and holder.is_users:
            self._write_holder(holder, OLD_MODEL, num_bytes, 1)

    def note_failure_kept(self, stats: MemoryStats) -> None:
        """Report who keeps an out-of-memory that was caught, where the run goes on and no step has ended since."""
        left = stats.allocated_bytes - self._floor_bytes
        if left >= MIN_LEFT_BYTES and not self._ended_at.get(CAUGHT_FAILURE):
            holder = _failure_holder(self._device)
            if holder is not None:
                self._ended_at[CAUGHT_FAILURE] = [self._step]
                self._write_holder(holder, CAUGHT_FAILURE, left, 1)

    def note_checkpoint_kept(self, tensors: list[torch.Tensor]) -> None:
        """Report who holds tensors of a checkpoint that has been restored."""
        num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        found = (find_holder(tensor, [tensors]) for tensor in tensors[:MAX_TENSORS_ASKED])
        holder = next((holder for holder in found if holder is not None and holder.is_users), None)
        if holder is not None:
            self._write_holder(holder, Phase.RESUME, num_bytes, len(tensors))

    def _write_holder(self, holder: Holder, unit: str, num_bytes: int, num_tensors: int) -> None:
        self._write(
            SurvivorRecord(
                step=self._step,
                phase=self._phase,
                site="",
                holder=str(holder),
                bytes_per_step=num_bytes,
                num_tensors=num_tensors,
                has_grad_fn=False,
                shape=(),
                dtype="",
                unit=unit,
            )
        )


@dataclass
class _Group:
    """Survivors of one place in the code and one phase."""

    allocations: list[Allocation] = field(default_factory=list)
    units: list[int] = field(default_factory=list)

    def bytes_per_unit(self, num_units: int) -> int:
        """Bytes left behind by a unit, of several the last one apart: its own may be on their way out."""
        if num_units == 1:
            return sum(allocation.num_bytes for allocation in self.allocations)
        kept = (a.num_bytes for a, unit in zip(self.allocations, self.units, strict=True) if unit < num_units - 1)
        return sum(kept) // (num_units - 1)

    def older_handles(self) -> list[Hashable]:
        """Return the handles of all units but the last, or of all where there is no other, oldest first."""
        pairs = list(zip(self.allocations, self.units, strict=True))
        older = [a.handle for a, unit in pairs if unit < max(self.units)]
        return older or [a.handle for a, _ in pairs]


def survivor_records(
    survivors: Iterable[tuple[_Moment, Allocation]], unit: str, num_units: int, step: int, device: ObservableDevice
) -> list[SurvivorRecord]:
    """Return what more than one of the units left behind, or a single one, the most bytes first."""
    groups: dict[tuple[Phase, str], _Group] = defaultdict(_Group)
    for moment, allocation in survivors:
        if moment.unit < num_units:
            group = groups[moment.phase, str(users_line(allocation.frames) or "")]
            group.allocations.append(allocation)
            group.units.append(moment.unit)
    least = min(2, num_units)
    growing = [(key, g, g.bytes_per_unit(num_units)) for key, g in groups.items() if len(set(g.units)) >= least]
    growing = sorted((item for item in growing if item[2] >= MIN_RISE_BYTES), key=lambda item: -item[2])[:MAX_RECORDS]
    if not growing:
        return []
    tensors = _tensors_by_handle(device)
    # a loss that keeps a graph is itself a number, made at a line that leaves next to nothing
    older = {h for group in groups.values() if len(set(group.units)) >= least for h in group.older_handles()}
    graph = _graph_holder({h: items for h, items in tensors.items() if h in older}, MAX_TENSORS_ASKED)
    if graph is None or not graph.is_users:
        graph = _graph_holder(tensors)
    gradients = _gradient_handles(device)
    return [
        _record(
            phase,
            site,
            group,
            num_bytes,
            unit,
            step,
            tensors,
            None if gradients & set(group.older_handles()) else graph,
        )
        for (phase, site), group, num_bytes in growing
    ]


def _growing_tensor(
    survivors: Sequence[tuple[_Moment, Allocation]], look: _Look, growth_bytes: int, step: int, device: ObservableDevice
) -> Iterator[SurvivorRecord]:
    """Yield the tensor that each unit replaces by a larger one, by a line that adds to it, if that is what grows."""
    # beside it the last output may still be there
    large = [(m, a) for m, a in survivors if m.unit >= look.num_units - 1 and 2 * a.num_bytes >= growth_bytes > 0]
    tensors = _tensors_by_handle(device) if large else {}
    for moment, allocation in large:
        holder = _holder(tensors.get(allocation.handle, []))
        if holder is not None and holder.is_users and holder.adds:
            tensor = tensors[allocation.handle][0]
            yield SurvivorRecord(
                step=step,
                phase=moment.phase,
                site=str(users_line(allocation.frames) or ""),
                holder=f"{GROWING_TENSOR}: {holder}",
                bytes_per_step=growth_bytes // max(1, look.num_units + STEP_RISES),
                num_tensors=1,
                has_grad_fn=tensor.grad_fn is not None,
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                unit=look.unit,
            )
            return


def peak_records(allocations: Iterable[Allocation], phase: Phase, step: int) -> list[SurvivorRecord]:
    """Return which lines made what lived at a phase's peak, the most bytes first; who held it cannot be asked later."""
    groups: dict[str, list[Allocation]] = defaultdict(list)
    for allocation in allocations:
        groups[str(users_line(allocation.frames) or "")].append(allocation)
    sizes = sorted(((sum(a.num_bytes for a in g), len(g), site) for site, g in groups.items()), reverse=True)
    return [
        SurvivorRecord(step, phase, site, "", num_bytes, num, False, (), "", unit=peak_of(phase))
        for num_bytes, num, site in sizes[:MAX_RECORDS]
        if num_bytes >= MIN_RISE_BYTES
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
    # those of the last unit may be held by a variable that the next one overwrites
    held = [tensors[handle] for handle in group.older_handles() if handle in tensors]
    holder = next((h for h in (_holder(items) for items in held[:MAX_TENSORS_ASKED]) if h is not None), None)
    # what no Python object refers to is saved by a graph, and that hangs on a tensor that one does refer to
    in_graph = holder is None and graph is not None and not any(referred(i, [i]) for i in held[:MAX_TENSORS_ASKED])
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


def _tensors_by_handle(device: ObservableDevice) -> dict[Hashable, list[torch.Tensor]]:
    """Return the tensors that Python knows of, by the allocation that they lie in."""
    found: dict[Hashable, list[torch.Tensor]] = defaultdict(list)
    for item in gc.get_objects():
        if issubclass(type(item), torch.Tensor) and item.layout is torch.strided:
            handle = device.handle_of(item)
            if handle is not None:
                found[handle].append(item)
    return dict(found)


def _gradient_handles(device: ObservableDevice) -> set[Hashable]:
    """Return where gradients lie: their parameters hold them, which Python does not see."""
    leaves = (item for item in gc.get_objects() if issubclass(type(item), torch.Tensor) and item.is_leaf)
    return {device.handle_of(leaf.grad) for leaf in leaves if leaf.grad is not None} - {None}


def _graph_holder(tensors: dict[Hashable, list[torch.Tensor]], num_asked: int = MAX_GRAPHS_ASKED) -> Holder | None:
    """Return who holds a tensor that has a graph: between two steps nobody should."""
    # what people keep is a loss or another small result, not the activations behind it
    found = (t for items in tensors.values() for t in items if t.grad_fn is not None)
    with_graph = sorted(found, key=torch.Tensor.numel)
    # a graph saves many, which only it refers to
    asked = referred(with_graph[:MAX_GRAPHS_LOOKED_AT], [with_graph, *tensors.values()])[:num_asked]
    holders = [
        h for h in (find_holder(tensor, [asked, with_graph, *tensors.values()]) for tensor in asked) if h is not None
    ]
    users = [holder for holder in holders if holder.is_users]
    # a loss whose graph reaches back only shows what carries the graph on, such as a state handed to the next step
    adding = [holder for holder in users if holder.adds]
    return next(iter(adding or users or holders), None)


def _failure_holder(device: ObservableDevice) -> Holder | None:
    """Return who keeps an out-of-memory that was caught, and with it the frames of its traceback."""
    errors = [item for item in gc.get_objects() if issubclass(type(item), Exception)]
    failures = [error for error in errors if _holds_tensors(error, device) and device.as_out_of_memory(error)]
    found = (find_holder(error, [errors, failures]) for error in failures[:MAX_TENSORS_ASKED])
    return next((holder for holder in found if holder is not None and holder.is_users), None)


def _holds_tensors(error: BaseException, device: ObservableDevice) -> bool:
    """Whether a frame of the error's traceback has a tensor of the device: an error of an earlier run has none."""
    trace = error.__traceback__
    while trace is not None:
        values = local_variables(trace.tb_frame).values()
        if any(issubclass(type(v), torch.Tensor) and device.handle_of(v) is not None for v in values):
            return True
        trace = trace.tb_next
    return False


def _host_holder(device: ObservableDevice) -> Holder | None:
    """Return who holds the largest tensors in host memory that are no part of a model."""
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and t.device.type == "cpu"]
    loose = [t for t in tensors if t.layout is torch.strided and not isinstance(t, torch.nn.Parameter)]
    host = sorted((t for t in loose if device.handle_of(t) is None), key=torch.Tensor.numel, reverse=True)
    asked = host[:MAX_TENSORS_ASKED]
    found = (find_holder(tensor, [tensors, loose, host, asked]) for tensor in asked)
    users = next((holder for holder in found if holder is not None and holder.is_users), None)
    return users or _array_holder()


def _array_holder() -> Holder | None:
    """Return who holds the most bytes of NumPy arrays in one list or dictionary; the collector knows of no array."""
    sizes = [(_array_bytes(item), item) for item in gc.get_objects() if type(item) in (list, dict, deque)]
    largest = sorted((pair for pair in sizes if pair[0] >= MIN_LEFT_BYTES), key=lambda pair: -pair[0])
    asked = [item for _, item in largest[:MAX_TENSORS_ASKED]]
    found = (find_holder(item, [sizes, largest, asked, *sizes, *largest]) for item in asked)
    return next((holder for holder in found if holder is not None and holder.is_users), None)


def _array_bytes(container: list[Any] | dict[Any, Any] | deque[Any]) -> int:
    items = container.values() if isinstance(container, dict) else container
    return sum(item.nbytes for item in list(items) if isinstance(item, np.ndarray))


def _model_holder(tensors: dict[Hashable, list[torch.Tensor]]) -> Holder | None:
    """Return who holds the model with the most parameters on the device, or the largest tensor where there is none."""
    modules = [item for item in gc.get_objects() if issubclass(type(item), torch.nn.Module)]
    inner = {id(child) for module in modules for child in module.children()}
    on_device = {id(tensor) for items in tensors.values() for tensor in items}
    sizes = {id(m): sum(id(p) in on_device for p in m.parameters()) for m in modules if id(m) not in inner}
    models = sorted((m for m in modules if sizes.get(id(m))), key=lambda m: -sizes[id(m)])
    largest = sorted((t for items in tensors.values() for t in items), key=lambda t: -t.untyped_storage().nbytes())
    found = (find_holder(item, [modules, models, largest]) for item in (*models[:1], *largest[:MAX_TENSORS_ASKED]))
    return next((holder for holder in found if holder is not None and holder.is_users), None)
