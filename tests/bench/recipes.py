"""Recipes of all kinds on a GPU and on the simulated card, compared.

    python -m tests.bench.recipes OUT.json [NAME ...]

needs an H100 or H200. Each recipe trains Llama 3.2 1B with random weights for some steps, in a process of its own;
those that transformers loads read a checkpoint of it, which is made first.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memory_harness.configs.cards import find_card
from memory_harness.configs.models import find_model
from tests.bench.agreement import Configuration, Op, evaluate, run_plan, train
from tests.bench.families import simulate, table
from tests.bench.processes import measure_each

NUM_PROCESSES = 6
STEPS = (train(512), train(1024, 2))
NARROW: dict[str, Any] = {"quantization": "none", "dtype": "bfloat16", "kbit_upcast": False}
FULL = NARROW | {"finetuning_type": "full"}
HELD = {"hold_outputs": True, "hold_until": "step"}
GRPO = NARROW | {"objective": "grpo", "beta": 0.04, "num_generations": 4, "max_completion_length": 64}
PLAIN_LOOP = HELD | {"autocast": "none", "max_grad_norm": None, "lora_dropout": 0.0}


def _recipe(name: str, fields: dict[str, Any], plan: Sequence[Op] = STEPS) -> Configuration:
    return Configuration(name, {"model": "llama-3.2-1b", "gpu": "h200", **fields}, tuple(plan), "h200")


CONFIGURATIONS = (
    _recipe("lora-bfloat16", NARROW, (*STEPS, evaluate(512, 4))),
    _recipe("lora-float16", NARROW | {"dtype": "float16"}),
    _recipe("8-bit", {"quantization": "int8"}, (*STEPS, evaluate(512, 4))),
    _recipe("8-bit-bfloat16", {"quantization": "int8", "dtype": "bfloat16"}),
    _recipe("8-bit-all-columns", {"quantization": "int8", "llm_int8_threshold": 0.0}, (*STEPS, evaluate(512, 4))),
    _recipe("fp4", {"quantization": "fp4"}),
    _recipe("full-bfloat16", FULL),
    _recipe("full-float32", FULL | {"weights_dtype": "float32"}),
    _recipe("dpo", {"objective": "dpo", "dtype": "bfloat16"}, (train(512, 2), train(1024, 4))),
    _recipe("dpo-bfloat16", NARROW | {"objective": "dpo"}, (train(512, 2), train(1024, 2, padded=True))),
    _recipe("simpo", NARROW | {"objective": "simpo"}, (train(512, 2), train(1024, 4))),
    _recipe("orpo-full", FULL | {"objective": "orpo"}, (train(512, 2),)),
    _recipe("eager", NARROW | {"attention": "eager"}, (train(512), train(1024, 4), train(1024, 2, padded=True))),
    _recipe("eager-float16", {"attention": "eager", **PLAIN_LOOP}, (train(512), train(1024, 4))),
    _recipe("sdpa-math", NARROW | {"attention": "math"}, (train(512), train(1024, 2, padded=True))),
    _recipe("autocast-none", PLAIN_LOOP),
    _recipe("autocast-none-bfloat16", NARROW | PLAIN_LOOP),
    _recipe("transformers-loader", {"loader": "transformers"}),
    _recipe("transformers-loader-bfloat16", NARROW | {"loader": "transformers"}),
    _recipe("transformers-loader-8-bit", {"quantization": "int8", "loader": "transformers"}),
    _recipe("host-loader", NARROW | {"loader": "host"}),
    _recipe("reentrant", NARROW | {"use_reentrant": True}),
    _recipe("dora", NARROW | {"use_dora": True}),
    _recipe("qdora", {"use_dora": True}),
    _recipe("modules-to-save", NARROW | {"modules_to_save": ("embed_tokens", "lm_head")}),
    _recipe("adapter-auto", NARROW | {"adapter_dtype": "auto", "lora_bias": "lora_only", "rank_pattern": "q_proj=64"}),
    *(
        _recipe(f"optimizer-{name}", NARROW | {"optimizer": name})
        for name in ("adamw_torch_fused", "adafactor", "sgd", "paged_adamw_32bit", "lion_8bit", "ademamix", "muon")
    ),
    _recipe("neftune-smoothing", NARROW | {"neftune_noise_alpha": 5.0, "label_smoothing_factor": 0.1}),
    _recipe("grpo", GRPO, (Op("grpo", 8, 320), Op("grpo", 16, 512))),
    _recipe("grpo-iterations", GRPO | {"beta": None, "num_iterations": 2}, (Op("grpo", 8, 320),)),
    _recipe("grpo-full", FULL | GRPO | {"beta": None}, (Op("grpo", 8, 320),)),
    _recipe("pissa", NARROW | {"init_lora_weights": "pissa_niter_4"}),
    _recipe("olora", NARROW | {"init_lora_weights": "olora"}),
    _recipe("sdpa-in-order", NARROW | {"sdpa_backends": ("memory_efficient", "flash", "math")}),
)


def of_name(name: str, folder: str) -> Configuration:
    """Return a configuration, of the checkpoint in the folder where transformers loads it."""
    (found,) = (configuration for configuration in CONFIGURATIONS if configuration.name == name)
    if found.config.model.loader == "stepwise":
        return found
    return replace(found, fields=found.fields | {"model": folder})


def measure(name: str, folder: str) -> dict[str, Any]:
    """Run one recipe on the GPU of this process, and on the model of it."""
    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.log.environment import environment
    from memory_harness.harness.strategies.qlora import QLoraStrategy

    configuration = of_name(name, folder)
    device = CudaDevice(find_card("h200"), configuration.budget_bytes, share_gpu=True)
    rows = run_plan(configuration, QLoraStrategy(configuration.config, device), device)
    simulated = simulate(configuration, device.gpu_name)
    return {"name": name, "gpu": device.gpu_name, "environment": environment(), "rows": rows, "simulated": simulated}


def write_checkpoint(folder: str) -> None:
    """Write a checkpoint with random weights."""
    import torch

    from memory_harness.harness.devices.cuda import CudaDevice
    from memory_harness.harness.strategies.random_checkpoint import write_random_checkpoint

    device = CudaDevice(find_card("h200"), 2**36, share_gpu=True)
    write_random_checkpoint(find_model("llama-3.2-1b"), Path(folder), torch.bfloat16, device)


def main(arguments: Sequence[str]) -> None:
    """Measure the recipes named after the output file, all of them without names."""
    output, names = Path(arguments[0]), arguments[1:] or [configuration.name for configuration in CONFIGURATIONS]
    with TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(write_checkpoint, folder).result()
        measure_each(
            partial(measure, folder=folder),
            names,
            output,
            lambda result: table([result]).splitlines()[-1],
            num_processes=NUM_PROCESSES,
            num_levels=4,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
