"""Noise on the embeddings and smoothed labels: what a Trainer computes, simulated as it is computed."""

from __future__ import annotations

import pytest
import torch
from transformers.trainer_pt_utils import LabelSmoother

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import validate
from tests.harness.techniques.driving import TINY, evaluated, micro_batch, simulated_peak, uniform_batch

BASE = TINY.with_fields(quantization="none")
NOISY, SMOOTHED = BASE.with_fields(neftune_noise_alpha=5.0), BASE.with_fields(label_smoothing_factor=0.1)
BATCH = uniform_batch(2, 64, padding=3, prompt=7)


def test_noise_is_of_training_alone():
    assert micro_batch(NOISY, BATCH)[0] != micro_batch(BASE, BATCH)[0]
    assert evaluated(NOISY, BATCH) == evaluated(BASE, BATCH)


def test_what_noise_takes_is_gone_after_the_step():
    plain, noisy = (simulated_peak(config.with_fields(tensors="fake"), BATCH) for config in (BASE, NOISY))
    assert noisy.peak_allocated_bytes > plain.peak_allocated_bytes
    assert noisy.allocated_bytes == plain.allocated_bytes


def test_smoothed_labels_give_the_loss_of_a_trainer():
    torch.manual_seed(0)
    loss, _ = micro_batch(SMOOTHED, BATCH)
    plain, _ = micro_batch(BASE, BATCH)
    assert loss != plain
    assert loss == pytest.approx(plain, rel=0.05)
    assert evaluated(SMOOTHED, BATCH) == pytest.approx(loss * BATCH.shape.target_tokens, rel=0.05)


def test_it_is_the_smoother_of_transformers():
    logits, labels = torch.randn(2, 9, 17), torch.randint(0, 17, (2, 9))
    labels[:, :4] = -100

    def model(**inputs):
        assert "labels" not in inputs
        return {"logits": logits}

    from memory_harness.harness.strategies.training_extras import smoothed_loss

    inputs = {"input_ids": labels, "labels": labels}
    _, loss = smoothed_loss(model, inputs, 0.2, num_items=10, num_targets=10, shifts=True)
    assert loss == pytest.approx(float(LabelSmoother(epsilon=0.2)({"logits": logits}, labels, shift_labels=True)))


@pytest.mark.parametrize("config", [NOISY, SMOOTHED], ids=["noise", "smoothing"])
def test_values_change_nothing_of_the_memory(config):
    real, fake = (simulated_peak(config.with_fields(tensors=tensors), BATCH) for tensors in ("real", "fake"))
    assert (real.peak_allocated_bytes, real.allocated_bytes) == (fake.peak_allocated_bytes, fake.allocated_bytes)


def test_smoothing_needs_all_logits():
    for changes in ({"loss": "chunked"}, {"loss": "liger"}):
        with pytest.raises(ConfigError, match=r"--label-smoothing-factor 0.1: needs all logits at once"):
            validate(RunConfig().with_fields(label_smoothing_factor=0.1, device="simulated", **changes))
