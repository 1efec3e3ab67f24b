"""What the stored run on two GPUs shows."""

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.models import load_models
from memory_harness.harness.log.records import Outcome
from tests.bench.two_gpus import LARGE, RECIPE, RUNS, SHARED, STEPS, read_logs


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
