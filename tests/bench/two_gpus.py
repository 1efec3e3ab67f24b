"""One GPU and two of one host on the same steps: what each takes, and whether both end with the same adapter.

    python run_probe.py --preset t4 --random-weights --lora-dropout 0 --gradient-accumulation 8 --max-length 2048 \\
        --samples 100 --max-steps 8 --eval-every 8 --save-every 8 --no-compare-base --generate-prompts 0 \\
        --train --force --device cuda [--num-gpus 2] --output RUNS
    python -m tests.bench.two_gpus          the table, from the logs of both runs: run.jsonl, and run.rank1.jsonl

Losses of one and of two are not compared here: without a tokenizer ids are made up batch by batch, and two GPUs cut a
step into other batches. With real ids tests/harness/devices/test_parallel.py compares them.
"""

from __future__ import annotations

from pathlib import Path

from memory_harness.harness.log.runlog import RunLog
from tests.bench.epoch import read_log

RESULTS = Path(__file__).parent / "results" / "h100_two_gpus"


def read_logs() -> tuple[RunLog, RunLog, RunLog]:
    """Return the logs of one GPU, and of the first and the second of two."""
    one, first, second = (read_log(RESULTS / f"{name}.jsonl.gz") for name in ("one", "two", "peer"))
    return one, first, second


def main() -> None:
    """Print the table."""
    one, first, second = read_logs()
    print("| step | tokens | seconds on one | on two | micro-batches on one | on two | norms of the two |")
    print("|---|---|---|---|---|---|---|")
    for a, b, c in zip(one.steps, first.steps, second.steps, strict=True):
        parts = [a.step, sum(a.lengths), f"{a.seconds:.2f}", f"{b.seconds:.2f}", a.micro_steps, b.micro_steps]
        print("| " + " | ".join(map(str, [*parts, "equal" if b.grad_norm == c.grad_norm else "differ"])) + " |")
    for name, log in (("one", one), ("first of two", first), ("second of two", second)):
        peaks = log.peak_allocated_bytes, log.peak_reserved_bytes
        print(f"{name}: {log.outcome}, {len(log.ooms)} out of memory, allocated and reserved at most {peaks}")


if __name__ == "__main__":
    main()
