"""Recipes of other programs: what becomes of each of their keys, and one clear line for a file that is none."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.cli import RECIPE_SAMPLES, parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.recipes.draft import Recipe, Target, tables
from memory_harness.configs.recipes.read import import_recipe
from memory_harness.configs.schema import RunConfig, section_by_field
from memory_harness.reports.entry import main
from memory_harness.reports.json import json_text
from memory_harness.reports.recipe import recipe_json, recipe_lines
from memory_harness.reports.summary import result_of_log
from tests.reports.results import FITS

FOLDER = Path(__file__).with_name("recipes")
FILES = sorted(path.name for path in FOLDER.iterdir())
AMPERE, TURING = Target("A100", "bfloat16"), Target("Tesla T4", "float16")
LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

COMMON = {"loader": "transformers", "max_grad_norm": 1.0, "max_steps": None, "seed": 42, "weight_decay": 0.0} | {
    "dtype": "bfloat16",
    "weights_dtype": "auto",
    "autocast": "auto",
    "gradient_checkpointing": True,
}
AXOLOTL = COMMON | (
    {"attention": "flash_attention_2", "batching": "padded", "pad_to_multiple_of": 64, "use_reentrant": False}
    | {"schedule": "cosine", "warmup_ratio": 0.1, "save_every": None, "keep_checkpoints": 4}
)
AXOLOTL_LORA = AXOLOTL | (
    {"finetuning_type": "lora", "lora_rank": 32, "lora_alpha": 16, "lora_dropout": 0.05}
    | {"target_modules": ("all-linear",), "learning_rate": 2e-4, "max_length": 4096}
    | {"train_batch_size": 2, "eval_batch_size": 2, "gradient_accumulation": 4}
)
FACTORY = COMMON | (
    {"model": "Qwen/Qwen3-4B-Instruct-2507", "max_length": 2048, "batching": "dynamic", "pad_to_multiple_of": 8}
    | {"use_reentrant": True, "optimizer": "adamw_torch_fused", "schedule": "cosine", "warmup_ratio": 0.1, "epochs": 3}
    | {"train_batch_size": 1, "eval_batch_size": 8, "gradient_accumulation": 8, "do_eval": False, "save_every": 500}
    | {"quantization": "none", "objective": "sft", "samples": None}
)
FACTORY_LORA = FACTORY | (
    {"finetuning_type": "lora", "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.0}
    | {"target_modules": ("all-linear",), "learning_rate": 1e-4}
)
TRL = COMMON | (
    {"max_length": 1024, "batching": "dynamic", "pad_to_multiple_of": 1, "use_reentrant": False, "epochs": 1}
    | {"optimizer": "adamw_torch_fused", "schedule": "linear", "warmup_ratio": 0.0, "quantization": "none"}
    | {"train_batch_size": 2, "eval_batch_size": 8, "gradient_accumulation": 8, "save_every": 500}
    | {"weights_dtype": "float32", "objective": "sft", "train_on_prompts": True}
)
UNSLOTH = (
    {"strategy": "qlora", "expand_kv": True, "loader": "transformers", "dtype": "bfloat16", "quantization": "nf4"}
    | {"double_quant": True, "gradient_checkpointing": True, "offload_activations": True, "use_reentrant": False}
    | {"finetuning_type": "lora", "lora_dropout": 0.0, "lora_bias": "none", "use_rslora": False}
    | {"target_modules": LLAMA_LAYERS, "batching": "dynamic", "pad_to_multiple_of": 1, "optimizer": "adamw_8bit"}
    | {"train_batch_size": 2, "eval_batch_size": 4, "gradient_accumulation": 4, "epochs": 3, "schedule": "linear"}
    | {"max_grad_norm": 1.0, "do_eval": False, "save_every": 500, "empty_cache_every": 250}
)

FIELDS = {
    "axolotl_full.yaml": AXOLOTL
    | {"model": "llama-3.1-8b", "quantization": "none", "finetuning_type": "full", "optimizer": "paged_adamw_8bit"}
    | {"max_length": 8192, "train_batch_size": 1, "eval_batch_size": 1, "gradient_accumulation": 8, "epochs": 1}
    | {"learning_rate": 2e-5, "eval_fraction": 0.05, "eval_every": None},
    "axolotl_lora_8bit.yml": AXOLOTL_LORA
    | {"model": "llama-3.1-8b", "quantization": "int8", "modules_to_save": ("embed_tokens", "lm_head"), "epochs": 4}
    | {"optimizer": "adamw_bnb_8bit", "eval_fraction": 0.05, "eval_every": None},
    "axolotl_qlora.yml": AXOLOTL_LORA
    | {"model": "llama-3.1-8b", "quantization": "nf4", "double_quant": True, "epochs": 4, "do_eval": False}
    | {"optimizer": "paged_adamw_32bit"},
    "axolotl_orpo.yml": AXOLOTL_LORA
    | {"model": "mistralai/Mistral-7B-v0.1", "quantization": "nf4", "double_quant": True, "epochs": 1}
    | {"objective": "orpo", "beta": 0.1, "batching": "dynamic", "optimizer": "adamw_bnb_8bit"}
    | {"eval_fraction": 0.1, "eval_every": None},
    "llamafactory_lora_sft.yaml": FACTORY_LORA,
    "llamafactory_qlora_sft.yaml": FACTORY_LORA | {"quantization": "nf4", "double_quant": True},
    "llamafactory_lora_dpo.yaml": FACTORY_LORA
    | {"objective": "dpo", "beta": 0.1, "learning_rate": 5e-6, "samples": 1000},
    "llamafactory_full_sft.yaml": FACTORY
    | {"finetuning_type": "full", "weights_dtype": "float32", "learning_rate": 1e-5, "gradient_accumulation": 2},
    "trl_sft.yaml": TRL
    | {"model": "Qwen/Qwen2-0.5B", "finetuning_type": "lora", "lora_rank": 32, "lora_alpha": 16, "lora_dropout": 0.05}
    | {"target_modules": ("q_proj", "v_proj"), "batching": "padded", "learning_rate": 2e-4, "eval_every": 100},
    "trl_dpo.yaml": TRL
    | {"model": "Qwen/Qwen2-0.5B-Instruct", "finetuning_type": "full", "learning_rate": 5e-7, "max_steps": 1000}
    | {"eval_every": 50},
    "handbook_dpo_qlora.yaml": {name: value for name, value in TRL.items() if name != "train_on_prompts"}
    | {"model": "alignment-handbook/zephyr-7b-sft-qlora", "quantization": "nf4", "double_quant": False}
    | {"weights_dtype": "auto", "attention": "flash_attention_2", "objective": "dpo", "beta": 0.01}
    | {"finetuning_type": "lora", "lora_rank": 128, "lora_alpha": 128, "lora_dropout": 0.05}
    | {"target_modules": LLAMA_LAYERS, "train_batch_size": 4, "gradient_accumulation": 4, "learning_rate": 5e-6}
    | {"optimizer": "paged_adamw_32bit", "schedule": "cosine", "warmup_ratio": 0.1, "eval_every": 100}
    | {"save_every": 100, "keep_checkpoints": 1},
    "trainer_qlora.json": COMMON  # of nobody: the usual settings of the QLoRA paper, as a Trainer's script writes them
    | {"model": "llama-3.1-8b", "quantization": "nf4", "double_quant": True, "dtype": "float16"}
    | {"finetuning_type": "lora", "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.1, "rank_pattern": "down_proj=8"}
    | {"target_modules": ("q_proj", "v_proj"), "batching": "bucketed", "pad_to_multiple_of": 1}
    | {"train_batch_size": 4, "eval_batch_size": 8, "gradient_accumulation": 4, "optimizer": "paged_adamw_32bit"}
    | {"learning_rate": 2e-4, "max_grad_norm": 0.3, "max_steps": 500, "epochs": 3, "warmup_ratio": 0.03}
    | {"schedule": "constant", "gradient_checkpointing": False, "do_eval": False, "save_every": 10},
    "unsloth_alpaca.py": UNSLOTH
    | {"model": "llama-3.1-8b", "objective": "sft", "train_on_prompts": True, "max_length": 2048, "max_steps": 60}
    | {"loss": "chunked"}
    | {"lora_rank": 16, "lora_alpha": 16, "learning_rate": 2e-4, "warmup_ratio": 0.0, "warmup_steps": 5}
    | {"weight_decay": 0.001, "seed": 3407},
    "unsloth_dpo.ipynb": UNSLOTH
    | {"model": "unsloth/zephyr-sft-bnb-4bit", "objective": "dpo", "beta": 0.1, "max_length": 1024, "max_steps": None}
    | {"lora_rank": 64, "lora_alpha": 64, "learning_rate": 5e-6, "warmup_ratio": 0.1, "weight_decay": 0.0, "seed": 42},
}

NOT_EXPRESSED = {
    "axolotl_full.yaml": {"sample_packing": True, "evals_per_epoch": 2},
    "axolotl_lora_8bit.yml": {"sample_packing": True, "evals_per_epoch": 4},
    "axolotl_qlora.yml": {"sample_packing": True},
    "axolotl_orpo.yml": {"evals_per_epoch": 4},
    "llamafactory_lora_sft.yaml": {"max_samples": 1000},
    "llamafactory_qlora_sft.yaml": {"max_samples": 1000},
    "llamafactory_lora_dpo.yaml": {},
    "llamafactory_full_sft.yaml": {"deepspeed": "examples/deepspeed/ds_z3_config.json", "max_samples": 1000},
    "trl_sft.yaml": {"packing": True},
    "trl_dpo.yaml": {},
    "handbook_dpo_qlora.yaml": {"lora_dtype": "bfloat16", "max_prompt_length": 512},
    "trainer_qlora.json": {"quantization_config.bnb_4bit_compute_dtype": "bfloat16"},
    "unsloth_alpaca.py": {},
    "unsloth_dpo.ipynb": {"max_prompt_length": 512},
}


def recipe_of(content: str, folder: Path, name: str = "recipe.yml", target: Target = AMPERE) -> Recipe:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return import_recipe(path, target)


def refused(recipe: Recipe) -> dict[str, object]:
    return {key: value for key, (value, _) in recipe.not_expressed.items()}


def flat(content: dict, above: str = "") -> dict:
    found = {}
    for key, value in content.items():
        inner = isinstance(value, dict) and value and key not in tables()["whole"]
        found |= flat(value, f"{above}{key}.") if inner else {f"{above}{key}": value}
    return found


# Public recipes.


@pytest.mark.parametrize("name", FILES)
def test_a_public_recipe_gives_exactly_these_fields(name):
    assert dict(import_recipe(FOLDER / name, AMPERE).fields) == FIELDS[name]


@pytest.mark.parametrize("name", FILES)
def test_what_a_public_recipe_cannot_say_is_listed_with_its_value(name):
    assert refused(import_recipe(FOLDER / name, AMPERE)) == NOT_EXPRESSED[name]


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("unsloth")])
def test_every_key_of_a_recipe_is_in_one_list(name):
    content = flat(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")))  # JSON is YAML
    recipe = import_recipe(FOLDER / name, AMPERE)
    listed = [*recipe.taken, *(key for key in recipe.not_expressed if key in content), *recipe.without_effect]
    assert sorted(listed) == sorted(content)


def test_every_argument_of_a_program_is_in_one_list():
    recipe = import_recipe(FOLDER / "unsloth_alpaca.py", AMPERE)
    listed = [*recipe.taken, *recipe.not_expressed, *recipe.without_effect]
    assert len(listed) == len(set(listed))
    assert {"model_name", "r", "use_gradient_checkpointing", "optim", "warmup_steps", "trainer"} <= recipe.taken.keys()
    assert {"SFTTrainer.model", "train_dataset", "args", "packing", "random_state"} <= set(recipe.without_effect)


# Whatever a file holds.

NAMES = sorted(
    {"max_steps", "num_train_epochs", "warmup_steps", "bf16", "loss_type", "deepspeed", "liger_rope", "no_such_key"}
    | {key for program in tables()["programs"].values() for key in (*program["signs"], *program["defaults"])}
    | {*tables()["fields"], *tables()["adapter_fields"], *tables()["packing"], *tables()["conditional"]}
)
VALUES = st.one_of(
    st.sampled_from([None, True, False, 0, 1, 4, 8, -1, 0.5, 3.0, "2e-4", "auto", "lora", "qlora", "no", "steps", ""]),
    st.sampled_from([["q_proj"], [], [["a"]], {"a": {"b": 1}}, float("nan"), float("inf"), ".*proj", "all", 10**30]),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=12), st.booleans())
def test_no_key_gets_lost_and_nothing_raises(tmp_path_factory, content, is_json):
    content |= {"learning_rate": 1e-4}  # of a recipe of some program
    path = tmp_path_factory.getbasetemp() / f"any.{'json' if is_json else 'yml'}"
    path.write_text(json.dumps(content) if is_json else yaml.safe_dump(content), encoding="utf-8")
    recipe = import_recipe(path, TURING)
    RunConfig().with_fields(**recipe.fields)
    lists = [set(recipe.taken), recipe.not_expressed.keys() & flat(content).keys(), set(recipe.without_effect)]
    assert set.union(*lists) == flat(content).keys()
    assert sum(map(len, lists)) == len(flat(content))


def test_tables_name_fields_of_the_schema():
    flagged = [field for flag in tables()["flags"] for field in flag["fields"]]
    named = [*tables()["fields"].values(), *tables()["adapter_fields"].values(), *tables()["values"], *flagged]
    assert set(named) <= section_by_field().keys()


# What settings mean together.


@pytest.mark.parametrize(
    ("bits", "quantization"),
    [
        ("adapter: qlora\nload_in_4bit: true", "nf4"),
        ("adapter: lora\nload_in_8bit: true", "int8"),
        ("adapter: lora\nload_in_4bit: true", "none"),
        ("load_in_4bit: true", "none"),
    ],
)
def test_axolotl_quantises_for_the_adapter_that_takes_it(tmp_path, bits, quantization):
    assert recipe_of(f"base_model: a/b\n{bits}\n", tmp_path).fields["quantization"] == quantization


@pytest.mark.parametrize(
    ("lines", "half", "fields"),
    [
        ("bf16: auto", "bfloat16", ("bfloat16", "auto")),
        ("", "bfloat16", ("bfloat16", "auto")),
        ("bf16: auto", "float16", ("float16", "auto")),
        ("bf16: true", "float16", ("bfloat16", "auto")),
        ("bf16: full", "bfloat16", ("bfloat16", "none")),
        ("bf16: false\nfp16: true", "bfloat16", ("float16", "auto")),
        ("bf16: false", "bfloat16", ("float32", "none")),
    ],
)
def test_precision_of_axolotl(tmp_path, lines, half, fields):
    recipe = recipe_of(f"base_model: a/b\n{lines}\n", tmp_path, target=Target("a card", half))
    assert (recipe.fields["dtype"], recipe.fields["autocast"]) == fields


def test_axolotl_fuses_adapters_without_dropout(tmp_path):
    recipe = recipe_of("base_model: a/b\nadapter: lora\nlora_r: 8\nlora_alpha: 16\n", tmp_path)
    assert recipe.not_expressed["lora_mlp_kernel"].why.startswith("the default")


def test_what_nobody_here_has_is_listed_and_not_taken(tmp_path):
    content = """
