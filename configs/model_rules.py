"""What cannot go together in how a model is held, adapted and trained, and what would do nothing without a word."""

from __future__ import annotations

from memory_harness.configs.schema import ModelConfig, RunConfig, TrainConfig

HEAD = "lm_head"


def model_problems(config: RunConfig) -> list[str]:
    """Return one line for each."""
    problems = _adapter_problems(config) + _objective_problems(config) + _idle_problems(config)
    if config.train.finetuning_type == "full":
        problems += _full_problems(config)
    return problems + _dtype_problems(config) + _loader_problems(config.model)


def fast_path_problems(config: RunConfig) -> list[str]:
    """Return one line for what the fast path does not go with."""
    flag = f"--fast-path {config.model.fast_path}"
    if config.model.fast_path == "off":
        return []
    if config.model.quantization not in ("nf4", "fp4"):
        return [f"{flag}: multiplies by 4-bit weights (allowed: --quantization nf4, fp4); use --fast-path off"]
    if config.lora.use_dora:
        return [f"{flag}: does not know DoRA; leave out --use-dora, or use --fast-path off"]
    return []


def _dtype_problems(config: RunConfig) -> list[str]:
    model = config.model
    weights = model.dtype if model.weights_dtype == "auto" else model.weights_dtype
    trains_all = config.train.finetuning_type == "full"
    trains_narrow = trains_all or (config.lora.adapter_dtype == "auto" and model.quantization == "none")
    is_scaled = model.dtype == "float16" and model.autocast == "auto"
    if is_scaled and weights == "float16" and trains_narrow:
        return [
            "--dtype float16: gradients of float16 weights cannot be unscaled; give --weights-dtype float32, "
            "--dtype bfloat16 or --autocast none"
        ]
    return []


def _loader_problems(model: ModelConfig) -> list[str]:
    problems = []
    if model.loader == "host" and model.quantization != "none":
        problems.append(
            f"--loader host: bitsandbytes quantises on the device (allowed with --quantization {model.quantization}: "
            "stepwise, transformers)"
        )
    if model.loader != "stepwise" and (model.embeddings_on_host or model.quantise_experts):
        problems.append(
            f"--loader {model.loader}: takes neither --embeddings-on-host nor --quantise-experts; use --loader stepwise"
        )
    return problems


def _adapter_problems(config: RunConfig) -> list[str]:
    lora, model, problems = config.lora, config.model, []
    ranks = [lora.lora_rank]
    for flag, text, name in (
        ("--rank-pattern", lora.rank_pattern, "ranks"),
        ("--alpha-pattern", lora.alpha_pattern, "alphas"),
    ):
        try:
            numbers = getattr(lora, name)
        except ValueError as error:
            problems.append(f"{flag} {text}: {error}")
            continue
        if name == "ranks":
            ranks += numbers.values()
    odd = [rank for rank in ranks if rank % 2]
    if lora.init_lora_weights == "orthogonal" and odd:
        problems.append(f"--init-lora-weights orthogonal: takes even ranks, not {odd[0]}; change --lora-rank")
    if lora.init_lora_weights.startswith("pissa") and model.quantization != "none":
        problems.append(
            f"--init-lora-weights {lora.init_lora_weights}: peft decomposes weights of 16 or 32 bits alone; give "
            "--quantization none"
        )
    if lora.init_lora_weights == "olora" and model.quantization == "int8":
        problems.append("--init-lora-weights olora: not simulated beside 8-bit weights (allowed: nf4, fp4, none)")
    if lora.use_dora and model.quantization == "int8":
        problems.append("--use-dora: peft does not train it beside 8-bit weights (allowed: nf4, fp4, none)")
    if lora.modules_to_save and model.embeddings_on_host:
        problems.append("--embeddings-on-host: what lies there is not trained; leave it or --modules-to-save out")
    if HEAD in lora.modules_to_save:
        problems += _frozen_head_problems(config.train, f"--modules-to-save {','.join(lora.modules_to_save)} trains")
    return problems


def _frozen_head_problems(train: TrainConfig, who_trains: str) -> list[str]:
    if train.loss == "full" or train.objective == "grpo":  # whose tiles give the head its gradient
        return []
    return [f"--loss {train.loss}: needs a frozen output head, which {who_trains} (allowed with it: full)"]


