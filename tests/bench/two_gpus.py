"""One GPU and two of one host on the same steps: time, losses, what each takes, what was predicted without any.

    python -m tests.bench.two_gpus --output FOLDER                 on a machine with two GPUs: measures, and prints
    python -m tests.bench.two_gpus --output FOLDER --only large    one part alone; --only none prints what there is

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
from typing import Any

from memory_harness.configs.cards import bytes_beside, card_of
from memory_harness.configs.cli import parse_args
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.environment import environment
from memory_harness.harness.log.manifest import LOG_FILE
from memory_harness.harness.log.runlog import RunLog, read_rank_logs
from memory_harness.probes.plan.predict import predict_gpus
from memory_harness.reports.ranks import use_of
from tests.bench.epoch import read_log
from tests.bench.records import write_records

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
PREDICTED = "predicted.json"
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
    """Simulate each run that was measured, where that has not been done; best under the same versions."""
    known = _read_json(output / PREDICTED)
    runs = {name: (*RECIPE, *STEPS, *flags) for name, flags in RUNS.items()}
    for name, flags in {**runs, "large": (*RECIPE, *LARGE, *SHARED)}.items():
        if (output / name).exists() and name not in known:
            known[name] = _predicted(parse_args(flags).config)
    (output / PREDICTED).write_text(json.dumps(known), encoding="utf-8")


def _predicted(config: RunConfig) -> list[dict[str, int]]:
    """Return what each GPU is to take; where all take as much, what one does."""
    beside = card_of(config.device).context_bytes + bytes_beside(config.device)
    return [
        {
            "allocated_bytes": gpu.peak_allocated_bytes,
            "reserved_bytes": gpu.peak_reserved_bytes,
            "driver_bytes": gpu.peak_reserved_bytes + beside,
        }
        for gpu in predict_gpus(config)
    ]


PARTS: dict[str, Callable[[Path], None]] = {
    "agree": measure_agreement,
    "stop": measure_stops,
    "large": measure_large,
    "predict": predict,
}


def records_in(output: Path) -> Iterator[dict[str, Any]]:
    """Yield what the logs in a folder say: a record for each run, and one for each of its GPUs."""
    predicted, alone = _read_json(output / PREDICTED), _logs_in(output / "one")
    for name in (*RUNS, "large"):
        logs, stopped = _logs_in(output / name), _logs_in(output / f"{name}-stopped")
        if not logs:
            continue
        log = logs[0]
        record: dict[str, Any] = {"run": name, "outcome": log.outcome, "num_steps": len(log.steps)}
        if len(log.steps) > BURN_IN:
            record["seconds_per_step"] = _seconds(log)
        if alone and name != "large" and "seconds_per_step" in record:
            record["speedup"] = _seconds(alone[0]) / _seconds(log)
            record["losses_differ_by"] = _largest_difference(log, alone[0])
        if stopped:
            record["is_equal_when_resumed"] = _losses(stopped[0]) == _losses(log)
        yield record
        for rank, each in enumerate(logs):
            yield {"run": name, "gpu": rank, "measured": _measured(each), "predicted": _of_rank(predicted, name, rank)}


def _logs_in(folder: Path) -> list[RunLog]:
    return read_rank_logs(run_of(folder)) if list(folder.glob(f"*-train/{LOG_FILE}")) else []


def _of_rank(predicted: dict[str, Any], name: str, rank: int) -> dict[str, int]:
    of_all = predicted.get(name, [{}])
    return dict(of_all[min(rank, len(of_all) - 1)])


def _measured(log: RunLog) -> dict[str, int]:
    use = use_of(log)
    found = {"allocated_bytes": use.allocated_bytes, "reserved_bytes": use.reserved_bytes}
    return found if use.outside_bytes is None else {**found, "driver_bytes": use.total_bytes}


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _losses(log: RunLog) -> list[float | None]:
    return [step.loss for step in log.steps]


def _largest_difference(log: RunLog, alone: RunLog) -> float:
    """Return the largest difference of losses, relative to that of one GPU."""
    pairs = zip(_losses(log), _losses(alone), strict=False)
    return max(abs(a - b) / abs(b) for a, b in pairs if a is not None and b)


def _seconds(log: RunLog) -> float:
    return statistics.median(step.seconds for step in log.steps[BURN_IN:])


def main() -> None:
    """Measure what is asked for, and print all that is known; what has been measured is not measured again."""
    parser = argparse.ArgumentParser(description="Measure training on two GPUs.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", choices=[*PARTS, "none"], action="append")
    arguments = parser.parse_args()
    wanted = arguments.only or list(PARTS)
    failed = []
    for name in (name for name in PARTS if name in wanted):
        try:
            PARTS[name](arguments.output)
        except (OSError, subprocess.SubprocessError, ValueError) as error:  # the other parts are measured all the same
            failed.append(f"{name}: {error}")
    content = {**environment(), "records": list(records_in(arguments.output))}
    write_records(arguments.output / "two_gpus.json", content, num_levels=2)
    print((arguments.output / "two_gpus.json").read_text(encoding="utf-8"), *failed, sep="\n")


if __name__ == "__main__":
    main()
