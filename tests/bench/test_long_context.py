"""Long sequences, as they were measured beside Unsloth and as they are predicted."""

import json
from pathlib import Path

RESULTS = json.loads((Path(__file__).parent / "results" / "h100_long_context.json").read_text(encoding="utf-8"))


def rows(source, name):
    return {row["length"]: row for row in RESULTS[source][name]["rows"]}


def test_every_peak_is_as_predicted():
    measured, predicted = rows("measured", "qlora"), rows("predicted", "qlora")
    assert measured.keys() == predicted.keys()
    for length, row in measured.items():
        assert row["peak_allocated_bytes"] == predicted[length]["peak_allocated_bytes"]
        assert abs(row["peak_reserved_bytes"] - predicted[length]["peak_reserved_bytes"]) <= 20 * 2**20


def test_qlora_takes_less_than_unsloth_at_every_length_and_fits_a_longer_one():
    qlora, unsloth = rows("measured", "qlora"), rows("measured", "unsloth")
    assert unsloth.pop(None)["outcome"] == "oom"
    for length, row in unsloth.items():
        for peak in ("peak_allocated_bytes", "peak_reserved_bytes"):
            assert qlora[length][peak] < row[peak]
    assert max(qlora) > max(unsloth)


def test_gradients_are_alike():
    qlora, unsloth = rows("measured", "qlora"), rows("measured", "unsloth")
    for length in unsloth.keys() - {None, 0}:
        assert 0.9 < qlora[length]["grad_norm"] / unsloth[length]["grad_norm"] < 1.1


def test_98304_tokens_take_what_was_predicted_on_the_fast_path():
    found = json.loads((Path(__file__).parent / "results" / "h200_long_context.json").read_text(encoding="utf-8"))
    measured, predicted = (found[source]["fast"]["rows"][-1] for source in ("measured", "predicted"))
    assert measured["length"] == predicted["length"] == 98304
    for peak in ("peak_allocated_bytes", "peak_reserved_bytes"):
        assert measured[peak] == predicted[peak] < 14.5 * 2**30
