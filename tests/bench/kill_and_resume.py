"""Kill training and generation at random points, go on, and compare with what nothing disturbed, bit by bit.

    python -m tests.bench.kill_and_resume --points 50
    python -m tests.bench.kill_and_resume --points 200 --only ranks

A point is the n-th record written, the n-th allocation on the device, or the n-th touch of a file in the run's folder,
in that of the best adapter (`export`), or of the results beside the run (`append`), n at random; so every phase is met,
and every stage of writing a checkpoint, an adapter and the results. `generate` answers more prompts with a trained
adapter, `ranks` trains in two processes, one of which is killed, `shards` in two that share every layer out. Some runs
are killed again while they resume. Each attempt is a process of its own, forked once the libraries are loaded, and is
killed by SIGKILL.

The results are those of another run too, with a key that this program does not know: all of it has to survive.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from memory_harness.configs.launch import Launched
from memory_harness.configs.printable import text_of
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.devices.parallel import join
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import CheckpointError, PeerLost
from memory_harness.harness.log.manifest import ADAPTER, LOG_FILE, newest_checkpoint, read_manifest
from memory_harness.harness.log.records import Phase, PhaseBegin, Record
from memory_harness.harness.log.runlog import LogWriter, read_run_log
from memory_harness.harness.results.experiments import EXPERIMENTS, LISTS, RESPONSES, RESPONSES_CSV
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.finetune import answer_only, fine_tune
from memory_harness.harness.train.run import Run, open_device
from tests.harness.train.training_runs import CONFIG, are_equal, files_of, fine_tuned, last_states, prepared

RESULTS = (RESPONSES, RESPONSES_CSV, EXPERIMENTS)
SIGKILLED = signal.SIGKILL
"""the status of a process that was killed"""

KINDS = ("record", "allocation", "file", "export", "append")
"""of points of a training run"""
TRIALS = (*KINDS, "generate", "ranks", "shards")
SHARED_WORK = ("ranks", "shards")
"""those of several processes"""
SHARE_KILLED_TWICE = 0.3
SECONDS_TO_END = 10.0
"""for a process whose peer has been killed; what starts them waits as well, see `probes.session.process`"""

TWO = CONFIG.with_fields(num_gpus=2, gradient_accumulation=2, samples=24, generate_batch_size=1)
SHARED = TWO.with_fields(sharding="fsdp")
ASKED = CONFIG.with_fields(samples=40, eval_fraction=0.4, generate_prompts=8)
"""four batches of two prompts"""

OTHERS = {"experiment_id": "another run", "prompt_id": 0, "sample_id": 0, "question": "q", "response": "r",
          "answered_by": "tuned"}  # fmt: skip
NOTES = {"kept by": "somebody"}
"""what somebody has added to the files of results"""

CARD = "README.md"
"""of the adapter: its peaks of memory are those of several processes"""


class Countdown:
    """Counts what a run does, and kills the process at one point of it."""

    def __init__(self, run: Path, kind: str = "", number: int = 0) -> None:
        self.run = str(run)
        self.counts: Counter[str] = Counter()
        self._results = tuple(str(run.parent / f"{dot}{name}") for name in RESULTS for dot in ("", "."))
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
                self("export")
            if any(isinstance(value, str) and value.startswith(self._results) for value in map(str, arguments)):
                self("append")


def in_child(work: Callable[[], Any]) -> Any:
    """Return what the work returns in a forked process; None where that was killed."""
    (found,) = in_children([work])
    return found


def in_children(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return what each work returns in a forked process; None for all where one was killed: its peers are then."""
    started = [_fork(work) for work in works]
    ended = dict.fromkeys(child for child, _ in started)
    deadline = None
    while None in ended.values():
        for child in [child for child, status in ended.items() if status is None]:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                ended[child] = status
                deadline = deadline or time.monotonic() + SECONDS_TO_END
        if deadline is not None and time.monotonic() > deadline and SIGKILLED in ended.values():
            for child in [child for child, status in ended.items() if status is None]:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    contents = [Path(result) for _, result in started]
    try:
        if SIGKILLED in ended.values():
            return [None for _ in works]
        if any(ended.values()):
            raise SystemExit("a run died of something else than being killed")
        return [pickle.loads(content.read_bytes()) for content in contents]
    finally:
        for content in contents:
            content.unlink()


def _fork(work: Callable[[], Any]) -> tuple[int, str]:
    """Start a process; return its number, and the file that its result will be in."""
    handle, result = tempfile.mkstemp()
    os.close(handle)
    child = os.fork()
    if child == 0:
        try:
            Path(result).write_bytes(pickle.dumps(work()))
        except PeerLost:
            os._exit(0)  # the other one was killed
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child, result


def resumable(run: Path) -> bool:
    """Return whether there is a checkpoint to go on from."""
    try:
        read_manifest(newest_checkpoint(run))
    except CheckpointError:
        return False
    return True


