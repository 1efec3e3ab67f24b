"""Several samples in one sequence: the losses and gradients of each alone, and the memory traced as replayed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from memory_harness.harness.data.batching import Batch, Example, packed_batch
from memory_harness.harness.log.records import BatchShape
from tests.harness.techniques.driving import TINY, micro_batch

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


@pytest.mark.parametrize("length", [57, 64])
@pytest.mark.parametrize(
    "fields",
    [
        ON_T4,
        {"fast_path": "torch", "loss": "liger"},
        {"attention": "eager", "loss": "chunked"},
        BY_KERNEL,
        BY_KERNEL | {"fast_path": "torch", "loss": "liger", "recompute": "none"},
    ],
)
def test_loss_and_gradients_are_those_of_the_samples_alone(fields, length):
    config = TINY.with_fields(**fields)
    packed = micro_batch(config, packed_batch(examples(), length))
    alone = micro_batch(config, padded_batch())
    is_half = config.model.dtype == "bfloat16"
    torch.testing.assert_close(packed, alone, rtol=0.05 if is_half else 1e-4, atol=0.01 if is_half else 1e-5)
