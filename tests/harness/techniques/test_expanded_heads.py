"""Expanded keys and values: the same attention through a fused kernel, on cards where grouped heads would take math."""

import pytest
import torch

from tests.harness.techniques.driving import TINY, micro_batch, opened, simulated_peak, uniform_batch

EXPANDED = TINY.with_fields(expand_kv=True)
FAKE = TINY.with_fields(tensors="fake", dtype="float16", max_length=2048)


@pytest.mark.parametrize(("batch_size", "length", "padding"), [(1, 64, 0), (2, 48, 5), (1, 33, 0)])
def test_the_loss_and_its_gradients_stay_the_same(batch_size, length, padding):
    batch = uniform_batch(batch_size, length, padding=padding)
    torch.testing.assert_close(micro_batch(EXPANDED, batch), micro_batch(TINY, batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prompts", [[[5, 6, 7, 8]], [[5, 6, 7, 8], [9, 10]]])
def test_replies_stay_the_same(prompts):
    assert reply(EXPANDED, prompts) == reply(TINY, prompts)


def reply(config, prompts):
    torch.manual_seed(0)
    strategy, device = opened(config)
    with device.active():
        strategy.load()
        return [strategy.prefill(prompts), *(strategy.decode() for _ in range(4))]


def test_scores_no_longer_grow_with_the_square_of_the_length():
    batch = uniform_batch(1, 1024)
    scores = 4 * 1024 * 1024 * 4  # heads x length x length x float32
    grouped = simulated_peak(FAKE, batch).peak_allocated_bytes
    expanded = simulated_peak(FAKE.with_fields(expand_kv=True), batch).peak_allocated_bytes
    assert grouped - expanded > scores


def test_flash_attention_takes_grouped_heads_as_they_are():
    batch, config = uniform_batch(1, 1024), FAKE.with_fields(gpu="h100")
    grouped = simulated_peak(config, batch).peak_allocated_bytes
    assert grouped <= simulated_peak(config.with_fields(expand_kv=True), batch).peak_allocated_bytes
