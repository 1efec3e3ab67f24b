"""Training, and generating with what was trained, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from configs.schema import RunConfig
from harness.manifest import ADAPTER, LOG_FILE
from harness.runlog import RunLog, read_run_log
from probes.gate import Gate
from probes.process import start_worker


def train_in_worker(
    gate: Gate,
    run: Path,
    watch: Callable[[], None],
    *,
    resume: Path | None = None,
    allow_changes: bool = False,
) -> RunLog:
    """Train what the gate lets in, into the folder `run`; call `watch` a few times a second; return what the log says.

    Raises:
        RunRefused: something that the user gave has to change.
        RunStopped: a signal ended it.
        RunDied: it died.
    """
    arguments = {
        "run": str(run),
        "let_in_by": gate.reason,
        "resume": None if resume is None else str(resume),
        "allow_changes": allow_changes,
    }
    with start_worker(own_group=True) as worker:
        worker.train(gate.config, arguments, watch)
    return read_run_log(run / LOG_FILE)


def generate_in_worker(config: RunConfig, folder: Path, log: Path) -> RunLog:
    """Answer prompts with the adapter of a training run, or with the adapter in `folder`; return what the log says.

    Raises:
        RunRefused: something that the user gave has to change.
        RunDied: it died.
    """
    inside = folder / ADAPTER
    with start_worker() as worker:
        return worker.generate(config, inside if inside.is_dir() else folder, log)
