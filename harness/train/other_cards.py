"""Logs of the further GPUs that one process drives, as where layers are split: the run's own, with what each counts."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.manifest import PEER_LOG_FILE
from memory_harness.harness.log.records import (
    EndRecord,
    EvalRecord,
    MemoryStats,
    PhaseBegin,
    PhaseRecord,
    Record,
    RunRecord,
    StepRecord,
)
from memory_harness.harness.log.runlog import LogWriter


class OtherCards:
    """Takes the records of a run, and writes those that tell of memory once more for each further GPU.

    Args:
        device: tells what they count.
        folder: the run's.
    """

    def __init__(self, device: Device, folder: Path) -> None:
        self._device = device
        self._before: Sequence[MemoryStats] = device.other_stats()
        self._open = ExitStack()
        self._logs = []
        for number in range(1, len(self._before) + 1):
            log = LogWriter(folder / PEER_LOG_FILE.format(rank=number), is_open=False)
            self._logs.append(self._open.enter_context(log))

    def open(self) -> None:
        """Let the logs be written."""
        for log in self._logs:
            log.open()

    def close(self) -> None:
        """Close them."""
        self._open.close()

    def write(self, record: Record) -> None:
        """Take a record as it comes."""
        now = self._device.other_stats()
        for log, before, stats in zip(self._logs, self._before, now, strict=True):
            own = _as_counted(record, before, stats)
            if own is not None:
                log.write(own)
        if isinstance(record, PhaseBegin):
            self._before = now


def _as_counted(record: Record, before: MemoryStats, stats: MemoryStats) -> Record | None:
    """Return a record with the counters of another GPU; None where it tells of the first alone."""
    if isinstance(record, PhaseRecord):
        allocated, reserved = before.allocated_bytes, before.reserved_bytes
        return replace(record, allocated_before_bytes=allocated, reserved_before_bytes=reserved, after=stats)
    if isinstance(record, StepRecord):
        return replace(record, allocated_bytes=stats.allocated_bytes, reserved_bytes=stats.reserved_bytes)
    if isinstance(record, EndRecord):
        return replace(record, segments=())
    return record if isinstance(record, (RunRecord, PhaseBegin, EvalRecord)) else None
