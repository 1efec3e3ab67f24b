"""Several samples in one sequence: the losses and gradients of each alone, and the memory traced as replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, Example, packed_batch
from memory_harness.harness.devices.cuda import CudaDevice, host_card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import BatchShape
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.techniques.packing import check_keeps_apart, masks_keep_apart
from tests.harness.techniques.driving import TINY, UNLIMITED, micro_batch, opened, shake_adapter

LENGTHS, PROMPTS = (30, 9, 1, 17), (12, 0, 0, 16)


def examples() -> list[Example]:
    rng = np.random.default_rng(7)
    ids = [tuple(map(int, rng.integers(5, 200, length))) for length in LENGTHS]
    return [Example(len(own), prompt, own) for own, prompt in zip(ids, PROMPTS, strict=True)]


def padded_batch() -> Batch:
    own = examples()
    return Batch(BatchShape(len(own), max(LENGTHS), LENGTHS, sum(it.num_target_tokens for it in own)), tuple(own))


ON_T4 = {"gpu": "t4"}
BY_KERNEL = {"gpu": "l4", "dtype": "bfloat16"}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("length", "fields"),
    [
        (57, ON_T4),
        pytest.param(64, {"fast_path": "torch", "loss": "liger"}, marks=SLOW),
        (64, {"fast_path": "liger", "loss": "liger", "recompute": "1"}),
        pytest.param(64, {"attention": "eager", "loss": "chunked"}, marks=SLOW),
        pytest.param(64, {"model": "tiny-moe"}, marks=SLOW),
        pytest.param(57, BY_KERNEL, marks=SLOW),
        (64, BY_KERNEL),
        (64, BY_KERNEL | {"fast_path": "torch", "loss": "liger", "recompute": "none"}),
    ],
)
def test_loss_and_gradients_are_those_of_the_samples_alone(length, fields):
    config = TINY.with_fields(**fields)
    packed = micro_batch(config, packed_batch(examples(), length))
    alone = micro_batch(config, padded_batch())
    is_half = config.model.dtype == "bfloat16"
    torch.testing.assert_close(packed, alone, rtol=0.05 if is_half else 1e-4, atol=0.01 if is_half else 1e-5)


SHAPES = [
    ((100, 60), 192),
    ((200, 300, 50), 576),
    ((128,), 128),
    ((500,), 512),
    ((50,) * 8, 448),
    ((200, 300, 50), 576),
]
"""samples, and the sequence that holds them: of several parts each, padding at the end or none"""


def peaks(config: RunConfig, wrap: Callable[[QLoraStrategy, Any], Any] = lambda strategy, _: strategy) -> list[Any]:
    """Return the highest allocated and reserved memory of each step of packed batches."""
    return steps(wrap, *opened(config))


def steps(wrap: Callable[[QLoraStrategy, Any], Any], own: QLoraStrategy, device: Any) -> list[Any]:
    strategy, found = wrap(own, device), []
    with device.active():
        strategy.load()
        for lengths, length in SHAPES:
            device.reset_peaks()
            strategy.put(packed_batch([Example(number, 3) for number in lengths], length), training=True)
            strategy.forward(sum(lengths))
            strategy.backward()
            strategy.optimizer_step(1e-4)
            found.append((device.stats().peak_allocated_bytes, device.stats().peak_reserved_bytes))
    return found


FAKE = TINY.with_fields(tensors="fake", dtype="float16", lora_dropout=0.05, max_length=1024)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"gpu": "t4"}, marks=SLOW),
        {"gpu": "l4", "loss": "chunked"},
        pytest.param({"gpu": "l4"}, marks=SLOW),
        pytest.param({"gpu": "l4", "fast_path": "liger", "loss": "liger", "recompute": "none"}, marks=SLOW),
    ],
)
def test_a_replayed_run_takes_what_a_traced_one_takes(fields):
    config = FAKE.with_fields(**fields)
    assert peaks(config, CompiledStrategy) == peaks(config)


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "pad_token_id": 0,
}
PLAIN = {name: SIZES[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}


def model_of(model_type: str, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes), dtype=torch.float32).eval()


def logits_of(model: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **options).logits


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [("gemma3_text", SIZES | {"head_dim": 8}), ("mistral", SIZES | {"layer_types": None}), ("gpt2", PLAIN)],
)
def test_masks_keep_samples_apart_in_any_family_whose_masks_go_by_positions(model_type, sizes):
    model, samples = model_of(model_type, sizes), [torch.randint(1, 60, (1, length)) for length in (11, 20, 1)]
    check_keeps_apart(model, model_type)
    positions = torch.cat([torch.arange(sample.size(1)) for sample in samples])
    with masks_keep_apart(model, model_type):
        together = logits_of(model, torch.cat(samples, 1), position_ids=positions.unsqueeze(0))
    torch.testing.assert_close(together, torch.cat([logits_of(model, sample) for sample in samples], 1))
    assert not torch.allclose(together, logits_of(model, torch.cat(samples, 1)), rtol=1e-3)


def packed_logits(model: Any, name: str) -> torch.Tensor:
    check_keeps_apart(model, name)
    positions = torch.tensor([[0, 1, 2, 0]])
    with masks_keep_apart(model, name):
        return logits_of(model, positions + 1, position_ids=positions)


@pytest.mark.parametrize(
    ("model_type", "words"),
    [("bloom", "takes no positions"), ("falcon_mamba", "takes no positions"), ("lfm2", "a state"), ("opt", "masks of")],
)
def test_a_family_whose_samples_would_mix_is_one_line(model_type, words):
    conv = {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2} if model_type == "lfm2" else {}
    model = model_of(model_type, PLAIN | conv)
    with pytest.raises(ConfigError, match=rf"^--batching packed: [^\n]*{words}[^\n]*$"):
        packed_logits(model, model_type)


@pytest.mark.gpu
@pytest.mark.parametrize("fields", [{}, {"attention": "memory_efficient"}, {"fast_path": "liger", "loss": "liger"}])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_gpu_gives_the_loss_and_gradients_of_the_samples_alone(fields, dtype):
    def trained(batch):
        torch.manual_seed(0)
        config = TINY.with_fields(dtype=dtype, random_weights=True, **fields)
        device = CudaDevice(None, None, attention=config.model.sdpa_kernel, share_gpu=True)
        strategy = QLoraStrategy(config, device)
        with device.active():
            strategy.load()
            shake_adapter(strategy.model)
            strategy.put(batch, training=True)
            assert strategy.packs_by_kernel == ("attention" not in fields)
            strategy.forward(batch.shape.target_tokens)
            strategy.backward()
        scale = strategy.scaler.get_scale()
        return float(strategy.loss), [p.grad / scale for p in strategy.trainable()]

    torch.testing.assert_close(trained(packed_batch(examples(), 64)), trained(padded_batch()), rtol=0.05, atol=0.01)


@pytest.mark.gpu
@pytest.mark.parametrize("fields", [{}, {"attention": "memory_efficient"}, {"fast_path": "liger", "loss": "liger"}])
def test_a_gpu_takes_what_was_predicted(fields):
    config = RunConfig().with_fields(model="llama-3.2-1b", random_weights=True, gpu="h100", **fields)
    card = host_card(find_card("h100"))
    device = CudaDevice(card, None, attention=config.model.sdpa_kernel, share_gpu=True)
    measured = steps(lambda strategy, _: strategy, QLoraStrategy(config, device), device)
    simulated = SimulatedDevice(card, UNLIMITED, computes=False, attention=config.model.sdpa_kernel)
    predicted = steps(CompiledStrategy, QLoraStrategy(config, simulated), simulated)
    for (allocated, reserved), (expected, expected_reserved) in zip(measured, predicted, strict=True):
        assert allocated == pytest.approx(expected, rel=1e-3)
        assert reserved == pytest.approx(expected_reserved, rel=1e-2)
