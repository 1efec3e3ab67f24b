"""What a process and the worker that it started say to each other: JSON, one line each.

The process sends one request; `{}` before it asks to import PyTorch ahead of it. The worker answers with replies.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict, final

PEER_LOST = 75
"""exit code of a worker that ended only because another one has, which says why"""


@final
class RunRequest(TypedDict):
    """Run a configuration into a log; where that goes out of memory, also other numbers of samples, unrecorded."""

    config: dict[str, Any]
    log: str
    counts: list[int]
    snapshot: str | None
    """file for the memory at the end of the run"""
    fault: NotRequired[str | None]
    """name of a mistake to plant in the run"""


class TrainArguments(TypedDict):
    """How a configuration is trained, see `harness.train.finetune`."""

    run: str
    """folder of the run"""
    reason: str
    """why it may train, for the log"""
    resume: str | None
    allow_changes: bool
    group: tuple[int, int, str] | None
    """arguments of `harness.devices.parallel.join` where several GPUs train together, each in a worker"""


@final
class TrainRequest(TypedDict):
    """Train a configuration."""

    config: dict[str, Any]
    train: TrainArguments


@final
class GenerateRequest(TypedDict):
    """Answer prompts with the adapter in the folder `generate`."""

    config: dict[str, Any]
    generate: str
    log: str


Request = RunRequest | TrainRequest | GenerateRequest


class Reply(TypedDict, total=False):
    """What a worker says; each reply has one of these."""

    steps: tuple[int, int]
    """done and in all, while it works"""
    logged: bool
    """the log is complete"""
    counts: list[tuple[int, int, int, str]]
    """samples, step, total steps and outcome of each further run"""
    trained: str
    """the outcome"""
    error: str
    """what the user has to change"""
