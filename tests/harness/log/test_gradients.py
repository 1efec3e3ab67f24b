"""Gradients that train nothing stop a run, whatever makes them; sound runs go on."""

import math

import pytest
import torch

from memory_harness.harness.data.prepare import prepare
from memory_harness.harness.log.errors import GradientError
from memory_harness.harness.log.gradients import MAX_STEPS, GradientGuard, useless_end, uselessness
from memory_harness.harness.log.records import Outcome, StepRecord
from memory_harness.harness.log.runlog import collect
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.execute import execute
from memory_harness.harness.train.run import Run, open_device
from memory_harness.probes.detectors import detect
from memory_harness.probes.faults import tiny_config


def step(number, loss, grad_norm):
    return StepRecord(number, 1, 1, (8,), 0.0, 8, loss, 1e-4, 0.1, 0, 0, 0, 0, grad_norm)


def stops_at(pairs):
    """Return the step at which the guard stops the run, or None."""
    guard = GradientGuard()
    for number, (loss, grad_norm) in enumerate(pairs, 1):
        try:
            guard.check(step(number, loss, grad_norm))
        except GradientError:
            return number
    return None


@pytest.mark.parametrize(
    ("pairs", "stop"),
    [
        ([(11.8, 0.0)] * 5, 2),
        ([(11.8, 0.5), (11.7, 0.0), (11.7, 0.0)], 3),
        ([(11.8, 0.0), (11.7, 0.5)] * 20, None),
        ([(0.0, 0.0)] * 40, None),  # nothing to learn
        ([(None, None)] * 40, None),  # nothing computed
        ([(11.8, None)] * 40, None),
        ([(11.8, math.inf)] * 16 + [(11.8, 0.5)] * 20, None),  # the loss scale comes down from 2^16
        ([(11.8, math.inf)] * 40, 20),
        ([(math.nan, 0.5)] * 40, 20),
        ([(11.8, math.nan)] * 19 + [(11.8, 0.0)] * 2, 21),
    ],
)
def test_the_guard_stops_what_cannot_learn_and_nothing_else(pairs, stop):
    assert stops_at(pairs) == stop


def test_steps_at_the_end_count_as_long_as_they_are_useless_in_the_same_way():
    steps = [step(1, 1.0, 0.0), step(2, 1.0, 0.5), step(3, 1.0, 0.0), step(4, 1.0, 0.0)]
    assert [s.step for s in useless_end(steps)] == [3, 4]
    assert useless_end(steps[:2]) == useless_end([]) == []
    assert uselessness(steps[0]) == "zero"


def run_of_a_strategy(make, output, **changes):
    config = tiny_config().with_fields(**changes)
    strategy = make(config, open_device(config))
    records = []
    outcome = execute(Run(config, strategy.device, strategy, prepare(config)), records.append, output)
    return outcome, collect(records)


class NothingRequiresGrad(QLoraStrategy):
    """The adapter is frozen; a graph comes from the inputs alone, as after enable_input_require_grads."""

    def make_optimizer(self):
        super().make_optimizer()
        self.model.enable_input_require_grads()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(False)


@pytest.mark.parametrize("max_grad_norm", [1.0, None])
def test_a_frozen_adapter_stops_the_run_with_a_finding(max_grad_norm, tmp_path):
    torch.manual_seed(0)
    outcome, log = run_of_a_strategy(NothingRequiresGrad, tmp_path, max_grad_norm=max_grad_norm)
    assert outcome is log.outcome is Outcome.ERROR
    assert [s.step for s in log.steps] == list(range(1, MAX_STEPS["zero"] + 1))
    assert "steps 1 to 2: the gradient's norm is 0 while the loss is" in log.end.message
    (error,) = [f for f in detect(log) if f.severity == "error"]
    assert (error.cause, error.steps, error.evidence["grad_norm"]) == ("zero-gradient", (1, 2), 0.0)


def test_a_sound_run_records_its_norm_also_unclipped(tmp_path):
    torch.manual_seed(0)
    outcome, log = run_of_a_strategy(
        QLoraStrategy, tmp_path, max_grad_norm=None, max_steps=2, eval_every=9, save_every=9
    )
    assert outcome is Outcome.COMPLETED
    assert all(s.grad_norm > 0 for s in log.steps)
