"""The simulation against optimizers and other settings measured on an H200 (results/h200_knobs.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.knobs import SETTINGS, config_of, simulate

RESULTS = json.loads((Path(__file__).parent / "results" / "h200_knobs.json").read_text())
BY_NAME = {result["name"]: result for result in RESULTS}
QUICK = ("adafactor", "kept logits")

BUFFERS_BYTES = 4096
"""of sums over all values, which are not simulated"""
EVALUATION = 0.002
"""largest difference of the peak of an evaluation batch, as a share of it: which free block a request gets depends on
the addresses that the driver gave"""


def test_every_setting_was_measured():
    assert set(BY_NAME) == set(SETTINGS)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_prediction_of_the_same_libraries_is_what_the_gpu_took(name):
    check(BY_NAME[name]["rows"], BY_NAME[name]["simulated"])


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in BY_NAME])
def test_the_prediction_of_the_installed_libraries_is_too(name, tmp_path):
    check(BY_NAME[name]["rows"], simulate(config_of(name, tmp_path)))


def check(measured, simulated):
    """Steps take the bytes that they took, and leave those that they left; so do evaluations, but for their peaks."""
    assert [row["op"] for row in measured] == [row["op"] for row in simulated]
    for found, expected in zip(simulated, measured, strict=True):
        assert found["allocated_bytes"] == expected["allocated_bytes"], expected["op"]
        rest = expected["peak_allocated_bytes"] * EVALUATION if "evaluation" in expected["op"] else BUFFERS_BYTES
        assert abs(found["peak_allocated_bytes"] - expected["peak_allocated_bytes"]) <= rest, expected["op"]
