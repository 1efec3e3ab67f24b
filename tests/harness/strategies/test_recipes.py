"""Recipes beside QLoRA: each trains for real on a tiny model, and takes what its simulation takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import validate
from memory_harness.harness.data.batching import train_steps
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.random_checkpoint import write_random_checkpoint

TINY = RunConfig().with_fields(
    model="tiny-llama", dtype="float32", max_length=64, gradient_accumulation=2, batches="2x32,1x64", lora_dropout=0.0
)
NARROW = {"quantization": "none"}
FULL = NARROW | {"finetuning_type": "full"}
RECIPES = {
    "lora": NARROW,
    "fp4": {"quantization": "fp4"},
    "full": FULL,
    "dora": NARROW | {"use_dora": True},
    "rslora": NARROW | {"use_rslora": True, "lora_bias": "lora_only", "rank_pattern": "q_proj=16"},
    "pissa": NARROW | {"init_lora_weights": "pissa_niter_4"},
    "olora": NARROW | {"init_lora_weights": "olora"},
    "gaussian": NARROW | {"init_lora_weights": "gaussian", "alpha_pattern": "q_proj=1"},
    "modules_to_save": NARROW | {"modules_to_save": ("lm_head",)},
    "reentrant": NARROW | {"use_reentrant": True},
    "held to the step": NARROW | {"hold_outputs": True, "hold_until": "step"},
    "dpo": NARROW | {"objective": "dpo"},
    "dpo, held": {"objective": "dpo", "hold_outputs": True, "hold_until": "step"},
    "orpo": FULL | {"objective": "orpo"},
    "no autocast": {"autocast": "none", "dtype": "bfloat16", "gpu": "h200"},
}
QUICK = ("full", "dora", "held to the step", "dpo")
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]


def opened(config: RunConfig, *, computes: bool) -> tuple[QLoraStrategy, SimulatedDevice]:
    device = SimulatedDevice(find_card("h200"), 2**40, computes=computes)
    return QLoraStrategy(config, device), device


def step(strategy, config):
    (batches,) = train_steps((), config, 1)
    targets = sum(batch.shape.target_tokens for batch in batches)
    for batch in batches:
        strategy.put(batch, training=True)
        strategy.forward(targets)
        strategy.backward()
    return strategy.optimizer_step(1e-2)[0]


@pytest.mark.parametrize("name", EVERY)
def test_it_learns_what_it_is_shown(name):
    config = TINY.with_fields(**RECIPES[name])
    strategy, device = opened(config, computes=True)
    torch.manual_seed(0)
    with device.active():
        strategy.load()
        losses = [step(strategy, config) for _ in range(4)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", EVERY)
def test_steps_that_are_replayed_take_what_running_them_takes(name):
    config = TINY.with_fields(**RECIPES[name])
    seen = []
    for compiles in (False, True):
        strategy, device = opened(config, computes=False)
        strategy = CompiledStrategy(strategy, device) if compiles else strategy
        with device.active():
            strategy.load()
            stats = []
            for _ in range(3):
                device.reset_peaks()
                step(strategy, config)
                stats.append(device.stats())
        seen.append(stats)
    assert seen[0] == seen[1]


def test_outputs_that_are_held_to_the_step_are_there_in_it():
    logits = 64 * 32000 * 4
    peaks = {}
    for until in ("backward", "step"):
        config = TINY.with_fields(hold_outputs=True, hold_until=until, batches="1x64", gradient_accumulation=1)
        strategy, device = opened(config, computes=False)
        with device.active():
            facts = strategy.load()
            step(strategy, config)
            (batches,) = train_steps((), config, 1)
            strategy.put(batches[0], training=True)
            strategy.forward(64)
            strategy.backward()
            device.reset_peaks()
            strategy.optimizer_step(1e-2)
            peaks[until] = device.stats().peak_allocated_bytes
            left = device.stats().allocated_bytes
    logits = 64 * facts.vocab_size * 4
    assert peaks["step"] - peaks["backward"] >= logits
    assert left < peaks["step"] - logits


def test_an_adapter_that_begins_as_a_part_of_the_weights_leaves_what_the_model_says():
    losses = {}
    for initial in ("default", "pissa", "olora"):
        config = TINY.with_fields(init_lora_weights=initial, **NARROW)
        strategy, device = opened(config, computes=True)
        torch.manual_seed(0)
        with device.active():
            strategy.load()
            losses[initial] = step(strategy, config)
    assert losses["pissa"] == pytest.approx(losses["default"], rel=1e-4)
    assert losses["olora"] == pytest.approx(losses["default"], rel=1e-4)


@pytest.mark.parametrize("loader", ["transformers", "host"])
def test_a_model_that_transformers_loads_trains_as_one_loaded_layer_by_layer(loader, tmp_path):
    losses = {}
    for name in ("stepwise", loader):
        config = TINY.with_fields(model=str(tmp_path), loader=name, **NARROW)
        strategy, device = opened(config, computes=True)
        if not (tmp_path / "config.json").exists():
            write_random_checkpoint(find_model("tiny-llama"), tmp_path, torch.float32, device)
        torch.manual_seed(0)
        with device.active():
            assert strategy.load().weights == "checkpoint"
            losses[name] = [step(strategy, config) for _ in range(2)]
    assert losses[loader] == pytest.approx(losses["stepwise"], rel=1e-5)


def test_layers_trained_in_full_come_back_with_the_adapter(tmp_path):
    config = TINY.with_fields(modules_to_save=("embed_tokens", "lm_head"), **NARROW)
    strategy, device = opened(config, computes=True)
    with device.active():
        strategy.load()
        step(strategy, config)
        strategy.export(tmp_path / "adapter")
        before = [parameter.detach().clone() for parameter in strategy.trainable()]
        step(strategy, config)
        strategy.load_adapter(tmp_path / "adapter")
        assert all(map(torch.equal, before, strategy.trainable()))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"modules_to_save": ("nosuch",)}, "--modules-to-save nosuch: no layer of this llama has that name"),
        ({"rank_pattern": "nosuch=4"}, "--rank-pattern nosuch: no layer of this llama has such a name"),
    ],
)
def test_names_that_no_layer_has_are_one_line(fields, line):
    strategy, device = opened(TINY.with_fields(**fields), computes=False)
    with device.active(), pytest.raises(ConfigError, match=line):
        strategy.load()


@pytest.mark.slow
def test_what_transformers_reserves_before_it_loads_is_simulated():
    reserved = {}
    for loader in ("stepwise", "transformers", "host"):
        config = TINY.with_fields(model="llama-3.2-1b", loader=loader, **NARROW)
        strategy, device = opened(config, computes=False)
        with device.active():
            strategy.load()
        reserved[loader] = device.stats().peak_reserved_bytes
        allocated = device.stats().allocated_bytes
    assert reserved["transformers"] >= allocated
    assert len(set(reserved.values())) > 1


def test_a_whole_model_is_exported_and_comes_back(tmp_path):
    config = TINY.with_fields(**FULL)
    strategy, device = opened(config, computes=True)
    with device.active():
        strategy.load()
        step(strategy, config)
        strategy.export(tmp_path / "model")
        loss = step(strategy, config)
    strategy, device = opened(config, computes=True)
    with device.active():
        strategy.load()
        strategy.load_adapter(tmp_path / "model")
        assert step(strategy, config) == pytest.approx(loss, rel=1e-6)
    assert Path(tmp_path, "model", "config.json").exists()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"finetuning_type": "full"}, "--finetuning-type full: weights in nf4 are not trained; give --quantization"),
        (
            FULL | {"dtype": "float16"},
            "--dtype float16: gradients of float16 weights cannot be unscaled; give --weights-dtype float32, "
            "--dtype bfloat16 or --autocast none",
        ),
        (FULL | {"objective": "dpo"}, "--objective dpo: compares with the model without its adapter"),
        ({"objective": "dpo", "loss": "chunked"}, "--loss chunked: is not made for --objective dpo"),
        ({"loader": "host"}, "--loader host: bitsandbytes quantises on the device"),
        ({"rank_pattern": "q_proj"}, "--rank-pattern q_proj: 'q_proj' is no NAME=NUMBER, such as q_proj=16"),
        ({"rank_pattern": "(=4"}, "--rank-pattern (=4: '(' is no pattern"),
        ({"use_dora": True, "quantization": "int8"}, "--use-dora: peft does not train it beside 8-bit weights"),
        (
            {"modules_to_save": ("lm_head",), "loss": "liger"},
            "--loss liger: needs a frozen output head, which --modules-to-save lm_head trains",
        ),
        (
            {"init_lora_weights": "orthogonal", "lora_rank": 3},
            "--init-lora-weights orthogonal: takes even ranks, not 3",
        ),
        ({"init_lora_weights": "eva"}, "--init-lora-weights eva: out of range (allowed: default, gaussian, orthogonal"),
        ({"init_lora_weights": "pissa"}, "--init-lora-weights pissa: peft decomposes weights of 16 or 32 bits alone"),
        (
            {"init_lora_weights": "olora", "quantization": "int8"},
            "--init-lora-weights olora: not simulated beside 8-bit weights",
        ),
        ({"sdpa_backends": ("math", "flash")}, "--sdpa-backends math,flash: the Tesla T4 takes others"),
        (
            {"sdpa_backends": ("memory_efficient",)},
            "--sdpa-backends memory_efficient: PyTorch fails where none of them takes a call; let math be the last",
        ),
        (
            {"sdpa_backends": ("math",), "attention": "eager"},
            "--sdpa-backends math: --attention eager is no choice among them",
        ),
        ({"eval_generate": 2, "do_eval": False}, "--eval-generate 2: nothing is evaluated; leave out --no-do-eval"),
        ({"objective": "dpo", "lora_bias": "all"}, "--lora-bias all: the biases of the model that --objective dpo"),
        ({"objective": "dpo", "train_on_prompts": True}, "--train-on-prompts: --objective dpo compares answers alone"),
        ({"beta": 0.1}, "--beta 0.1: --objective sft prefers nothing"),
        ({"simpo_gamma": 2.0}, "--simpo-gamma 2: is for --objective simpo"),
        ({"hold_until": "step"}, "--hold-until step: nothing is held; give --hold-outputs step"),
        ({"llm_int8_threshold": 3.0}, "--llm-int8-threshold 3: is for --quantization int8"),
        ({"eval_accumulation_steps": 2}, "--eval-accumulation-steps 2: no logits are kept"),
        ({"batches": "2x"}, "--batches 2x: '2x' is no SIZExLENGTH, such as 2x1024"),
        ({"batches": "2x4096"}, "--batches 2x4096: longer than --max-length 64; raise that"),
    ],
)
def test_what_cannot_go_together_is_one_line(fields, line):
    with pytest.raises(ConfigError) as raised:
        validate(TINY.with_fields(**fields))
    (problem,) = raised.value.problems
    assert problem.startswith(line)
