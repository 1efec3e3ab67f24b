"""Memory of the card that is not PyTorch's tensors: other processes, this one's libraries; and pools set aside."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeVar

import numpy as np

from memory_harness.configs.units import MIB, format_bytes
from memory_harness.harness.log.records import DriverRecord, DriverUse, GpuProcess, OomRecord, Phase, PoolRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.distributed import peers_bytes
from memory_harness.probes.detectors.evidence import Evidence
from memory_harness.probes.detectors.floor import EXPLAINED_SHARE, MIN_EVENTS, floor_rise
from memory_harness.probes.detectors.growth_timing import LASTING_SHARE, NEVER_LONGEST
from memory_harness.probes.detectors.trends import BURN_IN_STEPS
from memory_harness.probes.findings import Finding

FOREIGN_BYTES = 64 * MIB
"""Rise of what is outside that is more than a desktop's ups and downs, or a few more kernels that are loaded."""
RISE_BYTES = MIB
"""Least rise at a step that counts as one: the driver hands out memory by 2 MiB."""
STILL_GROWING = 2 / 3
"""Share of the steps beyond which the last rise has to lie: kernels and workspaces that come with new phases stop."""
PEERS_SHARE = 0.5
"""Share of what others hold beyond which they are this run's own processes."""
PINNED_BYTES = 256 * MIB
"""Least growth of pinned memory that is worth a line."""
POOL_SHARE = 0.1
"""Share of the budget from which private pools are worth a line."""


FOREIGN, OUTSIDE = attrgetter("foreign_bytes"), attrgetter("outside_bytes")
"""What others hold, and what this process holds outside of PyTorch's allocator; None where that is not told."""
Record = TypeVar("Record", DriverRecord, PoolRecord)


class Point(NamedTuple):
    """What was outside after a step."""

    step: int
    num_bytes: int


def driver_records(log: RunLog) -> list[DriverRecord]:
    """Return what the driver counted, in order; of logs of earlier releases what each phase says."""
    if log.drivers:
        return log.drivers
    found = []
    for phase in log.phases:
        if phase.driver_used_bytes is not None:
            use = DriverUse(phase.driver_used_bytes, 0)
            found.append(DriverRecord(phase.phase, phase.step, phase.after.reserved_bytes, use))
    return found


def points_of(records: Sequence[Record], size: Callable[[Record], int | None]) -> list[Point]:
    """Return a series of what the records say, without those that do not say it."""
    points = []
    for record in records:
        num_bytes = size(record)
        if num_bytes is not None:
            points.append(Point(record.step, num_bytes))
    return points


def not_pytorch_bytes(record: DriverRecord) -> int:
    """Return everything that is not in PyTorch's allocator, this process's or not."""
    return record.use.used_bytes - record.reserved_bytes


def gone_processes(log: RunLog) -> list[GpuProcess]:
    """Return processes that no longer exist and yet hold memory of the card, at two readings or since a step before."""
    if not log.drivers:
        return []
    last, earlier = log.drivers[-1], log.drivers[:-1]
    gone_before = {process.pid for record in earlier for process in record.use.others if process.is_gone}
    found = []
    for process in last.use.others:
        has_stayed = process.pid in gone_before or last.step < log.last_step
        if process.is_gone and has_stayed:
            found.append(process)
    return found


def other_process(evidence: Evidence) -> Finding | None:
    """Find memory of other processes that grows during the run, or that left too little for it."""
    log = evidence.log
    points, oom = points_of(log.drivers, FOREIGN), log.fatal_oom
    if not points:
        return None
    first, held = points[0], points[-1].num_bytes
    if peers_bytes(log) > PEERS_SHARE * held:
        return None  # `ranks-on-one-gpu` says who they are
    rise = max(point.num_bytes for point in points) - first.num_bytes
    crowded_out = oom is not None and _would_fit(oom, log.drivers[-1], held)
    since, num_bytes = first.step, held
    gone = gone_processes(log)
    gone_bytes = sum(process.used_bytes for process in gone)
    if rise >= FOREIGN_BYTES:
        since = next(point.step for point in points if point.num_bytes - first.num_bytes >= FOREIGN_BYTES)
        num_bytes = rise
        title = f"Others took {format_bytes(rise)} of the GPU from step {since} on"
        course = f"The driver counts {format_bytes(rise)} more for other processes than at step {first.step}."
    elif crowded_out and held >= FOREIGN_BYTES:
        title = f"Others hold {format_bytes(held)} of the GPU, which this run lacks"
        course = "The card was full before PyTorch had what its budget allows, and others held memory from the begin."
    elif gone_bytes >= FOREIGN_BYTES:
        num_bytes = gone_bytes
        title = f"{format_bytes(gone_bytes)} of the GPU is held for processes that no longer exist"
        course = "Nobody uses that memory any more, and it was not given back."
    else:
        return None
    return Finding(
        cause="other-process",
        severity="error" if crowded_out else "warning",
        title=title,
        explanation=f"{course} {_who_is_listed(log, gone)}",
        steps=(since, points[-1].step),
        bytes=num_bytes,
        evidence={"foreign_before_bytes": first.num_bytes, "foreign_rise_bytes": rise},
    )


