"""What the stored runs on two GPUs show."""

import json
from pathlib import Path

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.models import load_models
from memory_harness.harness.log.records import Outcome
from memory_harness.probes.plan.predict import predict_gpus
from tests.bench.two_gpus import LARGE, RECIPE, RUNS, SHARED, STEPS, read_logs

MEASURED = json.loads((Path(__file__).parent / "results" / "h200_two_gpus.json").read_text())["records"]
BOUNDS = {"allocated_bytes": 0.005, "reserved_bytes": 0.02, "driver_bytes": 0.03}


@pytest.mark.parametrize("record", [record for record in MEASURED if "gpu" in record], ids=str)
def test_each_gpu_took_what_was_predicted(record):
    for name, measured in record["measured"].items():
        assert record["predicted"][name] == pytest.approx(measured, rel=BOUNDS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "copies", "shared"])  # where layers are split depends on transformers' version
def test_it_is_predicted_today_too(name):
    (predicted,) = predict_gpus(parse_args([*RECIPE, *STEPS, *RUNS[name]]).config)
    measured, *_ = (r["measured"] for r in MEASURED if r["run"] == name and r.get("gpu") == 0)
    assert predicted.peak_allocated_bytes == pytest.approx(measured["allocated_bytes"], rel=BOUNDS["allocated_bytes"])
    assert predicted.peak_reserved_bytes == pytest.approx(measured["reserved_bytes"], rel=BOUNDS["reserved_bytes"])


def test_two_copies_are_nearly_twice_as_fast_and_learn_the_same():
    (copies,) = (record for record in MEASURED if record["run"] == "copies" and "speedup" in record)
    assert copies["speedup"] >= 1.85
    assert copies["losses_differ_by"] == 0


@pytest.mark.parametrize("name", [*RUNS, "large"])
def test_what_is_to_be_measured_is_a_command(name):
    if name == "large" and "llama-3.3-70b" not in load_models():
        pytest.skip("no such model")
    flags = (*LARGE, *SHARED) if name == "large" else (*STEPS, *RUNS[name])
    assert parse_args([*RECIPE, *flags]).config.train.gradient_accumulation == 2


def test_both_gpus_make_the_same_updates():
    _, first, second = read_logs()
    assert [(s.loss, s.grad_norm) for s in first.steps] == [(s.loss, s.grad_norm) for s in second.steps]
    assert first.evals[-1].loss == second.evals[-1].loss


def test_the_samples_of_each_step_are_those_of_one_gpu():
    one, first, _ = read_logs()
    for alone, shared in zip(one.steps, first.steps, strict=True):
        assert sorted(alone.lengths) == sorted(shared.lengths)
        assert alone.target_tokens == shared.target_tokens


def test_none_takes_more_than_one_gpu_alone():
    one, *both = read_logs()
    for log in both:
        assert log.outcome is Outcome.COMPLETED
        assert not log.ooms
        assert log.peak_allocated_bytes <= one.peak_allocated_bytes
