"""Embeddings on the host: the same rows, and no table on the device."""

import pytest
import torch

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import find_model
from memory_harness.configs.validation import validate
from tests.harness.techniques.driving import (
    LLAMA_8B,
    TINY,
    evaluated,
    micro_batch,
    opened,
    simulated_peak,
    uniform_batch,
)
from tests.harness.techniques.test_expanded_heads import reply

ON_HOST = TINY.with_fields(embeddings_on_host=True)


@pytest.mark.parametrize("upcast", [False, True])
def test_loss_and_gradients_stay_the_same_to_the_bit(upcast):
    batch = uniform_batch(2, 48, padding=5)
    there, here = (micro_batch(c.with_fields(kbit_upcast=upcast), batch) for c in (ON_HOST, TINY))
    assert there[0] == here[0]
    assert all(torch.equal(a, b) for a, b in zip(there[1], here[1], strict=True))


def test_evaluation_and_replies_stay_the_same():
    batch = uniform_batch(2, 48, padding=5)
    assert evaluated(ON_HOST, batch) == evaluated(TINY, batch)
    assert reply(ON_HOST, [[5, 6, 7, 8], [9, 10]]) == reply(TINY, [[5, 6, 7, 8], [9, 10]])


@pytest.mark.parametrize("tensors", ["real", "fake"])
def test_the_table_is_not_on_the_device(tensors):
    shape = find_model("tiny-llama")
    (before, whole), (after, counted) = (loaded(c.with_fields(tensors=tensors)) for c in (TINY, ON_HOST))
    assert before - after == shape.vocab_size * shape.values["hidden_size"] * 4
    assert whole == counted


def loaded(config):
    """Return what a loaded model has allocated, and its number of weights."""
    strategy, device = opened(config)
    with device.active():
        num_parameters = strategy.load().num_parameters
        return device.stats().allocated_bytes, num_parameters


@pytest.mark.slow
def test_the_8b_peak_lacks_the_table():
    config, batch = LLAMA_8B.with_fields(gpu="h200", loss="chunked"), uniform_batch(1, 2048)
    table = 128256 * 4096 * 2
    before, after = (simulated_peak(c, batch) for c in (config, config.with_fields(embeddings_on_host=True)))
    assert before.peak_allocated_bytes - after.peak_allocated_bytes == pytest.approx(table, abs=2**20)


def test_a_table_that_is_the_output_head_too_stays_where_it_is():
    with pytest.raises(ConfigError, match="--embeddings-on-host"):
        validate(LLAMA_8B.with_fields(model="llama-3.2-1b", embeddings_on_host=True))