def _who_is_listed(log: RunLog, gone: Sequence[GpuProcess]) -> str:
    """Return who held memory at the last reading, in sentences."""
    sentences = [f"Besides this process the driver lists at last: {in_words(log.drivers[-1].use.others)}."]
    if gone:
        sentences.append(f"No longer there, and its memory still held: {in_words(gone)}.")
    return " ".join(sentences)


def in_words(processes: Sequence[GpuProcess]) -> str:
    """Return who holds how much, the most first."""
    named = []
    for process in sorted(processes, key=lambda process: -process.used_bytes):
        named.append(f"{process.name or 'process'} (pid {process.pid}: {format_bytes(process.used_bytes)})")
    return ", ".join(named) or "none"


def _would_fit(oom: OomRecord, last: DriverRecord, num_bytes: int) -> bool:
    """Return whether the card, not the budget, was too full, and without these bytes it would not have been."""
    within_budget = oom.reserved_bytes + oom.requested_bytes <= oom.budget_bytes
    free = last.use.total_bytes - last.use.used_bytes
    return within_budget and free < oom.requested_bytes <= free + num_bytes


def outside_growth(evidence: Evidence) -> Finding | None:
    """Find memory outside of PyTorch's allocator that grows step by step, or that left too little for a request."""
    log = evidence.log
    records = driver_records(log)
    points = points_of(records, OUTSIDE)
    is_own = bool(points)
    if not is_own:
        points = points_of(records, not_pytorch_bytes)
    later = [point for point in points if point.step > BURN_IN_STEPS]
    if not later:
        return None
    rise = later[-1].num_bytes - later[0].num_bytes
    oom = log.fatal_oom
    crowded_out = oom is not None and _would_fit(oom, records[-1], rise)
    if rise < FOREIGN_BYTES or not (crowded_out or _keeps_rising(later, log.last_step)):
        return None
    whose = "It is this process's own: the context, workspaces and kernels of libraries, buffers of NCCL."
    if not is_own:
        whose = (
            "Whether it is this process's own (libraries, buffers of NCCL) or another's, the driver did not say; "
            "nvidia-ml-py tells them apart."
        )
    return Finding(
        cause="outside-growth",
        severity="error" if crowded_out else "warning",
        title=f"{format_bytes(rise)} more of the card is taken outside of PyTorch's allocator",
        explanation=f"What the driver counts beyond what PyTorch has reserved rose by {format_bytes(rise)} from step "
        f"{later[0].step} to {later[-1].step}. {whose}",
        steps=(later[0].step, later[-1].step),
        bytes=rise,
        evidence={"outside_before_bytes": later[0].num_bytes, "outside_rise_bytes": rise},
    )


def _rising_steps(points: Sequence[Point]) -> list[int]:
    """Return the steps after the first point at which it rose for good: never less was there since."""
    sizes = np.array([point.num_bytes for point in points], dtype=np.int64)
    lasting = np.minimum.accumulate(sizes[::-1])[::-1]
    rises = np.diff(lasting) > RISE_BYTES
    return [point.step for point, has_risen in zip(points[1:], rises, strict=True) if has_risen]


def _keeps_rising(points: list[Point], last_step: int) -> bool:
    """Return whether it rises several times, and still does in the last steps."""
    steps = _rising_steps(points)
    late = points[0].step + STILL_GROWING * (last_step - points[0].step)
    return len(set(steps)) >= MIN_EVENTS and steps[-1] >= late


