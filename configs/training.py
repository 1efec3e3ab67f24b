"""What the settings of the optimisation may be together."""

from __future__ import annotations

from memory_harness.configs.optimizers import OPTIMIZERS, PACKAGES, is_yes, named_values
from memory_harness.configs.schedules import number, schedule_problem
from memory_harness.configs.schema import RunConfig

_WORDS = ("nesterov", "centered", "adjust_lr_fn")
"""arguments of optimizers that are no numbers"""


def training_problems(config: RunConfig) -> list[str]:
    """Return one line for each value that is not usable, or not with another."""
    train = config.train
    problems = _optimizer_problems(config)
    wrong = schedule_problem(train.schedule, train.schedule_args, train.learning_rate)
    if wrong:
        problems.append(f"--schedule-args {train.schedule_args or 'none'}: {wrong}")
    return problems + _loss_problems(config) + _eval_problems(config) + _answer_problems(config)


def _optimizer_problems(config: RunConfig) -> list[str]:
    name, text = config.train.optimizer, config.train.optim_args
    kind = OPTIMIZERS.get(name)
    if kind is None:
        allowed = f"(allowed: {', '.join(OPTIMIZERS)})"
        package = PACKAGES.get(name)
        why = f"is of the package {package}, which is not used here" if package else "no such optimizer"
        return [f"--optimizer {name}: {why} {allowed}"]
    try:
        given = named_values(text)
        for key, value in given.items():
            if key not in _WORDS:
                number(value)
    except ValueError as error:
        return [f"--optim-args {text}: {error}, as in momentum=0.9"]
    unknown = [key for key in given if key not in kind.arguments]
    if unknown:
        allowed = ", ".join(kind.arguments) or "none"
        return [f"--optim-args {text}: {name} has no {', '.join(unknown)} (allowed with it: {allowed})"]
    if is_yes(given.get("nesterov", "")) and name == "sgd" and not float(given.get("momentum", 0)) > 0:
        return [f"--optim-args {text}: nesterov needs a momentum; add momentum=0.9"]
    return []


def _loss_problems(config: RunConfig) -> list[str]:
    train, problems = config.train, []
    smoothing, noise = train.label_smoothing_factor, train.neftune_noise_alpha
    if smoothing and train.loss != "full":
        problems.append(
            f"--label-smoothing-factor {smoothing}: needs all logits at once; use --loss full (it is {train.loss})"
        )
    if smoothing and train.objective != "sft":
        problems.append(f"--label-smoothing-factor {smoothing}: is for --objective sft (it is {train.objective})")
    if config.model.strategy == "unsloth" and (smoothing or noise is not None):
        given = f"--label-smoothing-factor {smoothing}" if smoothing else f"--neftune-noise-alpha {noise}"
        problems.append(f"{given}: not with --strategy unsloth, which has a loss and layers of its own; use qlora")
    return problems


def _answer_problems(config: RunConfig) -> list[str]:
    """Return what evaluations cannot answer prompts with."""
    many, wanted = config.device.num_gpus, config.eval.eval_generate
    reasons = {
        "nothing is evaluated; leave out --no-do-eval": not config.eval.do_eval,
        "--objective grpo generates in its evaluations anyway; leave it out": config.train.objective == "grpo",
        f"not with --num-gpus {many} (allowed with it: 1)": many > 1,
    }
    return [f"--eval-generate {wanted}: {reason}" for reason, holds in reasons.items() if wanted and holds]


def _eval_problems(config: RunConfig) -> list[str]:
    """Return what logits cannot be kept with."""
    if not config.eval.eval_keep_logits:
        return []
    train, number = config.train, config.device.num_gpus
    reasons = {
        "nothing is evaluated; leave out --no-do-eval": not config.eval.do_eval,
        f"--loss {train.loss} makes none (allowed with it: full)": train.loss != "full",
        f"--objective {train.objective} keeps others (allowed with it: sft)": train.objective != "sft",
        "not with --strategy unsloth, whose loss makes none; use qlora": config.model.strategy == "unsloth",
        f"not with --num-gpus {number}, where they would be gathered (allowed with it: 1)": number > 1,
    }
    return [f"--eval-keep-logits: {reason}" for reason, holds in reasons.items() if holds]
