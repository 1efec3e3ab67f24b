"""The simulation against recipes of all kinds measured on an H200 (results/h200_recipes.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from memory_harness.configs.cards import find_card
from memory_harness.configs.models import find_model
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.random_checkpoint import write_random_checkpoint
from tests.bench.families import differences, simulate
from tests.bench.recipes import CONFIGURATIONS, of_name

RESULTS = json.loads((Path(__file__).parent / "results" / "h200_recipes.json").read_text())
BY_NAME = {result["name"]: result for result in RESULTS}

ALLOCATED, RESERVED = 0.002, 0.01
"""largest differences of a peak, as shares of it"""

WITH_OUTLIERS = {"8-bit", "8-bit-bfloat16", "transformers-loader-8-bit"}
"""Which columns of an 8-bit product stay in 16 bits depends on values; up to 9 % of one layer's did here."""
OUTLIERS = 0.012

HANGS_ON_ADDRESSES = {"fp4", "qdora"}
"""32 MiB more were reserved than simulated: which of several free blocks a request gets depends on addresses."""

NOT_EXPLAINED = {"grpo-full": 0.02}
"""240 MiB more were simulated than reserved; which request made the difference was not found out."""

LOADED_IN_ANOTHER_ORDER = {"transformers-loader"}
"""Transformers 5.23 loads weights in another order than 5.17, with which it was measured (then 0 bytes off): what lies
free between them differs, so what is reserved later does."""

QUICK = {"dpo-bfloat16"}


def test_every_recipe_was_measured():
    assert set(BY_NAME) == {configuration.name for configuration in CONFIGURATIONS}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_prediction_of_the_same_libraries_is_what_the_gpu_took(name):
    check(name, BY_NAME[name]["simulated"])


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BY_NAME]
)
def test_the_prediction_of_the_installed_libraries_is_too(name, tmp_path):
    device = SimulatedDevice(find_card("h200"), 2**36, computes=True)
    configuration = of_name(name, str(tmp_path))
    if configuration.config.model.loader != "stepwise":
        write_random_checkpoint(find_model("llama-3.2-1b"), tmp_path, torch.bfloat16, device)
    same_order = transformers.__version__ == BY_NAME[name]["environment"]["transformers"]
    check(name, simulate(configuration, BY_NAME[name]["gpu"]), same_order or name not in LOADED_IN_ANOTHER_ORDER)


def check(name, simulated, with_reserved=True):
    measured = BY_NAME[name]["rows"]
    allocated = OUTLIERS if name in WITH_OUTLIERS else ALLOCATED
    assert differences(measured, simulated, "peak_allocated_bytes") <= allocated
    if with_reserved and name not in HANGS_ON_ADDRESSES:
        reserved = NOT_EXPLAINED.get(name, RESERVED)
        assert differences(measured, simulated, "peak_reserved_bytes") <= reserved
