"""Flags and presets into a configuration: precedence, and one clear line for everything that is wrong."""

import dataclasses
import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
import tomllib
import typing
from itertools import chain
from pathlib import Path

import pytest

from memory_harness.configs.cards import budget_of, card_of, find_card
from memory_harness.configs.cli import ANY_PORT, NO_FLAGS, TRACKERS, Command, build_parser, parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.flags import flag_of
from memory_harness.configs.models import find_model
from memory_harness.configs.modes import MODES, OPTION_GROUPS
from memory_harness.configs.places import PARTS_FOLDER as ROOT
from memory_harness.configs.preset import load_preset, preset_names
from memory_harness.configs.schema import SECTIONS, RunConfig, config_from_dict
from memory_harness.configs.units import GIB
from memory_harness.configs.validation import RANGES, check_output
from memory_harness.configs.values import without_none
from memory_harness.harness.log.trackers import _OPENERS


def write(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems(*argv: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_args(argv)
    return caught.value.problems


# What is asked for.


def test_without_arguments_the_published_recipe_runs():
    command = parse_args([])
    assert command == Command(load_preset("as_published"))
    config = command.config
    assert (config.train.epochs, config.train.train_batch_size, config.train.gradient_accumulation) == (2, 1, 2)
    assert (config.eval.eval_batch_size, config.eval.eval_every, config.eval.save_every) == (8, None, None)
    assert (config.data.batching, config.data.eval_fraction, config.data.seed) == ("padded", 0.2, 42)
    assert (config.lora.lora_rank, config.lora.lora_alpha, config.lora.lora_dropout) == (8, 16, 0.05)
    assert (config.model.kbit_upcast, config.model.dtype, config.device.gpu) == (True, "float16", "t4")


def test_a_flag_goes_before_the_preset_and_the_preset_before_the_default(tmp_path):
    preset = write(tmp_path, "[train]\nepochs = 5\ngradient_accumulation = 7\n")
    train = parse_args(["--preset", preset, "--epochs", "3"]).config.train
    assert train.epochs == 3
    assert train.gradient_accumulation == 7
    assert train.learning_rate == RunConfig().train.learning_rate


def test_every_kind_of_value_is_read():
    config = parse_args(
        [
            *("--max-length", "2048", "--learning-rate", "1e-3", "--dtype", "float32", "--data", "a b.csv"),
            *("--target-modules", "q_proj, down_proj", "--budget", "14.4 GiB", "--max-grad-norm", "none"),
            *("--no-kbit-upcast", "--expandable-segments", "--samples", "NONE"),
        ]
    ).config
    assert config.data.max_length == 2048
    assert config.train.learning_rate == 1e-3
    assert config.model.dtype == "float32"
    assert config.data.data == "a b.csv"
    assert config.lora.target_modules == ("q_proj", "down_proj")
    assert config.device.budget_bytes == round(14.4 * GIB)
    assert config.train.max_grad_norm is None
    assert config.model.kbit_upcast is False
    assert config.device.expandable_segments is True
    assert config.data.samples is None


def test_toml_values_of_every_kind_are_read(tmp_path):
    text = """
    [lora]
    target_modules = ["v_proj"]
    [train]
    learning_rate = 1
    max_grad_norm = "none"
    hold_outputs = true
    [device]
    budget_bytes = "6 GB"
    """
    config = load_preset(write(tmp_path, text))
    assert config.lora.target_modules == ("v_proj",)
    assert config.train.learning_rate == 1.0
    assert isinstance(config.train.learning_rate, float)
    assert config.train.max_grad_norm is None
    assert config.train.hold_outputs is True
    assert config.device.budget_bytes == 6 * 10**9


def test_command_options_are_no_part_of_the_configuration():
    command = parse_args(["--replay", "a.jsonl", "--json", "out.json"])
    assert (command.replay, command.json) == (Path("a.jsonl"), Path("out.json"))
    assert command.config == parse_args([]).config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_that_comes_along_is_valid(name):
    assert parse_args(["--preset", name]).preset == name


# What cannot be right.


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--samples", "0"], "--samples 0: out of range (allowed: 1 to 10000000)"),
        (["--samples", "-5"], "--samples -5: out of range (allowed: 1 to 10000000)"),
        (["--max-length", "7"], "--max-length 7: out of range (allowed: 8 to 16777216)"),
        (["--eval-fraction", "1"], "--eval-fraction 1.0: out of range (allowed: more than 0 and less than 1)"),
        (["--lora-dropout", "1.0"], "--lora-dropout 1.0: out of range (allowed: 0 or more and less than 1)"),
        (["--learning-rate", "nan"], "--learning-rate nan: out of range (allowed: more than 0, and finite)"),
        (["--learning-rate", "inf"], "--learning-rate inf: out of range (allowed: more than 0, and finite)"),
        (["--budget", "0"], "--budget 0: out of range (allowed: 1 or more)"),
        (
            ["--strategy", "unsloth", "--device", "simulated"],
            "--strategy unsloth: --device simulated knows none of its Triton kernels (allowed: --device cuda); "
            "or use --strategy qlora",
        ),
        (
            ["--dtype", "bfloat16"],
            "--dtype bfloat16: the Tesla T4 has none; use --dtype float16, or another card with --gpu",
        ),
        (
            ["--attention", "flash"],
            "--attention flash: the Tesla T4 has no such kernel (allowed on it: auto, eager, sdpa, memory_efficient, "
            "math)",
        ),
        (
            ["--attention", "flash_attention_2"],
            "--attention flash_attention_2: the Tesla T4 has no such kernel (allowed on it: auto, eager, sdpa, "
            "memory_efficient, math)",
        ),
        (
            ["--attention", "flash_attention_2", "--gpu", "l4", "--dtype", "float32"],
            "--attention flash_attention_2: takes float16 and bfloat16 only; use --attention auto, or change --dtype",
        ),
        (
            ["--attention", "flash", "--gpu", "l4", "--dtype", "float32"],
            "--attention flash: takes float16 and bfloat16 only; use --attention auto, or change --dtype",
        ),
        (["--budget", "16 GiB"], "--budget 16.00 GiB: Tesla T4 has 14.56 GiB; lower it, or name another gpu"),
        (["--context", "15 GiB"], "--context 15.00 GiB: Tesla T4 has 14.56 GiB; lower it, or name another gpu"),
        (
            ["--budget", "14 GiB", "--context", "1 GiB"],
            "--budget 14.00 GiB and --context 1.00 GiB: Tesla T4 has 14.56 GiB; lower it, or name another gpu",
        ),
        (
            ["--model", "tiny-moe", "--tiled-mlp"],
            "--tiled-mlp: not for models of type mixtral (allowed: llama, mistral, qwen2, qwen3); leave it out",
        ),
        (
            ["--target-modules", ""],
            "--target-modules (empty): names no layer (allowed: names of linear layers, or all-linear)",
        ),
        (
            ["--max-batch-tokens", "4096"],
            "--max-batch-tokens 4096: padded batches have no cap; use --batching bucketed or packed",
        ),
        (
            ["--max-batch-tokens", "100", "--batching", "bucketed"],
            "--max-batch-tokens 100: less than one sample of --max-length 1024 (allowed: 1024 or more)",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line(argv, line):
    assert problems(*argv) == (line,)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--gpu", "t40"], ["--gpu t40: unknown", "did you mean t4?", "rtx4090", "h200"]),
        (["--gpu", "RTX 4060 Ti"], ["--gpu RTX 4060 Ti: unknown", "did you mean rtx4060ti-8gb or rtx4060ti-16gb?"]),
        (["--model", "lama-3.1-8b"], ["--model lama-3.1-8b: unknown", "did you mean llama-3.1-8b?", "local directory"]),
        (["--preset", "as_publish"], ["--preset as_publish: unknown", "did you mean as_published?", "smoke_cpu"]),
        (["--preset", "none.toml"], ["cannot read none.toml: No such file or directory"]),
    ],
)
def test_an_unknown_name_brings_the_allowed_ones(argv, parts):
    (line,) = problems(*argv)
    assert "\n" not in line
    assert all(part in line for part in parts), line


# Cards of the user's own, and what they are asked for.

CARD = """
[cards.{}]
title = "Mine"
capacity = "23.5 GiB"
context = "0.5 GiB"
capability = [8, 9]
multiprocessors = 9
"""


def test_the_only_card_of_a_file_is_the_one_to_fit(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(CARD.format("mine"))
    monkeypatch.chdir(tmp_path)
    config = parse_args(["--gpu-file", "mine.toml"]).config
    assert config.device.gpu == "mine"
    sent = config_from_dict(json.loads(json.dumps(config.to_dict())))  # as to a worker
    assert (card_of(sent.device).title, budget_of(sent.device)) == ("Mine", 23 * GIB)
    (tmp_path / "own.toml").write_text('[device]\ngpu_file = "mine.toml"\n')
    assert parse_args(["--preset", "own.toml"]).config.device.gpu == "mine"
    assert parse_args(["--preset", "own.toml", "--gpu", "L4"]).config.device.gpu == "L4"


def test_of_several_cards_in_a_file_one_has_to_be_named(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(CARD.format("one") + CARD.format("two"))
    line = f"--gpu-file {file}: holds 2 cards; name one with --gpu (one, two)"
    assert problems("--gpu-file", str(file)) == (line,)
    assert parse_args(["--gpu-file", str(file), "--gpu", "TWO"]).config.device.gpu == "TWO"


def test_a_budget_above_a_card_of_one_s_own_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(CARD.format("mine"))
    assert parse_args(["--gpu-file", str(file), "--budget", "23.5 GiB"])
    assert problems("--gpu-file", str(file), "--budget", "24 GiB")[0].startswith("--budget 24.00 GiB: Mine has 23.50")


def test_a_context_takes_the_place_of_the_card_s():
    command = parse_args(["--context", "1.06 GiB", "--headroom", "10 %"])
    budget = find_card("t4").capacity_bytes - round(1.06 * GIB)
    assert budget_of(command.config.device) == budget
    assert command.headroom_bytes == round(budget / 10)


def test_the_budget_of_a_watched_script_is_that_of_the_gpu_that_is_there():
    assert not parse_args(["--watch", "train.py", "--budget", "40 GiB"]).gpu_is_named
    assert problems("--watch", "train.py", "--budget", "40 GiB", "--gpu", "t4")[0].startswith("--budget 40.00 GiB: ")
    assert parse_args(["--watch", "train.py", "--context", "1 GiB"]).gpu_is_named


def test_all_problems_are_reported_at_once():
    lines = problems("--samples", "0", "--epochs", "0", "--gpu", "tt4", "--model", "nope")
    assert [line.split(":")[0] for line in lines] == ["--samples 0", "--epochs 0", "--gpu tt4", "--model nope"]


def test_a_local_checkpoint_is_a_model(tmp_path):
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = {"model_type": "llama", "max_position_embeddings": 4096, **dict.fromkeys(sizes, 64)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert parse_args(["--model", str(tmp_path)]).config.model.model == str(tmp_path)
    assert parse_args(["--model", str(tmp_path), "--max-length", "8192"]).config.data.max_length == 8192


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{}", "its config.json names no model_type"),
        ("[1]", "its config.json names no model_type"),
        ('{"model_type": 3}', "its config.json names no model_type"),
        (
            '{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}',
            "its weights are quantised already, by gptq",
        ),
        ("{", "cannot read its config.json (Expecting property name"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_one_line(tmp_path, content, line):
    (tmp_path / "config.json").write_text(content)
    (problem,) = problems("--model", str(tmp_path))
    assert problem.startswith(f"--model {tmp_path}: {line}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max-lenght", "5"], "unknown flag --max-lenght; did you mean --max-length?"),
        (["--max-lenght=5"], "unknown flag --max-lenght; did you mean --max-length?"),
        (["--sampl", "5"], "unknown flag --sampl; did you mean --samples?"),
        (["--rank", "5"], "unknown flag --rank; did you mean --lora-rank or --rank-pattern?"),
        (["--lr", "5"], "unknown flag --lr; did you mean --lora-rank or --learning-rate?"),
        (["--xyzzy"], "unknown flag --xyzzy (--help all lists every flag)"),
        (["corpus.csv"], "unexpected argument 'corpus.csv': every value follows a flag"),
        (["--samples", "many"], "--samples: 'many' is not a whole number or none"),
        (["--samples"], "--samples: expected one argument"),
        (["--lora-dropout", "x"], "--lora-dropout: 'x' is not a number"),
        (["--batching", "sorted"], "--batching: 'sorted' is not one of padded, dynamic, bucketed, packed"),
        (["--budget", "14 gigs"], "--budget: not a size: '14 gigs'"),
    ],
)
def test_what_argparse_refuses_is_one_line(argv, message):
    (line,) = problems(*argv)
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[trian]\nepochs = 2", "unknown section [trian]; did you mean train? (allowed: model, lora, data"),
        ("[train]\nepoch = 2", "[train] epoch: unknown key; did you mean epochs? (allowed: "),
        ("[train]\nmax_length = 8", "[train] max_length: unknown here; it belongs under [data]"),
        ("max_length = 8", "max_length stands outside its section; write it under [data]"),
        ("train = 8", "train = 8 is a value; write a section [train]"),
        ('[train]\nlearning_rate = "2e-4"', "[train] learning_rate: '2e-4' is not a number"),
        ("[train]\nepochs = 2.0", "[train] epochs: 2.0 is not a whole number"),
        ("[train]\nepochs = true", "[train] epochs: True is not a whole number"),
        ("[train]\nhold_outputs = 1", "[train] hold_outputs: 1 is not true or false"),
        ("[model]\nmodel = 8", "[model] model: 8 is not a text"),
        ("[model]\ndtype = 'fp16'", "[model] dtype: 'fp16' is not one of float16, bfloat16, float32"),
        ("[lora]\ntarget_modules = 'q_proj'", "[lora] target_modules: 'q_proj' is not a list of texts"),
        ("[lora]\ntarget_modules = [1]", "[lora] target_modules: [1] is not a list of texts"),
        ("[device]\nbudget_bytes = 'lots'", "[device] budget_bytes: not a size: 'lots'"),
        ("[train\n", "as TOML: Expected ']'"),
    ],
)
def test_a_preset_that_the_schema_does_not_allow_is_one_line(tmp_path, text, line):
    path = write(tmp_path, text)
    (problem,) = problems("--preset", path)
    assert path in problem
    assert line in problem
    assert "\n" not in problem


def test_all_problems_of_a_preset_are_reported_at_once(tmp_path):
    assert len(problems("--preset", write(tmp_path, "[train]\nepoch = 2\n[lora]\nlora_rank = 'x'\n[x]\n"))) == 3


def test_a_preset_that_is_not_text_is_one_line(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xff\xfe")
    assert problems("--preset", str(path)) == (f"--preset: cannot read {path}: not UTF-8 text",)


def test_the_output_folder_is_created(tmp_path):
    config = RunConfig().with_fields(output=str(tmp_path / "a" / "b"))
    assert check_output(config).is_dir()
    assert list(check_output(config).iterdir()) == []


def test_an_output_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    config = RunConfig().with_fields(output=str(tmp_path / "file" / "b"))
    with pytest.raises(ConfigError) as caught:
        check_output(config)
    assert str(caught.value) == f"--output {tmp_path}/file/b: cannot write there (Not a directory); give another folder"


# The parser itself.


def shown(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse_args(argv)
    assert ended.value.code in (0, None)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_help_begins_with_tasks_and_their_examples(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    text = shown(capsys, "--help")
    tasks, _, flags = text.partition("Flags that matter")
    for mode in MODES:
        assert (f" {mode.example}\n" in tasks) is mode.is_a_task
    assert flags.count("\n  --") == 12
    examples = [f" {mode.example}" for mode in MODES]
    long = [line for line in text.splitlines() if len(line) > int(columns) and not line.endswith(tuple(examples))]
    assert long == []


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_an_example_of_the_help_is_one_that_is_taken(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "FOLDER-train"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(RunConfig().to_dict()))
    (tmp_path / "questions.csv").write_text("question\nwhy?\n")
    assert parse_args(shlex.split(mode.example.replace("runs/FOLDER ", "runs/FOLDER-train ")))


def test_every_option_stands_in_the_table_of_modes():
    """Else `--help all` lacks it, and nothing says what it goes with."""
    names = {item.name for item in dataclasses.fields(Command) if item.name not in NO_FLAGS}
    assert names == set(chain.from_iterable(OPTION_GROUPS.values()))
    assert names == {name for mode in MODES for name in (*mode.takes, mode.option) if name}


def test_all_help_says_what_excludes_what(capsys):
    text = shown(capsys, "--help", "all")
    assert all(f"\n  {mode.flag} " in text for mode in MODES)
    assert problems("--help", "me") == ("--help/-h: 'me' is no help there is (allowed: --help, --help all)",)


def test_the_version_names_the_libraries(capsys):
    first, second = shown(capsys, "--version").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert first == f"{project['name']} {project['version']}"
    assert f"torch {importlib.metadata.version('torch')}" in second


def test_a_shell_completes_flags_and_values(capsys):
    pytest.importorskip("shtab")
    script = shown(capsys, "--completion", "bash")
    assert all(word in script for word in ("--max-length", "rtx4090", "llama-3.1-8b", "as_published", "bucketed"))
    assert problems("--completion", "csh") == ("--completion csh: unknown (allowed: bash, zsh, tcsh)",)


def test_flags_are_unique_and_help_is_complete():
    items = [item for cls in (*SECTIONS.values(), Command) for item in dataclasses.fields(cls)]
    items = [item for item in items if item.name not in NO_FLAGS]
    flags = [flag_of(item) for item in items]
    assert len(set(flags)) == len(flags)
    shown = build_parser().format_help()
    assert all(f" {flag}" in shown for flag in flags)
    assert all(action.help for action in build_parser()._actions)


def test_every_number_has_a_range():
    hints = {name: hint for cls in SECTIONS.values() for name, hint in typing.get_type_hints(cls).items()}
    numbers = {name for name, hint in hints.items() if without_none(hint)[0] in (int, float)}
    assert numbers | {"init_lora_weights"} == set(RANGES), "one of its words ends in a number"


def test_help_needs_neither_torch_nor_numpy():
    code = "import sys, configs.cli as c; c.build_parser().format_help(); print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    "argv", [["--gpu", "t40"], ["--watch", "nowhere.py"], ["--replay", "nowhere"], ["--budget", "14.4"]]
)
def test_what_cannot_be_used_is_refused_before_anything_large_is_imported(argv):
    large = {"torch", "numpy", "rich", "pandas", "transformers", "memory_harness.reports.command"}
    code = "import sys; from memory_harness.reports.entry import main; "
    code += f"print(main({argv!r}), {large!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n", done.stderr


def test_a_model_s_name_on_the_hub_is_that_of_its_table(monkeypatch):
    monkeypatch.setattr("memory_harness.configs.models._cache_folder", lambda *_: None)
    assert find_model("meta-llama/llama-3.1-8b-instruct").name == "llama-3.1-8b"
    config = parse_args(["--model", "Qwen/Qwen2.5-7B-Instruct"]).config
    assert find_model(config.model.model).name == "qwen2.5-7b"
    assert "not in the local Hugging Face cache" in problems("--model", "mistralai/Mistral-Small-24B-Instruct-2501")[0]


def test_a_size_without_a_unit_is_asked_for_one():
    line = "--budget: '14.4' has no unit: write '14.4 GiB', or '14.4 B' for bytes"
    assert problems("--budget", "14.4") == (line,)
    assert problems("--context", "1")[0].startswith("--context: '1' has no unit")
    assert parse_args(["--budget", "8589934592"]).config.device.budget_bytes == 2**33


def test_a_question_is_asked_by_itself():
    assert problems("--ask", " ")[0].startswith("--ask (empty): nothing is asked")
    assert problems("--ask", "why?", "--prompts", "q.csv")[0].startswith("--ask and --prompts q.csv: ")
    assert parse_args(["--ask", "why?"]).config.generation.ask == "why?"


# Training runs.


@pytest.fixture
def run(tmp_path):
    """The folder of a training run, as its configuration is found there."""
    folder = tmp_path / "runs" / "20260101-000000-abc-train"
    (folder / "checkpoint-5").mkdir(parents=True)
    config = parse_args(["--preset", "smoke_cpu", "--epochs", "7"]).config
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


def test_a_run_goes_on_with_its_own_configuration(run):
    for folder in (run, run / "checkpoint-5"):
        command = parse_args(["--resume", str(folder)])
        assert (command.resume, command.config.train.epochs, command.config.model.model) == (folder, 7, "tiny-llama")
    assert parse_args(["--resume", str(run), "--epochs", "9", "--allow-changes"]).config.train.epochs == 9


@pytest.mark.parametrize(
    ("before", "flags", "engine"),
    [
        ({"num_gpus": 2, "sharding": "ddp"}, ["--num-gpus", "1"], "none"),
        ({"num_gpus": 2, "sharding": "fsdp"}, ["--num-gpus", "1"], "none"),
        ({"num_gpus": 1, "sharding": "none"}, ["--num-gpus", "2"], "ddp"),
        ({"num_gpus": 2, "sharding": "fsdp"}, ["--num-gpus", "3"], "fsdp"),
        ({"num_gpus": 2, "sharding": "fsdp"}, [], "fsdp"),
    ],
)
@pytest.mark.parametrize("flag", ["--resume", "--generate"])
def test_how_the_model_is_shared_follows_one_gpu_or_several(run, flag, before, flags, engine):
    config = load_preset("smoke_cpu").with_fields(gradient_accumulation=4, **before)
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    assert parse_args([flag, str(run), *flags]).config.device.engine == engine


def test_sharing_that_is_asked_for_with_one_gpu_is_refused_as_ever(run):
    config = load_preset("smoke_cpu").with_fields(num_gpus=2, sharding="ddp")
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    (line,) = problems("--resume", str(run), "--num-gpus", "1", "--sharding", "ddp")
    assert line.startswith("--sharding ddp: there is one GPU")


def test_without_a_value_the_newest_run_goes_on(run):
    later = run.parent / "20260102-000000-abc-train-2"
    shutil.copytree(run, later)
    assert parse_args(["--resume", "--output", str(run.parent)]).resume == later


def test_an_adapter_of_elsewhere_needs_the_configuration_from_the_flags(run, tmp_path):
    assert parse_args(["--generate", str(run), "--max-new-tokens", "5"]).config.train.epochs == 7
    (tmp_path / "adapter").mkdir()
    command = parse_args(["--preset", "t4", "--generate", str(tmp_path / "adapter")])
    assert command.config == load_preset("t4")


def test_what_cannot_be_gone_on_with_is_one_line(run, tmp_path):
    (line,) = problems("--resume", str(tmp_path / "nowhere"))
    assert line == f"--resume {tmp_path / 'nowhere'}: no such folder"
    (line,) = problems("--resume", "--output", str(tmp_path))
    assert "no training run in --output" in line
    (line,) = problems("--resume", str(run), "--preset", "t4")
    assert line.startswith("--preset: --resume takes the configuration of the run")
    (run / "config.json").unlink()
    (line,) = problems("--resume", str(run))
    assert "no training run" in line
    assert parse_args(["--resume", str(run), "--preset", "t4"]).config == load_preset("t4")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "Expecting property name"),
        ('{"train": {"epochs": "x"}}', "[train] epochs: 'x' is not a whole number"),
        ('{"train": 3}', "write a section [train]"),
        ('{"lora": {"target_modules": 5}}', "[lora] target_modules: 5 is not a list of texts"),
        ('{"data": {"foo": 1}}', "[data] foo: unknown key"),
    ],
)
def test_a_damaged_configuration_of_a_run_is_one_line(run, content, part):
    (run / "config.json").write_text(content)
    (line,) = problems("--resume", str(run))
    assert line.startswith(f"--resume {run}: cannot read config.json (")
    assert part in line


