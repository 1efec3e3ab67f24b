"""The fast path beside Unsloth and the slow path on the same GPU, held to the same memory: speed, peaks, losses.

    python -m tests.bench.fast_path OUT.json                                  on a CUDA GPU
    python -m tests.bench.fast_path OUT.json --only fast,unsloth --adapters r8 --rounds 1 --lengths 512,2048

Each contender runs in a process of its own, one after the other, in each round: Llama-3.1-8B of random weights in NF4,
float16 with a loss scale, one sequence a step, LoRA without dropout. A step is put, forward, backward, fused AdamW and
the loss read back; the median of `STEPS` after `WARM_UP`. What was measured without Unsloth is simulated afterwards in
the same process: peaks predicted and measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory_harness.configs.models import LINEAR_LAYERS
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import with_fixed_settings
from memory_harness.configs.units import GIB, MIB
from tests.bench.records import write_records

CONTENDERS = ("fast", "unsloth", "slow")
ADAPTERS: dict[str, dict[str, Any]] = {
    "r8": {"lora_rank": 8},
    "r32": {"lora_rank": 32, "lora_alpha": 32, "target_modules": LINEAR_LAYERS},
}
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
STEPS, WARM_UP = 10, 2
CAP = int(14.5 * GIB)
HEADROOM = 128 * MIB
PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes")
UNSLOTH_SETTINGS = {"UNSLOTH_LOGPROB_CHUNK_GB": "0.5"}


def config_of(contender: str, adapters: str, lengths: list[int], gpu: str) -> RunConfig:
    config = RunConfig().with_fields(
        random_weights=True,
        lora_dropout=0.0,
        optimizer="adamw_torch_fused",
        max_length=max(lengths),
        gradient_accumulation=1,
        do_eval=False,
        eval_batch_size=1,
        batches=",".join(f"1x{length}" for length in lengths),
        device="cuda",
        gpu=gpu,
        budget_bytes=CAP,
        sdpa_backends=("cudnn", "flash", "memory_efficient", "math"),  # as PyTorch takes them here by itself
        **ADAPTERS[adapters],
    )
    if contender == "unsloth":
        return with_fixed_settings(config.with_fields(strategy="unsloth"))
    if contender == "slow":
        return config.with_fields(loss="chunked")
    return config.with_fields(
        loss="liger",
        fast_path="liger",
        recompute="auto",
        offload_activations=True,
        expandable_segments=True,  # batches of one length leave what those of another can use only so
        cuda_graphs="auto",
    )


def run_case(args: argparse.Namespace) -> dict[str, Any]:
    """Measure one contender at all lengths, then simulate the same."""
    contender, lengths = args.only, [int(part) for part in args.lengths.split(",")]
    config = config_of(contender, args.adapters, lengths, args.gpu)
    if contender == "fast":
        config = config.with_fields(recompute=args.recompute)
    if contender == "unsloth":
        from memory_harness.harness.strategies.unsloth_package import import_unsloth

        import_unsloth(config)
    import torch

    from memory_harness.configs.cards import card_of
    from memory_harness.harness.data.prepare import prepare
    from memory_harness.harness.devices.cuda import host_card
    from memory_harness.harness.train.run import make_strategy, open_device, simulate_card

    torch.manual_seed(config.data.seed)
    device = open_device(config)
    begin = time.perf_counter()
    if config.model.recompute == "auto":
        from memory_harness.probes.plan.recompute import with_fewest_recomputed

        config = with_fewest_recomputed(config, prepare(config), HEADROOM, host_card(card_of(config.device)))
    found: dict[str, Any] = {"recompute": config.model.recompute}
    found["choosing_seconds"] = round(time.perf_counter() - begin, 1)
    found["gpu"] = torch.cuda.get_device_name()
    strategy = make_strategy(config, device)
    found["measured"] = steps_at(strategy, device, lengths, STEPS, torch.cuda.synchronize)
    del strategy
    gc.collect()
    device.empty_cache()
    if contender != "unsloth" and not args.measure_only:
        config = config.with_fields(device="simulated", tensors="fake")
        card = simulate_card(config, host_card(card_of(config.device)))
        found["predicted"] = steps_at(make_strategy(config, card), card, lengths, 2, lambda: None)
    return found


def add_predictions(out: Path) -> None:
    """Simulate what was measured only; needs no GPU."""
    from memory_harness.configs.cards import card_of
    from memory_harness.harness.train.run import make_strategy, simulate_card

    records = json.loads(out.read_text())
    for result in records["results"]:
        if result["contender"] == "unsloth" or "predicted" in result or "measured" not in result:
            continue
        lengths = [row["tokens"] for row in result["measured"]]
        config = config_of(result["contender"], result["adapters"], lengths, "h200")
        config = config.with_fields(device="simulated", recompute=result["recompute"])
        card = simulate_card(config, card_of(config.device))
        result["predicted"] = steps_at(make_strategy(config, card), card, lengths, 2, lambda: None)
        write_records(out, records, 2)


def steps_at(strategy: Any, device: Any, lengths: list[int], num_steps: int, wait: Any) -> list[dict[str, Any]]:
    from memory_harness.probes.plan.predict import uniform_batch

    rows = []
    with device.active():
        strategy.load()
        loaded = device.stats()
        for length in lengths:
            batch, seconds, losses = uniform_batch((1, length), 0), [], []
            device.reset_peaks()
            row = {"tokens": length, "loaded_bytes": loaded.allocated_bytes}
            rows.append(row)
            try:
                for _ in range(WARM_UP + num_steps):
                    wait()
                    begin = time.perf_counter()
                    strategy.put(batch, training=True)
                    strategy.forward(batch.shape.target_tokens)
                    strategy.backward()
                    losses.append(strategy.optimizer_step(1e-4)[0])
                    wait()
                    seconds.append(time.perf_counter() - begin)
            except Exception as error:
                if device.as_out_of_memory(error) is None:
                    raise
                row["error"] = "out of memory"
                break
            stats = device.stats()
            row["peak_allocated_bytes"] = stats.peak_allocated_bytes
            row["peak_reserved_bytes"] = stats.peak_reserved_bytes
            row["retries"] = stats.num_alloc_retries
            row["seconds"] = round(statistics.median(seconds[WARM_UP:]), 4)
            row["losses"] = losses[:4]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    parser.add_argument("--adapters", default=",".join(ADAPTERS))
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--recompute", default="auto", help="of the fast path, as found by a simulation before")
    parser.add_argument("--measure-only", action="store_true", help="leave what needs no GPU to --predict")
    parser.add_argument("--predict", action="store_true", help="add what is simulated to OUT, without a GPU")
    parser.add_argument("--case", action="store_true", help="one contender, in this process")
    args = parser.parse_args()
    if args.predict:
        add_predictions(args.out)
        return 0
    if args.case:
        args.out.write_text(json.dumps(run_case(args)))
        return 0
    results = []
    for adapters in args.adapters.split(","):
        for number in range(args.rounds):
            for contender in args.only.split(","):
                results.append({"contender": contender, "adapters": adapters, "round": number + 1})
                results[-1] |= case_apart(args, contender, adapters)
                write_records(args.out, {"cap_bytes": CAP, "results": results}, 2)
                print_rows(results[-1])
    return 0


def case_apart(args: argparse.Namespace, contender: str, adapters: str) -> dict[str, Any]:
    """Run a case in a process of its own; return what it found, or the end of what it said."""
    flags = ["--adapters", adapters, "--lengths", args.lengths, "--gpu", args.gpu, "--recompute", args.recompute]
    flags += ["--measure-only"] if args.measure_only else []
    return found_apart("tests.bench.fast_path", args.out, contender, flags)


def found_apart(module: str, out: Path, contender: str, flags: Sequence[str]) -> dict[str, Any]:
    """Run a module's `--case` in a process of its own; return what it found, or the end of what it said."""
    case = out.with_suffix(".case")
    case.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, str(case), "--case", "--only", contender, *flags]
    env = {**os.environ, **(UNSLOTH_SETTINGS if contender.startswith("unsloth") else {})}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if not case.exists():
        return {"failed": (done.stdout + done.stderr)[-3000:]}
    found: dict[str, Any] = json.loads(case.read_text())
    case.unlink()
    return found


def print_rows(result: dict[str, Any]) -> None:
    """Print what a case found, a line for each length."""
    print(result["contender"], result["adapters"], "round", result["round"], result.get("recompute", ""))
    print(result.get("failed", ""), result.get("choosing_seconds", ""), flush=True)
    predicted = {row["tokens"]: row for row in result.get("predicted", ())}
    for row in result.get("measured", ()):
        if "error" in row:
            print(row["tokens"], row["error"])
            continue
        simulated = predicted.get(row["tokens"], {})
        sizes = [found[key] for found in (row, simulated) for key in PEAKS if key in found]
        peaks = [f"{size / GIB:.3f}" for size in sizes]
        losses = [f"{loss:.5f}" for loss in row["losses"] if loss is not None]
        print(row["tokens"], row["seconds"], round(row["tokens"] / row["seconds"]), *peaks, *losses, flush=True)


if __name__ == "__main__":
    sys.exit(main())
