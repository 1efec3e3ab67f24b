"""The learning rate over a run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import SchedulerType, get_scheduler

from memory_harness.configs.schedules import OWN, SCHEDULE_ARGUMENTS, schedule_problem, schedule_values
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.train.schedules import learning_rate

NEEDED = {
    "cosine_with_min_lr": "min_lr_rate=0.1",
    "cosine_warmup_with_min_lr": "min_lr=1e-5,warmup_lr_rate=0.2",
    "warmup_stable_decay": "num_decay_steps=20,decay_type=1-sqrt",
    "cosine_with_restarts": "num_cycles=3",
    "polynomial": "power=2,lr_end=1e-6",
}
WITHOUT_A_PLAN = {"reduce_lr_on_plateau", "greedy"}
"""these follow the loss, not the step"""


def rates(total, **changes):
    config = RunConfig().with_fields(learning_rate=1e-3, **changes)
    return [learning_rate(config, step, total) for step in range(1, total + 1)]


def rates_of_a_trainer(total, schedule, arguments, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = get_scheduler(schedule, optimizer, warmup, total, schedule_values(arguments))
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@given(total=st.integers(1, 300), warmup=st.floats(0, 1), schedule=st.sampled_from(["linear", "cosine"]))
def test_it_rises_to_the_peak_and_falls_without_reaching_zero(total, warmup, schedule):
    values = rates(total, warmup_ratio=warmup, schedule=schedule)
    top = max(range(total), key=values.__getitem__)
    assert all(0 < value <= 1e-3 * (1 + 1e-12) for value in values)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)


def test_a_cosine_falls_slowly_at_both_ends():
    linear, cosine = (rates(100, warmup_ratio=0.1, schedule=schedule) for schedule in ("linear", "cosine"))
    assert cosine[10] == linear[10] == pytest.approx(1e-3)
    assert cosine[20] > linear[20]
    assert cosine[55] == pytest.approx(linear[55])
    assert cosine[95] < linear[95]


def test_runs_of_before_have_the_rates_of_before_to_the_last_bit():
    assert rates(7, warmup_ratio=0.3) == LINEAR
    assert rates(7, warmup_ratio=0.3, schedule="cosine") == COSINE


LINEAR = [0.0005, 0.001, 0.001, 0.0008, 0.0006, 0.0004, 0.0002]
COSINE = [
    0.0005,
    0.001,
    0.001,
    0.0009045084971874737,
    0.0006545084971874737,
    0.0003454915028125263,
    9.549150281252627e-05,
]


@pytest.mark.parametrize("schedule", sorted(set(SCHEDULE_ARGUMENTS) - set(OWN)))
@pytest.mark.parametrize("warmup", [0, 10])
def test_the_others_are_what_a_trainer_takes(schedule, warmup):
    arguments = NEEDED.get(schedule)
    ours = rates(100, schedule=schedule, schedule_args=arguments, warmup_steps=warmup)
    assert ours == rates_of_a_trainer(100, schedule, arguments, warmup)


def test_every_schedule_of_transformers_is_known_but_those_that_follow_the_loss():
    assert set(SCHEDULE_ARGUMENTS) == {kind.value for kind in SchedulerType} - WITHOUT_A_PLAN


def test_steps_of_warm_up_go_before_a_share():
    assert rates(100, warmup_steps=4, warmup_ratio=0.5) == rates(100, warmup_ratio=0.04)
    assert rates(100, warmup_steps=0, warmup_ratio=0.5)[0] == 1e-3


@pytest.mark.parametrize(
    ("schedule", "arguments", "named"),
    [
        ("linear", "num_cycles=2", "linear has no num_cycles"),
        ("cosine_with_min_lr", None, "needs one of min_lr=RATE and min_lr_rate=SHARE"),
        ("cosine_with_min_lr", "min_lr=1e-5,min_lr_rate=0.1", "needs one of"),
        ("warmup_stable_decay", None, "needs num_decay_steps=N"),
        ("warmup_stable_decay", "num_decay_steps=9,decay_type=steep", "decay_type is steep"),
        ("polynomial", "lr_end=1", "lr_end is 1"),
        ("polynomial", "power=two", "'two' is no number"),
        ("polynomial", "power", "'power' is no KEY=VALUE"),
        ("inverse_sqrt", "timescale=-1", "timescale is -1"),
    ],
)
def test_arguments_that_a_schedule_does_not_take_are_named(schedule, arguments, named):
    assert named in schedule_problem(schedule, arguments, 1e-3)


@pytest.mark.parametrize("schedule", SCHEDULE_ARGUMENTS)
def test_what_it_needs_is_enough(schedule):
    assert schedule_problem(schedule, NEEDED.get(schedule), 1e-3) == ""
