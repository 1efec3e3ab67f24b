"""The simulation against a GPU: Llama-3.1-8B in 4 bit, measured on an H200 (bench/results/h200_seed_recipe.json)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB
from memory_harness.harness.data.batching import Batch, Example
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import BatchShape, MemoryStats
from memory_harness.harness.strategies import modeling
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy

REFERENCE = json.loads((Path(__file__).parents[2] / "bench/results/h200_seed_recipe.json").read_text())
TOLERANCE = 0.005
"""half a percent, on numbers printed to 0.0001 GiB"""


def _random_as_measured(shape: torch.Size, name: str, device: Any, dtype: torch.dtype) -> torch.Tensor:
    """Random weights as the measurement made them: a normal tensor, then a scaled copy."""
    return torch.randn(shape, dtype=dtype, device=device.torch_device) * modeling.INIT_STD


def unpadded(batch_size: int, length: int) -> Batch:
    """Return a batch of full sequences, labels equal to the ids."""
    shape = BatchShape(batch_size, length, (length,) * batch_size, batch_size * (length - 1))
    return Batch(shape, (Example(length, 0),) * batch_size)


RECIPE = RunConfig().with_fields(kbit_upcast=True, hold_outputs=True, gpu="h200", max_grad_norm=None)


@pytest.fixture(scope="module")
def strategy() -> Iterator[CompiledStrategy]:
    """The measured recipe on a simulated H200."""
    card = find_card("h200")
    device = SimulatedDevice(card, card.budget_bytes, computes=False)
    with device.active():
        yield CompiledStrategy(QLoraStrategy(RECIPE, device), device)


def load(strategy: CompiledStrategy) -> None:
    with patch.object(modeling, "random_weight", _random_as_measured):
        strategy.load()


def train_two_steps(strategy: CompiledStrategy, length: int) -> None:
    for _ in range(2):
        strategy.put(unpadded(1, length), training=True)
        strategy.forward(length - 1)
        strategy.backward()
        strategy.optimizer_step(2e-4)


def assert_near(num_bytes: int, gib: float) -> None:
    assert num_bytes / GIB == pytest.approx(gib, rel=TOLERANCE)


def test_memory_after_the_build() -> None:
    card = find_card("h200")
    device = SimulatedDevice(card, card.budget_bytes, computes=False)
    built: list[MemoryStats] = []
    with (
        device.active(),
        patch.object(modeling, "random_weight", _random_as_measured),
        patch.object(QLoraStrategy, "_prepare", lambda self: built.append(device.stats())),
    ):
        QLoraStrategy(RECIPE, device).load()
    assert_near(built[0].allocated_bytes, REFERENCE["after_build"]["allocated"])
    assert_near(built[0].reserved_bytes, REFERENCE["after_build"]["reserved"])


def test_memory_after_load_and_training_at_every_length(strategy: CompiledStrategy) -> None:
    load(strategy)
    stats = strategy.device.stats()
    assert_near(stats.allocated_bytes, REFERENCE["after_lora"]["allocated"])
    assert_near(stats.reserved_bytes, REFERENCE["after_lora"]["reserved"])
    for row in REFERENCE["train"]:
        strategy.device.reset_peaks()
        train_two_steps(strategy, row["length"])
        stats = strategy.device.stats()
        assert_near(stats.allocated_bytes, row["allocated_after"])
        assert_near(stats.peak_allocated_bytes, row["peak_allocated"])
        assert_near(stats.reserved_bytes, row["reserved"])


def run_row(strategy: CompiledStrategy, row: dict[str, Any]) -> DeviceOutOfMemory | None:
    """Do what was measured; return the error where memory runs out."""
    try:
        if row["phase"] == "train":
            train_two_steps(strategy, row["length"])
        else:
            strategy.put(unpadded(row["batch"], row["length"]), training=False)
            strategy.evaluate()
    except DeviceOutOfMemory as error:
        return error
    return None


@pytest.mark.slow
def test_outcomes_under_the_cap(strategy: CompiledStrategy) -> None:
    strategy.restart(round(14.5 * GIB), expandable_segments=False)
    load(strategy)
    for row in REFERENCE["under_a_14.5_GiB_cap"]:
        strategy.device.reset_peaks()
        error = run_row(strategy, row)
        assert row["outcome"] == ("fits" if error is None else "oom")
        if error is None:
            assert_near(strategy.device.stats().peak_allocated_bytes, row["peak_allocated"])
            continue
        assert f"{error.requested_bytes / GIB:.2f}" == f"{row['tried_to_allocate']:.2f}"
        if "allocated_at_failure" in row:
            assert_near(error.allocated_bytes, row["allocated_at_failure"])
        # each row was measured in a process that went on after the error; here it starts over
        strategy.restart(round(14.5 * GIB), expandable_segments=False)
        load(strategy)
        train_two_steps(strategy, 1024)
