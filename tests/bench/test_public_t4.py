"""The simulation against measurements that others published (results/public_t4.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.public_t4 import config_of, simulate

RESULTS = json.loads((Path(__file__).parent / "results" / "public_t4.json").read_text())
KNOWN_HERE = [result for result in RESULTS if result["row"]["model"] == "meta-llama/Llama-3.2-1B-Instruct"]
"""of a model whose shape is in models.toml"""


def shares(kind):
    return [abs(result["difference"][kind]) for result in RESULTS]


def test_the_stored_predictions_are_what_the_cards_took():
    allocated, reserved = shares("allocated"), shares("reserved")
    assert max(allocated) <= 0.005
    assert sum(share <= 0.001 for share in allocated) >= 50
    assert sum(share <= 0.03 for share in reserved) >= 49


@pytest.mark.parametrize("result", KNOWN_HERE[:1], ids=lambda result: str(result["number"]))
def test_they_are_made_anew(result, tmp_path):
    (tmp_path / "llama-3.2-1b").mkdir()
    config = config_of(result["row"], tmp_path).with_fields(model="llama-3.2-1b")
    simulated = simulate(config)
    assert simulated["allocated"] == pytest.approx(result["measured"]["allocated"], rel=0.001)
    assert simulated["reserved"] == pytest.approx(result["measured"]["reserved"], rel=0.04)
