"""Logits that an evaluation keeps: how much of the card they take, replayed as traced, and when they go."""

from __future__ import annotations

import pytest
import torch

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import validate
from memory_harness.harness.strategies.compiled import CompiledStrategy
from tests.harness.techniques.driving import TINY, opened, uniform_batch

SHAPES = [(2, 32), (2, 64), (1, 64), (2, 32), (2, 64)]
KEPT = TINY.with_fields(eval_keep_logits=True, quantization="none")
CHANGES = {
    "kept": {},
    "in 16 bits": {"dtype": "float16"},
    "two at a time": {"eval_accumulation_steps": 2},
    "cache released": {"eval_keep_logits": False, "eval_accumulation_steps": 2},
    "smoothed": {"label_smoothing_factor": 0.1},
}


def evaluated(config, kind="fake"):
    """Return what is allocated after each batch and at its peak, in two evaluations with a step in between."""
    torch.manual_seed(0)
    strategy, device = opened(config.with_fields(tensors="real" if kind == "real" else "fake"))
    if kind == "replayed":
        strategy = CompiledStrategy(strategy, device)
    rows = []
    with device.active():
        strategy.load()
        for _ in range(2):
            for batch_size, length in SHAPES:
                device.reset_peaks()
                strategy.put(uniform_batch(batch_size, length), training=False)
                strategy.evaluate()
                strategy.end_batch()
                rows.append((device.stats().allocated_bytes, device.stats().peak_allocated_bytes))
            strategy.end_evaluation()
            rows.append((device.stats().allocated_bytes, device.stats().reserved_bytes))
            strategy.put(uniform_batch(1, 64), training=True)
            strategy.forward(63)
            strategy.backward()
            strategy.optimizer_step(1e-3)
    return rows


def allocated_after_each(config):
    return [allocated for allocated, _ in evaluated(config)[: len(SHAPES) + 1]]


@pytest.mark.parametrize("name", CHANGES)
def test_replayed_evaluations_take_what_traced_ones_do(name):
    config = KEPT.with_fields(**CHANGES[name])
    assert evaluated(config, "replayed") == evaluated(config, "fake")


def test_values_change_nothing_of_it():
    assert evaluated(KEPT, "real") == evaluated(KEPT, "fake")


def test_all_batches_are_kept_as_one_and_the_last_beside_it():
    plain = allocated_after_each(KEPT.with_fields(eval_keep_logits=False))
    kept = allocated_after_each(KEPT)
    vocab_size = (kept[0] - plain[0]) // (4 * 2 * 32)
    rows, longest, expected = 0, 0, []
    for number, (batch_size, length) in enumerate(SHAPES):
        rows, longest = rows + batch_size, max(longest, length)
        last = batch_size * length if number else 0  # of one batch, all is the last
        expected.append(4 * vocab_size * (rows * longest + last))
    assert [k - p for k, p in zip(kept, plain, strict=True)] == [*expected, 0]


def test_they_go_every_so_many_batches():
    plain = allocated_after_each(KEPT.with_fields(eval_keep_logits=False))
    kept = allocated_after_each(KEPT.with_fields(eval_accumulation_steps=2))
    assert [k > p for k, p in zip(kept, plain, strict=True)] == [True, False, True, False, True, False]


@pytest.mark.slow
def test_autocast_makes_them_wide():
    wide, narrow = (
        allocated_after_each(KEPT.with_fields(dtype="float16", autocast=autocast))[0]
        - allocated_after_each(KEPT.with_fields(dtype="float16", autocast=autocast, eval_keep_logits=False))[0]
        for autocast in ("auto", "none")
    )
    assert wide == 2 * narrow


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"loss": "chunked"}, "--loss chunked makes none"),
        ({"do_eval": False}, "nothing is evaluated"),
        ({"num_gpus": 2}, "not with --num-gpus 2"),
    ],
)
def test_what_they_cannot_be_kept_with_is_named(changes, named):
    config = RunConfig().with_fields(eval_keep_logits=True, device="simulated", **changes)
    with pytest.raises(ConfigError, match=f"--eval-keep-logits: {named}"):
        validate(config)
