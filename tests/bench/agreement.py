"""The configurations on which simulation and GPU are compared, and what is compared: one plan, run on either.

python -m tests.bench.agreement OUT.json        on a CUDA GPU: run every configuration in a process of its own
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_harness.configs.cards import Card, find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB, parse_bytes
from memory_harness.harness.data.batching import Batch, Example, train_steps
from memory_harness.harness.log.records import BatchShape
from memory_harness.harness.train.generate import complete
from tests.bench.processes import measure_each

NUM_PROCESSES = 3
"""at once: a 4-bit 8B model with its peaks three times fits 80 GB, and memory counters do not mind company"""

HOST = "h100"
"""the GPU that the stored results were measured on"""


@dataclass(frozen=True)
class Op:
    """One thing that a run does: `train` (one optimizer step), `grpo` (one with its rollout), `eval`, `generate` or
    `empty_cache`."""

    kind: str
    batch_size: int = 1
    length: int = 0
    padded: bool = False
    """whether the batch has padding, and so a mask"""
    times: int = 2


@dataclass(frozen=True)
class Configuration:
    """A recipe, the card whose attention it has, and what it does."""

    name: str
    fields: dict[str, Any]
    plan: tuple[Op, ...]
    target: str = HOST
    budget: str = "70 GiB"

    @property
    def config(self) -> RunConfig:
        """The recipe: that of the published failure, with this configuration's changes."""
        return RunConfig().with_fields(**{"kbit_upcast": True, "gradient_accumulation": 1, **self.fields})

    @property
    def budget_bytes(self) -> int:
        """What the allocator may reserve."""
        return parse_bytes(self.budget)


def train(length: int, batch_size: int = 1, *, padded: bool = False, times: int = 2) -> Op:
    return Op("train", batch_size, length, padded, times)


def evaluate(length: int, batch_size: int, *, padded: bool = False) -> Op:
    return Op("eval", batch_size, length, padded, 1)


VARIABLE_LENGTHS = tuple(64 * n for n in (3, 17, 8, 30, 1, 24, 12, 5, 32, 9, 20, 2, 28, 14, 6)) * 2
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

CONFIGURATIONS = (
    Configuration("lengths", {"hold_outputs": True}, tuple(train(n) for n in (256, 512, 1024, 2048, 4096))),
    Configuration("outputs-dropped", {}, tuple(train(n) for n in (256, 512, 1024, 2048, 4096))),
    Configuration("no-upcast", {"kbit_upcast": False}, (train(512), train(2048))),
    Configuration("batch-2", {}, (train(512, 2), train(1024, 2))),
    Configuration("batch-4", {}, (train(256, 4), train(512, 4))),
    Configuration("accumulation", {"gradient_accumulation": 3}, (train(512, times=3),)),
    Configuration("rank-16", {"lora_rank": 16}, (train(1024),)),
    Configuration("rank-32-all-linear", {"lora_rank": 32, "target_modules": ALL_LINEAR}, (train(1024),)),
    Configuration("no-checkpointing", {"gradient_checkpointing": False}, (train(256), train(512))),
    Configuration("no-dropout", {"lora_dropout": 0.0}, (train(1024),)),
    Configuration("adamw-8bit", {"optimizer": "adamw_8bit"}, (train(1024),)),
    Configuration("no-clipping", {"max_grad_norm": None}, (train(1024),)),
    Configuration("bfloat16", {"dtype": "bfloat16"}, (train(1024),)),
    Configuration("single-quantisation", {"double_quant": False}, (train(1024),)),
    Configuration("chunked-loss", {"loss": "chunked"}, (train(512), train(2048))),
    Configuration("evaluation", {}, (train(512), evaluate(512, 8), evaluate(1024, 4), train(512))),
    Configuration("evaluation-padded", {}, (train(512, padded=True), evaluate(512, 8, padded=True))),
    Configuration("generation", {}, (train(256), Op("generate", 1, 300, times=40), train(256))),
    Configuration("generation-batch", {"kbit_upcast": False}, (Op("generate", 4, 200, times=20),)),
    Configuration("t4-padded", {}, (train(512, padded=True), train(2048, padded=True)), "t4"),
    Configuration("t4-unpadded-math", {}, (train(512), train(1024)), "t4"),
    Configuration("t4-no-checkpointing", {"gradient_checkpointing": False}, (train(384, padded=True),), "t4"),
    Configuration("llama-3.2-3b", {"model": "llama-3.2-3b"}, (train(512), train(2048))),
    Configuration("llama-3.2-1b", {"model": "llama-3.2-1b"}, (train(512), train(2048))),
    Configuration("qwen2.5-7b", {"model": "qwen2.5-7b"}, (train(512), train(1024))),
    Configuration("mistral-7b", {"model": "mistral-7b"}, (train(512), train(1024))),
    Configuration("variable-lengths", {}, tuple(train(n, times=1) for n in VARIABLE_LENGTHS)),
    Configuration(
        "variable-lengths-expandable", {"expandable_segments": True}, tuple(train(n, times=1) for n in VARIABLE_LENGTHS)
    ),
    Configuration("retries", {}, tuple(train(n, times=1) for n in VARIABLE_LENGTHS), budget="13.2 GiB"),
    Configuration("clearing", {}, (train(2048), Op("empty_cache"), train(512), Op("empty_cache"), train(1024))),
    Configuration(
        "published-failure", {}, (train(2048, padded=True), evaluate(2048, 8, padded=True)), "t4", "14.40 GiB"
    ),
    Configuration("training-fails", {}, (train(1024), train(4096)), budget="14.5 GiB"),
)


