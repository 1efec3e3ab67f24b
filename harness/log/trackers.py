"""Sends what a growing log says to the trackers that people keep their runs in, by those trackers' own clients.

A client is imported when it is asked for, and not before.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.units import GIB
from memory_harness.harness.log.records import EvalRecord, PhaseRecord, RunRecord, StepRecord
from memory_harness.harness.log.runlog import FollowedLog, RunLog

PROJECT = "memory-harness"
"""project or experiment where the environment names none"""


class Tracker(NamedTuple):
    """An open run of a tracker."""

    send: Callable[[Mapping[str, float], int], None]
    """takes numbers by name, and their step"""
    close: Callable[[], None]


def _tensorboard(client: Any, name: str, folder: Path, config: dict[str, Any]) -> Tracker:
    writer = client.Writer(str(folder / "tensorboard"))

    def send(values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)

    return Tracker(send, writer.close)


def _wandb(client: Any, name: str, folder: Path, config: dict[str, Any]) -> Tracker:
    run = client.init(project=None if _is_set("WANDB_PROJECT") else PROJECT, name=name, dir=str(folder), config=config)
    return Tracker(lambda values, step: run.log(dict(values), step=step), run.finish)


def _trackio(client: Any, name: str, folder: Path, config: dict[str, Any]) -> Tracker:
    client.init(project=PROJECT, name=name, config=config)
    return Tracker(lambda values, step: client.log(dict(values), step=step), client.finish)


def _mlflow(client: Any, name: str, folder: Path, config: dict[str, Any]) -> Tracker:
    if not _is_set("MLFLOW_EXPERIMENT_NAME"):
        client.set_experiment(PROJECT)
    client.start_run(run_name=name)
    return Tracker(lambda values, step: client.log_metrics(dict(values), step=step), client.end_run)


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable))


_OPENERS = {
    "tensorboard": ("tensorboard.summary", _tensorboard),
    "wandb": ("wandb", _wandb),
    "mlflow": ("mlflow", _mlflow),
    "trackio": ("trackio", _trackio),
}
"""by name: the module of the client, and what opens a run of it"""


def check_trackers(names: Sequence[str], flag: str = "--log-to") -> None:
    """Raise ConfigError where a tracker is unknown or its client is not installed."""
    for name in names:
        if name not in _OPENERS:
            raise ConfigError(f"{flag} {name}: unknown (allowed: {', '.join(_OPENERS)})")
        package = _OPENERS[name][0].partition(".")[0]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{flag} {name}: {package} is not installed; pip install {package}")


class TrackerFeed:
    """Sends what is new in a log, each time that it is told to look.

    Args:
        log: the log's file.
        names: of the trackers.
        wanted: which runs are sent; all where it is not given.
    """

    def __init__(self, log: Path, names: Sequence[str], wanted: Callable[[RunRecord], bool] = lambda run: True) -> None:
        self._wanted = wanted
        self._path = log
        self._names = names
        self._followed = FollowedLog(log)
        self._trackers: list[Tracker] = []
        self._num_steps = self._num_evals = self._num_phases = 0
        self._peak_bytes: dict[int, tuple[int, int]] = {}
        """by step: the highest allocated and reserved bytes of its phases"""

    def update(self) -> None:
        """Send what has been written since the last time; trackers are opened with the first of it."""
        log = self._followed.poll()
        if log is None or not (log.steps or log.evals) or not self._wanted(log.run):
            return
        if not self._trackers:
            self._open(log)
        self._note_peaks(log.phases[self._num_phases :])
        for step in log.steps[self._num_steps :]:
            self._send(self._of_step(step), step.step)
        for evaluation in log.evals[self._num_evals :]:
            self._send(_of_evaluation(evaluation), evaluation.step)
        self._num_steps, self._num_evals, self._num_phases = len(log.steps), len(log.evals), len(log.phases)

    def close(self) -> None:
        """Send the rest and end the runs."""
        self.update()
        for tracker in self._trackers:
            tracker.close()
        self._trackers = []

    def _open(self, log: RunLog) -> None:
        for name in self._names:
            module, opener = _OPENERS[name]
            client = importlib.import_module(module)
            run_name = self._path.parent.name if self._path.parent.name else self._path.stem
            self._trackers.append(opener(client, run_name, self._path.parent, log.run.config))

    def _send(self, values: Mapping[str, float | None], step: int) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        for tracker in self._trackers if known else ():
            tracker.send(known, step)

    def _note_peaks(self, phases: Sequence[PhaseRecord]) -> None:
        for record in phases:
            allocated, reserved = self._peak_bytes.get(record.step, (0, 0))
            after = record.after
            highest = max(allocated, after.peak_allocated_bytes), max(reserved, after.peak_reserved_bytes)
            self._peak_bytes[record.step] = highest

    def _of_step(self, step: StepRecord) -> dict[str, float | None]:
        allocated, reserved = self._peak_bytes.pop(step.step, (step.allocated_bytes, step.reserved_bytes))
        return {
            "train/loss": step.loss,
            "train/learning_rate": step.learning_rate,
            "train/grad_norm": step.grad_norm,
            "train/tokens_per_second": sum(step.lengths) / step.seconds if step.seconds > 0 else None,
            "memory/allocated_GiB": step.allocated_bytes / GIB,
            "memory/peak_allocated_GiB": allocated / GIB,
            "memory/peak_reserved_GiB": reserved / GIB,
        }


def _of_evaluation(record: EvalRecord) -> dict[str, float | None]:
    return {f"eval/loss_{record.model}" if record.model != "tuned" else "eval/loss": record.loss}
