"""What a configuration's values may be, alone and together."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory_harness.configs.cards import CUDNN_CAPABILITIES, Card, card_of
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.flags import flag_of
from memory_harness.configs.model_rules import fast_path_problems, model_problems
from memory_harness.configs.models import LIKE_LLAMA, MLP_LAYERS, find_model
from memory_harness.configs.packing import packing_problems
from memory_harness.configs.schema import ModelConfig, RunConfig, fields_of_sections
from memory_harness.configs.sharding import sharding_problems
from memory_harness.configs.strategies import capabilities_of
from memory_harness.configs.targets import check_budget
from memory_harness.configs.training import training_problems
from memory_harness.configs.units import format_bytes

Range = tuple[str, Callable[[Any], bool]]
"""The allowed values in words, and the test; a comparison with NaN is false, so NaN never passes."""


def _at_least(low: int) -> Range:
    return f"{low} or more", lambda value: value >= low


def _between(low: int, high: int) -> Range:
    return f"{low} to {high}", lambda value: low <= value <= high


_POSITIVE: Range = ("more than 0, and finite", lambda value: 0 < value < math.inf)
_NOT_NEGATIVE: Range = ("0 or more, and finite", lambda value: 0 <= value < math.inf)
_SHARE: Range = ("0 or more and less than 1", lambda value: 0 <= value < 1)
_SEED: Range = ("0 to 4294967295", lambda value: 0 <= value < 2**32)  # numpy's generators take no other
_MOST = 10**9
"""of steps, sequences and tokens: far more than any run has, and few enough to end"""
_FROM_ONE = (
    "mlp_chunk_tokens", "max_batch_tokens", "pad_to_multiple_of",
    "train_batch_size", "gradient_accumulation", "loss_chunk_tokens", "empty_cache_every", "max_steps", "eval_every",
    "eval_batch_size", "save_every", "keep_checkpoints", "generate_batch_size",
    "eval_accumulation_steps", "max_completion_length", "num_iterations",
    "num_gpus",
)  # fmt: skip
RANGES: dict[str, Range] = dict.fromkeys(_FROM_ONE, _between(1, _MOST)) | {
    "budget_bytes": _at_least(1),
    "lora_rank": _between(1, 2**16),  # no layer of a known model has a side of more
    "lora_alpha": _between(1, 2**20),
    "samples": _between(1, 10**7),
    "epochs": _between(1, 10**4),
    "max_new_tokens": _between(1, 2**20),
    "replies_per_prompt": _between(1, 1000),
    "init_lora_weights": (
        "default, gaussian, orthogonal, olora, pissa, pissa_niter_NUMBER; not simulated: eva, corda and lora_ga, which "
        "begin with data, and loftq, which quantises anew",
        lambda value: re.fullmatch(r"default|gaussian|orthogonal|olora|pissa(_niter_[1-9]\d{0,3})?", value),
    ),
    "lora_dropout": _SHARE,
    "max_length": _between(8, 2**24),
    "eval_fraction": ("more than 0 and less than 1", lambda value: 0 < value < 1),
    "seed": _SEED,
    "context_bytes": _at_least(0),
    "learning_rate": _POSITIVE,
    "llm_int8_threshold": _NOT_NEGATIVE,
    "beta": _NOT_NEGATIVE,
    "num_generations": _between(2, 10**4),
    "simpo_gamma": _NOT_NEGATIVE,
    "warmup_ratio": ("0 to 1", lambda value: 0 <= value <= 1),
    "warmup_steps": _between(0, _MOST),
    "weight_decay": _NOT_NEGATIVE,
    "adam_beta1": _SHARE,
    "adam_beta2": _SHARE,
    "adam_epsilon": _POSITIVE,
    "neftune_noise_alpha": _POSITIVE,
    "label_smoothing_factor": _SHARE,
    "max_grad_norm": _POSITIVE,
    "generate_prompts": _between(0, 10**6),
    "eval_generate": _between(0, 10**6),
    "temperature": _NOT_NEGATIVE,
    "top_p": ("more than 0, at most 1", lambda value: 0 < value <= 1),
    "repetition_penalty": _POSITIVE,
    "generate_seed": _SEED,
}


def validate(config: RunConfig, *, takes_any_gpu: bool = False, is_for_script: bool = False) -> None:
    """Check every value against its range, and against the model and the card.

    Args:
        config: what is to run.
        takes_any_gpu: the card is the one that is there, whatever the configuration names; it checks the budget then.
        is_for_script: a script knows by itself how it trains on several GPUs.

    Raises:
        ConfigError: one line for each problem, with the value, the allowed values and the flag to change.
    """
    problems = range_problems(config) + _batch_problems(config) + _given_batch_problems(config)
    problems += model_problems(config) + _strategy_problems(config) + training_problems(config)
    problems += _generation_problems(config) + ([] if is_for_script else _group_problems(config))
    checks = [_card_problems, _model_problems, packing_problems]
    if not takes_any_gpu:
        checks.append(_budget_problems)
    for check in checks:
        try:
            problems += check(config)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(problems)


def check_output(config: RunConfig) -> Path:
    """Create the output folder when missing, try to write there, and return it. Raises ConfigError: either fails."""
    folder = Path(config.output.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"--output {folder}: cannot write there ({reason}); give another folder") from None
    return folder


def range_problems(config: RunConfig) -> list[str]:
    """Return one line for each value that is out of its range."""
    problems = []
    for section, item in fields_of_sections():
        value = getattr(getattr(config, section), item.name)
        if item.name in RANGES and value is not None:
            allowed, holds = RANGES[item.name]
            if not holds(value):
                problems.append(f"{flag_of(item)} {value}: out of range (allowed: {allowed})")
    return problems


def _batch_problems(config: RunConfig) -> list[str]:
    cap, longest, batching = config.data.max_batch_tokens, config.data.max_length, config.data.batching
    if cap is None or cap < 1:
        return []
    if batching not in ("bucketed", "packed"):
        return [f"--max-batch-tokens {cap}: {batching} batches have no cap; use --batching bucketed or packed"]
    if cap < longest:
        return [
            f"--max-batch-tokens {cap}: less than one sample of --max-length {longest} (allowed: {longest} or more)"
        ]
    return []


def _given_batch_problems(config: RunConfig) -> list[str]:
    data = config.data
    try:
        lengths = [length for _, length in data.given_batches] or [data.max_length]
    except ValueError as error:
        return [f"--batches {data.batches}: {error}"]
    if max(lengths) > data.max_length:
        return [f"--batches {data.batches}: longer than --max-length {data.max_length}; raise that"]
    completion = config.train.max_completion_length
    if config.train.objective == "grpo" and min(lengths) <= completion < data.max_length:
        return [f"--batches {data.batches}: leaves prompts no room beside --max-completion-length {completion}"]
    return []


def _strategy_problems(config: RunConfig) -> list[str]:
    if config.model.offload_activations and not config.model.gradient_checkpointing:
        return ["--offload-activations: needs gradient checkpointing; leave out --no-gradient-checkpointing"]
    not_simulated = capabilities_of(config).not_simulated
    if not_simulated and config.device.device == "simulated":
        return [
            f"--strategy {config.model.strategy}: --device simulated knows none of its {not_simulated} "
            "(allowed: --device cuda); or use --strategy qlora"
        ]
    problems = _recompute_problems(config.model) + fast_path_problems(config)
    if problems:
        return problems
    if config.model.tiled_mlp and config.draws_in_mlp:
        return [
            f"--tiled-mlp: takes no dropout in feed-forward blocks; give --lora-dropout 0 (it is "
            f"{config.lora.lora_dropout:g}), or leave {', '.join(MLP_LAYERS)} out of --target-modules"
        ]
    return []


def _recompute_problems(model: ModelConfig) -> list[str]:
    if model.recompute != "all" and not model.gradient_checkpointing:
        return [f"--recompute {model.recompute}: --no-gradient-checkpointing computes nothing again; leave one out"]
    try:
        rules = model.recompute_rules
    except ValueError as error:
        return [f"--recompute {model.recompute}: {error}"]
    if any(blocks for _, _, blocks in rules) and not model.recomputes_blocks:
        return [
            f"--recompute {model.recompute}: feed-forward blocks alone compute again on the fast path, in one piece; "
            "use --fast-path torch or liger without --tiled-mlp, or leave out what follows +"
        ]
    return []


def _group_problems(config: RunConfig) -> list[str]:
    number, step = config.device.num_gpus, config.train.train_batch_size * config.train.gradient_accumulation
    strategy = capabilities_of(config)
    if number > 1 and not strategy.takes_several_gpus:
        return [
            f"--num-gpus {number}: {strategy.title} trains on one GPU (allowed with it: 1); or use --strategy qlora"
        ]
    if config.device.engine != "all" and config.device.data_parallel_size > step > 0:
        return [
            f"--num-gpus {number}: a step has {step} sequences, so that some GPUs would never have one (allowed: 1 to "
            f"{step}); or raise --gradient-accumulation"
        ]
    return sharding_problems(config)


def _generation_problems(config: RunConfig) -> list[str]:
    drawing = config.generation
    problems = []
    if drawing.ask is not None and not drawing.ask.strip():
        problems.append('--ask (empty): nothing is asked; write a question, such as --ask "How do I sleep better?"')
    if drawing.ask is not None and drawing.prompts is not None:
        problems.append(f"--ask and --prompts {drawing.prompts}: both say what is asked; leave out one")
    if drawing.temperature > 0:
        return problems
    number = drawing.replies_per_prompt
    if number > 1:
        problems.append(f"--replies-per-prompt {number}: all are the same at --temperature 0; give a higher one")
    if drawing.top_p < 1:
        problems.append(f"--top-p {drawing.top_p}: nothing is drawn at --temperature 0; give a higher one")
    return problems


def _card_problems(config: RunConfig) -> list[str]:
    card, dtype, attention = card_of(config.device), config.model.dtype, config.model.attention
    problems = []
    if dtype == "bfloat16" and not card.has_bfloat16:
        problems.append(f"--dtype bfloat16: the {card.title} has none; use --dtype float16, or another card with --gpu")
    problems += _kernel_problems(config.model, card)
    allowed = _attention_on(card)
    if attention not in allowed:
        problems.append(
            f"--attention {attention}: the {card.title} has no such kernel (allowed on it: {', '.join(allowed)})"
        )
    if attention in ("flash", "flash_attention_2") and dtype == "float32":
        problems.append(
            f"--attention {attention}: takes float16 and bfloat16 only; use --attention auto, or change --dtype"
        )
    return problems


def _kernel_problems(model: ModelConfig, card: Card) -> list[str]:
    """Return why the kernels of --sdpa-backends cannot be taken in that order."""
    kernels = model.sdpa_backends
    if not kernels:
        return []
    takes = (*card.sdpa_backends, *(("cudnn",) if card.capability in CUDNN_CAPABILITIES else ()))
    allowed = ", ".join(takes)
    reasons = {
        f"--attention {model.attention} is no choice among them (allowed with it: auto, sdpa)": model.attention
        not in ("auto", "sdpa"),
        f"the {card.title} takes others (allowed, each once: {allowed})": bool({*kernels} - {*takes})
        or len({*kernels}) < len(kernels),
        "PyTorch fails where none of them takes a call; let math be the last": kernels[-1] != "math",
    }
    return [f"--sdpa-backends {','.join(kernels)}: {reason}" for reason, holds in reasons.items() if holds][:1]


def _attention_on(card: Card) -> tuple[str, ...]:
    """Return what --attention takes on a card; the package flash_attn needs what PyTorch's flash kernel needs."""
    package = ("flash_attention_2",) if "flash" in card.sdpa_backends else ()
    return ("auto", "eager", "sdpa", *package, *card.sdpa_backends)


