"""What settings of a recipe mean together, by the names of transformers' TrainingArguments and peft's LoraConfig."""

from __future__ import annotations

from typing import Any

from memory_harness.configs.models import ALL_LINEAR, LINEAR_LAYERS, is_local_checkpoint, load_models
from memory_harness.configs.recipes.draft import Draft, tables


def read_axolotl(draft: Draft) -> None:
    """Read what axolotl has of its own: `load_in_4bit` counts with the adapter qlora, `load_in_8bit` with lora."""
    draft.defaults["per_device_eval_batch_size"] = draft.get("per_device_train_batch_size")
    bits = {"qlora": 4 * bool(draft.get("load_in_4bit")), "lora": 8 * bool(draft.get("load_in_8bit"))}
    read_bits(draft, bits.get(str(draft.get("finetuning_type")), 0), "load_in_4bit", "load_in_8bit")
    if draft.get("objective") == "grpo":
        draft.put("objective", "grpo", "objective")
        read_completions(draft)
    read_shared(draft)
    if draft.fields.get("finetuning_type") == "full":
        return
    if draft.get("lora_target_linear"):
        others = {*draft.fields.get("target_modules", ())} - {*LINEAR_LAYERS, ALL_LINEAR}
        draft.put("target_modules", [ALL_LINEAR], "lora_target_linear", "target_modules")
        if others and draft.gives("target_modules"):
            draft.refuse("target_modules", f"target_modules={ALL_LINEAR} stands in")
    if draft.fields["quantization"] != "int8" and not draft.get("lora_dropout") and not draft.get("objective"):
        draft.defaults["lora_mlp_kernel"] = True
        draft.refuse("lora_mlp_kernel", "with lora_qkv_kernel and lora_o_kernel, as there is no dropout")


def read_llamafactory(draft: Draft) -> None:
    """Read what LLaMA-Factory has of its own: what it trains is float32, unless pure_bf16; pre-training packs."""
    is_bnb = draft.get("quantization_method") in (None, "bnb")
    read_bits(draft, (draft.get("quantization_bit") or 0) if is_bnb else "another", "quantization_bit")
    rank = draft.get("r")
    draft.defaults |= {"lora_alpha": 2 * rank if isinstance(rank, int) else None, "dtype": "float32"}
    if draft.get("finetuning_type") == "lora":
        draft.defaults["dtype"] = _mixed(draft) or draft.target.half
    if draft.get("objective") == "dpo":
        draft.put("objective", "dpo", "objective")
        draft.put("objective", draft.get("pref_loss"), "pref_loss")
    if draft.get("objective") == "pt":
        draft.defaults |= {"packing": True, "train_on_prompts": True}
    read_shared(draft)
    if draft.gives("max_samples") and "," in str(draft.get("dataset")):
        draft.fields["samples"] = None
        draft.refuse("max_samples", "of each of several datasets")


def read_trl(draft: Draft) -> None:
    """Read what settings of TRL and of transformers leave open: which trainer they are for, and the adapter."""
    bits = 4 * bool(draft.get("load_in_4bit")) or 8 * bool(draft.get("load_in_8bit"))
    read_bits(draft, bits, "load_in_4bit", "load_in_8bit")
    if draft.program == "TRL":  # Source: trl 1.16, trainer/utils.py, `get_quantization_config`
        draft.defaults["bnb_4bit_compute_dtype"] = draft.get("dtype")
    elif draft.gives("r"):
        draft.defaults["finetuning_type"] = "lora"
    has_adapter = draft.get("finetuning_type") not in ("full", False)
    if not has_adapter:
        draft.remarks.append("finetuning_type=full, as the file has no adapter; --finetuning-type lora trains one")
    if draft.program != "TrainingArguments":
        _read_trainer(draft)
        draft.defaults["bf16"] = not draft.get("fp16")
        if has_adapter and bits:  # Source: trl 1.16, trainer/sft_trainer.py
            draft.defaults["lora_dtype"] = "bfloat16"
            draft.refuse("lora_dtype", "beside k-bit weights; adapter_dtype=float32 stands in")
    read_shared(draft)


