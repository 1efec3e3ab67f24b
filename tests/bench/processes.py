"""Measurements side by side, each in a process of its own: memory counters do not mind company."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench.records import write_records


def measure_each(
    measure: Callable[[str], dict[str, Any]],
    names: Iterable[str],
    output: Path,
    say: Callable[[dict[str, Any]], str],
    *,
    num_processes: int,
    num_levels: int,
) -> None:
    """Measure by name, print a line for each result as it comes, and write all there are so far.

    Args:
        measure: runs in a new process.
        say: returns the line.
        num_levels: of `write_records`.
    """
    results = []
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {name: pool.submit(measure, name) for name in names}
        for name, future in futures.items():
            try:
                results.append(future.result())
                print(say(results[-1]), flush=True)
            except Exception as error:  # one that cannot run must not lose the others
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
            write_records(output, results, num_levels)
