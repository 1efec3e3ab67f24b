"""Threads and processes that a script starts: threads run on the card too, of processes it is known how they end."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any
from unittest.mock import patch

from torch.overrides import TorchFunctionMode

from memory_harness.harness.log.errors import HarnessError
from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.values import users_place

Function = Callable[..., Any]


@contextmanager
def others_are_followed(tracer: FacadeTracer, names: TorchFunctionMode) -> Iterator[None]:
    """Within, threads see the card, and a process that fails ends the run.

    Args:
        names: the mode in which functions take device names; modes belong to a thread.
    """
    with (
        patch.object(threading.Thread, "run", _run(tracer, names, threading.Thread.run)),
        patch.object(BaseProcess, "join", _join(tracer, BaseProcess.join)),
    ):
        yield


def _run(tracer: FacadeTracer, names: TorchFunctionMode, original: Function) -> Function:
    @functools.wraps(original)
    def run(self: threading.Thread) -> None:
        try:
            with tracer, names:
                original(self)
        except (RuntimeError, NotImplementedError) as error:
            tracer.stand_ins.failure = tracer.stand_ins.failure or HarnessError(
                f"a thread of the script's ended with {type(error).__name__}: {str(error).splitlines()[0]}; "
                "let the training run in the main thread"
            )
            raise

    return run


def _join(tracer: FacadeTracer, original: Function) -> Function:
    @functools.wraps(original)
    def join(self: BaseProcess, timeout: float | None = None) -> None:
        original(self, timeout)
        tracer.stand_ins.add("a process of its own, whose memory is not counted", users_place)
        if self.exitcode:
            tracer.stand_ins.failure = tracer.stand_ins.failure or HarnessError(
                f"{users_place()}: the process that was started here ended with {self.exitcode}; a dry run follows "
                "one process: let the script train in its own"
            )

    return join