def test_a_checkpoint_is_found_under_other_names(run, monkeypatch):
    checkpoint = run / "checkpoint-5"
    (run.parent / "latest").symlink_to(checkpoint)
    assert parse_args(["--resume", str(run.parent / "latest")]).resume == checkpoint.resolve()
    monkeypatch.chdir(checkpoint)
    assert parse_args(["--resume", "."]).resume == checkpoint.resolve()
    # one that was moved to a larger disk, a link left in its place
    checkpoint.rename(run.parent / "moved")
    checkpoint.symlink_to(run.parent / "moved")
    assert parse_args(["--resume", str(checkpoint)]).resume == checkpoint


def test_options_that_exclude_or_need_each_other():
    line = "--force: has no meaning beside a probe (goes with: --train); leave out one"
    assert problems("--force") == (line,)
    assert problems("--allow-changes")[0].endswith("(goes with: --resume); leave out one")
    for other in (["--replay", "x"], ["--human-sheet", "x"], ["--score-sheet", "x"], ["--explain"]):
        assert "each does something else" in problems("--train", *other)[0]
    assert problems("--train", "--fault", "x")[0].startswith("--fault: has no meaning beside --train (goes with: a ")
    assert problems("--watch", "x.py", "--goal", "speed")[0].startswith("--goal: has no meaning beside --watch")
    assert parse_args(["--dry-run", "x.py", "--steps", "3", "--against", "peft==0.20"]).steps == 3
    assert problems("--explain", "--gpu", "t4")[0] == "--gpu: has no meaning beside --explain, which runs nothing"
    (line,) = problems("--watch", "x.py", "--epochs", "1")  # meant for the script, which would not get it
    assert line == "--epochs: has no meaning beside --watch, whose script takes its own after `--`"
    assert problems("--replay", "x", "--lora-rank", "4")[0].endswith("beside --replay, which runs nothing")
    assert problems("--train", "--force", "--snapshot", "x")[0].startswith("--snapshot x: is of a probe")
    assert problems("--json", "x", "--html", "./x") == ("--html x: --json writes the same file; name another",)
    assert problems("--train", "--headroom", "200 %")[0].startswith("--headroom: ")


