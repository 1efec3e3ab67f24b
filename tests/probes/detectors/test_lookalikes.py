"""Runs in which nothing is wrong: no finding of severity error, whenever one asks, and no cause of growth at all."""

from dataclasses import replace

import pytest
import torch

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes.detectors import DETECTORS, detect
from memory_harness.probes.detectors.growth import growth_in_training
from memory_harness.probes.faults import run_with, tiny_config
from tests.probes.detectors.lookalikes import LOOKALIKES

pytestmark = pytest.mark.usefixtures("one_thread")

GROWING = {cause for cause, detector in DETECTORS.items() if detector is growth_in_training}
GROWING |= {"kv-cache-held", "logits-hoarded", "outputs-hoarded", "eval-leftover"}
GROWING |= {"metric-never-reset", "adapters-accumulate", "host-leak", "logits-hoarded-host", "old-model-alive"}
GROWING |= {"graph-pools", "optimizer-states-twice", "outside-growth", "pinned-cache", "rollouts-kept"}
CHECKS = (0.4, 0.7, 1.0)
"""shares of the steps after which the run is asked about, as if it were still going on"""


# every seventh one once; all of them, with three seeds, are slow
RUNS = [(clean, 1) for clean in LOOKALIKES[::7]]
SLOW_RUNS = [(clean, seed) for clean in LOOKALIKES for seed in (1, 2, 3) if (clean, seed) not in RUNS]


@pytest.mark.parametrize(
    ("clean", "seed"),
    [*RUNS, *(pytest.param(*run, marks=pytest.mark.slow) for run in SLOW_RUNS)],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_run_without_a_mistake_raises_no_alarm(clean, seed):
    torch.manual_seed(seed)
    log = run_with(clean, tiny_config().with_fields(seed=seed, samples=10))
    assert log.outcome is Outcome.COMPLETED
    findings = detect(log)
    assert [f.title for f in findings if f.severity == "error"] == []
    assert {f.cause for f in findings} & GROWING == set()
    for share in CHECKS:
        unfinished = on_a_full_card(log, round(share * len(log.steps)))
        assert [f.title for f in detect(unfinished) if f.severity == "error"] == []


def on_a_full_card(log: RunLog, num_steps: int) -> RunLog:
    """Return the log cut after so many steps of a very long run, on a card that the peak nearly fills."""
    budget = log.peak_allocated_bytes + MIB
    last = log.steps[num_steps - 1].step
    return replace(
        log,
        run=replace(log.run, budget_bytes=budget, total_steps=10**6),
        phases=[p for p in log.phases if p.step <= last],
        steps=log.steps[:num_steps],
        end=None,
    )


def test_there_are_enough_of_them():
    assert len({clean.name for clean in LOOKALIKES}) == len(LOOKALIKES) >= 20
    assert set(DETECTORS) >= GROWING
