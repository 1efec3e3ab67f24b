"""How soon a leak is found on the 8B recipe, and how small it may be.

    python -m tests.bench.leak_latency [--json FILE]

One run of the recipe with lengths that vary from batch to batch is simulated for a T4. To its log a leak is added: so
many bytes more allocated after each step (or micro-step, or logging interval) than after the one before. The log is
then cut after each step, as if the run had just got there, until the detectors name growth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import KIB, MIB, format_bytes
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.records import MemoryStats, PhaseRecord, Record, RunRecord, StepRecord
from memory_harness.harness.log.runlog import RunLog, collect
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import Run, make_strategy, open_device
from memory_harness.probes.detectors import detect

RECIPE = RunConfig().with_fields(
    device="simulated",
    gpu="t4",
    max_length=2048,
    samples=160,
    batching="dynamic",
    loss="chunked",
    epochs=1,
    eval_batch_size=1,
    generate_prompts=0,
)
LEAKS = (2 * KIB, 4 * KIB, 8 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB)
LOGGING_EVERY = 10

GROWTH = {"retained-graph", "tensors-logged", "hook-holds-activations", "unexplained-growth"}
"""causes that a plain leak of bytes may be given"""

Position = Callable[[int, int], int]
"""(step, micro-step) -> how many times the leak has happened by its end"""


def simulated_records(config: RunConfig = RECIPE) -> list[Record]:
    """Return the records of the recipe's run."""
    device = open_device(config)
    data = prepare(config)
    records: list[Record] = []
    with TemporaryDirectory() as output:
        execute(Run(config, device, make_strategy(config, device), data), records.append, Path(output))
    return records


def with_leak(records: list[Record], leak_bytes: int, times: Position) -> Iterator[Record]:
    """Yield the records with the leak added to what is allocated from each point on."""
    before = 0
    for record in records:
        if isinstance(record, PhaseRecord) and record.step > 0:
            after = leak_bytes * times(record.step, record.micro_step)
            yield replace(
                record,
                allocated_before_bytes=record.allocated_before_bytes + before,
                after=_raised(record.after, after),
            )
            before = after
        elif isinstance(record, StepRecord):
            yield replace(record, allocated_bytes=record.allocated_bytes + before)
        else:
            yield record


def _raised(stats: MemoryStats, num_bytes: int) -> MemoryStats:
    names = ("allocated_bytes", "active_bytes", "peak_allocated_bytes")
    return replace(stats, **{name: getattr(stats, name) + num_bytes for name in names})


def cut_after(log: RunLog, step: int) -> RunLog:
    """Return the log as it was when the step had just ended."""
    return replace(
        log,
        phases=[p for p in log.phases if p.step <= step],
        steps=[s for s in log.steps if s.step <= step],
        evals=[],
        probes=[],
        end=None,
    )


def found_at(log: RunLog) -> int | None:
    """Return the first step after which growth is reported, or None."""
    for record in log.steps:
        if any(finding.cause in GROWTH for finding in detect(cut_after(log, record.step))):
            return record.step
    return None


def measure() -> dict[str, object]:
    """Return the step of the first report for each kind and size of leak."""
    records = simulated_records()
    run = next(r for r in reversed(records) if isinstance(r, RunRecord))
    lengths = {p.batch.padded_length for p in records if isinstance(p, PhaseRecord) and p.batch and p.step > 0}
    micro_steps = RECIPE.train.gradient_accumulation
    kinds: dict[str, Position] = {
        "per step": lambda step, micro: step,
        "per micro-step": lambda step, micro: (step - 1) * micro_steps + micro + 1,
        f"every {LOGGING_EVERY} steps": lambda step, micro: step // LOGGING_EVERY,
    }
    return {
        "recipe": f"{RECIPE.model.model}, {run.total_steps} steps, {len(lengths)} padded lengths",
        "without_leak": found_at(collect(records)),
        "found_after_step": {
            kind: {format_bytes(leak): found_at(collect(with_leak(records, leak, times))) for leak in LEAKS}
            for kind, times in kinds.items()
        },
    }


def main(argv: list[str]) -> None:
    """Measure, print, and write the result where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    text = json.dumps(measure(), indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
