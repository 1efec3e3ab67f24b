"""The paged optimizer on the simulated card: large states lie outside the allocator, small ones inside."""

import pytest

from tests.harness.techniques.driving import TINY, opened, uniform_batch

# bitsandbytes pages states of 100 000 values and more; the tiny model's matrices have that many at this rank
LARGE = TINY.with_fields(tensors="fake", dtype="float16", lora_rank=4096)
SMALL = LARGE.with_fields(lora_rank=64)


def state_bytes(config):
    """Return what the first optimizer step leaves behind."""
    strategy, device = opened(config)
    made = []
    with device.active():
        strategy.load()
        for _ in range(2):
            strategy.put(uniform_batch(1, 64), training=True)
            strategy.forward(63)
            strategy.backward()
            before = device.stats().allocated_bytes - sum(p.numel() * 4 for p in strategy.trainable())
            strategy.optimizer_step(1e-2)
            made.append(device.stats().allocated_bytes - before)
    assert abs(made[1]) < 4096, "the second step makes none"
    return made[0]


def test_large_states_are_no_allocation():
    paged, plain = (state_bytes(LARGE.with_fields(optimizer=o)) for o in ("paged_adamw_8bit", "adamw_8bit"))
    assert paged < 0.2 * plain


@pytest.mark.slow
def test_small_states_are_as_without_pages():
    paged, plain = (state_bytes(SMALL.with_fields(optimizer=o)) for o in ("paged_adamw_8bit", "adamw_8bit"))
    assert paged == plain
