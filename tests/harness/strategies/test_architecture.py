"""Models of every family, found out about in the model itself; tests/models holds published config.json files."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import TIB
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.simulate.trace import FREE, Event
from memory_harness.harness.strategies.architecture import (
    adapter_targets,
    decoder_layers,
    linear_layers,
    model_on_meta,
    transformers_config,
)
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from tests.e2e.commands import run_probe
from tests.harness.simulate.test_tracing import batch

MODELS = Path(__file__).parents[2] / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.json"))

REFUSED = {
    "baichuan": "transformers has no architecture 'baichuan'",
    "bart-large": "bart has an encoder beside its decoder",
    "bert-base-uncased": "bert is an encoder",
    "chatglm3-6b": "transformers has no architecture 'chatglm'",
    "deepseek-v3": "quantised already, by fp8",
    "gemma-4-31b": "quantised already, by modelopt",
    "gpt-oss-20b": "quantised already, by mxfp4",
    "internlm": "transformers has no architecture 'internlm'",
    "mamba-2.8b": "not understood at modeling_mamba.py:",
    "minicpm-2b": "transformers has no architecture 'minicpm'",
    "phi-2-msft": "transformers has no architecture 'phi-msft', only the checkpoint's own code does, which is not run",
    "roberta-cls": "roberta is an encoder",
    "snowflake-bert": "bert is an encoder",
    "tw-badjson": "cannot read its config.json",
    "tw-gptq": "quantised already, by gptq",
    "tw-heads-bad": "not a multiple of the number of attention heads (7)",
    "tw-vocab-str": "vocab_size",
    "whisper-large-v3": "whisper has an encoder beside its decoder",
}
"""models that are not simulated, and what their line says"""

FAILS_WHILE_IT_RUNS = "mamba-2.8b"
"""whose forward pass multiplies by a weight of a linear layer, which 4-bit loading has packed"""

ALWAYS = {"gpt2", "gemma-3-270m"}
"""small ones; the others are marked slow"""

RUN_EACH_LAYER: set[str] = set()
"""models whose layers are not replayed: they ask for values, or change as they run"""

SHAPES = [(1, 256), (1, 512), (2, 640)]
"""what a family of traces is recorded at"""
EIGHT_BITS = {"quant_method": "bitsandbytes", "load_in_8bit": True}
OTHER_SHAPE = (1, 384)
TABLE_BYTES, OFFSET_BYTES = 256 * 4, 4
"""of nested quantisation: bitsandbytes keeps a table of codes for itself, and each weight has a copy"""


def models(*, always: set[str]) -> list[Any]:
    taken = [name for name in NAMES if name not in REFUSED]
    return [name if name in always else pytest.param(name, marks=pytest.mark.slow) for name in taken]


@pytest.fixture
def folder_of(tmp_path):
    """Return a function that makes a model's folder: nothing but its config.json."""

    def make(name: str) -> str:
        (tmp_path / "config.json").write_bytes((MODELS / f"{name}.json").read_bytes())
        return str(tmp_path)

    return make


def opened(folder: str, **fields: Any) -> tuple[CompiledStrategy, SimulatedDevice]:
    config = RunConfig().with_fields(model=folder, gpu="h200", dtype="bfloat16", max_length=1024, **fields)
    device = SimulatedDevice(find_card("h200"), 2 * TIB, computes=False)
    return CompiledStrategy(QLoraStrategy(config, device), device), device


def step(strategy: CompiledStrategy, shape: tuple[int, int]) -> None:
    strategy.put(batch((shape[1],) * shape[0], shape[1]), training=True)
    strategy.forward(shape[0] * (shape[1] - 1))
    strategy.backward()
    strategy.optimizer_step(1e-4)


def run_all(strategy: CompiledStrategy, device: SimulatedDevice) -> None:
    """Do once what a run does."""
    with device.active():
        strategy.load()
        step(strategy, SHAPES[0])
        strategy.put(batch((256,) * 2, 256), training=False)
        strategy.evaluate()
        answer(strategy)


