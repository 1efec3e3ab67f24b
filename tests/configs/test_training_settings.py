"""Settings of the training that are refused, each in one line with what is allowed."""

from __future__ import annotations

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.validation import validate

CONFIG = RunConfig().with_fields(device="simulated")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"warmup_steps": -1}, "--warmup-steps -1: out of range (allowed: 0 to 1000000000)"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1: out of range (allowed: 0 or more, and finite)"),
        ({"adam_beta1": 1.0}, "--adam-beta1 1.0: out of range (allowed: 0 or more and less than 1)"),
        ({"adam_beta2": float("nan")}, "--adam-beta2 nan: out of range (allowed: 0 or more and less than 1)"),
        ({"adam_epsilon": 0.0}, "--adam-epsilon 0.0: out of range (allowed: more than 0, and finite)"),
        ({"neftune_noise_alpha": 0.0}, "--neftune-noise-alpha 0.0: out of range (allowed: more than 0, and finite)"),
        ({"label_smoothing_factor": 1.0}, "--label-smoothing-factor 1.0: out of range"),
        (
            {"eval_accumulation_steps": 0, "eval_keep_logits": True},
            "--eval-accumulation-steps 0: out of range (allowed: 1 to 1000000000)",
        ),
        ({"schedule": "cosine_with_min_lr"}, "--schedule-args none: cosine_with_min_lr needs one of min_lr=RATE"),
        ({"schedule_args": "power=2"}, "--schedule-args power=2: linear has no power (allowed with it: none)"),
        ({"optim_args": "beta3=0.9"}, "--optim-args beta3=0.9: adamw has no beta3 (allowed with it: none)"),
    ],
)
def test_a_value_out_of_range_is_one_line(changes, line):
    with pytest.raises(ConfigError) as refusal:
        validate(CONFIG.with_fields(**changes))
    (problem,) = refusal.value.problems
    assert problem.startswith(line)


def test_what_unsloth_does_by_itself_is_not_asked_of_it():
    config = RunConfig().with_fields(strategy="unsloth", device="cuda", neftune_noise_alpha=5.0)
    with pytest.raises(ConfigError, match=r"--neftune-noise-alpha 5\.0: not with --strategy unsloth"):
        validate(config, takes_any_gpu=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adafactor", "weight_decay": 0.1, "schedule": "constant_with_warmup", "warmup_steps": 0},
        {"optimizer": "sgd", "optim_args": "momentum=0.9, nesterov=true"},
        {"optimizer": "ademamix", "optim_args": "beta3=0.999,alpha=8,t_alpha=100"},
        {"schedule": "warmup_stable_decay", "schedule_args": "num_decay_steps=10,decay_type=linear"},
        {"eval_keep_logits": True, "eval_accumulation_steps": 4},
        {"neftune_noise_alpha": 5.0, "label_smoothing_factor": 0.1, "train_on_prompts": True, "do_eval": False},
    ],
)
def test_usual_settings_are_taken(changes):
    validate(CONFIG.with_fields(**changes))
