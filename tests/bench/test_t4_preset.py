"""The T4's preset as it was measured on a GPU held to a T4: peaks as predicted, faster than before, the same losses."""

import json
from pathlib import Path

import pytest

from memory_harness.configs.cards import find_card

MEASURED = Path(__file__).parent / "results" / "h200_t4_preset.json"
NOW, BEFORE = json.loads(MEASURED.read_text(encoding="utf-8"))["runs"]
FIRST = 4
"""step from which on kernels are compiled and memory is there"""


def test_its_peaks_were_predicted_and_fit_a_t4():
    for run in (NOW, BEFORE):
        assert run["measured"] == run["simulated"]
        assert run["measured"]["peak_reserved_bytes"] <= find_card("t4").budget_bytes


def test_the_memory_that_was_left_makes_it_faster_and_changes_no_loss():
    common = range(FIRST, len(NOW["steps"]) + 1)
    seconds = {run["run"]: sum(run["steps"][step - 1][1] for step in common) for run in (NOW, BEFORE)}
    assert seconds["before"] / seconds["as_it_is"] > 2.5
    for ours, theirs in zip(NOW["steps"], BEFORE["steps"], strict=False):
        assert ours[0] == theirs[0]
        assert ours[2] == pytest.approx(theirs[2], rel=1e-3)
