"""What the stored runs of Unsloth and QLoRA on a GPU show, read from their logs."""

import json
from pathlib import Path

import pytest

from memory_harness.harness.log.records import Phase
from memory_harness.probes.detectors import detect
from tests.bench.unsloth_run import STRATEGIES, read_packed, summary

RESULTS = Path(__file__).with_name("results") / "h100_unsloth"


@pytest.fixture(scope="module")
def logs():
    return {strategy: read_packed(RESULTS / f"{strategy}.jsonl.gz") for strategy in STRATEGIES}


def test_both_trained_the_same_batches(logs):
    unsloth, qlora = ([p.batch for p in log.phases if p.phase is Phase.FORWARD] for log in logs.values())
    assert unsloth == qlora
    assert len(logs["unsloth"].steps) == len(logs["qlora"].steps) == 200


def test_both_learned_under_the_cap(logs):
    for log in logs.values():
        result = summary(log)
        assert result["grad_norms"]["num"] == 200
        assert result["grad_norms"]["min"] > 0
        assert result["last_10_losses"] < result["first_10_losses"] / 2
        assert log.peak_reserved_bytes < log.run.budget_bytes
        assert detect(log) == []


def test_the_table_is_that_of_the_logs(logs):
    stored = json.loads((RESULTS / "results.json").read_text("utf-8"))
    assert json.loads(json.dumps({name: summary(log) for name, log in logs.items()})) == stored


def test_the_saved_adapter_was_loaded_again():
    loss = json.loads((RESULTS / "unsloth.reloaded.json").read_text("utf-8"))["eval_loss"]
    assert loss["restored"] == loss["trained"] < loss["adapter_zeroed"]