base_model: a/b
optimizer: muon_of_mine
rl: kto
attn_implementation: flex_attention
gradient_checkpointing: offload
deepspeed: zero3.json
fsdp: [full_shard]
liger_rope: true
liger_fused_linear_cross_entropy: true
num_epochs: 1.5
"""
    recipe = recipe_of(content, tmp_path)
    names = {"optimizer", "rl", "attn_implementation", "gradient_checkpointing", "deepspeed", "fsdp", "liger_rope"}
    assert names | {"num_epochs"} == recipe.not_expressed.keys()
    assert (recipe.fields["loss"], recipe.fields["gradient_checkpointing"], recipe.fields["epochs"]) == (
        "liger",
        True,
        2,
    )
    assert not {"optimizer", "objective", "attention"} & recipe.fields.keys()
    assert recipe.not_expressed["optimizer"] == ("muon_of_mine", "optimizer=adamw stands in")


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        ("quantization_bit: 4", {"quantization": "nf4", "double_quant": True}),
        ("quantization_bit: 4\ndouble_quantization: false\nquantization_type: fp4", {"quantization": "fp4"}),
        ("quantization_bit: 8", {"quantization": "int8"}),
        ("quantization_bit: 4\nquantization_method: hqq", {"quantization": "none"}),
        ("stage: dpo\npref_loss: simpo", {"objective": "simpo"}),
        ("stage: pt", {"objective": "sft", "train_on_prompts": True, "batching": "padded"}),
        ("lora_rank: 16", {"lora_rank": 16, "lora_alpha": 32, "target_modules": ("all-linear",)}),
        ("lora_target: q_proj,v_proj", {"target_modules": ("q_proj", "v_proj")}),
        ("flash_attn: fa2", {"attention": "flash_attention_2"}),
        ("pure_bf16: true\nfinetuning_type: full", {"dtype": "bfloat16", "autocast": "none"}),
        ("disable_gradient_checkpointing: true", {"gradient_checkpointing": False}),
        ("use_unsloth: true", {"strategy": "qlora"}),
    ],
)
def test_settings_of_llamafactory(tmp_path, lines, fields):
    recipe = recipe_of(f"model_name_or_path: a/b\ncutoff_len: 512\n{lines}\n", tmp_path)
    assert {name: recipe.fields.get(name) for name in fields} == fields


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ({"bf16": True}, {"dtype": "bfloat16", "autocast": "auto"}),
        ({"fp16": True}, {"dtype": "float16", "autocast": "auto"}),
        ({}, {"dtype": "float32", "autocast": "none", "finetuning_type": "full"}),
        ({"warmup_steps": 0.1}, {"warmup_ratio": 0.1}),
        ({"warmup_steps": 10, "warmup_ratio": 0.5}, {"warmup_steps": 10, "warmup_ratio": 0.0}),
        ({"optim": "adamw_torch"}, {"optimizer": "adamw_torch"}),
        ({"r": 4, "target_modules": "all-linear"}, {"target_modules": ("all-linear",), "lora_alpha": 8}),
        ({"max_length": 512}, {"objective": "sft", "gradient_checkpointing": True, "learning_rate": 2e-5}),
        ({"loss_type": ["ipo"]}, {"objective": "ipo"}),
        ({"cpo_alpha": 1.0, "loss_type": "simpo", "simpo_gamma": 0.3}, {"objective": "simpo", "simpo_gamma": 0.3}),
        ({"completion_only_loss": False, "packing": False}, {"train_on_prompts": True}),
    ],
)
def test_settings_in_json(tmp_path, content, fields):
    recipe = recipe_of(json.dumps({"per_device_train_batch_size": 4, **content}), tmp_path, "arguments.json")
    assert {name: recipe.fields.get(name) for name in fields} == fields


def test_trl_keeps_what_is_not_quantised_in_float32(tmp_path):
    recipe = recipe_of("model_name_or_path: a/b\nuse_peft: true\nload_in_4bit: true\n", tmp_path)
    assert (recipe.fields["dtype"], recipe.fields["weights_dtype"]) == ("bfloat16", "float32")
    assert refused(recipe) == {"lora_dtype": "bfloat16", "bnb_4bit_compute_dtype": "float32"}


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "llama-3.1-8b"),
        ("unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit", "llama-3.2-1b"),
        ("NousResearch/Meta-Llama-3-8B", "llama-3.1-8b"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("unsloth/mistral-7b-instruct-v0.3-bnb-4bit", "mistral-7b"),
        ("mistralai/Mistral-7B-v0.1", None),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", None),
        ("somebody/llama-3.1-8b", None),
    ],
)
def test_a_model_of_known_sizes_needs_no_download(tmp_path, repo, name):
    content = f"model_name_or_path: {repo}\nuse_peft: true\n"
    assert recipe_of(content, tmp_path).fields["model"] == (name or repo)
    assert recipe_of(content, tmp_path, target=AMPERE._replace(exact_model=True)).fields["model"] == repo


def test_a_local_folder_is_no_other_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "unsloth" / "Llama-3.1-8B"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert recipe_of("base_model: unsloth/Llama-3.1-8B\n", tmp_path).fields["model"] == "unsloth/Llama-3.1-8B"


PROGRAM = """
import torch
from unsloth import FastLanguageModel, is_bfloat16_supported
length = 4096
model, tokenizer = FastLanguageModel.from_pretrained("unsloth/mistral-7b-v0.3", max_seq_length=length, {model})
model = FastLanguageModel.get_peft_model(model, r=size, {adapter})
trainer = {trainer}(model=model, args={config}(learning_rate=rate(), max_length=length // 2, {arguments}))
"""


def program(**parts: str) -> str:
    names = ("model", "adapter", "arguments")
    given = dict.fromkeys(names, "") | {"trainer": "SFTTrainer", "config": "SFTConfig"} | parts
    return PROGRAM.format(**given)


def test_a_program_is_read_and_never_run(tmp_path):
    arguments = "bf16=is_bfloat16_supported(), fp16=not is_bfloat16_supported()"
    recipe = recipe_of("raise SystemExit\n" + program(arguments=arguments), tmp_path, "train.py", TURING)
    assert (recipe.fields["dtype"], recipe.fields["max_length"]) == ("float16", 4096)
    assert refused(recipe) == {"learning_rate": "rate()", "r": "size"}
    assert (recipe.fields["learning_rate"], recipe.fields["lora_rank"]) == (5e-5, 16)  # Unsloth's defaults


def test_a_program_may_train_with_another_objective(tmp_path):
    recipe = recipe_of(program(trainer="ORPOTrainer", config="ORPOConfig"), tmp_path, "train.py")
    assert (recipe.fields["objective"], recipe.fields["max_length"]) == ("orpo", 2048)
    recipe = recipe_of(program(trainer="GRPOTrainer", config="GRPOConfig"), tmp_path, "train.py")
    assert (recipe.fields["objective"], recipe.fields["max_completion_length"]) == ("grpo", 512)
    recipe = recipe_of(program(trainer="KTOTrainer", config="KTOConfig"), tmp_path, "train.py")
    assert recipe.not_expressed["trainer"].value == "KTOTrainer"


OF_TRL = """
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import {name}Config, {name}Trainer
bnb_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-7B-Instruct", quantization_config=bnb_config)
arguments = {name}Config(output_dir="out", per_device_train_batch_size=2, max_length=512{given})
trainer = {name}Trainer(model=model, args=arguments, peft_config=LoraConfig(r=16, target_modules=["q_proj"]))
"""


@pytest.mark.parametrize(
    ("name", "given", "fields"),
    [
        ("SFT", "", {"objective": "sft", "learning_rate": 2e-5, "train_on_prompts": True}),
        ("DPO", ", beta=0.2", {"objective": "dpo", "beta": 0.2, "learning_rate": 1e-6}),
        ("DPO", ', loss_type="ipo"', {"objective": "ipo"}),
        ("ORPO", "", {"objective": "orpo"}),
        ("CPO", ', loss_type="simpo", simpo_gamma=0.3', {"objective": "simpo", "simpo_gamma": 0.3}),
        (
            "GRPO",
            ", num_generations=4, max_completion_length=256, beta=0.04",
            {"objective": "grpo", "num_generations": 4, "max_completion_length": 256, "beta": 0.04, "loss": "chunked"},
        ),
    ],
)
def test_the_trainer_of_a_program_of_trl_says_the_objective(name, given, fields, tmp_path):
    recipe = recipe_of(OF_TRL.format(name=name, given=given), tmp_path, "train.py")
    expected = {"model": "qwen2.5-7b", "quantization": "nf4", "finetuning_type": "lora", "lora_rank": 16, **fields}
    assert {field: recipe.fields[field] for field in expected} == expected
    assert "trainer" not in recipe.not_expressed


def test_what_is_no_objective_here_is_said_and_leaves_nothing_behind(tmp_path):
    recipe = recipe_of(OF_TRL.format(name="KTO", given=", beta=0.2"), tmp_path, "train.py")
    assert {"trainer", "beta"} <= recipe.not_expressed.keys()
    assert "beta" not in recipe.fields


def test_a_model_that_trl_loads_by_its_name_is_float32(tmp_path):
    text = 'GRPOTrainer("Qwen/Qwen2.5-7B", reward_funcs=f, args=GRPOConfig(num_generations=4))'
    recipe = recipe_of(text, tmp_path, "train.py")
    assert (recipe.fields["model"], recipe.fields["weights_dtype"]) == ("qwen2.5-7b", "float32")
    assert recipe.fields["max_length"] == 512 + 512
    assert not any("loss=full" in remark for remark in recipe.remarks)


def test_grpo_of_axolotl_has_its_settings_in_those_of_trl(tmp_path):
    text = "base_model: a/b\nrl: grpo\nsequence_len: 900\ntrl:\n  num_generations: 4\n  max_completion_length: 128\n"
    fields = recipe_of(text + "  beta: 0.01\n  use_vllm: true\n", tmp_path).fields
    assert (fields["objective"], fields["num_generations"], fields["beta"]) == ("grpo", 4, 0.01)
    assert (fields["max_completion_length"], fields["max_length"], fields["loss"]) == (128, 900, "chunked")


def test_settings_that_grpo_alone_has_say_the_objective(tmp_path):
    recipe = recipe_of("model_name_or_path: Qwen/Qwen2.5-7B\nuse_peft: true\nnum_generations: 4\n", tmp_path)
    assert (recipe.fields["objective"], recipe.fields["num_generations"]) == ("grpo", 4)


def test_embeddings_among_adapted_layers_are_trained_in_full(tmp_path):
    adapter = 'target_modules=["q_proj", "embed_tokens", "lm_head"], use_gradient_checkpointing=True'
    recipe = recipe_of(program(adapter=adapter, model="dtype=torch.bfloat16"), tmp_path, "train.py")
    assert (recipe.fields["target_modules"], recipe.fields["dtype"]) == (("q_proj",), "bfloat16")
    assert recipe.fields["modules_to_save"] == ("embed_tokens", "lm_head")
    assert "use_gradient_checkpointing" in recipe.not_expressed


def test_further_calls_are_said(tmp_path):
    again = 'if other:\n    FastLanguageModel.from_pretrained("b")\ntrain_on_responses_only(trainer)\n'
    recipe = recipe_of(program() + again, tmp_path, "train.py")
    assert "from_pretrained (again)" in recipe.not_expressed
    assert recipe.fields["train_on_prompts"] is False


def test_cells_that_are_no_python_are_said(tmp_path):
    sources = ["%%bash\npip install x | tee log", "!ls\n" + program()]
    cells = [{"cell_type": "code", "source": source.splitlines(keepends=True)} for source in sources]
    recipe = recipe_of(json.dumps({"cells": cells}), tmp_path, "train.ipynb")
    assert any("cell 1 is no Python" in remark for remark in recipe.remarks)
    assert recipe.program == "Unsloth"


# On the command line.


def test_a_recipe_takes_the_place_of_a_preset_and_flags_change_it():
    path = FOLDER / "axolotl_qlora.yml"
    command = parse_args(
        ["--import-recipe", str(path), "--gpu", "a100-80gb", "--lora-rank", "4", "--model", "tiny-llama"]
    )
    assert (command.config.lora.lora_rank, command.config.lora.lora_alpha) == (4, 16)
    assert (command.config.model.model, command.config.data.max_length) == ("tiny-llama", 4096)
    assert command.config.data.samples == RECIPE_SAMPLES
    assert command.recipe is not None
    assert command.recipe.taken["lora_r"] == 32


def test_the_card_decides_what_a_recipe_leaves_to_it(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text("base_model: unsloth/Llama-3.2-1B\nbf16: auto\nadapter: lora\n", encoding="utf-8")
    assert parse_args(["--import-recipe", str(path)]).config.model.dtype == "float16"  # on the default card
    assert parse_args(["--import-recipe", str(path), "--gpu", "l4"]).config.model.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("content", "argv", "words"),
    [
        (None, (), "cannot be read (No such file or directory)"),
        (b"\xff\xfe\x00", (), "cannot be read (no UTF-8 text)"),
        (b"a: b: c", (), "no YAML (mapping values are not allowed here"),
        (b"", (), "no recipe"),
        (b"hello", (), "no recipe"),
        (b"- 1", (), "no recipe"),
        (b"model: mine\nlayers: 3\n", (), "no recipe (it holds model, layers)"),
        (b"[" * 100_000, (), "no recipe"),
        (b"a: &a {b: *a}", (), "no recipe"),
        (b"from unsloth import *\nFastLanguageModel.from_pretrained('a'", (), "no recipe (line 2"),
        (b"sequence_len: 8", (), "names no model; give one with --model"),
        (b"base_model: a/b", ("--preset", "t4"), "not beside --preset"),
        (b"base_model: a/b", ("--watch", "train.py"), "has no meaning beside --watch"),
        (b"base_model: a/b", ("--resume", "runs/x"), "has no meaning beside --resume"),
    ],
)
def test_what_is_no_recipe_is_one_line(tmp_path, content, argv, words):
    path = tmp_path / "recipe.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        parse_args(["--import-recipe", str(path), *argv])
    (line,) = caught.value.problems
    assert line.startswith("--import-recipe")
    assert words in line
    assert "\n" not in line
    assert len(line) <= 210


def test_the_line_goes_to_standard_error_with_exit_code_2(capsys):
    assert main(["--import-recipe", "nowhere.yml"]) == 2
    shown = capsys.readouterr()
    expected = "run_probe.py: --import-recipe nowhere.yml: cannot be read (No such file or directory)\n"
    assert (shown.out, shown.err) == ("", expected)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_args(["--import-recipe", str(tmp_path)])


def test_it_is_shown_in_a_few_lines_and_as_json():
    recipe = import_recipe(FOLDER / "axolotl_full.yaml", AMPERE)
    first, refusals, idle, *notes = recipe_lines(recipe)
    assert first.endswith("axolotl_full.yaml: axolotl; 16 settings taken")
    assert "sample_packing=true (batching=padded stands in), " in refusals
    assert idle.startswith("without effect on memory: datasets, dataset_prepared_path")
    assert all(note.startswith("note: ") for note in notes)
    content = json.loads(json_text(result_of_log(FITS), recipe=recipe_json(recipe)))["recipe"]
    assert content["not_expressed"]["evals_per_epoch"] == {"value": 2, "why": "once an epoch stands in"}
    assert content["fields"]["learning_rate"] == 2e-5
    assert "recipe" not in json.loads(json_text(result_of_log(FITS), recipe=None))


def test_long_values_are_cut_and_dates_are_shown(tmp_path):
    recipe = recipe_of(f"base_model: a/b\nno_such_key: {'x' * 99}\nanother: 2026-01-02\n", tmp_path)
    assert "no_such_key=" + "x" * 37 + "..., another=" in recipe_lines(recipe)[1]
    assert recipe_json(recipe)["not_expressed"]["another"]["value"] == "2026-01-02"


@pytest.mark.parametrize(
    ("content", "owner"),
    [
        (
            "model: {_component_: torchtune.models.llama3_1.lora_llama3_1_8b}\ngradient_accumulation_steps: 8\n",
            "torchtune",
        ),
        ('{"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4}', "DeepSpeed"),
        ("model: Qwen/Qwen3-8B\ntrain_type: lora\nlora_rank: 8\n", "ms-swift"),
        ('{"num_train_epochs": 3, "log_history": [{"loss": 1.0}]}', "a trainer's state"),
        ('{"max_length": 4096, "bos_token_id": 1}', "a model's configuration"),
    ],
)
def test_a_file_that_says_some_settings_in_another_sense_is_refused(content, owner, tmp_path):
    with pytest.raises(ConfigError, match=f"is of {owner}, which is not read"):
        recipe_of(content, tmp_path)


@pytest.mark.parametrize(("said", "quantization"), [('"false"', "none"), ("'False'", "none"), ('"true"', "nf4")])
def test_a_quoted_no_is_a_no(said, quantization, tmp_path):
    text = (FOLDER / "axolotl_qlora.yml").read_text("utf-8")
    recipe = recipe_of(text.replace("load_in_4bit: true", f"load_in_4bit: {said}"), tmp_path)
    assert recipe.fields["quantization"] == quantization


def test_lists_of_lists_that_say_a_billion_are_refused_at_once(tmp_path):
    text = "base_model: x\na0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for number in range(1, 10):
        text += f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n"
    with pytest.raises(ConfigError, match="more than"):
        recipe_of(text, tmp_path)


TRL_PROGRAM = """
{before}
model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B"{model})
trainer = SFTTrainer(model, args=SFTConfig(per_device_train_batch_size=size))
"""


@pytest.mark.parametrize(
    ("before", "size"),
    [
        ("size: int = 4", 4),
        ("length, size = 512, 4", 4),
        ("size = 4\nsize *= 8", None),
        ("size = 4\nif big():\n    size = 32", None),
        ("size, rest = sizes()", None),
        ("%pip install trl\nif __name__ == '__main__':\n    size = 4", 4),
    ],
)
def test_a_name_is_worth_what_every_run_gives_it(before, size, tmp_path):
    recipe = recipe_of(TRL_PROGRAM.format(before=before, model=""), tmp_path, "train.py")
    assert (recipe.fields["train_batch_size"], "per_device_train_batch_size" in recipe.not_expressed) == (
        size or 8,
        size is None,
    )


BITS = "size = 4\nbits = BitsAndBytesConfig(load_in_4bit=True)"


@pytest.mark.parametrize(
    ("before", "model", "quantization"),
    [
        (BITS, ", quantization_config=bits", "fp4"),
        (BITS, ", **options", "fp4"),
        (BITS, "", "none"),
        (f"{BITS} if small else None", ", quantization_config=bits", "fp4"),
    ],
)
def test_bits_count_where_a_model_is_given_them_and_a_condition_is_told(before, model, quantization, tmp_path):
    recipe = recipe_of(TRL_PROGRAM.format(before=before, model=model), tmp_path, "train.py")
    assert recipe.fields["quantization"] == quantization
    told = "BitsAndBytesConfig is called under a condition, which is taken to hold"
    assert (told in recipe.remarks) == ("if small" in before)