def pinned_cache(evidence: Evidence) -> Finding | None:
    """Find pinned host memory that grows through the run while most of it is not in use."""
    log = evidence.log
    points = [
        point for point in points_of(log.pools, lambda record: record.use.pinned_bytes) if point.step > BURN_IN_STEPS
    ]
    if not points:
        return None
    rise, last = points[-1].num_bytes - points[0].num_bytes, log.pools[-1].use
    unused = last.pinned_bytes - last.pinned_active_bytes
    if rise < PINNED_BYTES or unused < last.pinned_bytes / 2 or not _keeps_rising(points, log.last_step):
        return None
    return Finding(
        cause="pinned-cache",
        severity="warning",
        title=f"Pinned host memory grew by {format_bytes(rise)}, and {format_bytes(unused)} of it lies unused",
        explanation=f"PyTorch's cache of pinned memory owns {format_bytes(last.pinned_bytes)}, of which "
        f"{format_bytes(last.pinned_active_bytes)} is in use. It rounds each request up to a power of two and gives "
        "nothing back: buffers of ever new sizes, or copies that are not waited for, make it grow.",
        steps=(points[0].step, points[-1].step),
        bytes=rise,
        evidence={"pinned_bytes": last.pinned_bytes, "unused_bytes": unused, "rise_bytes": rise},
    )


def explains_host_growth(log: RunLog, grown_bytes: int) -> bool:
    """Return whether pinned memory is most of what the process has grown by."""
    pinned = [record.use.pinned_bytes for record in log.pools]
    return bool(pinned) and pinned[-1] - pinned[0] >= EXPLAINED_SHARE * grown_bytes


def graph_pools(evidence: Evidence) -> Finding | None:
    """Find private pools of CUDA graphs: one more for each new length, or a good part of the budget."""
    log = evidence.log
    points = points_of(log.pools, lambda record: record.use.private_reserved_bytes)
    if not points:
        return None
    per_shape = _pools_per_shape(evidence, points)
    if per_shape is not None:
        return per_shape
    last = log.pools[-1].use
    if last.private_reserved_bytes < POOL_SHARE * log.run.budget_bytes:
        return None
    ended = log.fatal_oom is not None
    return Finding(
        cause="graph-pools",
        severity="warning" if ended else "info",  # what is in them is needed: no pool alone ends a run
        title=f"{last.num_private} private pools keep {format_bytes(last.private_reserved_bytes)} for themselves",
        explanation=f"CUDA graphs, or torch.cuda.MemPool, hold {format_bytes(last.private_reserved_bytes)} in "
        f"{last.num_private} pools of their own. No other tensor may use it, and clearing the cache frees none of it "
        "while the graphs live.",
        steps=(points[0].step, points[-1].step),
        bytes=last.private_reserved_bytes,
        evidence={"num_pools": last.num_private, "private_reserved_bytes": last.private_reserved_bytes},
    )


def _pools_per_shape(evidence: Evidence, points: list[Point]) -> Finding | None:
    """Return the finding about pools that grow at new lengths and only there, unless allocated memory shows it too."""
    new = {step.step for step in evidence.later_steps if step.has_new_length}
    shorter = {step.step for step in evidence.later_steps if step.has_new_length and not step.has_new_longest}
    repeated = [step for step in evidence.later_steps if not step.has_new_length]
    later = [point for point in points if point.step >= BURN_IN_STEPS]
    rising = _rising_steps(later) if later else []
    if len(rising) < MIN_EVENTS or len(repeated) < MIN_EVENTS or not set(rising) <= new:
        return None
    rise = later[-1].num_bytes - later[0].num_bytes
    if len(shorter & set(rising)) < NEVER_LONGEST or floor_rise(evidence.later_steps) >= LASTING_SHARE * rise:
        return None
    return Finding(
        cause="recompile-per-shape",
        severity="warning",
        title=f"Each new length adds a private pool of about {format_bytes(rise // len(rising))}",
        explanation=f"Private pools, as CUDA graphs have, grew at {len(rising)} steps that brought a padded length not "
        f"seen before, by {format_bytes(rise)} in all, and at none of {len(repeated)} steps whose lengths were known: "
        "a graph is recorded for each shape, and keeps its pool.",
        phase=Phase.FORWARD,
        steps=(rising[0], rising[-1]),
        bytes=rise,
        evidence={"num_new_lengths": len(rising), "num_repeated": len(repeated), "pool_bytes": rise},
    )
