"""One GPU and two of one host on the same steps: time, losses, what each takes, what was predicted without any.

    python -m tests.bench.two_gpus --output FOLDER                 on a machine with two GPUs: measures, and prints
    python -m tests.bench.two_gpus --output FOLDER --only large    one part alone; --only tables prints what there is

`agree` trains an 8B model with the same random weights on the same ids four times: on one GPU, on two by copies, on two
that share every layer out, on two with half of the layers each; two micro-batches a step. `stop` ends the latter three
by SIGTERM on the way, goes on with them and compares the losses bit by bit. `large` trains a 70B model, which fits
neither GPU alone, with a stop too. All are then simulated, as on a machine without a GPU.

`read_logs` are those of a release before, whose GPUs added gradients up through host memory.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from memory_harness.harness.log.manifest import LOG_FILE
from memory_harness.harness.log.runlog import RunLog, read_rank_logs, read_run_log
from memory_harness.probes.session.session import FIRST_LOG
from memory_harness.reports.ranks import use_of
from tests.bench.epoch import read_log

RESULTS = Path(__file__).parent / "results" / "h100_two_gpus"

RECIPE = shlex.split(
    "--preset as_published --gpu h100 --dtype bfloat16 --lora-dropout 0 --train-batch-size 2 --gradient-accumulation 2 "
    "--eval-batch-size 1 --max-length 2048 --samples 120 --batching padded --no-compare-base --generate-prompts 2 "
    "--max-new-tokens 16 --no-kbit-upcast --random-weights"
)
STEPS = shlex.split("--max-steps 12 --eval-every 12 --save-every 6")
LARGE = shlex.split("--model llama-3.3-70b --max-steps 4 --eval-every 4 --save-every 2")
SHARED = ("--num-gpus", "2", "--sharding", "fsdp")
SPLIT = ("--num-gpus", "2", "--sharding", "split")
RUNS: dict[str, Sequence[str]] = {"one": (), "copies": ("--num-gpus", "2"), "shared": SHARED, "split": SPLIT}
STOPPED = ("copies", "shared", "split")
BURN_IN = 2
"""steps whose time says nothing: kernels are chosen, communicators made"""
ROUNDING = 2e-3
"""relative difference of losses of bfloat16 models whose sums are in another order"""
MINUTES_TO_WAIT = 60


def read_logs() -> tuple[RunLog, RunLog, RunLog]:
    """Return the logs of one GPU, and of the first and the second of two."""
    one, first, second = (read_log(RESULTS / f"{name}.jsonl.gz") for name in ("one", "two", "peer"))
    return one, first, second


def run_probe(folder: Path, *arguments: str) -> None:
    """Run the command line into a folder, to its end."""
    command = [sys.executable, "run_probe.py", *arguments, "--output", str(folder)]
    subprocess.run(command, check=True, timeout=60 * MINUTES_TO_WAIT)


def run_of(folder: Path) -> Path:
    """Return the folder of the only training run in a folder."""
    (run,) = folder.glob("*-train")
    return run


def train(folder: Path, *arguments: str) -> None:
    """Train into a folder, unless that has been done."""
    if not list(folder.glob("*-train")):
        run_probe(folder, *arguments, "--train", "--force", "--device", "cuda")


def stop_and_resume(folder: Path, after: int, *arguments: str) -> None:
    """Train, ask to stop after some steps, and go on."""
    if list(folder.glob("*-train")):
        return
    command = [sys.executable, "run_probe.py", *arguments, "--train", "--force", "--device", "cuda"]
    with subprocess.Popen([*command, "--output", str(folder)]) as process:
        end = time.monotonic() + 60 * MINUTES_TO_WAIT
        while not _has_steps(folder, after) and process.poll() is None and time.monotonic() < end:
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
    run_probe(folder, "--resume", str(run_of(folder)))


def _has_steps(folder: Path, number: int) -> bool:
    logs = list(folder.glob(f"*-train/{LOG_FILE}"))
    return bool(logs) and logs[0].read_text(encoding="utf-8").count('"kind": "step"') >= number


def measure_agreement(output: Path) -> None:
    """Train on one GPU and on two, in each way."""
    for name, flags in RUNS.items():
        train(output / name, *RECIPE, *STEPS, *flags)


def measure_stops(output: Path) -> None:
    """Stop and resume what trains on two."""
    for name in STOPPED:
        stop_and_resume(output / f"{name}-stopped", 5, *RECIPE, *STEPS, *RUNS[name])


def measure_large(output: Path) -> None:
    """Train the 70B model, and do it again with a stop."""
    train(output / "large", *RECIPE, *LARGE, *SHARED)
    stop_and_resume(output / "large-stopped", 2, *RECIPE, *LARGE, *SHARED)


def predict(output: Path) -> None:
    """Simulate each run that was measured, where that has not been done."""
    runs = {name: (*RECIPE, *STEPS, *flags) for name, flags in RUNS.items()}
    for name, flags in {**runs, "large": (*RECIPE, *LARGE, *SHARED)}.items():
        folder = output / f"{name}-predicted"
        if (output / name).exists() and not folder.exists():
            command = [sys.executable, "run_probe.py", *flags, "--device", "simulated", "--no-fixes"]
            subprocess.run([*command, "--output", str(folder)], check=False, timeout=60 * MINUTES_TO_WAIT)


PARTS: dict[str, Callable[[Path], None]] = {
    "agree": measure_agreement,
    "stop": measure_stops,
    "large": measure_large,
    "predict": predict,
}


def tables(output: Path) -> Iterator[str]:
    """Yield what the logs in a folder say, line by line."""
    measured = [name for name in (*RUNS, "large") if list(output.glob(f"{name}/*-train/{LOG_FILE}"))]
    logs = {name: read_rank_logs(run_of(output / name)) for name in measured}
    yield from _times_and_losses(logs)
    for name in (*STOPPED, "large"):
        stopped = output / f"{name}-stopped"
        if stopped.exists() and name in logs:
            again = read_run_log(run_of(stopped) / LOG_FILE)
            equal = [s.loss for s in again.steps] == [s.loss for s in logs[name][0].steps]
            yield f"{name}: stopped and resumed, its losses are {'equal bit by bit' if equal else 'OTHERS'}"
    yield "| run | GPU | | measured | predicted | off by |"
    yield "|---|---|---|---|---|---|"
    for name, ranks in logs.items():
        found = list((output / f"{name}-predicted").glob(f"*/{FIRST_LOG}"))
        for rank, log in enumerate(ranks):
            yield from _peaks(f"| {name} | {rank} |", log, read_run_log(found[0]) if found else None)


def _times_and_losses(logs: dict[str, list[RunLog]]) -> Iterator[str]:
    if "one" not in logs:
        return
    alone = logs["one"][0]
    seconds = _seconds(alone)
    for name, ranks in logs.items():
        log = ranks[0]
        if len(log.steps) <= BURN_IN:
            yield f"{name}: {log.outcome} after {len(log.steps)} steps"
            continue
        if name == "large":
            yield f"large: {log.outcome}; {_seconds(log):.2f} s a step"
            continue
        pairs = zip([s.loss for s in log.steps], [s.loss for s in alone.steps], strict=False)
        off = max(abs(a - b) / abs(b) for a, b in pairs if a is not None and b)
        agree = "agree" if off <= ROUNDING else "DIFFER"
        speed = f"{_seconds(log):.2f} s a step, {seconds / _seconds(log):.2f} times one"
        yield f"{name}: {log.outcome}; {speed}; losses {agree} ({off:.1e})"


def _seconds(log: RunLog) -> float:
    return statistics.median(step.seconds for step in log.steps[BURN_IN:])


def _peaks(where: str, log: RunLog, predicted: RunLog | None) -> Iterator[str]:
    """Yield allocated, reserved and what the driver counts, each with what was predicted."""
    use, expected = use_of(log), None if predicted is None else use_of(predicted)
    pairs = [
        ("allocated", use.allocated_bytes, expected and expected.allocated_bytes),
        ("reserved", use.reserved_bytes, expected and expected.reserved_bytes),
    ]
    if use.outside_bytes is not None:
        beside = 0 if expected is None else expected.total_bytes
        pairs.append(("by the driver", use.total_bytes, beside or None))
    for what, measured, wanted in pairs:
        off = "" if not wanted else f"{wanted / measured - 1:+.3%}"
        yield f"{where} {what} | {measured} | {wanted or ''} | {off} |"


def main() -> None:
    """Measure what is asked for, and print all tables; what has been measured is not measured again."""
    parser = argparse.ArgumentParser(description="Measure training on two GPUs.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", choices=[*PARTS, "tables"], action="append")
    arguments = parser.parse_args()
    wanted = arguments.only or list(PARTS)
    failed = []
    for name in (name for name in PARTS if name in wanted):
        try:
            PARTS[name](arguments.output)
        except (OSError, subprocess.SubprocessError, ValueError) as error:  # the other parts are measured all the same
            failed.append(f"{name}: {error}")
    lines = [*tables(arguments.output), *failed]
    print("\n".join(lines))
    (arguments.output / "two_gpus.json").write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
