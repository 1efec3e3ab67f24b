"""Processes that predict: what becomes of them."""

import multiprocessing
import time
from multiprocessing.connection import wait

import pytest

from memory_harness.probes.plan.pool import start_processes


def test_where_an_error_passes_nobody_waits_for_what_they_are_at():
    before, started = multiprocessing.active_children(), []

    def stop_while_they_work():
        with start_processes(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(time.sleep, 3600)
            started.extend(set(multiprocessing.active_children()) - set(before))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_while_they_work()
    (process,) = started
    # not `join`: the pool's thread joins it too, and the second to ask hears nothing of a process that has ended
    assert wait([process.sentinel], timeout=60)
