"""Processes that a watched script starts: each that imports PyTorch writes a log of its own beside the script's.

A process of `multiprocessing`, however it is started, runs its target under an observer; one that `subprocess` or
`os.system` starts finds a `sitecustomize` that waits until PyTorch is imported. Workers of data loaders are left alone.
Never imports torch at its top: most processes never do.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import multiprocessing.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypedDict
from unittest.mock import patch

from memory_harness.configs.places import IMPORT_FOLDER
from memory_harness.harness.observe.run_script import message_of

VARIABLE = "MEMORY_HARNESS_WATCH"
START = Path(__file__).with_name("start")
_STARTED = ("from multiprocessing.spawn import", "from multiprocessing.forkserver import")
"""begin of the code of processes that `multiprocessing` starts and that may do a script's work"""
_LEFT_ALONE = ("torch.utils.data", "multiprocessing.managers", "multiprocessing.resource_tracker")


class Settings(TypedDict):
    """What a process has to know to be observed."""

    folder: str  # of the logs
    script: str
    device: str
    gpu: str | None
    budget_bytes: int | None
    import_folder: str


def settings_of(folder: Path, script: str, device: str, gpu: str | None, budget_bytes: int | None) -> Settings:
    """Return what the processes that a script starts have to know."""
    return Settings(
        folder=str(folder.resolve()),
        script=script,
        device=device,
        gpu=gpu,
        budget_bytes=budget_bytes,
        import_folder=str(IMPORT_FOLDER),
    )


def process_patches(settings: Settings, leave: Callable[[], None] = lambda: None) -> list[Any]:
    """Return what lets the processes that are started from now on be observed.

    `leave` is called in one that was forked: what observed the process before is no business of the new one.
    """
    bootstrap, spawn = BaseProcess._bootstrap, multiprocessing.util.spawnv_passfds  # type: ignore[attr-defined]
    start, system, parent = subprocess.Popen.__init__, os.system, os.getpid()

    def bootstrap_observed(self: BaseProcess, *args: Any, **kwargs: Any) -> int:
        if os.getpid() != parent:
            leave()
        if not str(getattr(getattr(self, "_target", None), "__module__", "")).startswith(_LEFT_ALONE):
            self.run = functools.partial(_run_observed, self.run, settings)  # type: ignore[method-assign]
        return int(bootstrap(self, *args, **kwargs))

    def spawn_observed(path: bytes, args: Sequence[Any], descriptors: Sequence[int]) -> int:
        return int(spawn(path, [_with_observer(arg, settings) for arg in args], descriptors))

    @functools.wraps(start)
    def start_observed(self: Any, *args: Any, **kwargs: Any) -> None:
        given = kwargs.get("env")
        kwargs["env"] = _environment(os.environ if given is None else given, settings)
        start(self, *args, **kwargs)

    @functools.wraps(system)
    def system_observed(command: Any) -> int:
        with patch.dict(os.environ, _environment(os.environ, settings)):
            return system(command)

    return [
        patch.object(BaseProcess, "_bootstrap", bootstrap_observed),
        patch.object(multiprocessing.util, "spawnv_passfds", spawn_observed),
        patch.object(subprocess.Popen, "__init__", start_observed),
        patch.object(os, "system", system_observed),
    ]


def _with_observer(argument: Any, settings: Settings) -> Any:
    """Return the code of a process that `multiprocessing` starts with what observes it before it."""
    if not isinstance(argument, str) or not argument.startswith(_STARTED):
        return argument
    folder = settings["import_folder"]
    return (
        f"import sys; sys.path.insert(0, {folder!r}); "
        f"from memory_harness.harness.observe.child_processes import install; "
        f"sys.path.remove({folder!r}); install({settings!r}); {argument}"
    )


def _environment(given: Any, settings: Settings) -> dict[str, str]:
    """Return an environment in which Python imports `start/sitecustomize.py` first."""
    paths = [str(START), *filter(None, [given.get("PYTHONPATH")])]
    return {**given, "PYTHONPATH": os.pathsep.join(paths), VARIABLE: json.dumps(settings)}


def install(settings: Settings) -> None:
    """Let all processes that this one starts be observed, as long as it lives."""
    for change in process_patches(settings):
        change.start()


def watch_this_process(settings: Settings) -> None:
    """Observe this process from when PyTorch is imported until it ends."""
    install(settings)
    observed = ObservedProcess(settings)
    show = sys.excepthook

    def note_and_show(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        observed.note_error(error)
        show(kind, error, trace)

    sys.excepthook = note_and_show
    observed.start_with_torch()
    atexit.register(observed.end)


def _run_observed(run: Callable[[], None], settings: Settings) -> None:
    observed = ObservedProcess(settings)
    observed.start_with_torch()
    try:
        run()
    except BaseException as error:
        observed.note_error(error)
        raise
    finally:
        observed.end()


class ObservedProcess:
    """This process, whose work is written to a log of its own once PyTorch is there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._observer: Any = None
        self._stack = ExitStack()
        self._begin = 0.0
        self._error: tuple[bool, str] | None = None  # whether memory ran out, and the error in words

    def start_with_torch(self) -> None:
        """Begin now where PyTorch is imported, else when it is."""
        if "torch" in sys.modules:
            self._start()
        else:
            sys.meta_path.insert(0, _TorchFinder(self._start))

    def _start(self) -> None:
        from memory_harness.harness.log.runlog import LogWriter, process_log
        from memory_harness.harness.observe.own_loop import choose_device
        from memory_harness.harness.observe.script import ScriptObserver

        settings = self._settings
        device = choose_device(settings["device"], settings["gpu"], settings["budget_bytes"])
        writer = self._stack.enter_context(LogWriter(process_log(Path(settings["folder"]), os.getpid())))
        self._observer = ScriptObserver(device, writer.write, settings["script"])
        self._observer.on_exit = self._end_at_once
        self._stack.enter_context(self._observer.running())
        self._begin = time.perf_counter()

    def _end_at_once(self, code: int) -> int:
        self.end()
        return code

    def note_error(self, error: BaseException) -> None:
        """Take note of the error that ends the process."""
        if self._observer is not None and not (isinstance(error, SystemExit) and not error.code):
            is_oom = self._observer.device.as_out_of_memory(error) is not None
            self._error = (is_oom, message_of(error))

    def end(self) -> None:
        """Write how the process ended."""
        observer, self._observer = self._observer, None
        if observer is None:
            return
        from memory_harness.harness.log.records import Outcome

        outcome, message = Outcome.COMPLETED, ""
        if self._error is None:
            observer.end_script()
        else:
            is_oom, message = self._error
            outcome = Outcome.OOM if is_oom else Outcome.ERROR
        observer.end_log(outcome, "" if outcome is Outcome.OOM else message, time.perf_counter() - self._begin)
        self._stack.close()


class _TorchFinder:
    """Finds PyTorch as it would be found, and says when it has been imported."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the specification of PyTorch, whose import ends with the call; None for all else."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec("torch")
        if found is None or found.loader is None:
            return found
        execute = found.loader.exec_module

        def execute_then(module: Any) -> None:
            execute(module)
            self._then()

        found.loader.exec_module = execute_then  # type: ignore[method-assign]
        return found
