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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, NoReturn

import psutil

from memory_harness.configs.launch import launched
from memory_harness.configs.program import command_line
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import capabilities_of
from memory_harness.harness.log.errors import ConfigError, HarnessError, PeerLost, RunDied
from memory_harness.harness.log.manifest import checkpoints
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.probes.findings import OtherCount
from memory_harness.probes.plan.choose import Prediction
from memory_harness.probes.session.fork_server import ForkedProcess, child_environment, process_context
from memory_harness.probes.session.messages import PEER_LOST, DryRunArguments, Reply, Request, TrainArguments

if TYPE_CHECKING:
    from memory_harness.harness.data.prepare import Prepared

OnProgress = Callable[[str, int, int], None]
"""takes what runs, steps done, steps in all"""

SECONDS_BETWEEN_TICKS = 0.25

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a notebook's session, a terminal that was closed."""


class RunRefused(ConfigError):
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


def how_to_go_on(run: Path) -> str:
    """Return what to type to go on with a training run that has ended early."""
    if not checkpoints(run):
        return "there was no checkpoint yet: start it anew"
    return f"go on with: {command_line(['--resume', str(run)])}"


WORKER, LAUNCHER = "worker", "launcher"
"""modules beside this one that a process can be started with"""


@contextmanager
def start_worker(*, own_group: bool = False, module: str = WORKER, layer: Path | None = None) -> Iterator[Worker]:
    """Start a worker that waits for a request; leaving early ends it.

    Args:
        own_group: keep signals that a terminal sends to all processes from it.
        module: what it runs; the launcher starts a worker for each GPU.
        layer: folder of packages that go before those installed.
    """
    environment = child_environment(layer)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", f"memory_harness.probes.session.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            process_group=0 if own_group else None,
            env={**os.environ, **environment},
        ) as process,
    ):
        yield from _attended(Worker(process, errors, module))


@contextmanager
def start_probing_worker(config: RunConfig, data: Prepared | None = None) -> Iterator[Worker]:
    """Start a worker that is not to train: the quickest there is for this configuration.

    Args:
        config: of its first run.
        data: prepared for it; None where the worker is to do that.
    """
    context = None if capabilities_of(config).is_imported_first else process_context()
    if not isinstance(context, ForkServerContext):
        with start_worker() as worker:
            yield worker
        return
    with (
        tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as errors,
        ForkedProcess(context, Path(errors.name), None if data is None else (config, data)) as process,
    ):
        yield from _attended(Worker(process, errors))


def _attended(worker: Worker) -> Iterator[Worker]:
    """Give the worker, and end it in the end."""
    try:
        yield worker
    finally:
        if not worker.is_done:
            worker.process.kill()
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # of a request that it died too early to read
            worker.process.stdin.close()


