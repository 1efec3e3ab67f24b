"""Threads that a script starts: what they allocate counts, one of them at a time is observed, none is cut short."""

from __future__ import annotations

import concurrent.futures.thread
import selectors
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import FrameType
from typing import Any
from unittest.mock import patch

from memory_harness.harness.devices.base import ObservableDevice

_WAITING_IN = (threading.__file__, selectors.__file__, concurrent.futures.thread.__file__)
"""where a thread is that waits for another one, for a process, or for work of a pool"""


def waits_or_has_ended(thread: int) -> bool:
    """Return whether a thread, by its number, waits for another one or is there no more."""
    frame = sys._current_frames().get(thread)
    return frame is None or frame.f_code.co_filename in _WAITING_IN


def running_frame(thread: int) -> FrameType | None:
    """Return the frame that runs; in a backward pass on a GPU, which has its own thread, that of the one that waits."""
    known = {known.ident for known in threading.enumerate()}
    return sys._current_frames().get(threading.get_ident() if threading.get_ident() in known else thread)


def thread_patches(device: ObservableDevice, note_error: Callable[[BaseException], None]) -> list[Any]:
    """Return what lets threads that begin from now on run on the device, and tells of errors that end one."""
    run, show = threading.Thread._bootstrap_inner, threading.excepthook  # type: ignore[attr-defined]

    def run_on_device(self: threading.Thread) -> None:
        with device.active_in_thread():
            run(self)

    def note_and_show(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            note_error(args.exc_value)
        show(args)

    return [
        patch.object(threading.Thread, "_bootstrap_inner", run_on_device),
        patch.object(threading, "excepthook", note_and_show),
    ]


def future_patches(
    note_kept: Callable[[BaseException], None], note_taken: Callable[[BaseException], None]
) -> list[Any]:
    """Return what tells of errors that a pool keeps for whoever asks for a result, and of those that are taken."""
    keep, take = Future.set_exception, Future.result

    def keep_and_note(self: Future[Any], error: BaseException | None) -> None:
        if error is not None:
            note_kept(error)
        keep(self, error)

    def take_and_note(self: Future[Any], timeout: float | None = None) -> Any:
        try:
            return take(self, timeout)
        except BaseException as error:
            note_taken(error)
            raise

    return [
        patch.object(Future, "set_exception", keep_and_note),
        patch.object(Future, "result", take_and_note),
    ]


def wait_for_threads(before: Iterable[threading.Thread]) -> None:
    """Wait for what a script has started, as Python does at its end; workers of a pool wait themselves, for work."""
    others = {*before, threading.current_thread(), *concurrent.futures.thread._threads_queues}
    for thread in threading.enumerate():
        if thread not in others and not thread.daemon:
            thread.join()