@pytest.mark.parametrize("asked", [("--limits",), ("--goal", "speed")])
@pytest.mark.parametrize("recipe", [("--objective", "grpo", "--train-batch-size", "8"), ("--eval-generate", "4")])
def test_what_generates_is_not_predicted_by_its_phases(recipe, asked):
    with pytest.raises(ConfigError, match="--goal and --limits do not predict"):
        parse_args([*recipe, *asked])


def test_what_follows_a_run_needs_one():
    assert parse_args(["--live"]).live == ANY_PORT
    assert parse_args(["--live", "8080"]).live == 8080
    assert parse_args(["--train", "--log-to", "wandb,mlflow"]).log_to == ("wandb", "mlflow")
    assert "not a port" in problems("--live", "70000")[0]
    assert "has no meaning beside --explain" in problems("--live", "--explain")[0]
    assert problems("--train", "--log-to", "tensorbord")[0].startswith(
        "--log-to tensorbord: unknown; did you mean tensorboard?"
    )
    assert "goes with: --train, --resume, --watch" in problems("--log-to", "wandb")[0]
    assert set(TRACKERS) == set(_OPENERS)


def test_reports_that_would_overwrite_each_other():
    assert "--json writes the same file" in problems("--json", "a.json", "--perfetto", "a.json")[0]
