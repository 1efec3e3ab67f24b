"""Training runs of seconds, in this process, on a simulated card with real tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.manifest import LOG_FILE, checkpoints
from memory_harness.harness.log.records import Outcome, Record
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.results.replies import Reply
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.state import STATE_FILE
from memory_harness.harness.train.assessment import assess
from memory_harness.harness.train.finetune import fine_tune
from memory_harness.harness.train.recovery import Protection
from memory_harness.harness.train.run import Run, open_device
from memory_harness.harness.train.run_folder import Hooks, train_run

CONFIG = load_preset("smoke_cpu").with_fields(
    samples=16,
    max_length=64,
    gradient_accumulation=1,
    epochs=1,
    eval_every=2,
    save_every=2,
    generate_prompts=2,
    generate_batch_size=2,
    max_new_tokens=2,
    compare_base=False,
)
"""Seven optimizer steps of two sequences, the last of one; dropout, so that the random states matter."""


@dataclass
class Trained:
    """What is left of a run."""

    outcome: Outcome
    log: RunLog
    states: dict[str, Any]
    """the training state of the last checkpoint, flat"""
    replies: list[Reply]

    @property
    def losses(self) -> list[tuple[int, float | None]]:
        """Of all steps and evaluations."""
        steps = [(step.step, step.loss) for step in self.log.steps]
        return steps + [(record.step, record.loss) for record in self.log.evals]


def train(
    run: Path,
    config: RunConfig = CONFIG,
    *,
    resume: Path | None = None,
    allow_changes: bool = False,
    also: Callable[[Record], None] = lambda record: None,
    stop: Callable[[], str] = str,
    prepare_device: Callable[[SimulatedDevice], None] = lambda device: None,
) -> Trained:
    """Train into the folder, or go on; return what is there then."""
    opened, replies = _open(config, prepare_device), []

    def finish(recorder: PhaseRecorder, protection: Protection) -> bool:
        last = [record for record in read_run_log(run / LOG_FILE).evals if record.step == recorder.step]
        found = assess(opened, recorder, protection, last[-1] if last else None)
        replies.extend(found or ())
        return found is not None

    outcome = train_run(
        run,
        opened,
        Hooks(also, stop, finish),
        resume=resume,
        allow_changes=allow_changes,
        gate_reason="a test",
    )
    return Trained(outcome, read_run_log(run / LOG_FILE), last_states(run), replies)


def fine_tuned(
    run: Path,
    config: RunConfig = CONFIG,
    *,
    resume: Path | None = None,
    allow_changes: bool = False,
    stop: Callable[[], str] = str,
    prepare_device: Callable[[SimulatedDevice], None] = lambda device: None,
) -> Outcome:
    """Do the same with the best adapter and the artefacts, as the command line does."""
    return fine_tune(
        run,
        _open(config, prepare_device),
        gate_reason="a test",
        resume=resume,
        allow_changes=allow_changes,
        stop_signal=stop,
    )


def _open(config: RunConfig, prepare_device: Callable[[SimulatedDevice], None]) -> Run[QLoraStrategy]:
    device = open_device(config)
    assert isinstance(device, SimulatedDevice)
    prepare_device(device)
    return Run(config, device, QLoraStrategy(config, device), prepared(config))


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what the files of a folder hold."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@cache
def prepared(config: RunConfig) -> Prepared:
    return prepare(config)


def last_states(run: Path) -> dict[str, Any]:
    """Return every tensor and number of the newest checkpoint by its path."""
    state = torch.load(checkpoints(run)[-1] / STATE_FILE, weights_only=True)
    leaves, _ = torch.utils._pytree.tree_flatten_with_path(state)
    return {torch.utils._pytree.keystr(path): leaf for path, leaf in leaves}


def are_equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Compare bit by bit."""
    return a.keys() == b.keys() and all(
        torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key] for key, value in a.items()
    )