def _read_trainer(draft: Draft) -> None:
    """Read what is learned, by what only preference training has: the file does not name its trainer."""
    given, losses = draft.values.keys(), draft.get("loss_type")
    loss = losses[0] if isinstance(losses, list) and len(losses) == 1 else losses
    trainer = str(draft.get("trainer") or "").removesuffix("Trainer")
    if draft.gives("trainer"):
        draft.put("objective", tables()["unsloth"]["objectives"].get(trainer, trainer), "trainer")
        if loss and trainer in ("DPO", "CPO"):
            draft.put("objective", loss, "loss_type")
    elif not given.isdisjoint(tables()["grpo"]["keys"]):
        draft.put("objective", "grpo")
    elif {"cpo_alpha", "simpo_gamma"} & given:
        draft.put("objective", "simpo" if loss == "simpo" else "cpo", "loss_type")
    elif loss:
        draft.put("objective", loss, "loss_type")
    else:
        objective = "sft" if given.isdisjoint(tables()["preferences"]["keys"]) else "dpo"
        draft.put("objective", objective)
        draft.remarks.append(f"objective={objective}: the file names no trainer; --objective says another")
    if draft.fields.get("objective") == "grpo":
        read_completions(draft)
    elif draft.fields.get("objective", "sft") == "sft":
        draft.defaults["train_on_prompts"] = True  # unless the data have prompts and completions apart
    else:
        draft.defaults["learning_rate"] = tables()["preferences"]["learning_rate"]


def read_completions(draft: Draft) -> None:
    """Read what GRPO generates: TRL says how long completions get, and of prompts at most where they are cut."""
    draft.defaults |= tables()["grpo"]["defaults"]
    prompt, completion = draft.get("max_prompt_length"), draft.get("max_completion_length")
    if isinstance(prompt, int) and isinstance(completion, int) and not draft.gives("max_length"):
        draft.put("max_length", prompt + completion, "max_prompt_length")
    if not draft.gives("max_prompt_length") and not draft.gives("max_length"):
        draft.remarks.append(f"prompts of at most {prompt} tokens are taken; --max-length says prompt and completion")
    of_others = tables()["programs"][draft.program].get("remark")
    draft.remarks = [remark for remark in draft.remarks if remark != of_others]
    draft.put("loss", "chunked")  # as 1.16 computes log-probabilities, in tiles of logits
    draft.skip("loss_type")  # they differ in a few numbers a token
    draft.remarks.append("objective=grpo is simulated, and not trained here")


def read_shared(draft: Draft) -> None:
    """Read what all programs have that build on transformers' Trainer and on peft; k-bit weights have been read."""
    for field, value in tables()["programs"][draft.program]["fields"].items():
        draft.put(field, value)
    for flag in tables()["flags"]:
        if draft.gives(flag["name"]) and bool(draft.get(flag["name"])) == flag["is"]:
            for field, value in flag["fields"].items():
                draft.put(field, value, flag["name"])
            draft.remarks += filter(None, [flag.get("remark")])
    for name, batching in tables()["packing"].items():
        if draft.get(name):
            draft.put("batching", batching)
            draft.refuse(name, f"batching={batching} stands in")
    adapter = tables()["adapter_fields"]
    for name, field in {**tables()["fields"], **adapter}.items():
        is_meant = name not in adapter or draft.fields.get("finetuning_type") != "full"
        if name == "beta" and draft.fields.get("objective", "sft") == "sft":
            is_meant = False  # of an objective that is not there
        if is_meant and field not in draft.fields and draft.get(name) not in (None, {}, []):
            draft.put(field, draft.get(name), name)
    for rule in (_read_model, _read_precision, _read_checkpointing, _read_length_of_run, _read_evaluation):
        rule(draft)
    if not _read_times(draft, "save"):
        draft.refuse("save_strategy", "once an epoch stands in")
    draft.skip(*adapter, *tables()["conditional"])


def read_bits(draft: Draft, bits: Any, *names: str) -> None:
    """Read bitsandbytes' quantisation: how many bits a weight has, 0 for as many as it had."""
    draft.put("quantization", "none")
    kinds = {"0": "none", "4": draft.get("bnb_4bit_quant_type"), "8": "int8"}
    draft.put("quantization", kinds.get(str(bits), bits), *names)
    if bits == 4:
        draft.take("bnb_4bit_quant_type")
        draft.put("double_quant", bool(draft.get("bnb_4bit_use_double_quant")), "bnb_4bit_use_double_quant")


def _mixed(draft: Draft) -> str | None:
    """Return the type of mixed precision that `bf16` and `fp16` ask for; None where they ask for none."""
    wanted, is_half = draft.get("bf16"), bool(draft.get("fp16"))
    if wanted == "auto":
        return "float16" if is_half else draft.target.half
    return "bfloat16" if wanted else {True: "float16"}.get(is_half)


