"""Families of models on a GPU against the simulation, both with the libraries of that machine.

python -m tests.bench.families OUT.json [NAME ...]      on a CUDA GPU: run each family, simulate it, write both
python -m tests.bench.families --table OUT.json         print the differences

Weights are random, their memory is not. Where a model has more layers than `NUM_LAYERS`, so many are taken: a family's
layers repeat.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memory_harness.configs.cards import find_card
from tests.bench.agreement import Configuration, Op, evaluate, run_plan, train
from tests.bench.processes import measure_each

MODELS = Path(__file__).parents[1] / "models"

NUM_PROCESSES = 6
NUM_LAYERS = 12
FAMILIES = (
    *("qwen2.5-1.5b", "qwen3-4b", "gemma-3-1b", "gemma-3-4b", "gemma-2-2b", "phi-4-mini", "mistral-7b-v0.3"),
    *("glm-4-9b-hf", "granite-4.0-h-tiny", "gpt2", "qwen3-30b-a3b", "deepseek-v2-lite", "qwen3.5-27b", "olmo2-7b"),
    *("redpajama-3b", "bloom-7b1", "mpt-7b", "gpt-j-6b", "falcon3-7b", "command-r-35b", "nemotron-3-nano-30b"),
    *("phi-3.5-mini", "mixtral-8x7b", "qwen2.5-vl-7b"),
)
"""names of the files in tests/models"""

VARIANTS = {
    "qwen3-30b-a3b in float32": ("qwen3-30b-a3b", {"dtype": "float16", "kbit_upcast": True}),
    "gemma-2-2b in float16": ("gemma-2-2b", {"dtype": "float16", "kbit_upcast": True}),
    "gpt2 in float16": ("gpt2", {"dtype": "float16", "kbit_upcast": True}),
    "qwen3-30b-a3b, 4-bit experts": ("qwen3-30b-a3b", {"quantise_experts": True}),
}
"""other settings of some: name -> family and fields"""

PLAN = (
    *(train(256), train(512), train(512, padded=True), train(768), train(512, 2)),
    *(evaluate(512, 4), Op("generate", 1, 200, times=12), train(512)),
)


def configuration_of(name: str, folder: Path) -> Configuration:
    """Write the family's config.json, its layers cut, into the folder; return the recipe that trains it."""
    family, fields = VARIANTS.get(name, (name, {}))
    values = json.loads((MODELS / f"{family}.json").read_text())
    _cut_layers(values.get("text_config", values))
    (folder / "config.json").write_text(json.dumps(values))
    recipe = {"model": str(folder), "dtype": "bfloat16", "kbit_upcast": False, "max_length": 1024}
    return Configuration(name, recipe | fields, PLAN)


def _cut_layers(values: dict[str, Any]) -> None:
    for name in ("num_hidden_layers", "n_layers", "n_layer"):
        if values.get(name, 0) > NUM_LAYERS:
            values[name] = NUM_LAYERS
    if isinstance(types := values.get("layer_types"), list):
        values["layer_types"] = types[:NUM_LAYERS]
    if isinstance(pattern := values.get("hybrid_override_pattern"), str):
        values["hybrid_override_pattern"] = pattern[:NUM_LAYERS]


def measure(name: str) -> dict[str, Any]:
    """Run one family on the GPU of this process, and on the model of it."""
    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.log.environment import environment
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    with TemporaryDirectory() as folder:
        configuration = configuration_of(name, Path(folder))
        device = CudaDevice(find_card("h200"), configuration.budget_bytes, share_gpu=True)
        rows = run_plan(configuration, QLoraStrategy(configuration.config, device), device)
        simulated = simulate(configuration, device.gpu_name)
    return {
        "name": name,
        "gpu": device.gpu_name,
        "environment": environment(),
        "rows": rows,
        "simulated": simulated,
    }


def simulate(configuration: Configuration, gpu_name: str) -> list[dict[str, Any]]:
    """Run the plan on the simulated card of that name."""
    from memory_harness.harness.devices.simulated import SimulatedDevice
    from memory_harness.harness.strategies.compiled import CompiledStrategy
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    card = find_card("h200" if "H200" in gpu_name else "h100")
    device = SimulatedDevice(card, configuration.budget_bytes, computes=False)
    return run_plan(configuration, CompiledStrategy(QLoraStrategy(configuration.config, device), device), device)


def differences(measured: Sequence[dict[str, Any]], simulated: Sequence[dict[str, Any]], counter: str) -> float:
    """Return the largest relative difference of a counter over all operations."""
    pairs = [(m[counter], s[counter]) for m, s in zip(measured, simulated, strict=True)]
    return max(abs(s - m) / m for m, s in pairs)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return a line for each family: the largest differences of its peaks."""
    lines = [f"{'family':24} {'allocated':>10} {'reserved':>10}"]
    for result in results:
        allocated, reserved = (
            differences(result["rows"], result["simulated"], counter)
            for counter in ("peak_allocated_bytes", "peak_reserved_bytes")
        )
        lines.append(f"{result['name']:24} {allocated:10.4%} {reserved:10.4%}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Measure the families named after the output file, all of them without names."""
    if arguments[0] == "--table":
        print(table(json.loads(Path(arguments[1]).read_text())))
        return
    output, names = Path(arguments[0]), arguments[1:] or (*FAMILIES, *VARIANTS)
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