def batch_of(op: Op) -> Batch:
    """Return the operation's batch: full sequences, or with padding all but two tokens long."""
    length = op.length - 2 if op.padded else op.length
    shape = BatchShape(op.batch_size, op.length, (length,) * op.batch_size, op.batch_size * (length - 1))
    return Batch(shape, (Example(length, 1),) * op.batch_size)


def run_plan(configuration: Configuration, strategy: Any, device: Any) -> list[dict[str, Any]]:
    """Run the plan; return the counters after loading and after each operation, and an out-of-memory if it ends so."""
    rows: list[dict[str, Any]] = []

    def note(name: str) -> None:
        rows.append({"op": name, **dataclasses.asdict(device.stats())})
        device.reset_peaks()

    try:
        with device.active():
            strategy.load()
            note("load")
            for op in configuration.plan:
                run_op(op, configuration.config, strategy, device)
                note(f"{op.kind} {op.batch_size}x{op.length}")
    except Exception as error:
        failure = device.as_out_of_memory(error)
        if failure is None:
            raise
        rows.append(
            {"op": "oom", "requested_bytes": failure.requested_bytes, "allocated_bytes": failure.allocated_bytes}
        )
    return rows


def run_op(op: Op, config: RunConfig, strategy: Any, device: Any) -> None:
    """Run one operation `times` times."""
    if op.kind == "empty_cache":
        device.empty_cache()
    elif op.kind == "generate":
        strategy.prefill([[7] * op.length] * op.batch_size)
        for _ in range(op.times - 1):
            strategy.decode()
        strategy.release()
    else:
        for _ in range(op.times):
            (_run_rollout if op.kind == "grpo" else _run_batch)(op, config, strategy)


def _run_rollout(op: Op, config: RunConfig, strategy: Any) -> None:
    (batch,) = train_steps((), config.with_fields(batches=f"{op.batch_size}x{op.length}"), 1)[0]
    assert batch.rollout is not None, "--objective grpo has one in its first step"
    complete(strategy, batch.rollout)
    if batch.rollout.is_scored:
        strategy.score([batch])
    strategy.put(batch, training=True)
    strategy.forward(batch.shape.target_tokens)
    strategy.backward()
    strategy.optimizer_step(1e-4)


def _run_batch(op: Op, config: RunConfig, strategy: Any) -> None:
    batch = batch_of(op)
    if op.kind == "eval":
        strategy.put(batch, training=False)
        strategy.evaluate()
        return
    for _ in range(config.train.gradient_accumulation):
        strategy.put(batch, training=True)
        strategy.forward(batch.shape.target_tokens * config.train.gradient_accumulation)
        strategy.backward()
    strategy.optimizer_step(1e-4)


def measure(name: str) -> dict[str, Any]:
    """Run one configuration on the GPU of this process."""
    import os

    configuration = next(c for c in CONFIGURATIONS if c.name == name)
    if configuration.config.device.expandable_segments:
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.log.environment import environment
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    device = CudaDevice(card_of(configuration), configuration.budget_bytes, share_gpu=True)
    rows = run_plan(configuration, QLoraStrategy(configuration.config, device), device)
    return {"name": name, "gpu": device.gpu_name, "environment": environment(), "rows": rows}


def card_of(configuration: Configuration) -> Card:
    """Return the card as the measuring GPU emulated it."""
    from memory_harness.configs.cards import emulated

    return emulated(find_card(configuration.target), find_card(HOST))


def main(arguments: Sequence[str]) -> None:
    """Measure the configurations named after the output file, all of them without names."""
    output, names = Path(arguments[0]), arguments[1:] or [c.name for c in CONFIGURATIONS]
    measure_each(measure, names, output, _line_of, num_processes=NUM_PROCESSES, num_levels=3)


def _line_of(result: dict[str, Any]) -> str:
    peak = max(row.get("peak_reserved_bytes", 0) for row in result["rows"])
    return f"{result['name']}: peak reserved {peak / GIB:.4f} GiB"


if __name__ == "__main__":
    main(sys.argv[1:])
