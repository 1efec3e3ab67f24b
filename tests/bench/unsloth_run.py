"""Unsloth beside QLoRA on the same GPU: memory, speed, loss, a saved adapter loaded again, replies.

python -m tests.bench.unsloth_run OUT [--model NAME] [--steps N]       on a CUDA GPU
python -m tests.bench.unsloth_run OUT --table                          from the logs in OUT, anywhere

Both run the same batches of the same synthetic corpus through the same loop, each in its own process, on a GPU held to
a T4's memory and attention. Both take the kind of loss that never holds all logits, LoRA of rank 8 on q, k, v and o
without dropout, PyTorch's AdamW and float16 with a loss scale. Unsloth's fused loss is held to chunks of 0.5 GB (its
default is 2). The first `WARM_UP_STEPS` steps count for memory, not for time; nor do steps in which Unsloth compiles
for a new shape (`COMPILING`), which are counted beside.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import with_fixed_settings
from memory_harness.harness.data.batching import eval_batches
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from tests.bench.records import write_records

STRATEGIES = ("unsloth", "qlora")
WARM_UP_STEPS = 20
"""kernels are compiled and tuned in the first steps"""

COMPILING = 10
"""times the median from which a step's time is no longer that of its batch"""

NUM_EVAL_BATCHES = 16
UNSLOTH_SETTINGS = {"UNSLOTH_LOGPROB_CHUNK_GB": "0.5"}
TRAINING = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)


def config_of(strategy: str, model: str, steps: int) -> RunConfig:
    config = RunConfig().with_fields(
        model=model,
        random_weights=True,
        strategy=strategy,
        samples=4000,
        max_length=2048,
        max_steps=steps,
        lora_dropout=0.0,
        loss="chunked",
        expand_kv=True,
        eval_batch_size=1,
        eval_every=steps + 1,
        save_every=steps,
        generate_prompts=4,
        max_new_tokens=32,
        device="cuda",
        gpu="t4",
    )
    return with_fixed_settings(config)


def run(strategy: str, model: str, steps: int, folder: Path) -> None:
    """Train, save, forget, load, evaluate and generate with one strategy; write its log and results."""
    config = config_of(strategy, model, steps)
    if strategy == "unsloth":
        from memory_harness.harness.strategies.unsloth_package import import_unsloth

        import_unsloth(config)
    import torch

    from memory_harness.harness.train.execute import execute
    from memory_harness.harness.train.run import Run, make_strategy, open_device

    torch.manual_seed(config.data.seed)
    device = open_device(config)
    data = prepare(config)
    trained = make_strategy(config, device)
    begin = time.perf_counter()
    log_file = folder / f"{strategy}.jsonl"
    with LogWriter(log_file) as writer:
        outcome = execute(Run(config, device, trained, data), writer.write, folder)
    seconds = time.perf_counter() - begin
    results = {"outcome": str(outcome), "seconds": round(seconds, 1)}
    if str(outcome) == "completed":
        results |= reloaded(trained, device, config, data, folder / f"checkpoint-{steps}")
    shutil.rmtree(folder / f"checkpoint-{steps}", ignore_errors=True)
    write_records(folder / f"{strategy}.reloaded.json", results, 1)
    Path(f"{log_file}.gz").write_bytes(gzip.compress(log_file.read_bytes()))
    log_file.unlink()


def read_packed(path: Path) -> RunLog:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(gzip.decompress(path.read_bytes()))
        file.flush()
        return read_run_log(Path(file.name))


def summary(log: RunLog) -> dict[str, Any]:
    peaks = [p.after for p in log.phases if p.phase in TRAINING]
    load = [p.after for p in log.phases if p.phase is Phase.LOAD]
    replies = [p.after for p in log.phases if p.phase is Phase.GENERATE]
    warm = [s for s in log.steps if s.step > WARM_UP_STEPS]
    typical = statistics.median(s.seconds for s in warm) if warm else 0.0
    timed = [s for s in warm if s.seconds < COMPILING * typical]
    padded = {p.step: 0 for p in log.phases}
    for p in log.phases:
        if p.phase is Phase.FORWARD and p.batch:
            padded[p.step] += p.batch.padded_tokens
    seconds = sum(s.seconds for s in timed)
    norms = [s.grad_norm for s in log.steps if s.grad_norm is not None]
    losses = [s.loss for s in log.steps if s.loss is not None]
    return {
        "outcome": str(log.outcome),
        "gpu": log.run.gpu_name,
        "budget_bytes": log.run.budget_bytes,
        "environment": log.run.environment,
        "fallbacks": log.run.model.fallbacks if log.run.model else [],
        "num_trainable_parameters": log.run.model.num_trainable_parameters if log.run.model else None,
        "steps": len(log.steps),
        "longest_batch_tokens": max((p.batch.padded_tokens for p in log.phases if p.batch), default=0),
        "load": _levels(load),
        "after_load_allocated_bytes": load[-1].allocated_bytes if load else None,
        "after_load_reserved_bytes": load[-1].reserved_bytes if load else None,
        "training": _levels(peaks),
        "generation": _levels(replies),
        "floor_growth_bytes": log.steps[-1].allocated_bytes - log.steps[1].allocated_bytes if log.steps[1:] else None,
        "timed_steps": len(timed),
        "timed_seconds": round(seconds, 2),
        "first_step_seconds": round(log.steps[0].seconds, 2) if log.steps else None,
        "compiling_again": [{"step": s.step, "seconds": round(s.seconds, 2)} for s in warm if s not in timed],
        "real_tokens_per_second": round(sum(sum(s.lengths) for s in timed) / seconds, 1) if timed else None,
        "padded_tokens_per_second": round(sum(padded[s.step] for s in timed) / seconds, 1) if timed else None,
        "first_10_losses": _mean(losses[:10]),
        "last_10_losses": _mean(losses[-10:]),
        "grad_norms": {"min": min(norms, default=None), "zero": sum(n == 0 for n in norms), "num": len(norms)},
    }


