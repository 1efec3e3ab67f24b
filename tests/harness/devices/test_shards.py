"""Two processes that share every layer out train as one does that has it whole."""

from __future__ import annotations

import pytest

from memory_harness.harness.log.records import Outcome
from tests.harness.devices.parallel_runs import train_together
from tests.harness.devices.test_parallel import ADDED_OTHERWISE, TWO, are_identical

SHARED = TWO.with_fields(sharding="fsdp")


def test_two_that_share_layers_train_as_one_does(tmp_path):
    (alone,) = train_together(tmp_path / "alone", TWO.with_fields(num_gpus=1))
    first, second = train_together(tmp_path / "both", SHARED)
    assert first.outcome is second.outcome is alone.outcome is Outcome.COMPLETED
    assert first.losses == second.losses
    assert first.losses == pytest.approx(alone.losses, rel=ADDED_OTHERWISE)