def attempt(run: Path, kind: str = "", number: int = 0) -> Counter[str]:
    """Train into the folder, or go on where there is a checkpoint; return what was counted."""
    countdown = Countdown(run, kind, number)
    fine_tuned(run, resume=run if resumable(run) else None, prepare_device=countdown.watch)
    return countdown.counts


def attempt_as_rank(
    config: RunConfig, run: Path, rank: int, meeting: Path, kind: str = "", number: int = 0
) -> Counter[str]:
    """Do the same as one of two processes."""
    torch.set_num_threads(1)
    countdown = Countdown(run, kind, number)
    resume = run if resumable(run) else None
    device = open_device(config, join(Launched(rank, rank, 2, 2), f"file://{meeting}"))
    countdown.watch(device)  # type: ignore[arg-type]
    opened = Run(config, device, QLoraStrategy(config, device), prepared(config))
    fine_tune(run, opened, gate_reason="a test", stop_signal=str, resume=resume)
    return countdown.counts


def answer(adapter: Path, run: Path, kind: str = "", number: int = 0) -> Counter[str]:
    """Answer prompts with a trained adapter; return what was counted."""
    config = ASKED.with_fields(output=str(run.parent))
    device = open_device(config)
    countdown = Countdown(run, kind, number)
    countdown.watch(device)  # type: ignore[arg-type]
    run.mkdir(parents=True)
    answer_only(adapter, Run(config, device, QLoraStrategy(config, device), prepared(ASKED)), run / LOG_FILE)
    return countdown.counts


def put_others_results(folder: Path) -> None:
    """Put results of another run into a folder."""
    folder.mkdir(parents=True)
    for name, key in LISTS.items():
        entry = OTHERS if name == RESPONSES else {"id": "another run"}
        (folder / name).write_text(json.dumps({"schema_version": 1, **NOTES, key: [entry]}))


def results_of(folder: Path) -> tuple[list[str], list[str | None]]:
    """Return the replies and the outcomes of what this run has left; what was there before has to be there still."""
    contents = {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in LISTS}
    assert all(content["kept by"] == NOTES["kept by"] for content in contents.values()), "somebody's key is lost"
    others, *replies = contents[RESPONSES]["responses"]
    first, *experiments = contents[EXPERIMENTS]["experiments"]
    assert (others, first) == (OTHERS, {"id": "another run"}), "another run's results are lost"
    return [reply["response"] for reply in replies], [found["outcome"] for found in experiments]


def rows_of(folder: Path) -> list[str]:
    """Return the replies in the table."""
    if not (folder / RESPONSES_CSV).exists():
        return []
    with (folder / RESPONSES_CSV).open(encoding="utf-8-sig", newline="") as file:
        return [text_of(row["response"]) for row in csv.DictReader(file)]


def result(run: Path) -> tuple[Any, ...]:
    """Return what has to be equal: losses, the adapter, what is beside the run, and the final training state."""
    log = read_run_log(run / LOG_FILE)
    adapter = {name: content for name, content in files_of(run / ADAPTER).items() if name != CARD}
    steps, evals = [(s.step, s.loss) for s in log.steps], [(e.step, e.model, e.loss) for e in log.evals]
    left = [path.name for folder in (run, run.parent) for path in folder.glob(".*.partial")]
    return steps, evals, adapter, results_of(run.parent), rows_of(run.parent), left, last_states(run)


def last_began(run: Path) -> str:
    """Return the phase that a killed run was in."""
    log = read_run_log(run / LOG_FILE) if (run / LOG_FILE).exists() else None
    begins: list[PhaseBegin] = log.begins if log else []
    return str(begins[-1].phase) if begins else "before the first phase"


def differs(a: tuple[Any, ...], b: tuple[Any, ...]) -> str:
    """Return what differs, or nothing."""
    parts = ("steps", "evaluations", "adapter", "results", "table", "leftovers")
    names = [name for name, left, right in zip(parts, a, b, strict=False) if left != right]
    return ", ".join(names + ([] if are_equal(a[-1], b[-1]) else ["training state"]))


