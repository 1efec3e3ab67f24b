"""Scripts of tests/scripts/dry on a GPU and on the card that is not there: memory after each optimizer step, compared.

    python -m tests.bench.dry_scripts OUT.json [NAME ...]

needs a GPU, and TRL and Lightning for those of their scripts. Each script runs twice, each time in a process of its
own in an empty folder: once on the GPU, once dry where no GPU is visible. Both note PyTorch's own counters after each
optimizer step, and start the peaks anew. What OUT.json already has of a GPU is not measured again.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "scripts" / "dry"
ROOT = Path(__file__).parents[2]
COUNTERS = ("allocated_bytes.all.peak", "reserved_bytes.all.peak", "allocated_bytes.all.current",
            "reserved_bytes.all.current")  # fmt: skip
COLUMNS = ("peak_allocated", "peak_reserved", "allocated", "reserved")

NUM_AT_ONCE = 12
"""processes; each has counters of its own"""

RUNS: dict[str, tuple[str, ...]] = {
    "loop_autocast_bf16": ("--size", "full"),
    "loop_gradscaler_fp16": ("--size", "full"),
    "loop_adafactor": ("--size", "full"),
    "loop_bnb_8bit": ("--size", "full"),
    "loop_sgd_transformer": ("--size", "full"),
    "accelerate_loop": ("--size", "full"),
    "lightning_module": ("--size", "full"),
    "vit_loader": ("--size", "full"),
    "patch_vit": ("--size", "full"),
    "convnet": ("--size", "full"),
    "nanogpt_like": ("--size", "full"),
    "peft_kinds": ("--size", "full"),
    "trainer_bert": ("--size", "full"),
    "trainer_t5": ("--size", "full"),
    "trainer_full": ("--size", "full"),
    "trl_sft": ("--size", "full"),
    "trl_preferences": ("--size", "full"),
    "trl_grpo": ("--size", "full"),
    "trl_grpo_lora": (),
    "generate_after": ("--size", "full"),
}
"""script -> its arguments"""


def main(out: str, *names: str) -> None:
    """Run the scripts and write what both did."""
    written = Path(out)
    results = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        measuring = {name: pool.submit(_run, "measure", name) for name in names or RUNS if name not in results}
        running_dry = {name: pool.submit(_run, "dry", name) for name in names or RUNS}
    for name in running_dry:
        measured = results[name]["measured"] if name in results else measuring[name].result()
        dry = running_dry[name].result()
        results[name] = {"arguments": RUNS[name], "measured": measured, "dry": dry}
        print(name, worst_differences(measured, dry), measured.get("error"), dry.get("error"), flush=True)
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in results.items()]
        written.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def worst_differences(measured: dict[str, Any], dry: dict[str, Any]) -> dict[str, float]:
    """Return, per counter, the largest relative difference over the steps that both made.

    A GPU may make fewer: without values no loss scale is found to be too high, and no step is left out.
    """
    worst = {}
    for number, column in enumerate(COLUMNS):
        pairs = zip(measured["steps"], dry["steps"], strict=False)
        shares = [abs(after[number] - before[number]) / before[number] for before, after in pairs]
        worst[column] = round(max(shares), 6)
    return worst


def _run(mode: str, name: str) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if mode == "dry":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bench.dry_scripts", f"--{mode}", f"{folder}/out.json"]
        command += [str(SCRIPTS / f"{name}.py"), *RUNS[name]]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        written = Path(folder, "out.json")
        if not written.exists():
            return {"steps": [], "error": ended.stderr[-400:]}
        result: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        return result


def measure(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script on the card that PyTorch sees; return its counters."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps: list[list[int]] = []

    def note(*_: Any) -> None:
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        steps.append([stats[counter] for counter in COUNTERS])
        torch.cuda.reset_peak_memory_stats()

    register_optimizer_step_post_hook(note)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    error = None
    try:
        runpy.run_path(script, run_name="__main__")
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"[:400]
    stats = torch.cuda.memory_stats()
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "steps": steps,
        "after_last_step": [stats[counter] for counter in COUNTERS],
        "error": error,
    }


def run_dry(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script on the card that is not there; return its counters."""
    from memory_harness.configs.cards import find_card
    from memory_harness.harness.devices.dry_run import DryRunDevice

    card = find_card("h200")
    with DryRunDevice(card, card.budget_bytes).active():
        return measure(script, *arguments)


if __name__ == "__main__":
    modes = {"--measure": measure, "--dry": run_dry}
    if sys.argv[1] in modes:
        mode, out, *rest = sys.argv[1:]
        Path(out).write_text(json.dumps(modes[mode](*rest)), encoding="utf-8")
    else:
        main(*sys.argv[1:])
