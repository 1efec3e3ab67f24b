"""What scripts did on a GPU, and what the same scripts did dry, on the same versions of the libraries."""

import json

import pytest

from tests.bench.dry_scripts import ROOT, RUNS, worst_differences

RESULTS = json.loads((ROOT / "tests/bench/results/h200_dry_scripts.json").read_text(encoding="utf-8"))
EXACT = ("loop_autocast_bf16", "loop_adafactor", "trl_sft", "trl_grpo", "trl_grpo_lora")
INEXACT = {
    "trainer_bert": "one of its reductions takes a buffer in another segment",
    "trainer_t5": "its attention by plain operators frees in another order",
    "vit_loader": "cuDNN's workspaces are not known",
    "convnet": "cuDNN's workspaces are not known",
}


def test_all_were_measured():
    assert set(RESULTS) == set(RUNS)


@pytest.mark.parametrize("name", sorted(set(RUNS) - set(INEXACT)))
def test_a_script_run_dry_takes_what_it_takes_on_a_gpu(name):
    worst = worst_differences(RESULTS[name]["measured"], RESULTS[name]["dry"])
    assert worst["peak_allocated"] <= 0.0006
    assert worst["peak_reserved"] <= 0.01


@pytest.mark.parametrize("name", EXACT)
def test_some_are_equal_to_the_byte(name):
    assert RESULTS[name]["measured"]["steps"] == RESULTS[name]["dry"]["steps"]


@pytest.mark.parametrize("name", INEXACT)
def test_others_are_close(name):
    worst = worst_differences(RESULTS[name]["measured"], RESULTS[name]["dry"])
    assert worst["peak_allocated"] <= 0.015


REFERENCE = json.loads((ROOT / "tests/bench/results/h200_reference_scripts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_a_reference_script_takes_what_it_took_on_a_gpu(name):
    measured, dry = REFERENCE[name]["measured"], REFERENCE[name]["dry"]
    worst = worst_differences(measured, dry)
    assert worst["peak_allocated"] <= 0.0005
    assert worst["allocated"] <= 0.0005
    assert worst["peak_reserved"] <= 0.01
    assert len(measured["steps"]) == len(dry["steps"])
    assert (measured["outcome"] == "oom") == ("OutOfMemory" in str(dry["error"]))