class Trials:
    """What runs undisturbed, and what is killed and held against it.

    Args:
        folder: for all runs.
        chance: of the points.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance
        self._wholes: dict[str, tuple[Any, tuple[Any, ...]]] = {}

    def run(self, number: int, kind: str) -> tuple[str, str]:
        """Do one trial; return where it was killed, and what differs."""
        run = self._folder / f"trial-{number}" / "run"
        put_others_results(run.parent)
        try:
            if kind == "generate":
                return self._generate(run)
            if kind in SHARED_WORK:
                return self._ranks(run, kind)
            return self._train(run, kind)
        except AssertionError as error:
            return "", str(error)
        finally:
            shutil.rmtree(run.parent)

    def _train(self, run: Path, kind: str) -> tuple[str, str]:
        counts, expected = self._whole("train", lambda whole: in_child(lambda: attempt(whole)))
        where = []
        for each in self._kinds(kind, KINDS):
            number = self._chance.randint(1, counts[each])
            if in_child(lambda each=each, number=number: attempt(run, each, number)) is None:
                where.append(f"{each} {number} in {last_began(run)}")
        in_child(lambda: attempt(run))
        return ", then ".join(where), differs(in_child(lambda: result(run)), expected)

    def _ranks(self, run: Path, name: str) -> tuple[str, str]:
        config = {"ranks": TWO, "shards": SHARED}[name]

        def together(run: Path, killed: int = -1, kind: str = "", number: int = 0) -> Any:
            meeting = run.parent / f"meeting-{len(list(run.parent.glob('meeting-*')))}"
            kills = [(kind, number) if rank == killed else ("", 0) for rank in range(2)]
            return in_children(
                [partial(attempt_as_rank, config, run, rank, meeting, *kills[rank]) for rank in range(2)]
            )

        counts, expected = self._whole(name, together)
        where = []
        for each in self._kinds(self._chance.choice(KINDS), KINDS):
            killed = self._chance.randrange(2) if counts[1][each] else 0
            number = self._chance.randint(1, counts[killed][each])
            if together(run, killed, each, number)[0] is None:
                where.append(f"rank {killed} at {each} {number} in {last_began(run)}")
        together(run)
        return ", then ".join(where), differs(in_child(lambda: result(run)), expected)

    def _generate(self, run: Path) -> tuple[str, str]:
        self._whole("train", lambda whole: in_child(lambda: attempt(whole)))
        adapter = self._folder / "train" / "run" / ADAPTER
        whole = self._folder / "generate" / "run"
        if not whole.exists():
            put_others_results(whole.parent)
            self._wholes["generate"] = in_child(lambda: answer(adapter, whole)), ()
        counts, (expected, _) = self._wholes["generate"][0], results_of(whole.parent)
        kind = self._chance.choice(("record", "append"))
        number = self._chance.randint(1, counts[kind])
        in_child(lambda: answer(adapter, run, kind, number))
        where = f"{kind} {number} of generating in {last_began(run)}"
        replies, _ = results_of(run.parent)
        log = read_run_log(run / LOG_FILE) if (run / LOG_FILE).exists() else None
        num_batches = sum(phase.phase is Phase.GENERATE for phase in log.phases) if log else 0
        size = ASKED.eval.generate_batch_size
        if replies != expected[: len(replies)] or len(replies) < (num_batches - 1) * size:
            return where, "replies"
        if rows_of(run.parent) not in (replies, replies[:-size]):
            return where, "table"
        in_child(lambda: answer(adapter, run.with_name("again")))
        again, _ = results_of(run.parent)
        return where, "" if again == replies + expected else "replies of the next one"

    def _kinds(self, first: str, kinds: Sequence[str]) -> list[str]:
        killed_twice = self._chance.random() < SHARE_KILLED_TWICE
        return [first, self._chance.choice(kinds)] if killed_twice else [first]

    def _whole(self, name: str, train: Callable[[Path], Any]) -> tuple[Any, tuple[Any, ...]]:
        """Return what was counted in a run that nothing disturbed, and its result; it runs the first time."""
        if name not in self._wholes:
            run = self._folder / name / "run"
            put_others_results(run.parent)
            counts = train(run)
            self._wholes[name] = counts, in_child(lambda: result(run))
        return self._wholes[name]


def kill_and_resume(points: int, seed: int, show: Callable[[str], object], kinds: Sequence[str] = TRIALS) -> int:
    """Run the trials, of each kind in turn; return how many ended as the undisturbed run did."""
    torch.set_num_threads(1)  # as a worker does: tensors this small take longer to share out than to compute
    equal = 0
    for config in (CONFIG, TWO, SHARED, ASKED):
        prepared(config)
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), random.Random(seed))
        for number in range(points):
            where, difference = trials.run(number, kinds[number % len(kinds)])
            equal += not difference
            show(f"{number + 1:3} {'equal' if not difference else 'DIFFERS in ' + difference}: killed at {where}")
    return equal


def main() -> int:
    """Run from the command line; exit with 1 where a run differs."""
    parser = argparse.ArgumentParser(description="Kill a training run at random points, resume it, compare.")
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TRIALS, help="points of one kind alone")
    arguments = parser.parse_args()
    kinds = (arguments.only,) if arguments.only else TRIALS
    equal = kill_and_resume(arguments.points, arguments.seed, partial(print, flush=True), kinds)
    print(f"{equal} of {arguments.points} killed runs ended as the undisturbed one, bit by bit, and lost nothing")
    return 0 if equal == arguments.points else 1


if __name__ == "__main__":
    sys.exit(main())
