"""What recording allocations costs: steps of the tiny model with it against those without, and the report.

python -m tests.bench.survivor_cost
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from memory_harness.configs.cli import parse_args
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.records import SurvivorRecord
from memory_harness.harness.log.runlog import collect
from memory_harness.harness.observe import survivors
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import Run, make_strategy, open_device

FLAGS = ["--preset", "smoke_cpu", "--epochs", "6", "--eval-every", "1000", "--save-every", "1000"]
FLAGS += ["--generate-prompts", "0"]


class KeepsTensors:
    """A strategy with a leak: a tensor of 1 MiB kept per step."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.kept: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def optimizer_step(self, learning_rate: float) -> Any:
        """Do as it should, and keep something."""
        self.kept.append(torch.empty(512, 512))
        return self._inner.optimizer_step(learning_rate)


def main() -> None:
    """Print the seconds."""
    torch.set_num_threads(1)
    config = parse_args(FLAGS).config
    data = prepare(config)
    device = open_device(config)
    records: list[Any] = []
    report_seconds: list[float] = []
    make_records = survivors.survivor_records

    def timed(*args: Any) -> list[SurvivorRecord]:
        begin = time.perf_counter()
        found = make_records(*args)
        report_seconds.append(time.perf_counter() - begin)
        return found

    survivors.survivor_records = timed
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, device, KeepsTensors(make_strategy(config, device)), data)
        execute(run, records.append, Path(folder))
    log = collect(records)
    last = log.survivors[0].step
    recorded = [s.seconds for s in log.steps if last - 3 < s.step <= last]
    others = [s.seconds for s in log.steps if s.step > last]
    print(log.survivors[0])
    print(f"a recorded step  {statistics.mean(recorded):.3f} s (mean of {len(recorded)})")
    print(f"another step     {statistics.mean(others):.3f} s (mean of {len(others)})")
    print(f"the report       {sum(report_seconds):.3f} s, once")


if __name__ == "__main__":
    main()
