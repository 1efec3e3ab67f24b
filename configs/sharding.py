"""What several GPUs can share of a model and its training, and what they cannot."""

from __future__ import annotations

from memory_harness.configs.schema import RunConfig

ENGINES = ("ddp", "fsdp", "split")
"""what several GPUs may train by, the fastest first"""


def config_with(config: RunConfig, engine: str) -> RunConfig:
    """Return the configuration on simulated cards that train by an engine."""
    return shared_by(config, engine).with_fields(device="simulated", tensors="fake")


def shared_by(config: RunConfig, engine: str) -> RunConfig:
    """Return the configuration that trains by an engine, with a micro-batch for each GPU where each has its own."""
    shared = config.with_fields(sharding=engine)
    if engine == "split":
        return shared
    return shared.with_fields(gradient_accumulation=max(config.train.gradient_accumulation, config.device.num_gpus))


def sharding_problems(config: RunConfig) -> list[str]:
    """Return one line for each setting that cannot be trained as --sharding says."""
    number, engine = config.device.num_gpus, config.device.engine
    if number == 1 and engine != "none":
        return [f"--sharding {engine}: there is one GPU to share with (allowed: none); or give --num-gpus 2 or more"]
    if number > 1 and engine == "none":
        return [f"--sharding none: leaves {number - 1} of --num-gpus {number} idle (allowed: ddp, fsdp, split)"]
    reasons: dict[str, bool] = {}
    if engine == "fsdp":
        reasons = _fsdp_reasons(config)
    elif engine == "split":
        reasons = _split_reasons(config)
    return [f"--sharding {engine}: {reason}" for reason, holds in reasons.items() if holds]


FOR_SHARDS = ("adamw", "adamw_torch", "adamw_torch_fused", "sgd")
"""optimizers that take weights of which each GPU has a part; bitsandbytes' kernels read memory, muon whole matrices"""


def _fsdp_reasons(config: RunConfig) -> dict[str, bool]:
    model, lora, train = config.model, config.lora, config.train
    return {
        "--quantization int8 keeps what no shard can hold (allowed with it: nf4, fp4, none)": model.quantization
        == "int8",
        f"--loader {model.loader} puts the whole model on each GPU (allowed with it: stepwise)": model.loader
        != "stepwise",
        f"--optimizer {train.optimizer}: needs whole weights (allowed: {', '.join(FOR_SHARDS)})": train.optimizer
        not in FOR_SHARDS,
        "--embeddings-on-host: shards lie on the GPUs; leave it out": model.embeddings_on_host,
        "--quantise-experts: experts in 4 bits cannot be gathered; leave it out": model.quantise_experts,
        "--expand-kv: replaces layers that are shared out; leave it out": model.expand_kv,
        f"--fast-path {model.fast_path}: multiplies by weights that it gathers itself (allowed with it: "
        "off)": model.fast_path != "off",
        "--tiled-mlp: would gather a layer once for each tile; leave it out": model.tiled_mlp,
        "--offload-activations: is not made for shards; leave it out": model.offload_activations,
        "--recompute auto: is found out by a simulation, which joined processes cannot make; give a "
        "number": model.recompute == "auto",
        f"--loss {train.loss}: passes the gathered output head by (allowed with it: full)": train.loss != "full",
        f"--lora-bias {lora.lora_bias}: trains a part of what is shared out (allowed with it: none)": lora.lora_bias
        != "none",
        "--use-dora: reads whole weights while it is added; leave it out": lora.use_dora,
        f"--init-lora-weights {lora.init_lora_weights}: decomposes whole weights (allowed with it: default, gaussian, "
        "orthogonal)": lora.decomposes_weights,
        "--modules-to-save: copies whole layers; leave it out": bool(lora.modules_to_save),
    }


def _split_reasons(config: RunConfig) -> dict[str, bool]:
    model, train = config.model, config.train
    return {
        "--tensors real: a CPU has no layers elsewhere (allowed with it: fake)": config.device.tensors == "real",
        f"--loader {model.loader} puts the whole model on one GPU (allowed with it: stepwise)": model.loader
        != "stepwise",
        f"--loss {train.loss}: passes by what brings tensors to the output head's GPU (allowed with it: "
        "full)": train.loss != "full",
        "--embeddings-on-host: the layers of each GPU lie on it; leave it out": model.embeddings_on_host,
        f"--fast-path {model.fast_path}: keeps its buffers on one GPU (allowed with it: off)": model.fast_path != "off",
        "--offload-activations: brings them back to one GPU; leave it out": model.offload_activations,
    }
