"""Which way to share a model is taken, by what each would take."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.cards import budget_of, bytes_beside, find_card
from memory_harness.configs.preset import load_preset
from memory_harness.configs.sharding import ENGINES, config_with
from memory_harness.configs.units import GIB
from memory_harness.probes.plan.choose import Prediction
from memory_harness.probes.plan.recorded import recording_of
from memory_harness.probes.plan.sharding import Shares, chosen, compare_engines

CONFIG = load_preset("smoke_cpu").with_fields(gpu="l4", num_gpus=4, sharding="all")
BUDGET = budget_of(CONFIG.device)
BESIDE = bytes_beside(CONFIG.with_fields(sharding="fsdp").device)


def gpu(allocated, reserved=None):
    return Prediction(True, allocated, allocated if reserved is None else reserved)


def compared(taken):
    """Return what comes of predictions by engine."""
    return compare_engines(CONFIG, lambda configs: [taken[config.device.engine] for config in configs])


def test_the_fastest_that_fits_is_taken():
    fits, too_much = (gpu(GIB),), (gpu(BUDGET),)
    assert chosen(compared({"ddp": fits, "fsdp": fits, "split": fits * 4})).engine == "ddp"
    assert chosen(compared({"ddp": too_much, "fsdp": fits, "split": fits * 4})).engine == "fsdp"
    assert chosen(compared({"ddp": too_much, "fsdp": too_much, "split": (*fits * 3, gpu(BUDGET))})).engine == "split"
    assert chosen(compared({"ddp": too_much, "fsdp": "no room", "split": (*fits * 3, gpu(BUDGET + 1))})) is None
    only_just = (*fits * 3, gpu(GIB, BUDGET + 1))
    assert chosen(compared({"ddp": too_much, "fsdp": too_much, "split": only_just})).engine == "split"


def test_what_communication_takes_beside_is_not_there_for_pytorch():
    (ddp, fsdp, split) = compared({engine: (gpu(BUDGET - BESIDE),) for engine in ENGINES})
    assert [each.free_bytes for each in (ddp, fsdp, split)] == [0, 0, BESIDE]
    (ddp, _, split) = compared({engine: (gpu(BUDGET - BESIDE + 1),) for engine in ENGINES})
    assert not ddp.fits
    assert split.fits


def test_room_for_what_is_allocated_alone_is_no_room():
    (ddp, *_) = compared({engine: (gpu(GIB, BUDGET),) for engine in ENGINES})
    assert ddp.is_tight
    assert not ddp.fits


def test_an_engine_that_the_settings_exclude_says_why_and_is_not_simulated():
    config = CONFIG.with_fields(optimizer="adamw_8bit")
    asked = []

    def predict_all(configs):
        asked.extend(config.device.engine for config in configs)
        return [(gpu(GIB),)] * len(configs)

    found = {shares.engine: shares for shares in compare_engines(config, predict_all)}
    assert asked == ["split", "ddp"]
    assert "--optimizer adamw_8bit" in found["fsdp"].refused
    assert not found["fsdp"].fits
    assert found["ddp"].fits


def test_where_layers_lie_hangs_on_the_budget():
    smaller = CONFIG.with_fields(budget_bytes=GIB)
    recordings = {engine: recording_of(config_with(smaller, engine)) for engine in ENGINES}
    same = [engine for engine in ENGINES if recordings[engine] == recording_of(config_with(CONFIG, engine))]
    assert same == ["ddp", "fsdp"]


def test_each_gpu_has_a_batch_of_a_step():
    assert config_with(CONFIG, "fsdp").train.gradient_accumulation == 4
    assert config_with(CONFIG.with_fields(gradient_accumulation=8), "fsdp").train.gradient_accumulation == 8


@given(peaks=st.lists(st.integers(1, 2 * BUDGET), min_size=1, max_size=8))
def test_the_worst_gpu_decides(peaks):
    shares = Shares("split", BUDGET, 0, tuple(map(gpu, peaks)))
    assert shares.fits == (max(peaks) <= BUDGET)
    assert peaks[shares.worst_gpu] == max(peaks)
    assert 1 <= shares.imbalance <= len(peaks)
    more = replace(shares, gpus=(*shares.gpus, gpu(BUDGET + 1)))
    assert not more.fits


@pytest.mark.parametrize("name", ["t4", "l4", "h100"])
def test_beside_the_allocator_lies_a_small_part_of_the_card(name):
    ddp, split = (CONFIG.with_fields(gpu=name, sharding=engine).device for engine in ("ddp", "split"))
    assert 0 < bytes_beside(ddp) <= find_card(name).capacity_bytes // 20
    assert budget_of(ddp) + bytes_beside(ddp) == budget_of(split) == find_card(name).budget_bytes


def test_a_budget_that_is_given_is_what_pytorch_may_use():
    device = CONFIG.with_fields(sharding="fsdp", budget_bytes=GIB).device
    assert (budget_of(device), bytes_beside(device)) == (GIB, 0)
