"""The fast path as it was measured on a GPU: peaks as predicted then and now, losses those of the slow path."""

import json
from pathlib import Path

import pytest

from memory_harness.configs.cards import card_of
from memory_harness.harness.train.run import make_strategy, simulate_card
from tests.bench.fast_path import config_of, steps_at

RESULTS = json.loads((Path(__file__).parent / "results" / "h200_fast_path.json").read_text(encoding="utf-8"))
FAST = [result for result in RESULTS["results"] if result["contender"] == "fast"]


def rows(results, adapters, call, contender):
    for result in results:
        if (result["adapters"], result["call"], result["contender"]) == (adapters, call, contender):
            return {row["tokens"]: row for row in result["measured"]}
    raise KeyError(contender)


@pytest.mark.parametrize("result", FAST)
def test_every_peak_was_as_predicted(result):
    for measured, predicted in zip(result["measured"], result["predicted"], strict=True):
        assert predicted["peak_allocated_bytes"] == pytest.approx(measured["peak_allocated_bytes"], rel=1e-3)
        assert predicted["peak_reserved_bytes"] == pytest.approx(measured["peak_reserved_bytes"], rel=1e-2)
        assert measured["peak_reserved_bytes"] <= RESULTS["cap_bytes"]
        assert measured["retries"] == 0


def test_losses_are_those_of_the_slow_path():
    fast, slow = rows(RESULTS["results"], "r8", 3, "fast"), rows(RESULTS["results"], "r8", 3, "slow")
    for length, row in slow.items():
        if "error" not in row:
            assert fast[length]["losses"] == pytest.approx(row["losses"], abs=1e-3)


def test_the_fast_path_is_faster_than_the_slow_one():
    fast, slow = rows(RESULTS["results"], "r8", 3, "fast"), rows(RESULTS["results"], "r8", 3, "slow")
    for length, row in slow.items():
        assert "error" in row or fast[length]["seconds"] < row["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("adapters", ["r8", "r32"])
def test_the_simulation_says_the_same_today(adapters):
    (result,) = [found for found in FAST if (found["adapters"], found["round"]) == (adapters, 1)]
    lengths = [row["tokens"] for row in result["measured"]]
    config = config_of("fast", adapters, lengths, "h200")
    config = config.with_fields(device="simulated", recompute=result["recompute"])
    card = simulate_card(config, card_of(config.device))
    for now, measured in zip(
        steps_at(make_strategy(config, card), card, lengths, 2, lambda: None), result["measured"], strict=True
    ):
        assert now["peak_allocated_bytes"] == pytest.approx(measured["peak_allocated_bytes"], rel=1e-3)
        assert now["peak_reserved_bytes"] == pytest.approx(measured["peak_reserved_bytes"], rel=1e-2)
