"""Real tokens per second over the corpus' own lengths: the fast path, packed, beside Unsloth and the slow path.

    python -m tests.bench.corpus_speed OUT.json                       on a CUDA GPU
    python -m tests.bench.corpus_speed OUT.json --only fast,unsloth
    python -m tests.bench.corpus_speed OUT.json --predict             adds what is simulated, without a GPU

Llama-3.1-8B of random weights in NF4, float16 with a loss scale, LoRA of rank 8 without dropout, the same 8 samples a
step for all, at most 2048 tokens each, in one GPU held to 14.5 GiB. Unsloth is given them end to end in one row with
`packed_seq_lengths`, as its trainer does without padding; `unsloth-padded` as a batch of 8 rows. Seconds are those of
whole steps, the loss read back; the first `WARM_UP` count for nothing, nor do steps in which Unsloth compiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import with_fixed_settings
from tests.bench.fast_path import CAP, HEADROOM, PEAKS, found_apart
from tests.bench.records import write_records
from tests.bench.unsloth_run import COMPILING

CONTENDERS = ("fast", "unsloth", "unsloth-padded", "slow")
STEPS, WARM_UP = 200, 20


def config_of(contender: str, gpu: str) -> RunConfig:
    """Return the recipe: all take the same samples in each step."""
    config = RunConfig().with_fields(
        random_weights=True,
        samples=4000,
        max_length=2048,
        lora_dropout=0.0,
        optimizer="adamw_torch_fused",
        train_batch_size=8,
        gradient_accumulation=1,
        batching="packed",
        do_eval=False,
        eval_batch_size=1,
        device="cuda",
        gpu=gpu,
        budget_bytes=CAP,
        sdpa_backends=("cudnn", "flash", "memory_efficient", "math"),  # as PyTorch takes them here by itself
    )
    if contender.startswith("unsloth"):
        return with_fixed_settings(config.with_fields(strategy="unsloth", batching="dynamic"))
    if contender == "slow":
        return config.with_fields(loss="chunked")
    return config.with_fields(
        loss="liger", fast_path="liger", recompute="auto", offload_activations=True, expandable_segments=True
    )


def run_case(contender: str, num_steps: int, gpu: str) -> dict[str, Any]:
    """Train for so many steps in this process."""
    config = config_of(contender, gpu)
    if contender.startswith("unsloth"):
        from memory_harness.harness.strategies.unsloth_package import import_unsloth

        import_unsloth(config)
    import torch

    from memory_harness.configs.cards import card_of
    from memory_harness.harness.data.batching import train_steps
    from memory_harness.harness.data.prepare import prepare
    from memory_harness.harness.devices.cuda import host_card
    from memory_harness.harness.train.run import make_strategy, open_device
    from memory_harness.probes.plan.recompute import with_fewest_recomputed

    torch.manual_seed(config.data.seed)
    device, data = open_device(config), prepare(config)
    config = with_fewest_recomputed(config, data, HEADROOM, host_card(card_of(config.device)))
    strategy = make_strategy(config, device)
    put = put_without_padding if contender == "unsloth" else put_as_it_is
    with device.active():
        strategy.load()
        steps = train_steps(data.train, config, 1)[:num_steps]
        timed = [timed_step(strategy, step, put, torch.cuda.synchronize) for step in steps]
        stats = device.stats()
    found = {"gpu": torch.cuda.get_device_name(), "recompute": config.model.recompute}
    found |= {name: getattr(stats, name) for name in PEAKS}
    return found | summary(steps, [seconds for seconds, _ in timed]) | {"losses": [loss for _, loss in timed]}


def add_predictions(out: Path, gpu: str) -> None:
    """Simulate the steps of the contenders that can be; needs no GPU."""
    from memory_harness.configs.cards import card_of
    from memory_harness.harness.data.batching import train_steps
    from memory_harness.harness.data.prepare import prepare
    from memory_harness.harness.train.run import make_strategy, simulate_card

    records = json.loads(out.read_text())
    for result in records["results"]:
        if result["contender"].startswith("unsloth"):
            continue
        config = config_of(result["contender"], gpu).with_fields(device="simulated", recompute=result["recompute"])
        card = simulate_card(config, card_of(config.device))
        strategy = make_strategy(config, card)
        with card.active():
            strategy.load()
            for step in train_steps(prepare(config).train, config, 1)[: result["steps"]]:
                timed_step(strategy, step, put_as_it_is, lambda: None)
        stats = card.stats()
        result["predicted"] = {name: getattr(stats, name) for name in PEAKS}
        write_records(out, records, 2)


def timed_step(
    strategy: Any, batches: Sequence[Any], put: Callable[[Any, Any], None], wait: Callable[[], None]
) -> tuple[float, float | None]:
    """Return the seconds of a step and its loss."""
    wait()
    begin = time.perf_counter()
    num_targets = sum(batch.shape.target_tokens for batch in batches)
    for batch in batches:
        put(strategy, batch)
        strategy.forward(num_targets)
        strategy.backward()
    loss, _ = strategy.optimizer_step(1e-4)
    wait()
    return time.perf_counter() - begin, loss


def put_as_it_is(strategy: Any, batch: Any) -> None:
    """Put a batch as the harness does."""
    strategy.put(batch, training=True)


def put_without_padding(strategy: Any, batch: Any) -> None:
    """Give Unsloth a batch's samples end to end, with what its own collator says of them."""
    import torch

    from memory_harness.harness.data.batching import packed_batch

    packed, training = packed_batch(batch.examples, 1), strategy.training
    put_as_it_is(strategy, batch)  # so that all else is as for any batch
    arrays = packed.arrays(training._pad_id, training._vocab_size)
    training.inputs = {name: strategy.device.put(array) for name, array in arrays.items()}
    training.inputs["packed_seq_lengths"] = torch.tensor(packed.shape.lengths, dtype=torch.int32)
    training.packs_by_kernel = True  # no masks of ours


def summary(steps: Sequence[Sequence[Any]], seconds: Sequence[float]) -> dict[str, Any]:
    """Return how many real tokens a second were trained on."""
    tokens = [sum(sum(batch.shape.lengths) for batch in step) for step in steps]
    warm = list(zip(tokens, seconds, strict=True))[WARM_UP:]
    typical = statistics.median(each for _, each in warm)
    timed = [(number, each) for number, each in warm if each < COMPILING * typical]
    real, total = (sum(values) for values in zip(*timed, strict=True))
    return {
        "steps": len(steps),
        "timed_steps": len(timed),
        "median_seconds": round(typical, 4),
        "real_tokens": real,
        "seconds": round(total, 3),
        "real_tokens_per_second": round(real / total, 1),
    }


def main() -> int:
    """Measure each contender in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--predict", action="store_true", help="add what is simulated to OUT, without a GPU")
    parser.add_argument("--case", action="store_true", help="one contender, in this process")
    args = parser.parse_args()
    if args.predict:
        add_predictions(args.out, args.gpu)
        return 0
    if args.case:
        args.out.write_text(json.dumps(run_case(args.only, args.steps, args.gpu)))
        return 0
    results, flags = [], ["--steps", str(args.steps), "--gpu", args.gpu]
    for contender in args.only.split(","):
        found = found_apart("tests.bench.corpus_speed", args.out, contender, flags)
        results.append({"contender": contender, **found})
        write_records(args.out, {"cap_bytes": CAP, "results": results}, 2)
        print({name: value for name, value in results[-1].items() if name != "losses"}, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
