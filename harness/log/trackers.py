"""Sends what a growing log says to the trackers that people keep their runs in, by those trackers' own clients.

A client is imported when it is asked for, and not before. Each run is a new one, told through its own object: what else
the process has open at the same tracker, such as that of a Trainer's `report_to`, stays as it is.
"""

from __future__ import annotations

import contextvars
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
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
    writer = client.Writer(str(folder / "tensorboard" / name))

    def send(values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)

    return Tracker(send, writer.close)


def _wandb(client: Any, name: str, folder: Path, config: dict[str, Any]) -> Tracker:
    project = None if os.environ.get("WANDB_PROJECT") else PROJECT
    run = client.init(project=project, name=name, dir=str(folder), config=config, reinit="create_new")
    return Tracker(lambda values, step: run.log(dict(values), step=step), run.finish)


def _trackio(client: Any, name: str, folder: Path, config: dict[str, Any]) -> Tracker:
    # it ends the run of the context that it is called in
    run = contextvars.Context().run(client.init, project=PROJECT, name=name, config=config)
    return Tracker(lambda values, step: run.log(dict(values), step=step), run.finish)


def _mlflow(client: Any, name: str, folder: Path, config: dict[str, Any]) -> Tracker:
    api = client.MlflowClient()
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    found = api.get_experiment_by_name(experiment)
    experiment_id = api.create_experiment(experiment) if found is None else found.experiment_id
    run_id = api.create_run(experiment_id, run_name=name).info.run_id

    def send(values: Mapping[str, float], step: int) -> None:
        now = round(time.time() * 1000)
        api.log_batch(run_id, metrics=[client.entities.Metric(tag, value, now, step) for tag, value in values.items()])

    return Tracker(send, lambda: api.set_terminated(run_id))


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

    A tracker that fails is told of in a line and gets nothing more: no training ends for it.

    Args:
        log: the log's file.
        name: of the run, as trackers show it.
        trackers: their names.
        wanted: which runs are sent; all where it is not given.
    """

    def __init__(
        self, log: Path, name: str, trackers: Sequence[str], wanted: Callable[[RunRecord], bool] = lambda run: True
    ) -> None:
        self._wanted = wanted
        self._path = log
        self._name = name
        self._waiting = list(trackers)
        """names of those that are not open yet"""
        self._followed = FollowedLog(log)
        self._trackers: dict[str, Tracker] = {}
        self._num_steps = self._num_evals = self._num_phases = 0
        self._peak_bytes: dict[int, tuple[int, int]] = {}
        """by step: the highest allocated and reserved bytes of its phases"""

    def update(self) -> None:
        """Send what has been written since the last time; trackers are opened with the first of it."""
        log = self._followed.poll()
        if log is None or not (log.steps or log.evals) or not self._wanted(log.run):
            return
        self._open(log)
        self._note_peaks(log.phases[self._num_phases :])
        sent = [(step.step, self._of_step(step)) for step in log.steps[self._num_steps :]]
        sent += [(evaluation.step, _of_evaluation(evaluation)) for evaluation in log.evals[self._num_evals :]]
        for step, values in sorted(sent, key=itemgetter(0)):  # some trackers drop what is of an earlier step
            self._send(values, step)
        self._num_steps, self._num_evals, self._num_phases = len(log.steps), len(log.evals), len(log.phases)

    def close(self) -> None:
        """Send the rest and end the runs."""
        self.update()
        for name, tracker in tuple(self._trackers.items()):
            self._attempt(name, tracker.close)
        self._trackers.clear()

    def _open(self, log: RunLog) -> None:
        waiting, self._waiting = self._waiting, []
        for name in waiting:
            self._attempt(name, partial(self._open_one, name, log))

    def _open_one(self, name: str, log: RunLog) -> None:
        module, opener = _OPENERS[name]
        client = importlib.import_module(module)
        self._trackers[name] = opener(client, self._name, self._path.parent, log.run.config)

    def _send(self, values: Mapping[str, float | None], step: int) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        for name, tracker in tuple(self._trackers.items()) if known else ():
            self._attempt(name, partial(tracker.send, known, step))

    def _attempt(self, name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # a client may raise anything
            self._trackers.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            print(
                f"--log-to {name}: {reason}; the run goes on, nothing more is sent there", file=sys.stderr, flush=True
            )

    def _note_peaks(self, phases: Sequence[PhaseRecord]) -> None:
        for record in phases:
            allocated, reserved = self._peak_bytes.get(record.step, (0, 0))
            after = record.after
            highest = max(allocated, after.peak_allocated_bytes), max(reserved, after.peak_reserved_bytes)
            self._peak_bytes[record.step] = highest

    def _of_step(self, step: StepRecord) -> dict[str, float | None]:
        tokens = sum(step.lengths)
        allocated, reserved = self._peak_bytes.pop(step.step, (step.allocated_bytes, step.reserved_bytes))
        return {
            "train/loss": step.loss,
            "train/learning_rate": step.learning_rate,
            "train/grad_norm": step.grad_norm,
            "train/tokens_per_second": tokens / step.seconds if tokens and step.seconds > 0 else None,
            "memory/allocated_GiB": step.allocated_bytes / GIB,
            "memory/peak_allocated_GiB": allocated / GIB,
            "memory/peak_reserved_GiB": reserved / GIB,
        }


def _of_evaluation(record: EvalRecord) -> dict[str, float | None]:
    return {f"eval/loss_{record.model}" if record.model != "tuned" else "eval/loss": record.loss}
