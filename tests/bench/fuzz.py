"""Give every reader inputs that are almost right: it may give a result or refuse in one line, and nothing else.

    python -m tests.bench.fuzz --minutes 30 --processes 2
    python -m tests.bench.fuzz --reader logs --first 1234 --minutes 0.01     one input again, by its number

Each input follows from the reader's name and the input's number alone. What raises anything else than the harness's own
errors, says something of more than one line or takes longer than 10 s is a failure, and is printed. Seconds are the
processor's; what waits for a minute fails too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from memory_harness.configs.errors import ConfigError, HarnessError, one_line
from memory_harness.reports.defects import explain
from tests.bench import fuzz_readers
from tests.bench.fuzz_readers import READERS, Reader
from tests.bench.records import write_records

LIMIT_SECONDS = 10.0
"""of processor time for an input"""
LIMIT_WAITING_SECONDS = 60.0
"""of time for an input: waiting for ever uses no processor, and a busy machine no limit"""
SECONDS_OF_A_TURN = 2.0
"""after which the next reader has its turn"""
MAX_KEPT = 20
"""failures of a reader that are kept in full, those at other lines of code first"""


class TooSlow(BaseException):
    """An input took longer than it may; no handler of Exception catches it."""


@dataclass
class Tally:
    """What became of a reader's inputs."""

    reader: str
    inputs: int = 0
    results: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    """by exception and place"""
    examples: dict[str, str] = field(default_factory=dict)
    """of each such failure, the number of the first input and its traceback"""

    def add(self, other: Tally) -> None:
        """Count another process's inputs too."""
        self.inputs += other.inputs
        self.results += other.results
        self.refused += other.refused
        self.seconds += other.seconds
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)
        self.failures.update(other.failures)
        self.examples = {**other.examples, **self.examples}


def try_input(reader: Reader, number: int, folder: Path, tally: Tally) -> None:
    """Make the input of that number, give it to the reader, and count what comes of it."""
    make, read = reader
    begin = time.process_time()
    try:
        with _limited():
            given = make(random.Random(f"{tally.reader} {number}"), folder)
            read(given)
    except (HarnessError, OSError) as error:
        problem = _not_one_line(error)
        if problem:
            _fail(tally, number, "more than one line", problem)
        tally.refused += 1
    except TooSlow:
        _fail(tally, number, "hangs", traceback.format_exc())
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} {Path(frame.filename).name}:{frame.lineno}"
        _fail(tally, number, where, traceback.format_exc())
    else:
        tally.results += 1
    seconds = time.process_time() - begin
    tally.inputs += 1
    tally.seconds += seconds
    tally.slowest_seconds = max(tally.slowest_seconds, seconds)


def _not_one_line(error: HarnessError | OSError) -> str:
    """Return what of an error's words is no line; the command says a file's error by `explain`."""
    lines = error.lines if isinstance(error, ConfigError) else (str(error),)
    if isinstance(error, OSError):
        lines = (one_line(explain(error, ())[0]),)
    return next((line for line in lines if len(line.splitlines()) > 1 or not line.isprintable()), "")


def _fail(tally: Tally, number: int, where: str, text: str) -> None:
    tally.failures[where] += 1
    if where not in tally.examples and len(tally.examples) < MAX_KEPT:
        tally.examples[where] = f"input {number}\n{text[-3000:]}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise TooSlow within, once the time of an input is over."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    limits = (
        (signal.ITIMER_PROF, signal.SIGPROF, LIMIT_SECONDS),
        (signal.ITIMER_REAL, signal.SIGALRM, LIMIT_WAITING_SECONDS),
    )
    before = [signal.signal(number, stop) for _, number, _ in limits]
    for timer, _, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _, _ in limits:
            signal.setitimer(timer, 0)
        for (_, number, _), handler in zip(limits, before, strict=True):
            signal.signal(number, handler)


def fuzz(names: list[str], first: int, step: int, until: float, folder: Path) -> list[Tally]:
    """Give the readers inputs in turns until that time: numbers `first`, `first + step`, ..."""
    tallies = [Tally(name) for name in names]
    numbers = dict.fromkeys(names, first)
    os.chdir(folder)
    while time.time() < until:
        for tally in tallies:
            end = min(until, time.time() + SECONDS_OF_A_TURN)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                while time.time() < end:
                    try_input(READERS[tally.reader], numbers[tally.reader], folder, tally)
                    numbers[tally.reader] += step
    return tallies


def _worker(names: list[str], first: int, step: int, until: float) -> list[Tally]:
    warnings.simplefilter("ignore")
    fuzz_readers.warm_up()
    with tempfile.TemporaryDirectory(dir=fuzz_readers.fastest_folder()) as folder:
        return fuzz(names, first, step, until, Path(folder))


def summary(tallies: list[Tally], seconds: float, processes: int) -> dict[str, Any]:
    """Return what the run says, ready for JSON."""
    rows = []
    for tally in tallies:
        row = {"reader": tally.reader, "inputs": tally.inputs, "results": tally.results, "refused": tally.refused}
        row |= {"failures": tally.failures.total(), "seconds": round(tally.seconds), "where": dict(tally.failures)}
        rows.append({**row, "slowest_seconds": round(tally.slowest_seconds, 2)})
    return {
        "inputs": sum(tally.inputs for tally in tallies),
        "failures": sum(tally.failures.total() for tally in tallies),
        "seconds": round(seconds),
        "processes": processes,
        "python": sys.version.partition(" ")[0],
        "readers": rows,
    }


def main() -> int:
    """Run, print the failures and the table, and write the summary; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--reader", choices=sorted(READERS), action="append")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--out", type=Path, help="file for the summary, as JSON")
    arguments = parser.parse_args()
    names, begin = arguments.reader or list(READERS), time.time()
    until, step = begin + 60 * arguments.minutes, arguments.processes
    jobs = [(names, arguments.first + number, step, until) for number in range(step)]
    if step == 1:
        found = [_worker(*jobs[0])]
    else:
        # no `multiprocessing.Pool`, which waits for ever for a process that has ended
        with ProcessPoolExecutor(step, multiprocessing.get_context("fork")) as pool:
            found = [job.result() for job in [pool.submit(_worker, *job) for job in jobs]]
    tallies = [Tally(name) for name in names]
    for of_process in found:
        for tally, other in zip(tallies, of_process, strict=True):
            tally.add(other)
    for tally in tallies:
        for where, example in tally.examples.items():
            print(f"--- {tally.reader}: {where}, {tally.failures[where]} times, first {example}")
        print(f"{tally.reader:14} {tally.inputs:9} inputs {tally.results:9} results {tally.refused:9} refused "
              f"{tally.failures.total():6} failures, slowest {tally.slowest_seconds:.2f} s")  # fmt: skip
    content = summary(tallies, time.time() - begin, step)
    print(f"{content['inputs']} inputs, {content['failures']} failures")
    if arguments.out is not None:
        write_records(arguments.out, content, 2)
    return int(content["failures"] > 0)


if __name__ == "__main__":
    sys.exit(main())