def _levels(stats: list[Any]) -> dict[str, int]:
    return {
        "peak_allocated_bytes": max((s.peak_allocated_bytes for s in stats), default=0),
        "peak_reserved_bytes": max((s.peak_reserved_bytes for s in stats), default=0),
    }


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def reloaded(strategy: Any, device: Any, config: RunConfig, data: Any, checkpoint: Path) -> dict[str, Any]:
    """Evaluate as trained, with an adapter that does nothing, and with the saved one loaded again."""
    import torch

    batches = eval_batches(data.eval, config)[:NUM_EVAL_BATCHES]

    def loss() -> float:
        total = 0.0
        for batch in batches:
            strategy.put(batch, training=False)
            total += strategy.evaluate()
        return total / sum(batch.shape.target_tokens for batch in batches)

    with device.active():
        trained = loss()
        with torch.no_grad():
            for name, parameter in strategy.model.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()
        untrained = loss()
        strategy.restore(checkpoint)
        restored = loss()
        exported = _exported(strategy, checkpoint / "adapter")
        prompt = data.prompts[0].tokens()
        replies = [_reply(strategy, [prompt]), _reply(strategy, [prompt, prompt[-8:]])[:1]]
    return {
        "eval_loss": {"trained": trained, "adapter_zeroed": untrained, "restored": restored},
        "exported": exported,
        "replies": replies,
    }


def _exported(strategy: Any, folder: Path) -> dict[str, Any]:
    """Write the adapter for peft, read it back, and compare."""
    import torch
    from safetensors.torch import load_file

    strategy.export(folder)
    saved = load_file(folder / "adapter_model.safetensors")
    live = {name.replace(".default.", "."): p for name, p in strategy.model.named_parameters() if p.requires_grad}
    equal = all(torch.equal(saved[name], p.detach().cpu()) for name, p in live.items())
    return {"num_tensors": len(saved), "equal": equal and len(saved) == len(live)}


def _reply(strategy: Any, prompts: list[list[int]]) -> list[list[int]]:
    columns = [strategy.prefill(prompts), *(strategy.decode() for _ in range(7))]
    strategy.release()
    return [list(row) for row in zip(*columns, strict=True)]


def table(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    def gib(value: int | None) -> str:
        return f"{value / 2**30:.3f}" if value else "-"

    rows = {
        "optimizer steps": lambda r: r["steps"],
        "after loading: allocated (GiB)": lambda r: gib(r["after_load_allocated_bytes"]),
        "training: peak allocated (GiB)": lambda r: gib(r["training"]["peak_allocated_bytes"]),
        "training: peak reserved (GiB)": lambda r: gib(r["training"]["peak_reserved_bytes"]),
        "loading: peak reserved (GiB)": lambda r: gib(r["load"]["peak_reserved_bytes"]),
        "tokens/s, padding left out": lambda r: r["real_tokens_per_second"],
        "tokens/s, padding counted": lambda r: r["padded_tokens_per_second"],
        "steps timed, seconds": lambda r: f"{r['timed_steps']}, {r['timed_seconds']}",
        "compiling again, seconds": lambda r: sum(c["seconds"] for c in r["compiling_again"]) or "-",
        "loss, first and last 10 steps": lambda r: f"{r['first_10_losses']} -> {r['last_10_losses']}",
        "smallest gradient norm": lambda r: round(r["grad_norms"]["min"], 3),
    }
    yield "| | " + " | ".join(results) + " |"
    yield "|---|" + "---|" * len(results)
    for name, cell in rows.items():
        yield f"| {name} | " + " | ".join(str(cell(r)) for r in results.values()) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", choices=STRATEGIES)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.only:
        run(args.only, args.model, args.steps, args.out)
        return 0
    for strategy in () if args.table else STRATEGIES:
        command = [sys.executable, "-m", "tests.bench.unsloth_run", str(args.out), "--only", strategy]
        command += ["--model", args.model, "--steps", str(args.steps)]
        env = {**os.environ, **(UNSLOTH_SETTINGS if strategy == "unsloth" else {})}
        with (args.out / f"{strategy}.txt").open("w") as output:
            code = subprocess.run(command, env=env, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            print((args.out / f"{strategy}.txt").read_text()[-6000:])
            return code
    results = {strategy: summary(read_packed(args.out / f"{strategy}.jsonl.gz")) for strategy in STRATEGIES}
    print("\n".join(table(results)))
    write_records(args.out / "results.json", results, 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