def _read_model(draft: Draft) -> None:
    """Read the model: a name of models.toml that has its sizes, else a folder or USER/NAME as it is."""
    name, table = str(draft.get("model")), tables()["models"]
    owner, _, short = name.lower().partition("/")
    for part in ("-bnb-4bit", "-unsloth", "-instruct", "meta-"):
        short = short.replace(part, "")
    alike = table["same_sizes"].get(short, short)
    is_alike = owner in table["owners"] and alike in load_models() and not is_local_checkpoint(name)
    model = alike if is_alike and not draft.target.exact_model else name
    if draft.gives("model"):
        draft.put("model", model, "model")
    if model != name and load_models()[model].source.partition(";")[0] != name:
        draft.remarks.append(f"{name} has the sizes of {model}; --train and --download take its own weights")


def _read_precision(draft: Draft) -> None:
    """Read of what type weights are, and in what is computed: without mixed precision, in that of the weights."""
    if "dtype" in draft.fields:
        return
    mixed, weights = _mixed(draft), draft.get("dtype")
    dtype = mixed or (weights if weights != "auto" else None) or "float32"
    draft.put("dtype", dtype, "bf16", "fp16")
    draft.put("autocast", "none" if mixed is None or draft.get("bf16") == "full" else "auto")
    draft.put("weights_dtype", "auto" if weights in (None, dtype) else weights, "dtype")
    if draft.get("bf16") == "auto":
        draft.remarks.append(f"bf16=auto is {mixed} on {draft.target.card}")
    if mixed is None and weights is None:
        draft.remarks.append(f"dtype={dtype}, as neither bf16 nor fp16 is asked for; --dtype takes another")
    if draft.get("bnb_4bit_compute_dtype") not in (None, "auto", dtype) and "double_quant" in draft.fields:
        draft.refuse("bnb_4bit_compute_dtype", f"dtype={dtype} stands in")


def _read_checkpointing(draft: Draft) -> None:
    wanted = draft.fields.get("gradient_checkpointing", draft.get("gradient_checkpointing"))
    draft.put("gradient_checkpointing", bool(wanted))
    draft.put("gradient_checkpointing", wanted, "gradient_checkpointing")
    if wanted:
        draft.put("use_reentrant", bool(draft.get("use_reentrant")), "use_reentrant")


def _read_length_of_run(draft: Draft) -> None:
    """Read epochs, steps and warm-up, whose steps may be a share. Source: transformers 5.23, `get_warmup_steps`."""
    steps, epochs, warmup = draft.get("max_steps"), draft.get("num_train_epochs"), draft.get("warmup_steps") or 0
    draft.put("max_steps", None if steps in (None, -1, 0) else steps, "max_steps")
    draft.put("epochs", -(-epochs // 1) if isinstance(epochs, float) else epochs, "num_train_epochs")
    if isinstance(epochs, float) and not epochs.is_integer():
        draft.refuse("num_train_epochs", f"epochs={draft.fields.get('epochs')} stands in")
    draft.put("max_grad_norm", draft.get("max_grad_norm") or None, "max_grad_norm")  # 0 clips nothing
    if isinstance(warmup, (int, float)) and warmup < 1:
        draft.put("warmup_ratio", warmup or draft.get("warmup_ratio") or 0.0, "warmup_steps", "warmup_ratio")
    else:
        draft.put("warmup_ratio", 0.0)
        draft.put("warmup_steps", warmup, "warmup_steps")


def _read_evaluation(draft: Draft) -> None:
    """Read when it is evaluated, and on what share of the data; axolotl does not without any."""
    share = draft.get("eval_fraction")
    if share:
        draft.put("eval_fraction", share, "eval_fraction")
    has_data = share or draft.get("test_datasets") or draft.program != "axolotl"
    if draft.get("predict_with_generate"):
        size = draft.get("per_device_eval_batch_size")
        draft.put("eval_generate", size, "predict_with_generate")
        draft.remarks.append(f"eval_generate={size}: one batch, as each takes the same")
    if not has_data or not _read_times(draft, "eval"):
        draft.put("do_eval", False, "eval_strategy", "eval_fraction")


def _read_times(draft: Draft, what: str) -> bool:
    """Read how often it is evaluated (`eval`) or saved (`save`): in steps or once an epoch; return whether it is."""
    field, steps, times, strategy = f"{what}_every", f"{what}_steps", f"{what}s_per_epoch", f"{what}_strategy"
    if draft.get(times):
        draft.put(field, None, times)
        if draft.get(times) != 1:
            draft.refuse(times, "once an epoch stands in")
    elif draft.get(strategy) == "steps" or (draft.program == "axolotl" and draft.gives(steps)):
        draft.put(field, draft.get(steps) or draft.get("logging_steps"), steps)
        draft.take(strategy)
    elif draft.get(strategy) == "epoch":
        draft.put(field, None, strategy)
    else:
        return False
    return True
