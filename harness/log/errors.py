"""Errors of the harness.

HarnessError           defined in configs.errors, as is
├── ConfigError        a value the user gave is not usable (exit code 2)
├── DataError          the corpus cannot be used (exit code 2)
├── LogError           a run log cannot be read (exit code 2)
├── DeviceError        the device cannot do what was asked (exit code 2)
├── GradientError      the gradients train nothing; caught where DeviceOutOfMemory is, and ends the run with an error
├── CheckpointError    a run cannot be resumed, or another process trains into its folder (exit code 2)
├── PeerLost           another process of a run on several GPUs has ended, which says why
└── DeviceOutOfMemory  an allocation does not fit; caught in one place only, `recovery.catch_out_of_memory`
    ├── PeerOutOfMemory    ... on another GPU, found out before something that all of them take part in
    └── SharedOutOfMemory  ... on one of several GPUs, of which all are told
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from memory_harness.configs.errors import ConfigError as ConfigError
from memory_harness.configs.errors import HarnessError as HarnessError
from memory_harness.harness.log.records import OomRecord, SegmentRuns

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # full, over quota, read-only, failing: not a bug


def disk_refused(error: OSError) -> str | None:
    """Return the line for an error of the disk; None for another, which somebody has to look into."""
    if error.errno not in DISK_ERRORS:
        return None
    file = f"{error.filename}: " if error.filename else ""
    return f"{file}cannot be written ({error.strerror}); make room, or give another folder with --output"


class DataError(HarnessError):
    """The corpus cannot be read or has nothing to train on."""


class LogError(HarnessError):
    """A run log is missing, empty or of a version that this release cannot read."""


class DeviceError(HarnessError):
    """The device is missing, busy, or cannot do what was asked."""


class GradientError(HarnessError):
    """The gradients are zero, or no numbers, step after step: going on would train nothing; ends the run with an error.

    It is caught where `DeviceOutOfMemory` is.
    """


class CheckpointError(HarnessError):
    """A checkpoint is missing, damaged, foreign or of another run, or its folder is in use."""


class RunDied(HarnessError):
    """A run ended by an error that is not a lack of memory.

    Args:
        message: one line.
        details: what the run wrote to standard error, its traceback last.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class PeerLost(HarnessError):
    """Another process of a run on several GPUs has ended, which says why, or does not answer."""


class DeviceOutOfMemory(HarnessError):
    """An allocation that does not fit the budget, after the allocator's own retries.

    It is caught in one place only, `recovery.catch_out_of_memory`.
    """

    def __init__(
        self,
        requested_bytes: int,
        allocated_bytes: int,
        reserved_bytes: int,
        largest_free_block_bytes: int = 0,
        where: str | None = None,
        frames: Sequence[str] = (),
        segments: Sequence[SegmentRuns] = (),
    ) -> None:
        self.requested_bytes = requested_bytes  # size of the tensor that was asked for, before rounding
        self.allocated_bytes = allocated_bytes  # held by live tensors at that moment
        self.reserved_bytes = reserved_bytes  # held by the allocator at that moment
        self.largest_free_block_bytes = largest_free_block_bytes  # largest cached block that was free
        self.where = where  # `file:line` of the user's innermost frame, or None when unknown
        self.frames = tuple(frames)  # `file:line function`, innermost first
        self.segments = tuple(segments)  # all that was reserved, in order of address
        self.caught_at: str | None = None  # `file:line` of what will catch it, where that is known
        self.batch_at: str | None = None  # `file:line` that made the batch it works on, where that is known
        self.record: OomRecord | None = None  # of the GPU that it happened on, where that may be another one
        super().__init__(
            f"out of memory: {requested_bytes} bytes requested, {allocated_bytes} allocated, {reserved_bytes} reserved"
        )


class PeerOutOfMemory(DeviceOutOfMemory):
    """An allocation did not fit on another of several GPUs, which will say more."""

    def __init__(self) -> None:
        super().__init__(0, 0, 0)


class SharedOutOfMemory(DeviceOutOfMemory):
    """An allocation did not fit on one of several GPUs; raised on all of them."""

    def __init__(self, record: OomRecord) -> None:
        super().__init__(record.requested_bytes, record.allocated_bytes, record.reserved_bytes)
        self.record = record
