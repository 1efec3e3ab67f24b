"""What recording costs on a GPU: the same training steps with the recorder on and off, alternating in one process.

python -m tests.bench.recorder_overhead OUT.json        on a CUDA GPU
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from memory_harness.harness.devices.parallel import SINGLE_GPU
from memory_harness.harness.log.records import Phase
from tests.bench.agreement import CONFIGURATIONS, batch_of, card_of, train
from tests.bench.records import write_records

LENGTH, PAIRS, WARM_UP, EMPTY_PHASES = 1024, 60, 6, 500
PHASES_PER_STEP = 4
"""DATA, FORWARD, BACKWARD, OPTIMIZER"""
CONFIGURATION = next(c for c in CONFIGURATIONS if c.name == "outputs-dropped")


class NoRecorder:
    """Takes the recorder's place and does nothing."""

    step = micro_step = epoch = 0
    forward_facts = None
    device = SimpleNamespace(group=SINGLE_GPU)

    @contextmanager
    def phase(self, *_: Any) -> Iterator[None]:
        """Run the phase."""
        yield

    def end_step(self, *_: Any) -> None:
        """Ignore the step."""


def main(output: Path) -> None:
    """Measure and write the ratio of the times, with and without, of each pair."""
    import torch

    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.log.environment import environment
    from memory_harness.harness.log.runlog import LogWriter
    from memory_harness.harness.observe.recorder import PhaseRecorder
    from memory_harness.harness.strategies.qlora import QLoraStrategy
    from memory_harness.harness.train.loop import train_step

    config = CONFIGURATION.config
    device = CudaDevice(card_of(CONFIGURATION), CONFIGURATION.budget_bytes)
    strategy = QLoraStrategy(config, device)
    batch = batch_of(train(LENGTH))
    with tempfile.TemporaryDirectory() as folder, LogWriter(Path(folder) / "log.jsonl") as writer, device.active():
        strategy.load()
        recorder, nothing = PhaseRecorder(device, writer.write), NoRecorder()

        def seconds(record: Any) -> float:
            torch.cuda.synchronize()
            begin = time.perf_counter()
            record.step += 1
            train_step(strategy, record, [batch], 1e-4)
            torch.cuda.synchronize()
            return time.perf_counter() - begin

        for _ in range(WARM_UP):
            seconds(recorder), seconds(nothing)
        pairs = [_pair(seconds, recorder, nothing, swap=bool(i % 2)) for i in range(PAIRS)]
        seconds_per_phase = _seconds_per_empty_phase(recorder)
    ratios = sorted(on / off for on, off in pairs)
    result = {
        "what": f"one QLoRA step of Llama-3.1-8B at {LENGTH} tokens, recorder on / off, {PAIRS} alternating pairs",
        "gpu": device.gpu_name,
        "environment": environment(),
        "median_seconds_on": statistics.median(on for on, _ in pairs),
        "median_seconds_off": statistics.median(off for _, off in pairs),
        "ratio_of_medians": statistics.median(on for on, _ in pairs) / statistics.median(off for _, off in pairs),
        "median_ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4),
        "seconds_per_empty_phase": seconds_per_phase,
        "share_of_step": PHASES_PER_STEP * seconds_per_phase / statistics.median(off for _, off in pairs),
    }
    write_records(output, result, 1)
    print(json.dumps(result, indent=1))


def _seconds_per_empty_phase(recorder: Any) -> float:
    """Time phases in which nothing happens: steps vary by several per cent, far more than recording takes."""
    begin = time.perf_counter()
    for _ in range(EMPTY_PHASES):
        with recorder.phase(Phase.FORWARD):
            pass
    return (time.perf_counter() - begin) / EMPTY_PHASES


def _pair(seconds: Callable[[Any], float], on: Any, off: Any, *, swap: bool) -> tuple[float, float]:
    """Time both, each first every other time."""
    if swap:
        without = seconds(off)
        return seconds(on), without
    with_it = seconds(on)
    return with_it, seconds(off)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
