"""Processes forked from one that has imported PyTorch, which takes longer than many a simulated run.

The server is the standard library's, one for the life of this process. Where a GPU's driver is there is none: a process
that has asked CUDA for anything cannot be forked.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from pathlib import Path
from subprocess import TimeoutExpired
from typing import IO, TYPE_CHECKING, Any, Self
from unittest.mock import patch

from memory_harness.configs.places import IMPORT_FOLDER, has_gpu_driver
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import RunDied

if TYPE_CHECKING:
    from memory_harness.harness.data.prepare import Prepared


def can_fork() -> bool:
    """Return whether processes can be forked once PyTorch is imported."""
    return sys.platform == "linux" and not has_gpu_driver()


def process_context() -> ForkServerContext | SpawnContext:
    """Return what starts processes the quickest here; begins to import PyTorch where they are forked."""
    if not can_fork():
        with _importing_only_ours():
            resource_tracker.ensure_running()  # a process too, which a pool's locks would start
        return _Spawning()
    context = _Forking()
    context.set_forkserver_preload(["memory_harness.probes.session.preloaded"])
    with _importing_only_ours():
        forkserver.ensure_running()
    _stop_at_exit()
    return context


@functools.cache
def _stop_at_exit() -> None:
    """See to it that the server and its helper end before this process does; by themselves they would a bit later."""
    atexit.register(_stop)


def _stop() -> None:
    server: Any = forkserver._forkserver
    if server._forkserver_pid is None:
        return
    with suppress(ProcessLookupError):  # somebody has ended it
        os.kill(server._forkserver_pid, signal.SIGTERM)  # it may be importing PyTorch still
    server._stop()
    tracker: Any = resource_tracker._resource_tracker
    tracker._stop()


def child_environment(layer: Path | None = None) -> dict[str, str]:
    """Return what a new Python process needs to import the harness, and nothing of the current folder.

    Args:
        layer: folder of packages that go before those installed.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # an empty entry is the current folder
    folders = ["" if layer is None else str(layer), str(IMPORT_FOLDER), *given]
    return {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "PYTHONSAFEPATH": "1"}


_prepare = spawn.get_preparation_data


def _without_parents_path(name: str) -> dict[str, Any]:
    """Return what a new process is told of this one, but for where it imports from and what its program is."""
    data: dict[str, Any] = _prepare(name)
    for key in ("sys_path", "init_main_from_name", "init_main_from_path"):
        data.pop(key, None)
    return data


@contextmanager
def _importing_only_ours() -> Iterator[None]:
    """Within, processes that start import nothing of the current folder, nor of this process's own path."""
    told = patch.object(spawn, "get_preparation_data", _without_parents_path)
    with patch.dict(os.environ, child_environment()), told:
        yield


class _ForkedSafely(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        try:
            with _importing_only_ours():
                return ForkServerProcess._Popen(process_obj)
        except (ConnectionError, EOFError):
            raise RunDied(
                "the process that all runs are forked from died as it started: somebody has killed it, or this machine "
                "ran out of memory; start again"
            ) from None


class _SpawnedSafely(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _importing_only_ours():
            return SpawnProcess._Popen(process_obj)


class _Forking(ForkServerContext):
    Process = _ForkedSafely


class _Spawning(SpawnContext):
    Process = _SpawnedSafely


class ForkedProcess:
    """A forked worker, with as much of `subprocess.Popen` as is asked of it.

    Args:
        errors: takes what it writes to standard error.
        handed: a configuration, and the data that have been prepared for it.
    """

    def __init__(
        self, context: ForkServerContext, errors: Path, handed: tuple[RunConfig, Prepared] | None = None
    ) -> None:
        requests, stdin = context.Pipe(duplex=False)
        stdout, replies = context.Pipe(duplex=False)
        self._process: ForkServerProcess = context.Process(target=_work, args=(requests, replies, errors, handed))
        with requests, replies, stdin, stdout:
            self._process.start()
            self.stdin: IO[str] = os.fdopen(os.dup(stdin.fileno()), "w", encoding="utf-8")
            self.stdout: IO[str] = os.fdopen(os.dup(stdout.fileno()), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()
        self.stdout.close()

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it runs on after so many seconds.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutExpired("worker", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            assert self.pid is not None
            with suppress(ProcessLookupError):  # it ends just now, and the server has waited for it
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _work(requests: Connection, replies: Connection, errors: Path, handed: tuple[RunConfig, Prepared] | None) -> None:
    """Be a worker."""
    from memory_harness.probes.session.worker import main

    os.dup2(requests.fileno(), 0)
    os.dup2(replies.fileno(), 1)
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    sys.exit(main(handed=handed))
