"""Training runs of several processes on the CPU, forked from this one; what hangs is killed."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from memory_harness.configs.launch import Launched
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.devices.parallel import join, local_part
from memory_harness.harness.log.manifest import LOG_FILE
from memory_harness.harness.log.records import Outcome, Record
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.results.replies import Reply
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.assessment import assess
from memory_harness.harness.train.recovery import Protection
from memory_harness.harness.train.run import Run, open_device
from memory_harness.harness.train.run_folder import Hooks, train_run
from tests.e2e.commands import HANG_SECONDS
from tests.harness.train.training_runs import prepared

_meetings = count()


@dataclass
class Part:
    """What one process has of a run."""

    outcome: Outcome
    adapter: dict[str, torch.Tensor]
    replies: list[Reply]
    log: RunLog

    @property
    def losses(self) -> list[float]:
        """Of all steps and evaluations."""
        return [record.loss for record in (*self.log.steps, *self.log.evals)]  # type: ignore[misc]


class Watcher:
    """What a test does within one of the processes."""

    def on_device(self, device: Any) -> None:
        """Takes the device before the model is loaded."""

    def on_record(self, record: Record) -> None:
        """Takes each record of the process's own log."""

    def stop(self) -> str:
        """Return the signal that asks this process to stop."""
        return ""


def train_together(
    run: Path,
    config: RunConfig,
    watcher: Callable[[int], Watcher] = lambda rank: Watcher(),
    *,
    resume: bool = False,
) -> list[Part]:
    """Train in `num_gpus` processes; return each one's part.

    Raises:
        AssertionError: a process hung or died.
    """
    meeting = run.parent / f"meeting-{next(_meetings)}"
    prepared(config)

    def work(rank: int) -> Part:
        torch.set_num_threads(1)
        return _part(run, config, rank, meeting, watcher(rank), resume)

    return in_processes(config.device.num_gpus, work)


def _part(run: Path, config: RunConfig, rank: int, meeting: Path, watcher: Watcher, resume: bool) -> Part:
    size = config.device.num_gpus
    device = open_device(config, join(Launched(rank, rank, size, size), f"file://{meeting}") if size > 1 else None)
    watcher.on_device(device)
    strategy, replies = QLoraStrategy(config, device), list[Reply]()
    opened = Run(config, device, strategy, prepared(config))

    def finish(recorder: PhaseRecorder, protection: Protection) -> bool:
        found = assess(opened, recorder, protection)
        replies.extend(found or ())
        return found is not None

    outcome = train_run(
        run,
        opened,
        Hooks(watcher.on_record, watcher.stop, finish),
        resume=run if resume else None,
        gate_reason="a test",
    )
    parameters = strategy.model.named_parameters() if strategy.model is not None else ()
    adapter = {name: local_part(p).detach().clone() for name, p in parameters if p.requires_grad}
    log = run / (f"run.rank{rank}.jsonl" if rank else LOG_FILE)
    return Part(outcome, adapter, replies, read_run_log(log))


def in_processes(number: int, work: Callable[[int], Any]) -> list[Any]:
    """Return what the work returns in each of so many forked processes."""
    children, pipes = [], []
    for rank in range(number):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            if distributed.is_initialized():  # by a simulation before, in the process that this one is forked from
                distributed.destroy_process_group()
            try:
                content = pickle.dumps(work(rank))
                with os.fdopen(write, "wb") as pipe:
                    pipe.write(content)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(write)
        children.append(child)
        pipes.append(read)
    try:
        contents = _read_all(pipes)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert all(contents), f"processes ended by {codes}"
    return [pickle.loads(content) for content in contents]


def _read_all(pipes: list[int]) -> list[bytes]:
    """Return what comes through the pipes until all are closed."""
    contents = dict.fromkeys(pipes, b"")
    open_ones, end = set(pipes), time.monotonic() + HANG_SECONDS
    while open_ones:
        ready, _, _ = select.select(list(open_ones), [], [], max(0.0, end - time.monotonic()))
        assert ready, "a process hangs"
        for pipe in ready:
            if part := os.read(pipe, 2**16):
                contents[pipe] += part
            else:
                open_ones.remove(pipe)
                os.close(pipe)
    return [contents[pipe] for pipe in pipes]