def _objective_problems(config: RunConfig) -> list[str]:
    train, problems = config.train, []
    if train.objective == "sft":
        return []
    if train.objective == "grpo":
        return _group_policy_problems(config)
    if train.loss != "full":
        problems.append(f"--loss {train.loss}: is not made for --objective {train.objective} (allowed with it: full)")
    if config.data.train_on_prompts:
        problems.append(f"--train-on-prompts: --objective {train.objective} compares answers alone; leave it out")
    if train.has_reference and config.lora.lora_bias != "none":
        problems.append(
            f"--lora-bias {config.lora.lora_bias}: the biases of the model that --objective {train.objective} compares "
            "with would be trained too (allowed with it: none)"
        )
    return problems


def _group_policy_problems(config: RunConfig) -> list[str]:
    train, length, group = config.train, config.data.max_length, config.train.num_generations
    step, batch = train.train_batch_size * train.gradient_accumulation, config.eval.eval_batch_size
    many = config.device.num_gpus
    reasons = {
        f"--loss {train.loss}: is not made for --objective grpo (allowed with it: full, chunked)": train.loss
        == "liger",
        f"--max-completion-length {train.max_completion_length}: leaves prompts no room in --max-length {length} "
        f"(allowed: 1 to {length - 1})": train.max_completion_length >= length,
        f"--num-generations {group}: the {step} completions of a step (--train-batch-size x --gradient-accumulation) "
        "are no whole groups of so many": config.data.batches is None and step % group > 0,
        f"--eval-batch-size {batch}: is no whole groups of --num-generations {group}; or give "
        "--no-do-eval": config.eval.do_eval and batch % group > 0,
        f"--num-gpus {many}: is not simulated with --objective grpo (allowed with it: 1)": many > 1,
        "--objective grpo: not with --strategy unsloth; use qlora": config.model.strategy == "unsloth",
        "--attention flash_attention_2: prompts of different lengths are not simulated with it (allowed with "
        "--objective grpo: auto, eager, sdpa)": config.model.attention == "flash_attention_2",
        "--train-on-prompts: --objective grpo learns of completions alone; leave it out": config.data.train_on_prompts,
    }
    return [reason for reason, holds in reasons.items() if holds]


def _full_problems(config: RunConfig) -> list[str]:
    model, train = config.model, config.train
    problems = _frozen_head_problems(train, "--finetuning-type full trains")
    if model.quantization != "none":
        problems.append(
            f"--finetuning-type full: weights in {model.quantization} are not trained; give --quantization none"
        )
    if train.has_reference:
        problems.append(
            f"--objective {train.objective}: compares with the model without its adapter, which --finetuning-type full "
            "does not have (allowed with it: sft, simpo, orpo, cpo, and grpo at --beta 0)"
        )
    if config.lora.modules_to_save:
        problems.append("--modules-to-save: --finetuning-type full trains every layer; leave it out")
    if model.embeddings_on_host:
        problems.append("--embeddings-on-host: are trained by --finetuning-type full; leave it out")
    return problems


def _idle_problems(config: RunConfig) -> list[str]:
    """Return the settings that were given and that nothing would ask for."""
    train, model, default = config.train, config.model, RunConfig()
    problems = []
    if train.beta == 0 and train.compares_answers:
        problems.append(f"--beta 0: --objective {train.objective} would prefer nothing (allowed: more than 0)")
    for name in ("num_generations", "max_completion_length", "num_iterations"):
        value = getattr(train, name)
        if value != getattr(default.train, name) and train.objective != "grpo":
            problems.append(f"--{name.replace('_', '-')} {value}: is for --objective grpo; leave it out")
    if train.beta is not None and train.objective == "sft":
        problems.append(f"--beta {train.beta:g}: --objective sft prefers nothing; give another, or leave it out")
    if train.simpo_gamma != default.train.simpo_gamma and train.objective != "simpo":
        problems.append(f"--simpo-gamma {train.simpo_gamma:g}: is for --objective simpo; leave it out")
    if train.hold_until != default.train.hold_until and not train.hold_outputs:
        problems.append(f"--hold-until {train.hold_until}: nothing is held; give --hold-outputs {train.hold_until}")
    if model.llm_int8_threshold != default.model.llm_int8_threshold and model.quantization != "int8":
        problems.append(f"--llm-int8-threshold {model.llm_int8_threshold:g}: is for --quantization int8; leave it out")
    steps = config.eval.eval_accumulation_steps
    if steps is not None and not config.eval.eval_keep_logits:
        problems.append(f"--eval-accumulation-steps {steps}: no logits are kept; add --eval-keep-logits")
    return problems
