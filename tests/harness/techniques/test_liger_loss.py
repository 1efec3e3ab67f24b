"""liger-kernel's loss as it runs without a GPU: same values and gradients, liger's buffers and no more."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.techniques.liger_loss import _FusedCrossEntropy, liger_causal_lm_loss, rows_per_chunk
from tests.harness.techniques.driving import (
    LLAMA_8B,
    TINY,
    evaluated,
    micro_batch,
    opened,
    simulated_peak,
    uniform_batch,
)

LIGER = TINY.with_fields(loss="liger")


@settings(deadline=None)  # the first call of an operator takes its time
@given(tokens=st.integers(1, 40), ignored=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_it_is_the_full_cross_entropy_and_its_gradient(tokens, ignored, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(tokens, 8, generator=generator), torch.randn(30, 8, generator=generator)
    targets = torch.randint(0, 30, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = -100
    device = SimulatedDevice(find_card("t4"), 2**30, computes=True)
    found = []
    for loss_of in (
        lambda h: torch.nn.functional.cross_entropy(h @ weight.T, targets, reduction="sum"),
        lambda h: _FusedCrossEntropy.apply(h, weight, targets, device),
    ):
        leaf = hidden.clone().requires_grad_()
        loss = loss_of(leaf)
        (loss * 3).backward()
        found.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


@given(tokens=st.integers(1, 10**5), vocab=st.integers(1, 10**6), hidden=st.integers(1, 10**4))
def test_a_chunk_is_a_power_of_two_or_everything(tokens, vocab, hidden):
    rows = rows_per_chunk(tokens, vocab, hidden)
    assert 1 <= rows <= tokens
    assert rows == tokens or rows & (rows - 1) == 0


@pytest.mark.parametrize(("batch_size", "length", "padding"), [(1, 64, 0), (2, 48, 5)])
def test_the_strategy_trains_on_the_same_loss_and_gradients(batch_size, length, padding):
    batch = uniform_batch(batch_size, length, padding=padding, prompt=2)
    torch.testing.assert_close(micro_batch(LIGER, batch), micro_batch(TINY, batch), rtol=1e-4, atol=1e-6)
    assert evaluated(LIGER, batch) == pytest.approx(evaluated(TINY, batch), rel=1e-6)


@pytest.mark.slow
def test_a_derived_length_takes_what_a_run_of_it_takes():
    config = LIGER.with_fields(tensors="fake", dtype="float16", max_length=256)
    lengths = (256, 64, 128, 192, 32, 160, 224)
    assert peaks(config, lengths, CompiledStrategy) == peaks(config, lengths, lambda strategy, _: strategy)


def peaks(config, lengths, wrap):
    strategy, device = opened(config)
    strategy, found = wrap(strategy, device), []
    with device.active():
        strategy.load()
        loaded_bytes = device.stats().allocated_bytes
        for length in lengths:
            device.reset_peaks()
            strategy.put(uniform_batch(1, length), training=True)
            strategy.forward(length - 1)
            strategy.backward()
            strategy.optimizer_step(1e-4)
            found.append(device.stats().peak_allocated_bytes - loaded_bytes)
    return found


@pytest.mark.slow
def test_the_peak_is_below_the_chunked_loss():
    config, batch = LLAMA_8B.with_fields(model="llama-3.2-1b", gpu="h200"), uniform_batch(1, 2048)
    chunked = simulated_peak(config.with_fields(loss="chunked"), batch).peak_allocated_bytes
    assert simulated_peak(config.with_fields(loss="liger"), batch).peak_allocated_bytes <= chunked


def test_a_trained_head_is_refused():
    strategy, device = opened(LIGER.with_fields(target_modules=("q_proj",)))
    with device.active():
        strategy.load()
        model = strategy.model.get_base_model()
        model.get_output_embeddings().weight.requires_grad = True
        with pytest.raises(ConfigError, match="lm_head"):
            liger_causal_lm_loss(model, {}, 1, torch.float32, device)
