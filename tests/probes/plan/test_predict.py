"""Predictions are the peaks that the run itself has, and limits the last that fit."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import ModelConfig
from memory_harness.configs.units import MIB
from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.runlog import collect
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import open_run
from memory_harness.probes.fixes import FIXES
from memory_harness.probes.plan.predict import (
    find_limits,
    largest_that_fits,
    longest_of_each_rule,
    predict,
    recorded_model,
    uniform_batch,
)
from memory_harness.probes.plan.recorded import recording_of

TINY = load_preset("smoke_cpu").with_fields(
    tensors="fake", dtype="float16", batching="padded", eval_batch_size=8, generate_prompts=0, kbit_upcast=True
)


@pytest.mark.parametrize("fix", ["eval-batch", "chunked-loss"])
def test_a_prediction_is_what_the_run_takes(fix, tmp_path):
    config = FIXES[fix].apply(TINY)
    records = []
    execute(open_run(config, prepare(config)), records.append, tmp_path)
    assert predict(config, 0).peak_allocated_bytes == collect(records).peak_allocated_bytes


def test_the_longest_that_compute_as_much_again_are_among_the_worst_moments():
    """Those that keep their activations may take more than longer ones do that compute them again."""
    lengths = [(32, 64), (96,), (160, 8), (128,), (512,)]
    steps = [[uniform_batch((1, length), 0) for length in micro_batches] for micro_batches in lengths]
    rules = ModelConfig(recompute="100:0,200:2")
    strategy = SimpleNamespace(inner=SimpleNamespace(recomputed=partial(rules.recomputed, 4)))
    assert longest_of_each_rule(steps, strategy) == {1, 2, 4}


def test_headroom_is_memory_that_the_run_does_not_get():
    needed = predict(TINY, 0)
    config = TINY.with_fields(budget_bytes=needed.peak_reserved_bytes)
    assert predict(config, 0) == needed
    assert not predict(config, needed.peak_reserved_bytes - needed.peak_allocated_bytes + 1).passes


def test_what_changes_no_phase_is_replayed_from_the_same_recorded_model():
    again = recorded_model(TINY)
    assert recorded_model(TINY.with_fields(eval_batch_size=1, max_length=128, expandable_segments=True)) is again
    assert recorded_model(TINY.with_fields(loss="chunked")) is not again


FIXED = (
    {"eval_batch_size": 1},
    pytest.param({"expandable_segments": True, "empty_cache_every": 1}, marks=pytest.mark.slow),
    pytest.param({"batching": "bucketed", "train_batch_size": 2, "max_length": 96}, marks=pytest.mark.slow),
)


@pytest.mark.parametrize("fields", FIXED, ids=" ".join)
def test_what_a_model_has_recorded_serves_a_run_as_a_fresh_recording_does(fields, tmp_path):
    config, candidate = TINY.with_fields(generate_prompts=1), TINY.with_fields(generate_prompts=1, **fields)
    assert recording_of(config) == recording_of(candidate)
    first, fresh = open_run(config, prepare(config)), open_run(candidate, prepare(candidate))
    execute(first, [].append, tmp_path)
    first.strategy.start_over_with(candidate)
    again = replace(first, config=candidate, data=fresh.data)
    assert phases_of(again, tmp_path) == phases_of(fresh, tmp_path)


def phases_of(run, folder):
    records = []
    execute(run, records.append, folder)
    return [(phase.step, phase.phase, phase.after) for phase in collect(records).phases]


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 8, 100, 1000])
def test_the_largest_is_found(limit):
    assert largest_that_fits(lambda number: number <= limit, 100) == min(limit, 100)


def test_limits_are_the_last_that_fit():
    config = TINY.with_fields(
        budget_bytes=48 * MIB,
        eval_batch_size=1,
        max_length=64,
        pad_to_multiple_of=64,
        train_batch_size=1,
        gradient_accumulation=1,
    )
    limits = find_limits(config, 0)
    recorded, unit = recorded_model(config), config.data.pad_to_multiple_of
    for length, fits in ((limits.length, True), (limits.length + unit, False)):
        changed = config.with_fields(max_length=length)
        assert recorded.fits(changed, (1, length), (1, length), 48 * MIB) is fits
    for size, fits in ((limits.micro_batch, True), (limits.micro_batch + 1, False)):
        assert recorded.fits(config.with_fields(train_batch_size=size), (size, 64), None, 48 * MIB) is fits
    assert limits.batch_tokens == 64, "a step's one sample"