@dataclass
class Worker:
    """A process that waits for a request, or works on it."""

    process: subprocess.Popen[str] | ForkedProcess
    errors: IO[str]
    module: str = WORKER
    is_done: bool = False

    def warm_up(self) -> None:
        """Let it import PyTorch, which takes seconds, before there is a request."""
        self._send({})

    def run(
        self,
        config: RunConfig,
        log: Path,
        title: str,
        progress: OnProgress,
        snapshot: Path | None = None,
        fault: str | None = None,
        *,
        with_peak: bool = False,
    ) -> RunLog:
        """Run the configuration into `log` and return what that says.

        A worker that has simulated one runs others for which the same is recorded, see `recording_of`.

        Raises:
            RunRefused: the worker says what the user has to change.
            RunDied: it died; what it wrote to standard error is in the details.
        """
        progress(title, 0, 0)
        request: Request = {
            "config": config.to_dict(),
            "log": str(log),
            "snapshot": None if snapshot is None else str(snapshot),
            "fault": fault,
            "with_peak": with_peak,
        }
        self._send(request)
        for reply in self._replies_until("logged", f"the run {title!r}", replay=log):
            if "steps" in reply:
                progress(title, *reply["steps"])
        return read_run_log(log)

    def fewest_recomputed(self, config: RunConfig, headroom_bytes: int) -> tuple[str, Prediction | None]:
        """Return what `Forecast.fewest_recomputed` does; raises as `run` does.

        The worker then runs what the same is recorded for.
        """
        automatic = config.with_fields(recompute="auto")
        self._send({"config": automatic.to_dict(), "recompute_within": headroom_bytes})
        *_, last = self._replies_until("recompute", "the search for what to compute again")
        rules, peaks = last["recompute"]
        return rules, None if peaks is None else Prediction(True, *peaks)

    def run_dry(self, config: RunConfig, log: Path, title: str, arguments: DryRunArguments) -> RunLog:
        """Run a script dry, quietly, and record what lived at its peak; return what the log says; raises as `run`."""
        self._send({"config": config.to_dict(), "log": str(log), "dry_run": arguments})
        list(self._replies_until("logged", f"the dry run {title!r}", replay=log))
        self.is_done = True
        return read_run_log(log)

    def train(self, config: RunConfig, arguments: TrainArguments, on_tick: Callable[[], None]) -> None:
        """Train, and call `on_tick` a few times a second until that ends.

        A first signal is passed on as SIGTERM, at which the run writes a checkpoint and ends; a second one kills it,
        and all that it has started.

        Raises:
            RunRefused: the worker says what the user has to change.
            RunStopped: it ended because of a signal.
            RunDied: it died, or one of several workers did; what they wrote to standard error is in the details.
            PeerLost: another of the processes that a launcher has started is gone.
        """
        self._send({"config": config.to_dict(), "train": arguments})
        self._until_trained(arguments["run"], on_tick)

    def follow(self, on_tick: Callable[[], None]) -> None:
        """Train what the first of the processes that a launcher has started is asked to; raises as `train` does."""
        self._send({"follow": True})
        self._until_trained("", on_tick)

    def _until_trained(self, run: str, on_tick: Callable[[], None]) -> None:
        collected, signals = _collect_replies(self, on_tick)
        replies = [_without_error(reply) for reply in collected]
        outcomes = {reply["trained"] for reply in replies if "trained" in reply}
        died: tuple[int | None, int] | None = next((reply["died"] for reply in replies if "died" in reply), None)
        if died is None and not outcomes:
            place = launched()
            died = None if place is None else place.rank, self.process.wait()
        if signals and _were_stopped(outcomes, died):
            raise RunStopped(signals[0], run)
        if died is not None:
            self._raise_died(run, *died)

    def _raise_died(self, run: str, rank: int | None, code: int) -> NoReturn:
        folder = Path(run) if run else None
        if code == PEER_LOST:
            lost = "the training run has lost another of its processes, which says why unless it was killed"
            raise PeerLost(lost if folder is None else f"{lost}; {how_to_go_on(folder)}")
        what = "the training run" if rank is None else f"the training run's process on GPU {rank}"
        last_words = how_to_go_on(folder) if folder is not None and checkpoints(folder) else ""
        raise self._died(what, folder, code, last_words)

    def generate(self, config: RunConfig, adapter: Path, log: Path) -> RunLog:
        """Answer prompts with a trained adapter; return what the log says; raises as `run` does."""
        self._send({"config": config.to_dict(), "generate": str(adapter), "log": str(log)})
        list(self._replies_until("logged", "generating", replay=log))
        self.is_done = True
        return read_run_log(log)

    def other_counts(self, config: RunConfig, counts: list[int]) -> list[OtherCount]:
        """Return how the first run ends with other numbers of samples where it went out of memory; raises as `run`."""
        self._send({"config": config.to_dict(), "counts": counts})
        *_, last = self._replies_until("counts", "the run with other numbers of samples")
        self.is_done = True
        return [OtherCount(samples, step, total, Outcome(end)) for samples, step, total, end in last["counts"]]

    def _send(self, request: Request) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, which is found out by listening to it
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def _replies_until(self, key: str, what: str, replay: Path | None = None) -> Iterator[Reply]:
        """Yield the replies, the last of which has the key; raise where the process ends without it."""
        for reply in self._lines():
            yield _without_error(reply)
            if key in reply:
                return
        raise self._died(what, replay)

    def _lines(self) -> Iterator[Reply]:
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()).endswith("\n"):  # else it died while it wrote, or before
            yield json.loads(line)

    def _died(self, what: str, replay: Path | None, code: int | None = None, last_words: str = "") -> RunDied:
        code = self.process.wait() if code is None else code
        self.errors.seek(0)
        how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        hint = "" if replay is None else f"--replay {replay} reports on what it wrote until then"
        return RunDied("; ".join(filter(None, (f"{what} died {how}", hint, last_words))), self.errors.read())


def _without_error(reply: Reply) -> Reply:
    if "error" in reply:
        raise RunRefused(reply["error"].splitlines())
    return reply


def _kill_all(process: subprocess.Popen[str] | ForkedProcess) -> None:
    """Kill a process and all that it has started: one of those that was halted would never see that it is gone."""
    assert process.pid is not None
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    process.kill()
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def _were_stopped(outcomes: set[str], died: tuple[int | None, int] | None) -> bool:
    """Return whether a signal has ended the training: at a checkpoint, or before it could write one."""
    if died is not None:
        return died[1] < 0 and not outcomes
    return outcomes <= {str(Outcome.STOPPED), str(Outcome.OOM)}


def _collect_replies(worker: Worker, on_tick: Callable[[], None]) -> tuple[list[Reply], list[int]]:
    """Wait for the end of a worker; return what it said, and the signals that came meanwhile."""
    replies: list[Reply] = []
    reader = threading.Thread(target=lambda: replies.extend(worker._lines()), daemon=True)
    with _passing_on_signals(worker.process) as signals:
        reader.start()
        while reader.is_alive():
            on_tick()
            reader.join(SECONDS_BETWEEN_TICKS)
    worker.is_done = True
    return replies, signals


@contextmanager
def _passing_on_signals(process: subprocess.Popen[str] | ForkedProcess) -> Iterator[list[int]]:
    """Within, signals that ask this process to end go to the other; yields the list of those that came."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            process.send_signal(signal.SIGTERM)
        else:
            _kill_all(process)

    # what nohup, or a shell's background, has set to be ignored stays so
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
