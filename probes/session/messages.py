"""What a process and the worker that it started say to each other: JSON, one line each.

The process sends one request; `{}` before it asks to import PyTorch ahead of it. The worker answers with replies.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict, final

PEER_LOST = 75
"""exit code of a worker that ended only because another one has, which says why"""


@final
class RunRequest(TypedDict):
    """Run a configuration."""

    config: dict[str, Any]
    log: str
    """file to write"""
    counts: list[int]
    """further numbers of samples to run the same way, unrecorded, where the run goes out of memory"""
    snapshot: str | None
    """file for the memory at the end of the run"""
    fault: NotRequired[str | None]
    """name of a mistake to plant in the run"""


class GroupArguments(TypedDict):
    """Arguments of `harness.devices.parallel.join`."""

    rank: int
    size: int
    meeting: str


class TrainArguments(TypedDict):
    """How a configuration is trained, see `harness.train.finetune`."""

    run: str
    """folder of the run"""
    reason: str
    """why it may train, for the log"""
    resume: str | None
    allow_changes: bool
    group: GroupArguments | None
    """where several GPUs train together, each in a worker"""


@final
class TrainRequest(TypedDict):
    """Train."""

    config: dict[str, Any]
    train: TrainArguments


@final
class GenerateRequest(TypedDict):
    """Generate only."""

    config: dict[str, Any]
    generate: str
    """folder of the adapter"""
    log: str


Request = RunRequest | TrainRequest | GenerateRequest


class Reply(TypedDict, total=False):
    """What a worker says; each reply has one of these."""

    steps: tuple[int, int]
    """done and in all, while it works"""
    logged: bool
    """the log is complete"""
    counts: list[tuple[int, int, int, str]]
    """samples, step, total steps and outcome of each further run, when all have ended"""
    trained: str
    """the outcome"""
    error: str
    """what the user has to change"""
