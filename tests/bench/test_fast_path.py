"""The fast path as it was measured on a GPU: peaks as predicted then and now, losses those of the slow path."""

import json
import statistics
from pathlib import Path

import pytest

from memory_harness.configs.cards import card_of, find_card
from memory_harness.harness.train.run import make_strategy, simulate_card
from memory_harness.probes.plan.predict import RecordedModel, uniform_batch
from memory_harness.probes.plan.seconds import batch_seconds
from tests.bench.fast_path import config_of, steps_at

RESULTS, OVER_CORPUS = (
    json.loads((Path(__file__).parent / "results" / name).read_text(encoding="utf-8"))
    for name in ("h200_fast_path.json", "h200_corpus_speed.json")
)
CORPUS = {result["contender"]: result for result in OVER_CORPUS["results"]}
FAST = [result for result in RESULTS["results"] if result["contender"] == "fast"]


ASKED = {512: 2, 1024: 2, 2048: 1.3, 4096: 1.3, 8192: 1.2, 16384: 1.2}
"""tokens -> how many times as fast as Unsloth"""


def rows(contender, adapters="r8", call=1):
    for result in RESULTS["results"]:
        if (result["contender"], result["adapters"], result["call"]) == (contender, adapters, call):
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
    fast, slow = rows("fast", call=3), rows("slow", call=3)
    for length, row in slow.items():
        if "error" not in row:
            assert fast[length]["losses"] == pytest.approx(row["losses"], abs=1e-3)


def test_it_is_faster_than_the_slow_path():
    fast, slow = rows("fast", call=3), rows("slow", call=3)
    for length, row in slow.items():
        assert "error" in row or fast[length]["seconds"] < row["seconds"]


def test_it_is_faster_with_all_linear_layers_by_the_median_of_its_rounds():
    seconds = {"fast": [], "unsloth": []}
    for result in RESULTS["results"]:
        if (result["call"], result["adapters"]) == (1, "r32"):
            seconds[result["contender"]] += [row["seconds"] for row in result["measured"] if row["tokens"] == 4096]
    assert len(seconds["fast"]) == 5
    assert statistics.median(seconds["unsloth"]) / statistics.median(seconds["fast"]) >= 1.2


def test_it_is_faster_than_unsloth_by_what_was_asked():
    fast, unsloth = rows("fast"), rows("unsloth")
    assert fast.keys() == unsloth.keys() == ASKED.keys()
    for length, times in ASKED.items():
        assert unsloth[length]["seconds"] / fast[length]["seconds"] >= times


@pytest.mark.parametrize(("contender", "call"), [("fast", 1), ("slow", 3)])
def test_seconds_are_predicted_within_a_seventh(contender, call):
    (result,) = (r for r in RESULTS["results"] if (r["contender"], r["call"], r["adapters"]) == (contender, call, "r8"))
    lengths = [row["tokens"] for row in result["measured"]]
    config = config_of(contender, "r8", lengths, "h200")
    config = config.with_fields(device="simulated", tensors="fake", recompute=result["recompute"])
    recorded = RecordedModel(config)
    for row in result["measured"]:
        if row["tokens"] in (1024, 4096):
            found = batch_seconds(recorded, config, uniform_batch((1, row["tokens"]), 0), find_card("h200").speeds)
            assert found == pytest.approx(row["seconds"], rel=1 / 7)


def test_packed_it_is_faster_than_unsloth_over_the_corpus_with_the_slow_paths_losses():
    fast, unsloth, slow = (CORPUS[name] for name in ("fast", "unsloth", "slow"))
    assert fast["steps"] == unsloth["steps"] == slow["steps"] == 200
    assert fast["real_tokens"] == unsloth["real_tokens"]
    assert fast["real_tokens_per_second"] >= 1.5 * unsloth["real_tokens_per_second"]
    assert fast["losses"] == pytest.approx(slow["losses"], rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("adapters", ["r8", "r32"])
def test_the_simulation_says_the_same_today(adapters):
    (result,) = [found for found in FAST if (found["adapters"], found["round"], found["call"]) == (adapters, 1, 1)]
    lengths = [row["tokens"] for row in result["measured"]]
    config = config_of("fast", adapters, lengths, "h200")
    config = config.with_fields(device="simulated", recompute=result["recompute"])
    card = simulate_card(config, card_of(config.device))
    for now, measured in zip(
        steps_at(make_strategy(config, card), card, lengths, 2, lambda: None), result["measured"], strict=True
    ):
        # cosines and sines of positions left for the host when this was measured
        assert now["peak_allocated_bytes"] == pytest.approx(measured["peak_allocated_bytes"], rel=2e-3)
        assert now["peak_reserved_bytes"] == pytest.approx(measured["peak_reserved_bytes"], rel=1e-2)
