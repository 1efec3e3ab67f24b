"""How long a sequence fits, and what a step of it takes: QLoRA with the fixes of long sequences, beside Unsloth.

    python -m tests.bench.long_context FILE.json               all, each in its own process, on a CUDA GPU
    python -m tests.bench.long_context FILE.json --only fast --lengths 98304
    python -m tests.bench.long_context FILE.json --predict     what the simulation says of QLoRA's; goes beside it
    python -m tests.bench.long_context FILE.json --table       as markdown

Llama-3.1-8B with random weights in 4 bit, LoRA of rank 8 on q, k, v and o without dropout, PyTorch's AdamW, float16
with a loss scale, one sequence per step, on a GPU held to `BUDGET`: the protocol of Unsloth's reference measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memory_harness.configs.cards import find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import with_fixed_settings
from memory_harness.configs.units import GIB, parse_bytes
from memory_harness.harness.log.environment import environment
from memory_harness.probes.fixes import FIXES
from memory_harness.probes.plan.choose import apply_all
from tests.bench.agreement import batch_of, train
from tests.bench.records import write_records
from tests.bench.unsloth_run import UNSLOTH_SETTINGS

LENGTHS = (2048, 4096, 8192, 16384, 32768, 40960, 49152, 65536, 98304)
STEPS = 3
"""at each length; the first makes optimizer states and compiles"""

BUDGET = "14.5 GiB"
HOST = "h100"

RECIPES = {
    "unsloth": (),
    "qlora": ("expandable-segments", "embeddings-on-host", "chunked-loss", "tiled-mlp", "offload-activations"),
    "fast": ("expandable-segments", "embeddings-on-host", "tiled-mlp", "offload-activations"),
}
"""contender -> fixes"""
FIELDS: dict[str, dict[str, Any]] = {
    "unsloth": {"strategy": "unsloth"},
    "fast": {
        "fast_path": "liger",
        "loss": "liger",
        "sdpa_backends": ("cudnn", "flash", "memory_efficient", "math"),  # as PyTorch takes them by itself
    },
}


def config_of(name: str, length: int) -> RunConfig:
    """Return a recipe for sequences of one length."""
    config = RunConfig().with_fields(
        random_weights=True,
        lora_dropout=0.0,
        max_length=length,
        max_batch_tokens=length,
        gradient_accumulation=1,
        eval_batch_size=1,
        gpu=HOST,
        **FIELDS.get(name, {}),
    )
    return with_fixed_settings(apply_all(config, (FIXES[fix] for fix in RECIPES[name])))


def rows(name: str, lengths: Sequence[int], *, predict: bool) -> Iterator[dict[str, Any]]:
    """Yield what loading takes, then what steps of each length take, until one does not fit."""
    config = config_of(name, max(lengths))
    if name == "unsloth":
        from memory_harness.harness.strategies.unsloth_package import import_unsloth

        import_unsloth(config)
    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.strategies.registry import STRATEGIES
    from memory_harness.harness.train.run import make_strategy, simulate_card

    budget = parse_bytes(BUDGET)
    if predict:
        config = config.with_fields(budget_bytes=budget)
        simulated = simulate_card(config, find_card(HOST))
        device: Any = simulated
        strategy: Any = make_strategy(config, simulated)
    else:
        device = CudaDevice(None, budget, expandable_segments=config.device.expandable_segments)
        strategy = STRATEGIES[config.model.strategy](config, device)
    try:
        with device.active():
            strategy.load()
            yield {"length": 0, **peaks(device)}
            for length in lengths:
                for each in (strategy, getattr(strategy, "inner", None), getattr(strategy, "training", None)):
                    if each is not None:
                        each.config = config_of(name, length)
                yield {"length": length, **steps(strategy, length), **peaks(device)}
    except Exception as error:
        if device.as_out_of_memory(error) is None:
            raise
        yield {"length": None, "outcome": "oom"}


def peaks(device: Any) -> dict[str, int]:
    """Return the peaks since the last call."""
    stats = device.stats()
    device.reset_peaks()
    return {
        "peak_allocated_bytes": stats.peak_allocated_bytes,
        "peak_reserved_bytes": stats.peak_reserved_bytes,
        "num_alloc_retries": stats.num_alloc_retries,
    }


def steps(strategy: Any, length: int) -> dict[str, Any]:
    """Train on one full sequence `STEPS` times; the loss is read at the end of each, which waits for the GPU."""
    batch, seconds = batch_of(train(length)), []
    for _ in range(STEPS):
        begin = time.perf_counter()
        strategy.put(batch, training=True)
        strategy.forward(batch.shape.target_tokens)
        strategy.backward()
        loss, norm = strategy.optimizer_step(1e-4)
        seconds.append(time.perf_counter() - begin)
    measured = loss is not None
    return {"seconds_per_step": round(min(seconds[1:]), 4) if measured else None, "loss": loss, "grad_norm": norm}


def table(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    names = [name for name in RECIPES if name in results]
    yield "| tokens | " + " | ".join(f"{n}: GiB allocated | reserved | s a step" for n in names) + " |"
    yield "|---" * (1 + 3 * len(names)) + "|"
    for length in LENGTHS:
        cells = []
        for name in names:
            row = next((r for r in results[name]["rows"] if r["length"] == length), None)
            kinds = ("peak_allocated_bytes", "peak_reserved_bytes")
            cells += ["–"] * 3 if row is None else [*(f"{row[k] / GIB:.2f}" for k in kinds), row["seconds_per_step"]]
        yield f"| {length} | " + " | ".join(map(str, cells)) + " |"


def main() -> int:
    """Measure, predict or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", choices=RECIPES)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    content = json.loads(args.file.read_text()) if args.file.exists() else {}
    lengths = [int(length) for length in args.lengths.split(",")]
    source = "predicted" if args.predict else "measured"
    if args.only:
        result: dict[str, Any] = {"environment": environment(), "rows": []}
        content.setdefault(source, {})[args.only] = result
        for row in rows(args.only, lengths, predict=args.predict):
            result["rows"].append(row)
            write_records(args.file, content, 4)
        return 0
    for name in () if args.table else RECIPES:
        if args.predict and name == "unsloth":
            continue
        command = [sys.executable, "-m", "tests.bench.long_context", str(args.file), "--only", name]
        command += ["--lengths", args.lengths]
        env = {**os.environ, **(UNSLOTH_SETTINGS if name == "unsloth" else {})}
        subprocess.run([*command, *(["--predict"] if args.predict else [])], env=env, check=False)
    content = json.loads(args.file.read_text())
    for source, results in content.items():
        print(source, *table(results), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
