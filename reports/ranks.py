"""What each of several GPUs took that trained together: the one that took most, and by how much they differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports.blocks import Block, Cell, Paragraph, Section, Table
from memory_harness.reports.text import gib, table_unit


class RankUse(NamedTuple):
    """The most that a GPU took."""

    allocated_bytes: int
    reserved_bytes: int
    outside_bytes: int | None
    """by this process beside PyTorch's allocator: context, libraries, buffers of NCCL; None where no driver says it"""

    @property
    def total_bytes(self) -> int:
        """All that has to fit the card."""
        return self.reserved_bytes + (self.outside_bytes or 0)


def use_of(log: RunLog) -> RankUse:
    """Return what the GPU took that a log is of."""
    outside = [record.outside_bytes for record in log.drivers if record.outside_bytes is not None]
    return RankUse(log.peak_allocated_bytes, log.peak_reserved_bytes, max(outside, default=None))


def ranks_section(logs: Sequence[RunLog]) -> Section:
    """Return the table of all GPUs, those that are alike in one line; nothing where there is one."""
    uses = list(map(use_of, logs))
    if len(uses) < 2:
        return Section("ranks", "GPUs")
    unit, scale = table_unit(max(use.total_bytes for use in uses))
    most = max(uses, key=lambda use: use.total_bytes)
    differ = len(set(uses)) > 1
    rows: list[list[str | Cell]] = []
    first = 0
    for use, alike in itertools.groupby(uses):
        last = first + len(list(alike)) - 1
        sizes = [f"{size / scale:.2f}" for size in use[:2]]
        outside = "–" if use.outside_bytes is None else f"{use.outside_bytes / scale:.2f}"
        mark = Cell("takes most", "warning") if use == most and differ else ""
        rows.append([str(first) if first == last else f"{first}–{last}", *sizes, outside, mark])
        first = last + 1
    titles = ("GPU", f"allocated, {unit}", f"reserved, {unit}", f"beside PyTorch, {unit}", "")
    body: list[Block] = [Table(titles, rows, right=titles[1:4]), Paragraph(_imbalance(uses))]
    return Section("ranks", "GPUs", aside="the most that each took", body=body)


def _imbalance(uses: Sequence[RankUse]) -> str:
    allocated = [use.allocated_bytes for use in uses]
    share = 1 - min(allocated) / max(allocated) if max(allocated) else 0.0
    words = "All GPUs allocated the same."
    if share:
        words = f"The GPU that allocated least peaked {share:.1%} below the one that allocated most."
    if all(use.outside_bytes is None for use in uses):
        return words + " Nobody has counted what lies beside PyTorch's allocator, such as buffers of NCCL."
    return f"{words} With what lies beside PyTorch's allocator one takes {gib(max(u.total_bytes for u in uses))} GiB."


def ranks_to_json(logs: Sequence[RunLog]) -> list[dict[str, Any]]:
    """Return the same for programs; an entry for each GPU."""
    found = []
    for rank, use in enumerate(map(use_of, logs)):
        outside = use.outside_bytes
        sizes = {"peak_allocated_bytes": use.allocated_bytes, "peak_reserved_bytes": use.reserved_bytes}
        found.append({"rank": rank, **sizes, "outside_bytes": outside, "total_bytes": use.total_bytes})
    return found
