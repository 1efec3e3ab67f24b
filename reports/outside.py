"""What of a run lay outside of PyTorch's tensors: in lines for people, in numbers for programs."""

from __future__ import annotations

from typing import Any

from memory_harness.configs.units import format_bytes
from memory_harness.harness.log.records import GpuProcess
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors.outside import (
    FOREIGN,
    OUTSIDE,
    Point,
    driver_records,
    gone_processes,
    in_words,
    not_pytorch_bytes,
    points_of,
)
from memory_harness.reports.text import plural


def outside_rows(log: RunLog) -> dict[str, str]:
    """Return names and values, those that are not known left out."""
    records = driver_records(log)
    own = points_of(records, OUTSIDE)
    rows = {"this process": _course(own)}
    if records and not own:
        rows["not PyTorch's"] = f"{_course(points_of(records, not_pytorch_bytes))}; the driver does not say whose"
    rows["other processes"] = _course(points_of(records, FOREIGN))
    rows["listed at most"] = in_words(listed_processes(log)) if log.drivers else ""
    gone = gone_processes(log)
    rows["no longer there"] = f"{in_words(gone)}, whose memory is still held" if gone else ""
    return rows | _pool_rows(log)


def _course(points: list[Point]) -> str:
    """Return the highest value of a series, and by how much it rose."""
    if not points:
        return ""
    most = max(points, key=lambda point: point.num_bytes)
    rise = points[-1].num_bytes - points[0].num_bytes
    change = f", {format_bytes(abs(rise))} {'more' if rise > 0 else 'less'} at the end than at first" if rise else ""
    return f"at most {format_bytes(most.num_bytes)} (step {most.step}){change}"


def _pool_rows(log: RunLog) -> dict[str, str]:
    if not log.pools:
        return {}
    last = log.pools[-1].use
    rows = {}
    if last.num_private:
        rows["private pools"] = f"{plural(last.num_private, 'pool')}, {format_bytes(last.private_reserved_bytes)}"
    if last.pinned_bytes:
        rows["pinned on the host"] = (
            f"{format_bytes(last.pinned_bytes)}, of which {format_bytes(last.pinned_active_bytes)} is in use"
        )
    return rows


def listed_processes(log: RunLog) -> list[GpuProcess]:
    """Return the other processes that were ever listed, each with the most that it used, in order of coming."""
    most: dict[int, GpuProcess] = {}
    for record in log.drivers:
        for process in record.use.others:
            known = most.get(process.pid)
            if known is None or process.used_bytes > known.used_bytes:
                most[process.pid] = process
    return list(most.values())


def outside_to_json(log: RunLog) -> dict[str, Any] | None:
    """Return the series in bytes, or None where nothing was counted."""
    records = driver_records(log)
    if not records and not log.pools:
        return None
    pools = [{"step": record.step, **record.use._asdict()} for record in log.pools]
    return {
        "this_process": [point._asdict() for point in points_of(records, OUTSIDE)],
        "others": [point._asdict() for point in points_of(records, FOREIGN)],
        "not_pytorch": [point._asdict() for point in points_of(records, not_pytorch_bytes)],
        "processes": [process._asdict() for process in listed_processes(log)],
        "gone": [process.pid for process in gone_processes(log)],
        "pools": pools,
    }
