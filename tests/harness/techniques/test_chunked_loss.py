"""The chunked loss: same values and gradients as the full one, without its logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.techniques.chunked_loss import cross_entropy_sum, loss_chunks
from memory_harness.harness.techniques.chunks import remainder
from tests.harness.techniques.driving import (
    LLAMA_8B,
    TINY,
    evaluated,
    micro_batch,
    opened,
    simulated_peak,
    uniform_batch,
)

CHUNKED = TINY.with_fields(loss="chunked")
LENGTHS = (256, 64, 128, 192, 32, 160, 224)


def loss_and_gradient(loss_of, hidden, scale=1.0):
    hidden = hidden.clone().requires_grad_()
    loss = loss_of(hidden)
    (loss * scale).backward()
    return loss.detach(), hidden.grad


@settings(deadline=None)  # the first call of an operator takes its time
@given(
    tokens=st.integers(1, 40),
    chunks=st.integers(1, 50),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_any_cut_gives_the_full_cross_entropy_and_its_gradient(tokens, chunks, ignored, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(tokens, 8, generator=generator), torch.randn(30, 8, generator=generator)
    targets = torch.randint(0, 30, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = -100

    full = loss_and_gradient(
        lambda h: torch.nn.functional.cross_entropy(h @ weight.T, targets, reduction="sum"), hidden
    )
    chunked = loss_and_gradient(lambda h: cross_entropy_sum(h, weight, targets, chunks, torch.float32), hidden)
    torch.testing.assert_close(chunked, full, rtol=1e-5, atol=1e-5)


def test_float16_gradients_do_not_vanish():
    """Unscaled, most of the softmax over a large vocabulary would be below float16's smallest number."""
    torch.manual_seed(0)
    hidden, weight = 0.1 * torch.randn(16, 32), 0.02 * torch.randn(100_000, 32)
    targets = torch.randint(0, 100_000, (16,))
    full = loss_and_gradient(
        lambda h: torch.nn.functional.cross_entropy(h @ weight.T, targets, reduction="sum") / 2048, hidden, 65536.0
    )
    halves = hidden.half(), weight.half()
    chunked = loss_and_gradient(
        lambda h: cross_entropy_sum(h, halves[1], targets, 4, torch.float16) / 2048, halves[0], 65536.0
    )
    torch.testing.assert_close(chunked[0], full[0], rtol=1e-3, atol=0)
    assert (chunked[1].float() - full[1]).norm() < 1e-2 * full[1].norm()


@pytest.mark.parametrize(("batch_size", "length", "padding"), [(1, 64, 0), (2, 48, 5), (3, 7, 0)])
def test_the_strategy_trains_on_the_same_loss_and_gradients(batch_size, length, padding):
    batch = uniform_batch(batch_size, length, padding=padding, prompt=2)
    torch.testing.assert_close(micro_batch(CHUNKED, batch), micro_batch(TINY, batch), rtol=1e-4, atol=1e-6)


def test_the_strategy_evaluates_to_the_same_loss():
    batch = uniform_batch(3, 50, padding=9, prompt=4)
    assert evaluated(CHUNKED, batch) == pytest.approx(evaluated(TINY, batch), rel=1e-6)


def test_evaluation_keeps_no_gradient():
    inference = torch.randn(8, 4), torch.randn(5, 4), torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        assert not cross_entropy_sum(*inference, 2, torch.float32).requires_grad


def test_a_trained_head_is_refused():
    strategy, device = opened(CHUNKED)
    with device.active():
        strategy.load()
        strategy.model.get_output_embeddings().weight.requires_grad_(True)
        strategy.put(uniform_batch(1, 16), training=True)
        with pytest.raises(ConfigError, match="--loss chunked"):
            strategy.forward(15)


@given(tokens=st.integers(1, 100_000), batch_size=st.integers(1, 16), at_once=st.integers(1, 4096))
def test_no_chunk_of_the_largest_batch_exceeds_what_was_asked_for(tokens, batch_size, at_once):
    config = RunConfig().with_fields(max_length=tokens, loss_chunk_tokens=at_once)
    assert -(-batch_size * tokens // loss_chunks(config, batch_size)) <= at_once


def test_padded_lengths_divide_evenly():
    config = LLAMA_8B.with_fields(loss="chunked")
    for size in (1, 8):
        assert {remainder(size * length, loss_chunks(config, size)) for length in range(64, 2049, 64)} == {0}


@pytest.mark.slow
def test_chunks_need_no_more_recordings_than_the_full_loss():
    assert num_recordings(CHUNKED) == num_recordings(TINY)


def num_recordings(config):
    strategy, device = opened(config.with_fields(tensors="fake", dtype="float16", max_length=256))
    compiled = CompiledStrategy(strategy, device)
    with device.active():
        compiled.load()
        for length in LENGTHS:
            step(compiled, length)
    return compiled.num_traced


@pytest.mark.slow
def test_a_derived_length_takes_what_a_run_of_it_takes():
    config = CHUNKED.with_fields(tensors="fake", dtype="float16", max_length=256)
    assert peaks(config, CompiledStrategy) == peaks(config, lambda strategy, _: strategy)


def peaks(config, wrap):
    strategy, device = opened(config)
    strategy = wrap(strategy, device)
    found = []
    with device.active():
        strategy.load()
        loaded_bytes = device.stats().allocated_bytes
        for length in LENGTHS:
            device.reset_peaks()
            step(strategy, length)
            stats = device.stats()
            found.append((stats.peak_allocated_bytes - loaded_bytes, stats.peak_reserved_bytes))
    return found


def step(strategy, length):
    strategy.put(uniform_batch(1, length), training=True)
    strategy.forward(length - 1)
    strategy.backward()
    strategy.optimizer_step(1e-4)


@pytest.mark.slow
def test_the_8b_peak_no_longer_holds_the_logits():
    config, batch = LLAMA_8B.with_fields(gpu="h200"), uniform_batch(1, 2048)
    full = simulated_peak(config, batch)
    chunked = simulated_peak(config.with_fields(loss="chunked"), batch)
    logits = 2048 * 128256 * 4
    assert full.peak_allocated_bytes - chunked.peak_allocated_bytes > 2 * logits  # of about five copies
    assert chunked.peak_allocated_bytes < 6.6 * GIB
