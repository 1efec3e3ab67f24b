"""Memory that others measured on a Tesla T4, against what the same recipe takes here, simulated.

    python -m tests.bench.public_t4 MEASUREMENTS.json MODELS OUT.json [NUMBER ...]

MEASUREMENTS.json holds rows as the package fitcheck-llm publishes them: a plain PyTorch loop without autocast, the
output kept alive, keys and values repeated for the attention. Two things that the rows do not say were found by trying:
the step that was measured is the second, as the optimizer's state and a workspace of the backward pass are there; and
models that are not quantised came over host memory. Of the library versions nothing is known. MODELS is a folder with a
`config.json` of each model in a folder of the model's name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory_harness.configs.cards import find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import train_steps
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy

MIB = 2**20
ROW = ("model", "quantization", "double_quant", "attn_impl", "seq_len", "batch_size", "lora_rank", "lora_targets",
       "grad_checkpoint")  # fmt: skip
"""what a row says of its recipe"""
PEAKS = {"allocated": "peak_allocated_mib", "reserved": "peak_reserved_mib"}


def config_of(row: dict[str, Any], models: Path) -> RunConfig:
    """Return the recipe of a row, two steps of it."""
    batch = f"{row['batch_size']}x{row['seq_len']}"
    return RunConfig().with_fields(
        model=str(_folder(row["model"], models)),
        quantization=row["quantization"],
        double_quant=row["double_quant"],
        kbit_upcast=True,
        gradient_checkpointing=row["grad_checkpoint"],
        attention=row["attn_impl"],
        expand_kv=row["attn_impl"] == "sdpa",
        loader="host" if row["quantization"] == "none" else "transformers",
        autocast="none",
        hold_outputs=True,
        hold_until="step",
        lora_rank=row["lora_rank"],
        lora_alpha=2 * row["lora_rank"],
        lora_dropout=0.0,
        target_modules=tuple(row["lora_targets"]),
        max_grad_norm=None,
        gradient_accumulation=1,
        batches=f"{batch},{batch}",
        max_length=max(2048, row["seq_len"]),
        gpu="t4",
    )


def _folder(model: str, models: Path) -> Path:
    """Return the folder of a model: its name without its owner, with or without what says that it is tuned."""
    name = model.partition("/")[2].lower()
    names = [name, *(name.removesuffix(suffix) for suffix in ("-instruct", "-chat-v1.0"))]
    found = [folder for name in names for folder in (models / name, models / f"{name}-dir") if folder.exists()]
    if not found:
        raise FileNotFoundError(f"{models} has no folder {' or '.join(names)}")
    return found[0]


def simulate(config: RunConfig) -> dict[str, int]:
    """Return the peaks of the last step, in bytes."""
    card = find_card("t4")
    device = SimulatedDevice(card, card.budget_bytes, computes=False)
    strategy = CompiledStrategy(QLoraStrategy(config, device), device)
    with device.active():
        strategy.load()
        for (batch,) in train_steps((), config, epoch=1):
            device.reset_peaks()
            strategy.put(batch, training=True)
            strategy.forward(batch.shape.target_tokens)
            strategy.backward()
            strategy.optimizer_step(1e-4)
    stats = device.stats()
    return {"allocated": stats.peak_allocated_bytes, "reserved": stats.peak_reserved_bytes}


def compare(rows: list[dict[str, Any]], models: Path, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Yield for each row what was measured, what is simulated, and the difference as a share of the former."""
    for number in numbers:
        row = rows[number]
        simulated = simulate(config_of(row, models))
        measured = {name: round(row["measured"][peak] * MIB) for name, peak in PEAKS.items()}
        yield {
            "number": number,
            "source": row["source"],
            "config": row["config"],
            "row": {name: row[name] for name in ROW},
            "measured": measured,
            "simulated": simulated,
            "difference": {name: simulated[name] / measured[name] - 1 for name in PEAKS},
        }


def main(measurements: str, models: str, out: str, *numbers: str) -> None:
    """Compare the rows, all of them without numbers, and write what was found."""
    rows = json.loads(Path(measurements).read_text(encoding="utf-8"))["rows"]
    found = []
    for result in compare(rows, Path(models), [int(number) for number in numbers] or list(range(len(rows)))):
        print(result["number"], result["row"]["model"], result["config"], result["difference"], flush=True)
        found.append(result)
    Path(out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
