"""Kill a training run at random points, resume it, and compare it with the run that nothing disturbed, bit by bit.

    python -m tests.bench.kill_and_resume --points 50

A point is the n-th record written, the n-th allocation on the device, or the n-th touch of a file in the run's folder,
or in that of the best adapter, n at random; so every phase is met, and every stage of writing a checkpoint. Some runs
are killed again while they resume. Each attempt is a process of its own, forked once the libraries are loaded, and is
killed by SIGKILL.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.log.manifest import ADAPTER, LOG_FILE, newest_checkpoint, read_manifest
from memory_harness.harness.log.records import PhaseBegin, Record
from memory_harness.harness.log.runlog import LogWriter, read_run_log
from tests.harness.train.training_runs import CONFIG, are_equal, files_of, fine_tuned, last_states, prepared

KINDS = ("record", "allocation", "file", "adapter")
SHARE_KILLED_TWICE = 0.3

CARD = "README.md"
"""of the adapter: its peaks of memory are those of several processes"""


class Countdown:
    """Counts what a run does, and kills the process at one point of it."""

    def __init__(self, run: Path, kind: str = "", number: int = 0) -> None:
        self.run = str(run)
        self.counts: Counter[str] = Counter()
        self._target = (kind, number)

    def __call__(self, kind: str) -> None:
        self.counts[kind] += 1
        if (kind, self.counts[kind]) == self._target:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, device: SimulatedDevice) -> None:
        """Count records, allocations, and files that Python opens, renames, removes or syncs."""
        write = LogWriter.write

        def noted(log: LogWriter, record: Record) -> None:
            write(log, record)
            self("record")

        LogWriter.write = noted  # type: ignore[method-assign]
        allocator = device.memory.simulated.allocator  # type: ignore[attr-defined]
        malloc = allocator.malloc

        def counted(num_bytes: int, stream: int = 0) -> int:
            self("allocation")
            return malloc(num_bytes, stream)

        allocator.malloc = counted  # type: ignore[method-assign]
        sys.addaudithook(self._on_audit)

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(("open", "os.", "shutil.")):
            paths = [str(value) for value in arguments if self.run in str(value)]
            if paths:
                self("file")
            if any(f"{ADAPTER}." in path or f"{ADAPTER}/" in path for path in paths):
                self("adapter")


def in_child(work: Callable[[], Any]) -> Any:
    """Return what the work returns in a forked process; None where that was killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            with os.fdopen(write, "wb") as pipe:
                pipe.write(pickle.dumps(work()))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a run died of something else than being killed")
    return pickle.loads(content) if content else None


def attempt(run: Path, kind: str = "", number: int = 0) -> Counter[str]:
    """Train into the folder, or go on where there is a checkpoint; return what was counted."""
    countdown = Countdown(run, kind, number)
    try:
        resume: Path | None = newest_checkpoint(run)
        read_manifest(resume)
    except CheckpointError:
        resume = None
    fine_tuned(run, resume=resume and run, prepare_device=countdown.watch)
    return countdown.counts


def result(run: Path) -> tuple[Any, ...]:
    """Return what has to be equal: losses of steps and evaluations, the adapter, and the final training state."""
    log = read_run_log(run / LOG_FILE)
    adapter = {name: content for name, content in files_of(run / ADAPTER).items() if name != CARD}
    steps, evals = [(s.step, s.loss) for s in log.steps], [(e.step, e.model, e.loss) for e in log.evals]
    return steps, evals, adapter, last_states(run)


def last_began(run: Path) -> str:
    """Return the phase that a killed run was in."""
    log = read_run_log(run / LOG_FILE) if (run / LOG_FILE).exists() else None
    begins: list[PhaseBegin] = log.begins if log else []
    return str(begins[-1].phase) if begins else "before the first phase"


def differs(a: tuple[Any, ...], b: tuple[Any, ...]) -> str:
    """Return what differs, or nothing."""
    parts = ("steps", "evaluations", "adapter")
    names = [name for name, left, right in zip(parts, a, b, strict=False) if left != right]
    return ", ".join(names + ([] if are_equal(a[-1], b[-1]) else ["training state"]))


def kill_and_resume(points: int, seed: int, show: Callable[[str], object]) -> int:
    """Run the trials; return how many ended as the undisturbed run did."""
    torch.set_num_threads(1)  # as a worker does: tensors this small take longer to share out than to compute
    chance = random.Random(seed)
    equal = 0
    prepared(CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole" / "run"
        counts = in_child(lambda: attempt(whole))
        expected = in_child(lambda: result(whole))
        for number in range(points):
            kinds = [KINDS[number % len(KINDS)]]
            if chance.random() < SHARE_KILLED_TWICE:
                kinds.append(chance.choice(KINDS))
            kills = [(kind, chance.randint(1, counts[kind])) for kind in kinds]
            where, difference = trial(Path(folder) / f"trial-{number}" / "run", kills, expected)
            equal += not difference
            show(f"{number + 1:3} {'equal' if not difference else 'DIFFERS in ' + difference}: killed at {where}")
    return equal


def trial(run: Path, kills: list[tuple[str, int]], expected: tuple[Any, ...]) -> tuple[str, str]:
    """Return where the run was killed, and what of it differs once it has been resumed to its end."""
    where = []
    for kind, number in kills:
        if in_child(lambda kind=kind, number=number: attempt(run, kind, number)) is None:
            where.append(f"{kind} {number} in {last_began(run)}")
    in_child(lambda: attempt(run))
    difference = differs(in_child(lambda: result(run)), expected)
    shutil.rmtree(run.parent)
    return ", then ".join(where), difference


def main() -> int:
    """Run from the command line; exit with 1 where a run differs."""
    parser = argparse.ArgumentParser(description="Kill a training run at random points, resume it, compare.")
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    equal = kill_and_resume(arguments.points, arguments.seed, print)
    print(f"{equal} of {arguments.points} resumed runs equal the undisturbed one bit by bit")
    return 0 if equal == arguments.points else 1


if __name__ == "__main__":
    sys.exit(main())
