"""The 8-bit optimizer: near the 32-bit one, a quarter of its state, and it comes back from a checkpoint."""

import pytest
import torch

from tests.harness.techniques.driving import TINY, opened, uniform_batch

# matrices of fewer than 4096 elements keep 32-bit state: a rank at which all have more
BASE = TINY.with_fields(lora_rank=128, learning_rate=1e-2)
EIGHT_BIT = BASE.with_fields(optimizer="adamw_8bit")


def train(strategy, steps):
    batch = uniform_batch(1, 64)
    losses = []
    for _ in range(steps):
        strategy.put(batch, training=True)
        strategy.forward(batch.shape.target_tokens)
        strategy.backward()
        losses.append(strategy.optimizer_step(1e-2)[0])
    return losses


@pytest.mark.slow
def test_the_loss_falls_as_with_32_bits():
    losses = []
    for config in (BASE, EIGHT_BIT):
        torch.manual_seed(0)
        strategy, device = opened(config)
        with device.active():
            strategy.load()
            losses.append(train(strategy, 6))
    fall = losses[0][0] - losses[0][-1]
    assert fall > 0.1
    assert losses[1] == pytest.approx(losses[0], abs=0.05 * fall)


def test_its_state_takes_a_quarter():
    held = []
    for config in (BASE, EIGHT_BIT):
        strategy, device = opened(config.with_fields(tensors="fake", dtype="float16"))
        with device.active():
            strategy.load()
            before = device.stats().allocated_bytes
            strategy.put(uniform_batch(1, 64), training=True)
            strategy.forward(63)
            strategy.backward()
            workspaces = device.stats().allocated_bytes - before - gradient_bytes(strategy)
            strategy.optimizer_step(1e-2)
            held.append(device.stats().allocated_bytes - before - workspaces)
    assert held[0] == pytest.approx(2 * gradient_bytes(strategy, force=True), rel=0.02)
    assert held[1] == pytest.approx(held[0] / 4, rel=0.1)


def gradient_bytes(strategy, *, force=False):
    return sum(p.numel() * 4 for p in strategy.trainable() if force or p.grad is not None)


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path):
    torch.manual_seed(0)
    strategy, device = opened(EIGHT_BIT)
    with device.active():
        strategy.load()
        train(strategy, 2)
        strategy.save(tmp_path)
        uninterrupted = train(strategy, 2)
    torch.manual_seed(0)
    strategy, device = opened(EIGHT_BIT)
    with device.active():
        strategy.load()
        strategy.restore(tmp_path)
        assert train(strategy, 2) == uninterrupted
