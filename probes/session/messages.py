"""What a process and the worker that it started say to each other: JSON, one line each."""

from typing import Any, TypedDict

PEER_LOST = 75
"""exit code of a worker that ended only because another one has, which says why"""


class TrainArguments(TypedDict):
    """How a configuration is trained, see `harness.train.finetune`."""

    run: str
    """folder of the run"""
    reason: str
    """why it may train, for the log"""
    resume: str | None
    allow_changes: bool


class DryRunArguments(TypedDict):
    """What is run dry, see `probes.session.dry_run.DryRun`; card and budget are those of the request's `config`."""

    script: str
    arguments: list[str]
    max_steps: int | None
    worst_first: bool
    changes: dict[str, Any]


class Request(TypedDict, total=False):
    """What a worker is asked: to run, with `train` to train, with `generate` to generate only, to find rules.

    An empty one before it asks to import PyTorch ahead of it. After a simulated run, or rules, it may be asked to run
    another configuration for which the same is recorded, and how the run ends with other numbers of samples (`counts`).
    """

    config: dict[str, Any]
    log: str
    """file to write"""
    counts: list[int]
    """numbers of samples to run `config` with, unrecorded, where the first run went out of memory"""
    recompute_within: int
    """find what has to be computed again such that so many bytes of the budget stay free, simulated"""
    snapshot: str | None
    """file for the memory at the end of the run"""
    fault: str | None
    """name of a mistake to plant in the run"""
    with_peak: bool
    """whether the log is to say what lived at the peak of the run, simulated"""
    dry_run: DryRunArguments
    """run a script dry, quietly, into `log`"""
    train: TrainArguments
    follow: bool
    """train with the other processes that a launcher has started, what the first of them is asked to"""
    generate: str
    """folder of the adapter"""


class Reply(TypedDict, total=False):
    """What a worker says; each reply has one of these."""

    steps: tuple[int, int]
    """done and in all, while it works"""
    logged: bool
    """the log is complete"""
    counts: list[tuple[int, int, int, str]]
    """samples, step, total steps and outcome of each further run"""
    recompute: tuple[str, list[int] | None]
    """the rules, and the peaks with them, allocated and reserved; `all` and none where nothing less fits"""
    died: tuple[int, int]
    """which GPU's process, and its exit code, negative for a signal"""
    trained: str
    """the outcome"""
    error: str
    """what the user has to change"""