def answer(strategy: CompiledStrategy) -> None:
    """Generate a few tokens, with a model that predicts any."""
    if find_model(strategy.inner.config.model.model).classifies:
        return
    strategy.prefill([[1] * 20])
    for _ in range(3):
        strategy.decode()
    strategy.release()


def test_the_refused_are_among_the_models():
    assert set(REFUSED) <= set(NAMES)
    others = {"bart-large", "bert-base-uncased", "roberta-cls", "snowflake-bert", "whisper-large-v3"}
    assert len(set(NAMES) - set(REFUSED)) >= 0.8 * len(set(NAMES) - others)


@pytest.mark.slow
def test_what_fails_while_it_runs_is_one_line_too(folder_of, tmp_path):
    """In a process of its own: a backward pass that fails leaves autograd with work that the next one would do."""
    ended = run_probe("--model", folder_of(FAILS_WHILE_IT_RUNS), "--samples", "40", "--no-fixes", folder=tmp_path)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert REFUSED[FAILS_WHILE_IT_RUNS] in line


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {FAILS_WHILE_IT_RUNS}))
def test_what_is_not_simulated_is_one_line_that_says_why(name, folder_of):
    folder = folder_of(name)
    with pytest.raises(ConfigError, match=re.escape(REFUSED[name])) as refused:
        run_all(*opened(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", models(always=ALWAYS))
def test_a_model_takes_what_arithmetic_says(name, folder_of):
    """Parameters, and all bytes after loading: weights in 16 bits, linear layers' in 4 bits with their constants."""
    folder = folder_of(name)
    strategy, device = opened(folder)
    with device.active():
        facts = strategy.load()
    plain = plain_model(folder)
    assert facts.num_parameters - facts.num_adapter_parameters == sum(p.numel() for p in plain.parameters())
    expected = sum(parameter_bytes(plain, name, parameter) for name, parameter in plain.named_parameters())
    expected += sum(buffer.nbytes for buffer in plain.buffers())
    expected += facts.num_adapter_parameters * 4
    if find_model(folder).quantised_by is None:
        expected += TABLE_BYTES
    assert sum(num_bytes for _, num_bytes in strategy.memory.live()) == expected


def plain_model(folder: str) -> Any:
    """Return the model as transformers alone builds it."""
    config = transformers_config(find_model(folder))
    classes = [AutoModelForCausalLM, AutoModelForImageTextToText]
    if find_model(folder).classifies:
        classes = [AutoModelForSequenceClassification]
    auto = next(auto for auto in classes if type(config) in auto._model_mapping)
    with torch.device("meta"):
        return auto.from_config(config, dtype=torch.bfloat16)


def parameter_bytes(model: Any, name: str, parameter: torch.Tensor) -> int:
    """Return a weight's bytes on the device by hand: packed with its constants, where bitsandbytes packs it."""
    owner = model.get_submodule(name.rpartition(".")[0])
    if name == "score.weight":  # trained in full
        return parameter.numel() * 4
    is_linear = type(owner) is torch.nn.Linear or isinstance(owner, Conv1D)
    if not is_linear or name.endswith("bias") or owner is model.get_output_embeddings():
        return parameter.numel() * 2
    scales = math.ceil(parameter.numel() / 64)
    nested_scales = math.ceil(scales / 256)
    codes = 16 * 4
    return math.ceil(parameter.numel() / 2) + scales + nested_scales * 4 + codes + TABLE_BYTES + OFFSET_BYTES


@pytest.mark.parametrize("name", models(always={"gpt2"}))
def test_a_length_that_was_derived_takes_what_running_it_takes(name, folder_of):
    folder = folder_of(name)
    peaks = []
    for shapes in ([*SHAPES, OTHER_SHAPE], [OTHER_SHAPE]):
        strategy, device = opened(folder)
        with device.active():
            strategy.load()
            step(strategy, SHAPES[0])
            for shape in shapes:
                step(strategy, shape)
            device.empty_cache()
            device.reset_peaks()
            traced = strategy.num_traced
            step(strategy, OTHER_SHAPE)
        peaks.append(device.stats().peak_allocated_bytes)
    assert strategy.num_traced == traced, "the last step is a replay"
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize("name", models(always=set()))
def test_layers_that_repeat_do_what_running_each_does(name, folder_of):
    folder = folder_of(name)
    recorded = []
    for replays_layers in (True, False):
        strategy, device = opened(folder)
        device.replays_layers = replays_layers
        with device.active():
            strategy.load()
            for shape in SHAPES:
                step(strategy, shape)
            for length in (256, 384):
                strategy.put(batch((length,) * 2, length), training=False)
                strategy.evaluate()
            answer(strategy)
        recorded.append({key: family.recorded for key, family in strategy._families.items()})
        if replays_layers and name not in RUN_EACH_LAYER:
            assert device.layers.num_replayed > 0
    replayed, run = recorded
    assert replayed.keys() == run.keys()
    for key, chains in replayed.items():
        for shape, chain in chains.items():
            for phase, expected in zip(chain, run[key][shape], strict=True):
                assert ordered(phase) == ordered(expected), (key, shape)


def ordered(phase: list[Event]) -> list[Event]:
    """Return events with those frees in order that follow one another: a graph that goes ends what it has in any."""
    position = 0
    positions = {}
    for event in phase:
        if event[1] != FREE:
            position += 1
        positions[id(event)] = (position, event[1] == FREE, str(event[0]))
    return sorted(phase, key=lambda event: positions[id(event)])


@pytest.mark.parametrize("name", models(always={"gpt2"}))
def test_a_run_ends_with_the_memory_that_it_began_with(name, folder_of):
    strategy, device = opened(folder_of(name))
    run_all(strategy, device)
    with device.active():
        step(strategy, SHAPES[0])
        before = device.stats().allocated_bytes
        answer(strategy)
        step(strategy, SHAPES[0])
    assert device.stats().allocated_bytes == before


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("qwen2.5-0.5b", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("gpt2", {"c_attn"}),
        ("bloom-7b1", {"query_key_value"}),
        ("phi-4-mini", {"qkv_proj", "o_proj"}),
        ("deepseek-v2-lite", {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}),
    ],
)
def test_the_default_adapter_goes_where_the_family_has_attention(name, targets, folder_of):
    model = model_on_meta(transformers_config(find_model(folder_of(name))), torch.bfloat16)
    assert set(adapter_targets(model, RunConfig().lora.target_modules)) == targets


def test_all_linear_leaves_the_head_out(folder_of):
    model = model_on_meta(transformers_config(find_model(folder_of("gpt2"))), torch.bfloat16)
    assert set(adapter_targets(model, ("all-linear",))) == {"c_attn", "c_proj", "c_fc"}


def test_a_layer_that_the_model_lacks_is_one_line(folder_of):
    model = model_on_meta(transformers_config(find_model(folder_of("gpt2"))), torch.bfloat16)
    with pytest.raises(
        ConfigError, match=r"^--target-modules q_proj: not layers of this gpt2 \(allowed: c_attn,c_proj"
    ):
        adapter_targets(model, ("q_proj",))


def test_only_the_text_part_of_a_vision_model_is_adapted(folder_of):
    model = model_on_meta(transformers_config(find_model(folder_of("gemma-3-4b"))), torch.bfloat16)
    targets = adapter_targets(model, ("q_proj", "v_proj"))
    assert isinstance(targets, str)
    adapted_model = get_peft_model(model, LoraConfig(target_modules=targets))
    adapted = [name for name, _ in adapted_model.named_modules() if "lora_A." in name]
    assert len(adapted) == 2 * len(decoder_layers(model))
    assert not any("vision" in name for name in adapted)


def test_a_checkpoint_in_4_bits_is_taken_as_it_is(folder_of):
    folder = folder_of("tw-bnb")
    path = Path(folder, "config.json")
    values = json.loads(path.read_text())
    values["quantization_config"] |= {"llm_int8_skip_modules": ["lm_head", "mlp.up_proj"]}
    path.write_text(json.dumps(values))
    strategy, device = opened(folder, double_quant=False)
    with device.active():
        facts = strategy.load()
    up_projections = values["num_hidden_layers"] * values["hidden_size"] * values["intermediate_size"]
    linear = sum(module.weight.numel() for _, module in linear_layers(plain_model(folder)))
    assert facts.num_quantised_parameters == linear - up_projections
    with pytest.raises(ConfigError, match=r"--quantization none: the weights of .* are quantised already"):
        run_all(*opened(folder, quantization="none"))


def changed(folder: str, **values: Any) -> str:
    path = Path(folder, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def test_a_head_that_does_something_else_is_one_line(folder_of):
    folder = changed(folder_of("tw-seqcls"), architectures=["LlamaForQuestionAnswering"])
    with pytest.raises(ConfigError, match="holds LlamaForQuestionAnswering, which predicts no next token"):
        run_all(*opened(folder))


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.mark.parametrize(
    "head", [{}, {"num_labels": 1}, {"num_labels": 3, "problem_type": "multi_label_classification"}]
)
def test_a_classification_head_is_trained_with_its_own_loss(folder_of, head):
    folder = changed(folder_of("tw-seqcls"), num_hidden_layers=2, vocab_size=1024, **SMALL, **head)
    strategy, device = opened(folder)
    with device.active():
        facts = strategy.load()
        step(strategy, (2, 256))
        strategy.put(batch((256, 200), 256), training=False)
        strategy.evaluate()
    num_labels = head.get("num_labels", 2)
    score = strategy.inner.head.weight
    assert (score.shape, score.dtype, score.requires_grad) == ((num_labels, 64), torch.float32, True)
    assert facts.num_trainable_parameters == facts.num_adapter_parameters + score.numel()


def test_a_classification_head_is_not_trained_for_real(folder_of):
    folder = changed(folder_of("tw-seqcls"), num_hidden_layers=2, vocab_size=1024, **SMALL)
    device = SimulatedDevice(find_card("t4"), 2 * TIB, computes=True)
    strategy = QLoraStrategy(RunConfig().with_fields(model=folder), device)
    with device.active(), pytest.raises(ConfigError, match="classifies sequences, for which the corpus has no labels"):
        strategy.load()


@pytest.mark.parametrize(
    ("architectures", "words"),
    [(["NoSuchModel"], "names no model_type, and no class"), (None, "names no model_type, and no class")],
)
def test_a_type_that_nothing_tells_is_one_line(folder_of, architectures, words):
    folder = changed(folder_of("tw-no-modeltype"), architectures=architectures)
    with pytest.raises(ConfigError, match=words):
        find_model(folder)


def test_a_text_parts_type_gives_way_to_that_of_the_whole_class(folder_of):
    shape = find_model(folder_of("ministral-3-3b"))
    config = transformers_config(shape)
    assert (config.model_type, config.get_text_config().model_type) == ("mistral3", "ministral3")
    assert shape.vocab_size == config.get_text_config().vocab_size


def test_models_that_multiply_by_a_weight_are_told_that_it_is_packed(folder_of):
    folder = folder_of("tw-no-modeltype")
    strategy, device = opened(folder)
    with device.active():
        strategy.load()
    assert strategy.inner.model.get_base_model().config._is_quantized


@pytest.mark.parametrize(("attention", "allowed"), [("sdpa", "auto, eager"), ("flash_attention_2", "auto, eager")])
def test_an_attention_that_a_model_lacks_is_one_line(folder_of, attention, allowed):
    config = transformers_config(find_model(folder_of("bloom-7b1")))
    with pytest.raises(ConfigError, match=rf"BloomForCausalLM has no {attention} \(allowed for it: {allowed}\)"):
        model_on_meta(config, torch.bfloat16, attention)


def test_a_checkpoint_in_8_bits_is_one_line(folder_of):
    folder = folder_of("tw-bnb")
    path = Path(folder, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": EIGHT_BITS}))
    with pytest.raises(ConfigError, match=r"quantised already, by llm_int8 \(allowed: nf4\)"):
        run_all(*opened(folder))


def test_layers_are_those_of_the_decoder(folder_of):
    config = json.loads((MODELS / "gemma-3-4b.json").read_text())["text_config"]
    model = model_on_meta(transformers_config(find_model(folder_of("gemma-3-4b"))), torch.bfloat16)
    assert len(decoder_layers(model)) == config["num_hidden_layers"]
    assert len(list(linear_layers(model))) == 7 * config["num_hidden_layers"]
