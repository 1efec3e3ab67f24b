"""`probes.session.worker` in a process of its own, seen from the process that started it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any

from memory_harness.configs.places import IMPORT_FOLDER
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import HarnessError
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.probes.findings import OtherCount

OnProgress = Callable[[str, int, int], None]
"""takes what runs, steps done, steps in all"""

SECONDS_BETWEEN_LOOKS = 0.25

PEER_LOST = 75
"""exit code of a worker that ended only because another one has, which says why"""

SECONDS_TO_END = 5.0
"""for the other processes of a run on several GPUs, once one has died, to write down where they were"""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a notebook's session, a terminal that was closed."""


class RunDied(HarnessError):
    """A run ended by an error that is not a lack of memory.

    Args:
        message: one line.
        details: what the run wrote to standard error, its traceback last.
    """

    def __init__(self, message: str, details: str) -> None:
        super().__init__(message)
        self.details = details


class RunRefused(HarnessError):
    """A run could not start: something that the user gave has to change."""


class RunStopped(HarnessError):
    """A training run was asked to end by a signal, and did.

    Args:
        number: of the signal.
        run: folder of the run.
    """

    def __init__(self, number: int, run: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.run = run


@contextmanager
def start_worker(*, own_group: bool = False, gpu: int | None = None) -> Iterator[Worker]:
    """Start a worker that waits for a request; leaving early ends it.

    Args:
        own_group: keep signals that a terminal sends to all processes from it.
        gpu: the only one that it sees, of those that this process may see; None shows all of them.
    """
    environment = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": _visible(gpu)}
    path = os.pathsep.join(part for part in (str(IMPORT_FOLDER), os.environ.get("PYTHONPATH")) if part)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "memory_harness.probes.session.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            process_group=0 if own_group else None,
            env={**os.environ, **environment, "PYTHONPATH": path},
        ) as process,
    ):
        worker = Worker(process, errors)
        try:
            yield worker
        finally:
            if not worker.is_done:
                process.kill()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # of a request that it died too early to read
                process.stdin.close()


def _visible(gpu: int) -> str:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [] if shown is None else shown.split(",")
    return str(gpu) if shown is None else names[gpu] if gpu < len(names) else shown


@dataclass
class Worker:
    """A process that waits for a request, or works on it."""

    process: subprocess.Popen[str]
    errors: IO[str]
    is_done: bool = False
    was_killed: bool = False
    """by this process, because another worker of the same run had died"""

    def warm_up(self) -> None:
        """Let it import PyTorch, which takes seconds, before there is a request."""
        self._send({})

    def run(
        self,
        config: RunConfig,
        log: Path,
        title: str,
        progress: OnProgress,
        counts: list[int] | None = None,
        snapshot: Path | None = None,
        fault: str | None = None,
    ) -> RunLog:
        """Run the configuration into `log` and return what that says; `counts` are left for `other_counts`.

        Raises:
            RunRefused: the worker says what the user has to change.
            RunDied: it died; what it wrote to standard error is in the details.
        """
        progress(title, 0, 0)
        memory = None if snapshot is None else str(snapshot)
        request = {"config": config.to_dict(), "log": str(log), "counts": counts or [], "snapshot": memory}
        self._send({**request, "fault": fault})
        for message in self._messages():
            if "steps" in message:
                progress(title, *message["steps"])
            if "logged" in message:
                return read_run_log(log)
        raise self._died(f"the run {title!r}", f"; --replay {log} reports on what it wrote until then")

    def train(
        self,
        config: RunConfig,
        arguments: dict[str, Any],
        watch: Callable[[], None],
        others: Sequence[tuple[Worker, dict[str, Any]]] = (),
    ) -> None:
        """Train as `harness.train.finetune` does with the arguments; call `watch` a few times a second until that ends.

        A first signal is passed on as SIGTERM, at which the run writes a checkpoint and ends; a second one kills it.

        Args:
            others: the workers that train together with this one, each with its arguments; where one dies, all end.

        Raises:
            RunRefused: the worker says what the user has to change.
            RunStopped: it ended because of a signal.
            RunDied: it died; what it wrote to standard error is in the details.
        """
        workers = [self, *(worker for worker, _ in others)]
        messages: list[dict[str, Any]] = []
        readers = []
        for worker, own in ((self, arguments), *others):
            worker._send({"config": config.to_dict(), "train": own})
            listen = partial(_listen, worker, messages)
            readers.append(threading.Thread(target=listen, daemon=True))
        with _passing_on_signals([worker.process for worker in workers]) as received:
            for reader in readers:
                reader.start()
            while running := [reader for reader in readers if reader.is_alive()]:
                watch()
                running[0].join(SECONDS_BETWEEN_LOOKS)
                _end_where_one_died(workers)
        for worker in workers:
            worker.is_done = True
        ends = [_without_error(message)["trained"] for message in messages]
        was_ended = set(ends) <= {str(Outcome.STOPPED), str(Outcome.OOM)} if ends else self.process.wait() < 0
        if received and was_ended:
            raise RunStopped(received[0], arguments["run"])
        if len(ends) < len(workers):
            dead = _first_dead(workers)
            where = f" on GPU {workers.index(dead)}" if others else ""
            raise dead._died(
                f"the training run{where}", f"; --replay {arguments['run']} reports on what it wrote until then"
            )

    def generate(self, config: RunConfig, adapter: Path, log: Path) -> RunLog:
        """Answer prompts with a trained adapter; return what the log says; raises as `run` does."""
        self._send({"config": config.to_dict(), "generate": str(adapter), "log": str(log)})
        for message in self._messages():
            if "logged" in message:
                self.is_done = True
                return read_run_log(log)
        raise self._died("generating", f"; --replay {log} reports on what it wrote until then")

    def other_counts(self) -> list[OtherCount]:
        """Return how the run ended with other numbers of samples, once they have ended; raises as `run` does."""
        for message in self._messages():
            if "counts" in message:
                self.is_done = True
                return [
                    OtherCount(samples, step, total, Outcome(end)) for samples, step, total, end in message["counts"]
                ]
        raise self._died("the run with other numbers of samples")

    def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, which is found out by listening to it
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def _messages(self) -> Iterator[dict[str, Any]]:
        yield from map(_without_error, self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):  # else a library's own output
                yield json.loads(line)

    def _died(self, what: str, hint: str = "") -> RunDied:
        code = self.process.wait()
        self.errors.seek(0)
        how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        return RunDied(f"{what} died {how}{hint}", self.errors.read())


def _without_error(message: dict[str, Any]) -> dict[str, Any]:
    if "error" in message:
        raise RunRefused(message["error"])
    return message


def _listen(worker: Worker, messages: list[dict[str, Any]]) -> None:
    messages.extend(worker._lines())


def _end_where_one_died(workers: Sequence[Worker]) -> None:
    """Kill the others of a worker that has died, unless they notice in time and end by themselves."""
    if all(worker.process.poll() in (None, 0) for worker in workers):
        return
    for worker in workers:
        try:
            worker.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            worker.was_killed = True
            worker.process.kill()


def _first_dead(workers: Sequence[Worker]) -> Worker:
    """Return the worker that died by itself, not one that ended because of another; else the first."""
    for worker in workers:
        if worker.process.wait() not in (0, PEER_LOST) and not worker.was_killed:
            return worker
    return workers[0]


@contextmanager
def _passing_on_signals(processes: Sequence[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """Within, signals that ask this process to end go to the others; yields the list of those that came."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    # what nohup, or a shell's background, has set to be ignored stays so
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
