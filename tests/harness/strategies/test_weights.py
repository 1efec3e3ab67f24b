"""Checkpoints that transformers wrote, read weight by weight."""

import json
import math
import shutil
from fnmatch import fnmatch

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import find_model, load_models
from memory_harness.configs.preset import load_preset
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.architecture import transformers_config
from memory_harness.harness.strategies.modeling import Layout, checkpoint_layout, make_real, model_without_weights
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.weights import DOWNLOADED, download_checkpoint, find_checkpoint
from tests.harness.simulate.test_tracing import batch

IDS = torch.arange(40).reshape(2, 20) * 7 % 1024


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of a tiny model: whole, in shards, with tied embeddings, in bfloat16."""
    torch.manual_seed(0)
    config = transformers_config(load_models()["tiny-llama"])
    folders = {name: tmp_path_factory.mktemp(name) for name in ("whole", "sharded", "tied", "bfloat16")}
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folders["whole"])
    model.save_pretrained(folders["sharded"], max_shard_size="200KB")
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(folders["tied"])
    config.tie_word_embeddings = False
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folders["bfloat16"])
    return folders


@pytest.fixture
def device():
    return SimulatedDevice(find_card("t4"), 2**30, computes=True)


def load(folder, device, dtype=torch.float32, quantise=False):
    with device.active():
        config = transformers_config(find_model(str(folder)))
        layout = Layout(dtype, "nf4" if quantise else "none")
        model = model_without_weights(config, layout).eval()
        make_real(model, device, layout, folder)
        return model


@pytest.mark.parametrize("kind", ["whole", "sharded", "tied", "bfloat16"])
def test_logits_are_those_of_transformers_own_model(saved, device, kind):
    ours = load(saved[kind], device)
    theirs = AutoModelForCausalLM.from_pretrained(saved[kind], dtype=torch.float32, attn_implementation="sdpa")
    assert len(list(saved["sharded"].glob("*.safetensors"))) > 1
    with torch.no_grad():
        assert torch.equal(ours(IDS).logits, theirs(IDS).logits)


def test_tied_embeddings_stay_one_parameter(saved, device):
    model = load(saved["tied"], device)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_four_bit_weights_are_those_of_transformers_own_loader(saved, device):
    ours = load(saved["bfloat16"], device, torch.float16, quantise=True)
    options = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16,
    )
    theirs = AutoModelForCausalLM.from_pretrained(
        saved["bfloat16"], dtype=torch.float16, quantization_config=options, device_map={"": "cpu"}
    )
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, expected[name]), name
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            assert torch.equal(parameter.quant_state.absmax, expected[name].quant_state.absmax), name


@pytest.fixture(scope="module", params=[True, False], ids=["nested", "plain"])
def packed(saved, tmp_path_factory, request):
    """A checkpoint that transformers has written in 4 bits, and the model that it wrote."""
    options = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=request.param,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        saved["bfloat16"], dtype=torch.bfloat16, quantization_config=options, device_map={"": "cpu"}
    )
    folder = tmp_path_factory.mktemp("packed")
    model.save_pretrained(folder)
    return folder, model


def load_packed(folder, device, dtype=torch.float16):
    with device.active():
        config = transformers_config(find_model(str(folder)))
        layout = checkpoint_layout(config, dtype)
        model = model_without_weights(config, layout).eval()
        make_real(model, device, layout, folder)
        return model


def test_a_checkpoint_in_4_bits_is_read_as_transformers_reads_it(packed, device):
    folder, theirs = packed
    ours, expected = load_packed(folder, device), dict(theirs.named_parameters())
    number = 0
    for name, parameter in ours.named_parameters():
        if not isinstance(parameter, bitsandbytes.nn.Params4bit):
            assert torch.equal(parameter, expected[name].to(parameter.dtype)), name
            continue
        number += 1
        assert torch.equal(parameter, expected[name]), name
        assert parameter.quant_state == expected[name].quant_state
        assert parameter.quant_state.dtype is torch.bfloat16
    assert number == len(list(ours.model.layers)) * 7


def test_a_checkpoint_in_4_bits_trains(packed, device):
    strategy = strategy_on(packed[0], device)
    with device.active():
        facts = strategy.load()
        strategy.put(batch((16, 16), 16), training=True)
        strategy.forward(24)
        strategy.backward()
        loss, _ = strategy.optimizer_step(1e-3)
    assert facts.weights == "checkpoint"
    assert loss is not None
    assert loss == pytest.approx(math.log(1024), rel=0.1)


def test_a_checkpoint_in_4_bits_takes_what_was_simulated(packed):
    stats = []
    strategies = []  # keep what they loaded
    for computes, random_weights in ((True, False), (True, True), (False, False)):
        device = SimulatedDevice(find_card("t4"), 2**30, computes=computes)
        strategies.append(strategy_on(packed[0], device, random_weights=random_weights))
        with device.active():
            strategies[-1].load()
            strategies[-1].put(batch((16, 16), 16), training=True)
            strategies[-1].forward(24)
            strategies[-1].backward()
        stats.append(device.stats())
    assert stats[1:] == stats[:1] * 2


UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(f"{UP}.absmax"), ["lacks", f"{UP}.absmax"]),
        (lambda tensors: tensors.update({UP: torch.ones(8, 8, dtype=torch.bfloat16)}), [UP, "is 8x8"]),
        (lambda tensors: tensors[f"{UP}.quant_state.bitsandbytes__nf4"].fill_(0), ["cannot read the constants", UP]),
    ],
    ids=["no constants", "16 bits", "damaged"],
)
def test_an_unusable_weight_in_4_bits_is_named_in_one_line(packed, tmp_path, device, change, words):
    shutil.copy(packed[0] / "config.json", tmp_path)
    tensors = load_file(packed[0] / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError) as error:
        load_packed(tmp_path, device)
    assert all(word in str(error.value) for word in [*words, str(tmp_path)])
    assert "\n" not in str(error.value)


def strategy_on(folder, device, **changes):
    config = load_preset("smoke_cpu").with_fields(model=str(folder), dtype="float16", **changes)
    return QLoraStrategy(config, device)


def test_a_checkpoint_takes_the_memory_that_random_weights_take(saved, device):
    other = SimulatedDevice(find_card("t4"), 2**30, computes=True)
    facts, strategies = [], []  # the second keep what they loaded
    for place, random_weights in ((device, False), (other, True)):
        strategies.append(strategy_on(saved["bfloat16"], place, random_weights=random_weights))
        with place.active():
            facts.append(strategies[-1].load())
    assert [fact.weights for fact in facts] == ["checkpoint", "random"]
    assert device.stats() == other.stats()


def test_without_values_no_weight_is_read(saved, tmp_path):
    shutil.copy(saved["whole"] / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    device = SimulatedDevice(find_card("t4"), 2**30, computes=False)
    with device.active():
        assert strategy_on(tmp_path, device).load().weights == "none"


def damaged(saved, folder, change):
    shutil.copy(saved["whole"] / "config.json", folder)
    tensors = load_file(saved["whole"] / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(NORM), ["lacks", NORM]),
        (lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:6]], ["lacks", "and 3 more"]),
        (lambda tensors: tensors.update({NORM: torch.ones(32)}), [NORM, "is 32", "64"]),
        (lambda tensors: tensors.update({NORM: torch.full((64,), 1e6)}), [NORM, "--dtype float16"]),
    ],
    ids=["missing", "many missing", "misshaped", "too large for float16"],
)
def test_an_unusable_weight_is_named_in_one_line(saved, tmp_path, device, change, words):
    folder = damaged(saved, tmp_path, change)
    with pytest.raises(ConfigError) as error:
        load(folder, device, torch.float16)
    assert all(word in str(error.value) for word in [*words, str(folder)])
    assert "\n" not in str(error.value)


def test_unreadable_files_are_named(saved, tmp_path, device):
    folder = tmp_path / "cut"
    shutil.copytree(saved["sharded"], folder)
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ConfigError, match=shard.name):
        load(folder, device)
    shard.unlink()
    with pytest.raises(ConfigError, match=shard.name):
        load(folder, device)
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ConfigError, match=r"index\.json"):
        load(folder, device)


def test_weights_that_are_quantised_already_are_refused(saved, tmp_path, device):
    shutil.copytree(saved["whole"], tmp_path / "quantised")
    path = tmp_path / "quantised" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ConfigError, match="quantised already, by gptq"):
        load(tmp_path / "quantised", device)


def test_a_folder_without_weights_has_no_checkpoint(saved, tmp_path):
    shutil.copy(saved["whole"] / "config.json", tmp_path)
    assert find_checkpoint(find_model(str(tmp_path))) is None
    assert find_checkpoint(find_model(str(saved["sharded"]))) == saved["sharded"]


def hub_cache(monkeypatch, tmp_path, saved):
    """Make what huggingface_hub keeps of a repository that was downloaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--meta-llama--Llama-3.2-1B-Instruct"
    snapshot = repository / "snapshots" / "0123"
    shutil.copytree(saved["sharded"], snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    return snapshot


def test_weights_are_found_in_the_hub_cache(saved, tmp_path, monkeypatch):
    assert find_checkpoint(load_models()["tiny-llama"]) is None
    snapshot = hub_cache(monkeypatch, tmp_path, saved)
    assert find_checkpoint(load_models()["llama-3.2-1b"]) == snapshot
    assert find_checkpoint(load_models()["llama-3.1-8b"]) is None


def test_all_files_of_a_tokenizer_are_downloaded():
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"):
        assert any(fnmatch(name, pattern) for pattern in DOWNLOADED)


def test_a_download_that_fails_is_one_line(monkeypatch):
    def fail(repo, allow_patterns, repo_type):
        raise OSError(f"401 for {repo}\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ConfigError, match=r"401 for meta-llama/Llama-3\.1-8B-Instruct\); accept") as error:
        download_checkpoint(load_models()["llama-3.1-8b"], weights=True)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="tiny-llama is on no hub"):
        download_checkpoint(load_models()["tiny-llama"], weights=True)
