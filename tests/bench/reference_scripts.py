"""Three training scripts that were measured on a GPU, run dry on the same versions of the libraries, and compared.

    python -m tests.bench.reference_scripts FOLDER MODELS OUT.json

FOLDER holds the scripts, and what they did in `measured/`; MODELS a folder with the config.json and the tokenizer of
each model that they train. Neither weights nor a GPU are needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.dry_scripts import ROOT, measure, worst_differences

RUNS = {"loop_leak": ("llama-3.2-1b", 14.4), "sft_trl": ("qwen3-4b", None), "trainer_qlora": ("llama-3.1-8b", None)}
"""script -> its model, and the budget in GiB where one was set"""


def main(folder: str, models: str, out: str) -> None:
    """Run each script in a process of its own, and write what both did."""
    results: dict[str, Any] = {}
    for name, (model, budget_gib) in RUNS.items():
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {"MODEL": str(Path(models, model)), "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
        command = [
            sys.executable,
            "-m",
            "tests.bench.reference_scripts",
            str(Path(folder, f"{name}.py")),
            str(budget_gib),
        ]
        subprocess.run([*command], env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
        measured = json.loads(Path(folder, "measured", f"{name}.json").read_text(encoding="utf-8"))
        dry = json.loads(Path(f"{name}.json").read_text(encoding="utf-8"))
        results[name] = {"measured": measured, "dry": dry}
        print(name, len(measured["steps"]), len(dry["steps"]), worst_differences(measured, dry), flush=True)
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in results.items()]
    Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def run_dry(script: str, budget_gib: str) -> None:
    """Run a script on the card that it was measured on, and write what it did into this folder."""
    from memory_harness.configs.cards import find_card
    from memory_harness.harness.devices.dry_run import DryRunDevice

    card = find_card("h200")
    budget_bytes = card.budget_bytes if budget_gib == "None" else int(float(budget_gib) * 2**30)
    device = DryRunDevice(card, budget_bytes)
    with device.active():
        found = measure(script)
    found["layers_replayed"] = device.layers.num_replayed
    Path(f"{Path(script).stem}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    (run_dry if len(sys.argv) == 3 else main)(*sys.argv[1:])