def _budget_problems(config: RunConfig) -> list[str]:
    """Return that budget and context together are more than the card has, where that is so."""
    device = config.device
    sizes = {"--budget": device.budget_bytes, "--context": device.context_bytes}
    given = {flag: size for flag, size in sizes.items() if size is not None}
    if given:
        least = 1 if device.budget_bytes is None else 0  # for the allocator, which cannot do with nothing
        flags = " and ".join(f"{flag} {format_bytes(size)}" for flag, size in given.items())
        check_budget(card_of(device), sum(given.values()) + least, flags)
    return []


def _technique_problems(config: RunConfig, model_type: str) -> list[str]:
    """Return the techniques that would replace parts of a model which they do not know."""
    asked = {
        "--loss chunked": config.train.loss == "chunked",
        "--loss liger": config.train.loss == "liger",
        "--tiled-mlp": config.model.tiled_mlp,
        f"--fast-path {config.model.fast_path}": config.model.fast_path != "off",
        "--expand-kv": config.model.expand_kv,
    }
    known = ", ".join(LIKE_LLAMA)
    return [
        f"{flag}: not for models of type {model_type} (allowed: {known}); leave it out" for flag in asked if asked[flag]
    ]


def _model_problems(config: RunConfig) -> list[str]:
    model = find_model(config.model.model)
    problems = []
    context = model.max_position_embeddings
    if context is not None and config.eval.max_new_tokens >= context:
        problems.append(
            f"--max-new-tokens {config.eval.max_new_tokens}: {model.name} has a context of {context} tokens, of which "
            f"a prompt takes some (allowed: 1 to {max(1, context - 1)})"
        )
    if config.model.embeddings_on_host and model.tie_word_embeddings:
        problems.append(
            f"--embeddings-on-host: the output head of {model.name} is the same weight and stays on the device; "
            "leave it out"
        )
    if not model.is_like_llama:
        kind = f"{model.values['model_type']} that classify" if model.classifies else model.values["model_type"]
        problems += _technique_problems(config, kind)
    if not config.lora.target_modules:
        problems.append("--target-modules (empty): names no layer (allowed: names of linear layers, or all-linear)")
    return problems
