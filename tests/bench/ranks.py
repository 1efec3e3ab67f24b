"""What FSDP2 costs by the number of ranks, simulated: a rank's memory, what it sends, what it logs, and what it takes.

Run: python -m tests.bench.ranks [MODEL] [SIZE ...]
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from time import process_time
from typing import Any
from unittest.mock import patch

import torch

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB, KIB
from memory_harness.harness.log.records import Record, record_to_dict
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.simulate import fsdp
from memory_harness.harness.simulate.memory import UNLIMITED
from memory_harness.harness.train.loop import load, train_step
from memory_harness.probes.plan.predict import RecordedModel, uniform_batch

MODEL, SIZES = "llama-3.1-8b", (2, 8, 64, 512)
LENGTH = 1024
COLUMNS = ("ranks", "weights", "peak", "reserved", "messages", "sent", "log", "seconds")


def costs(model: str, size: int) -> tuple[float, ...]:
    """Return of one rank: GiB of weights and at the peak, allocated and reserved; of a micro-batch, the collectives and

    the GiB that it sends; KiB of its log a step; seconds of the simulation.
    """
    begin, sent, records = process_time(), Counter[str](), list[Record]()

    def count(_: Any, *, output_tensor: torch.Tensor, input_tensor: torch.Tensor, **__: Any) -> None:
        smaller = min(output_tensor.nbytes, input_tensor.nbytes)
        sent.update(messages=1, num_bytes=smaller * (size - 1))

    config = RunConfig().with_fields(
        model=model, gpu="h100", dtype="bfloat16", num_gpus=size, sharding="fsdp", gradient_accumulation=size
    )
    with patch.object(fsdp, "_send_nothing", count):
        recorded = RecordedModel(config)
        recorded.strategy.restart(UNLIMITED, False)
        recorder = PhaseRecorder(recorded.device, records.append)
        with recorded.device.active():
            load(recorded.strategy, recorder)
            weights = recorded.device.stats().allocated_bytes
            loaded = len(records)
            peaks = []
            for recorder.step in (1, 2):
                recorded.device.reset_peaks()
                train_step(recorded.strategy, recorder, [uniform_batch((1, LENGTH), 2)] * size, 0.0)
                after = [record.after for record in records if hasattr(record, "after")]
                peaks += [(stats.peak_allocated_bytes, stats.peak_reserved_bytes) for stats in after]
    log = sum(len(json.dumps(record_to_dict(record))) for record in records[loaded:]) / 2
    allocated, reserved = map(max, zip(*peaks, strict=True))
    sizes = (weights / GIB, allocated / GIB, reserved / GIB)
    return (*sizes, sent["messages"], sent["num_bytes"] / GIB, log / KIB, process_time() - begin)


def main(arguments: list[str]) -> None:
    """Print a table."""
    model = arguments[0] if arguments else MODEL
    print(" ".join(f"{title:>9}" for title in COLUMNS))
    for size in map(int, arguments[1:] or SIZES):
        print(f"{size:9}", " ".join(f"{value:9.2f}" for value in costs(model, size)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
