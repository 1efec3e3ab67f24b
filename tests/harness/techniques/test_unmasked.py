"""Batches without padding make no mask on the fast path; all else is as it was."""

import pytest
from transformers.models.llama import modeling_llama

from tests.harness.techniques.driving import TINY, opened, uniform_batch


@pytest.mark.parametrize(("padding", "num_masks"), [(0, 0), (5, 1)])
def test_a_mask_is_made_where_something_is_padded(monkeypatch, padding, num_masks):
    made, own = [], modeling_llama.create_causal_mask
    monkeypatch.setattr(modeling_llama, "create_causal_mask", lambda **given: made.append(given) or own(**given))
    counting = modeling_llama.create_causal_mask
    strategy, device = opened(TINY.with_fields(fast_path="torch"))
    with device.active():
        strategy.load()
        strategy.put(uniform_batch(1, 16, padding=padding), training=True)
        strategy.forward(10)
        assert len(made) == num_masks
        strategy.put(uniform_batch(1, 16), training=False)
        strategy.evaluate()
    assert len(made) == num_masks + 1
    assert modeling_llama.create_causal_mask is counting
