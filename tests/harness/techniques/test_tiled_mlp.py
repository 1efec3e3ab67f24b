"""Tiled feed-forward blocks: the same loss and gradients with a part of the inner activations."""

import pytest
import torch

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import LINEAR_LAYERS, MLP_LAYERS
from memory_harness.configs.units import GIB
from memory_harness.configs.validation import validate
from memory_harness.harness.strategies.compiled import CompiledStrategy
from tests.harness.techniques.driving import (
    LLAMA_8B,
    TINY,
    evaluated,
    micro_batch,
    opened,
    simulated_peak,
    uniform_batch,
)
from tests.harness.techniques.test_chunked_loss import num_recordings, peaks
from tests.harness.techniques.test_expanded_heads import reply

TILED = TINY.with_fields(tiled_mlp=True, mlp_chunk_tokens=16)


@pytest.mark.parametrize(("checkpointing", "path"), [(True, "off"), (False, "off"), (True, "torch")])
@pytest.mark.parametrize("modules", [("q_proj", "v_proj"), MLP_LAYERS, LINEAR_LAYERS])
def test_loss_and_gradients_stay_the_same(modules, checkpointing, path):
    batch = uniform_batch(2, 33, padding=5)
    fields = {"target_modules": modules, "gradient_checkpointing": checkpointing, "fast_path": path}
    tiled, whole = (micro_batch(c.with_fields(**fields), batch) for c in (TILED, TINY))
    assert len(tiled[1]) == len(whole[1]) > 0
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-6)


def test_evaluation_and_replies_stay_the_same():
    batch = uniform_batch(2, 48, padding=5)
    assert evaluated(TILED, batch) == pytest.approx(evaluated(TINY, batch), rel=1e-6)
    prompts = [list(range(5, 45)), [9, 10]]
    assert reply(TILED, prompts) == reply(TINY, prompts)


def test_a_checkpointed_layer_computes_its_block_no_more_often_than_without_tiles():
    assert sum(rows_multiplied(TILED)) == sum(rows_multiplied(TINY))


def test_the_first_layers_block_is_tiled_too_where_nothing_before_it_trains():
    rows = rows_multiplied(TILED.with_fields(fast_path="torch", target_modules=MLP_LAYERS))
    assert max(rows) == TILED.model.mlp_chunk_tokens


def rows_multiplied(config):
    """Return the rows of each product of up-projections in a micro-batch, one layer like the other."""
    strategy, device = opened(config)
    rows = []
    with device.active():
        strategy.load()
        for layer in strategy.model.get_base_model().model.layers:
            layer.mlp.up_proj.register_forward_hook(lambda module, args, out: rows.append(out.numel() // out.shape[-1]))
        strategy.put(uniform_batch(1, 64), training=True)
        strategy.forward(63)
        strategy.backward()
    return rows


@pytest.mark.slow
def test_tiles_need_no_more_recordings_than_whole_blocks():
    assert num_recordings(TILED) == num_recordings(TINY)


@pytest.mark.slow
def test_a_derived_length_takes_what_a_run_of_it_takes():
    config = TILED.with_fields(tensors="fake", dtype="float16", max_length=256, mlp_chunk_tokens=64)
    assert peaks(config, CompiledStrategy) == peaks(config, lambda strategy, _: strategy)


@pytest.mark.slow
def test_long_sequences_of_8b_take_much_less():
    fields = {"loss": "chunked", "max_length": 16384, "offload_activations": True, "lora_dropout": 0.0}
    config = LLAMA_8B.with_fields(gpu="h200", **fields)
    batch = uniform_batch(1, 16384)
    inner = 16384 * 14336 * 2  # one of a block's inner activations, float16
    whole, tiled = (simulated_peak(c, batch) for c in (config, config.with_fields(tiled_mlp=True)))
    assert whole.peak_allocated_bytes - tiled.peak_allocated_bytes > 3 * inner
    assert tiled.peak_allocated_bytes < 8.1 * GIB


def test_dropout_in_the_block_is_refused():
    config = LLAMA_8B.with_fields(tiled_mlp=True, target_modules=LINEAR_LAYERS)
    with pytest.raises(ConfigError, match="--tiled-mlp"):
        validate(config)
    validate(config.with_fields(lora_dropout=0.0))
