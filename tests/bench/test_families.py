"""The simulation against families of models measured on an H200 (results/h200_families.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from tests.bench.families import FAMILIES, VARIANTS, configuration_of, differences, simulate

RESULTS = json.loads((Path(__file__).parent / "results" / "h200_families.json").read_text())
BY_NAME = {result["name"]: result for result in RESULTS}

ALLOCATED, RESERVED = 0.002, 0.01
"""largest differences of a peak, as shares of it"""

HANGS_ON_ADDRESSES = {"bloom-7b1", "gpt-j-6b", "mpt-7b"}
"""Reserved memory of these differed from one measurement to the next: which of several free blocks of one size a
request gets depends on the addresses that the driver gave the segments, and their layers leave many such blocks."""

COMPUTED_OTHERWISE = {"granite-4.0-h-tiny", "nemotron-3-nano-30b"}
"""Transformers 5.23 computes Mamba's scan, without `mamba_ssm`, in a fraction of the memory of 5.17, the version with
which these were measured."""


def test_every_family_was_measured():
    assert set(BY_NAME) == {*FAMILIES, *VARIANTS}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_prediction_of_the_same_libraries_is_what_the_gpu_took(name):
    measured, simulated = BY_NAME[name]["rows"], BY_NAME[name]["simulated"]
    assert differences(measured, simulated, "peak_allocated_bytes") <= ALLOCATED
    if name not in HANGS_ON_ADDRESSES:
        assert differences(measured, simulated, "peak_reserved_bytes") <= RESERVED


@pytest.mark.parametrize(
    "name", [name if name == "gpt2" else pytest.param(name, marks=pytest.mark.slow) for name in BY_NAME]
)
def test_the_prediction_of_the_installed_libraries_is_too(name, tmp_path):
    if name in COMPUTED_OTHERWISE and transformers.__version__ != BY_NAME[name]["environment"]["transformers"]:
        pytest.skip("measured with transformers 5.17")
    simulated = simulate(configuration_of(name, tmp_path), BY_NAME[name]["gpu"])
    assert differences(BY_NAME[name]["rows"], simulated, "peak_allocated_bytes") <= ALLOCATED
