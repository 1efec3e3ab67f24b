"""Optimizers and other settings of the training on a GPU against the simulation, both with that machine's libraries.

python -m tests.bench.knobs OUT.json [NAME ...]      on a CUDA GPU: run each, simulate it, write both
python -m tests.bench.knobs --table OUT.json         print the differences

A model of four layers with random weights; an adapter large enough that states in pages are among the optimizer's.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memory_harness.configs.cards import find_card
from memory_harness.configs.optimizers import OPTIMIZERS
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch
from tests.bench.agreement import Op, batch_of
from tests.bench.processes import measure_each

NUM_PROCESSES = 8
NUM_LAYERS = 4
BUDGET_BYTES = 70 * 2**30
MODEL = Path(__file__).parents[1] / "models" / "qwen2.5-1.5b.json"

ADAPTER = {"dtype": "float16", "kbit_upcast": False, "lora_rank": 128, "target_modules": ("all-linear",)}
FULL = {"finetuning_type": "full", "quantization": "none", "dtype": "bfloat16", "kbit_upcast": False}
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": name} for name in OPTIMIZERS},
    "sgd, momentum": {"optimizer": "sgd", "optim_args": "momentum=0.9,nesterov=true"},
    "rmsprop, centered": {"optimizer": "rmsprop", "optim_args": "momentum=0.9,centered=true"},
    "ademamix, scheduled": {"optimizer": "ademamix", "optim_args": "t_alpha=10,t_beta3=10"},
    "adamw_torch, decay": {"optimizer": "adamw_torch", "weight_decay": 0.1},
    "noise": {"neftune_noise_alpha": 5.0},
    "smoothing": {"label_smoothing_factor": 0.1},
    "kept logits": {"eval_keep_logits": True},
    "kept logits, two at a time": {"eval_keep_logits": True, "eval_accumulation_steps": 2},
    **{
        f"full, {name}": {**FULL, "optimizer": name}
        for name in ("adamw_torch", "adamw_torch_fused", "adafactor", "adamw_bnb_8bit", "paged_adamw_8bit", "sgd")
    },
}
TRAINING, EVALUATION = Op("train", 2, 128, True), [Op("eval", 4, n, True) for n in (256, 192, 192, 128)]


def config_of(name: str, folder: Path) -> RunConfig:
    """Write the model's config.json, its layers cut, into the folder; return the configuration that trains it."""
    values = json.loads(MODEL.read_text())
    values |= {"num_hidden_layers": NUM_LAYERS, "layer_types": ["full_attention"] * NUM_LAYERS}
    (folder / "config.json").write_text(json.dumps(values))
    return RunConfig().with_fields(**{"model": str(folder), "gradient_accumulation": 1, **ADAPTER, **SETTINGS[name]})


def run_phases(strategy: Any, device: Any) -> list[dict[str, Any]]:
    """Return the counters after loading and after each phase of three steps and an evaluation, with its own peaks."""
    rows: list[dict[str, Any]] = []
    with device.active():
        for phase in _phases(strategy):
            rows.append({"op": phase, **dataclasses.asdict(device.stats())})
            device.reset_peaks()
    return rows


def _phases(strategy: Any) -> Iterator[str]:
    """Run a phase, yield its name, and so on."""
    strategy.load()
    yield "load"
    for step in (1, 2, 3):
        batch: Batch = batch_of(TRAINING)
        strategy.put(batch, training=True)
        strategy.forward(batch.shape.target_tokens)
        yield f"forward {step}"
        strategy.backward()
        yield f"backward {step}"
        strategy.optimizer_step(1e-4)
        yield f"optimizer {step}"
    for number, op in enumerate(EVALUATION, 1):
        strategy.put(batch_of(op), training=False)
        strategy.evaluate()
        strategy.end_batch()
        yield f"evaluation {number}"
    strategy.end_evaluation()
    yield "evaluation ends"


def measure(name: str) -> dict[str, Any]:
    """Run one setting on the GPU of this process, and on the model of it."""
    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.log.environment import environment
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    with TemporaryDirectory() as folder:
        config = config_of(name, Path(folder))
        device = CudaDevice(find_card("h100"), BUDGET_BYTES, share_gpu=True)
        rows = run_phases(QLoraStrategy(config, device), device)
        simulated = simulate(config)
    return {"name": name, "gpu": device.gpu_name, "environment": environment(), "rows": rows, "simulated": simulated}


def simulate(config: RunConfig) -> list[dict[str, Any]]:
    """Run the phases on a simulated H100."""
    from memory_harness.harness.devices.simulated import SimulatedDevice
    from memory_harness.harness.strategies.compiled import CompiledStrategy
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    device = SimulatedDevice(find_card("h100"), BUDGET_BYTES, computes=False)
    return run_phases(CompiledStrategy(QLoraStrategy(config, device), device), device)


def largest_difference(measured: Sequence[dict[str, Any]], simulated: Sequence[dict[str, Any]], counter: str) -> int:
    """Return the largest difference of a counter over all phases, in bytes, with its sign."""
    pairs = zip(measured, simulated, strict=True)
    return max((int(s[counter]) - int(m[counter]) for m, s in pairs), key=abs)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return a line for each setting: by how many bytes the simulation is off where it is off most."""
    lines = [f"{'setting':28} {'allocated':>12} {'its peak':>12} {'reserved':>12}"]
    for result in results:
        differences = (
            largest_difference(result["rows"], result["simulated"], counter)
            for counter in ("allocated_bytes", "peak_allocated_bytes", "peak_reserved_bytes")
        )
        lines.append(f"{result['name']:28} " + " ".join(f"{difference:12}" for difference in differences))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Measure the settings named after the output file, all of them without names."""
    if arguments[0] == "--table":
        print(table(json.loads(Path(arguments[1]).read_text())))
        return
    output, names = Path(arguments[0]), arguments[1:] or tuple(SETTINGS)
    measure_each(
        measure,
        names,
        output,
        lambda result: table([result]).splitlines()[-1],
        num_processes=NUM_PROCESSES,
        num_levels=4,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
