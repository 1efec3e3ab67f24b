"""The tables of cards and models against what is known of them."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.cards import find_card, load_cards
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import ModelShape, find_model, is_local_checkpoint, load_models
from memory_harness.configs.units import GIB

CARDS = list(load_cards().values())
MODELS = list(load_models().values())


def num_parameters(model: ModelShape) -> int:
    """Count those of a model of Llama's kind."""
    values = model.values
    hidden, layers, wide = values["hidden_size"], values["num_hidden_layers"], values["intermediate_size"]
    query, key = (values[f"num_{name}_heads"] * values["head_dim"] for name in ("attention", "key_value"))
    has_bias = values.get("attention_bias", values["model_type"] == "qwen2")
    attention = hidden * (2 * query + 2 * key) + (query + 2 * key if has_bias else 0)
    block = attention + 3 * hidden * wide + 2 * hidden
    tables = 1 if model.tie_word_embeddings else 2
    return layers * block + hidden + tables * model.vocab_size * hidden


NUM_PARAMETERS = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "qwen2.5-7b": 7_615_616_512,
    "mistral-7b": 7_248_023_552,
}
"""as published"""

OWN_SHAPES = {"tiny-llama", "tiny-moe"}
"""made up for tests"""


def test_each_model_has_a_published_number_of_parameters():
    missing = set(load_models()) - OWN_SHAPES - set(NUM_PARAMETERS)
    assert not missing, f"add to NUM_PARAMETERS what the publisher says of {missing}"


@pytest.mark.parametrize(
    ("name", "published"),
    NUM_PARAMETERS.items(),
)
def test_a_shape_has_the_published_number_of_parameters(name, published):
    assert num_parameters(find_model(name)) == published


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_shape_holds_together(model):
    assert model.values["num_attention_heads"] % model.values["num_key_value_heads"] == 0
    assert model.pad_token_id not in model.eos_token_ids
    assert max(model.pad_token_id, model.bos_token_id, *model.eos_token_ids) < model.vocab_size


VALUES = {"capacity": "23.5 GiB", "context": "0.4 GiB", "capability": [8, 9], "multiprocessors": 100}
"""what a card cannot do without, but for its title"""

OF_CAPABILITY = {"bfloat16": True, "sdpa_backends": ["math"], "cublas_workspace": 0}
"""what it cannot do without where its capability is not known"""


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_follows_from_its_capability(card):
    major = card.capability[0]
    assert card.has_bfloat16 == (major >= 8)
    assert ("flash" in card.sdpa_backends) == (major >= 8)
    assert card.sdpa_backends[-2:] == ("memory_efficient", "math")
    assert card.cublas_workspace_bytes == (32 * 2**20 if major >= 9 else 4096 * 1024 * 2 + 16 * 1024 * 8)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_leaves_a_budget_and_names_its_sources(card):
    part = 0.7 if "shared with the system" in card.title else 0.9
    assert part * card.capacity_bytes < card.budget_bytes == card.capacity_bytes - card.context_bytes
    assert set(card.sources) == {*VALUES, *OF_CAPABILITY, "speeds"}
    assert all(card.sources.values())


def test_the_t4_is_the_one_of_the_published_failure():
    card = find_card("t4")
    assert card.capacity_bytes == round(14.56 * GIB)
    assert card.capability == (7, 5)


SPELLINGS = {
    "NVIDIA GeForce RTX 3090": "rtx3090",
    "RTX-3090": "rtx3090",
    "Tesla T4": "t4",
    "A100-SXM4-80GB": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "Tesla V100-SXM2-32GB": "v100-32gb",
    "NVIDIA GeForce RTX 4070 Laptop GPU": "rtx4070-laptop",
    "DGX Spark": "gb10",
}
"""as nvidia-smi, PyTorch and people write them"""


@pytest.mark.parametrize(("given", "name"), SPELLINGS.items())
def test_a_card_is_found_by_the_names_that_it_has_elsewhere(given, name):
    assert find_card(given).name == name


@given(st.sampled_from(CARDS), st.data())
def test_a_card_is_found_however_its_name_is_spelled(card, data):
    name = data.draw(st.sampled_from([card.name, card.title, *card.aliases]))
    spelled = ""
    for letter in name:
        separators = st.sampled_from(["-", "_", " ", "  "])
        spelled += data.draw(separators if letter in "- " else st.sampled_from([letter.lower(), letter.upper()]))
    maker = data.draw(st.sampled_from(["", "nvidia ", "NVIDIA GeForce ", "Tesla-"]))
    assert find_card(maker + spelled) is card


def test_no_two_cards_share_a_name():
    names: list[str] = []
    for card in CARDS:
        names += {
            re.sub(r"\W|geforce|nvidia|tesla", "", name.lower()) for name in (card.name, card.title, *card.aliases)
        }
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["mps", "XPU", "MI300X"])
def test_a_card_that_is_not_simulated_is_told_apart_from_an_unknown_one(name):
    with pytest.raises(ConfigError, match=rf"^--gpu {name}: not simulated: .*\(allowed: a card of gpus.toml"):
        find_card(name)


def card_file(folder: Path, *names: str, **changes: object) -> str:
    """Write a file of cards that have those names and, but for the changes, the same values; None leaves a key out."""
    lines = []
    for name in names:
        values = {"title": name.upper(), **VALUES, **changes}
        lines.append(f"[cards.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    path = folder / "mine.toml"
    path.write_text("\n".join(lines))
    return str(path)


def test_a_card_of_one_s_own(tmp_path):
    card = find_card("Mine", card_file(tmp_path, "mine"))
    assert (card.name, card.num_sms, card.budget_bytes) == ("mine", 100, round(23.5 * GIB) - round(0.4 * GIB))
    like = find_card("rtx4090")
    assert (card.sdpa_backends, card.has_bfloat16) == (like.sdpa_backends, like.has_bfloat16)


def test_a_card_of_a_capability_that_is_not_known_says_what_follows_from_it(tmp_path):
    with pytest.raises(ConfigError) as caught:
        find_card("mine", card_file(tmp_path, "mine", capability=[99, 0]))
    assert [line.split()[4] for line in caught.value.problems] == list(OF_CAPABILITY)
    card = find_card("mine", card_file(tmp_path, "mine", capability=[99, 0], **OF_CAPABILITY))
    assert (card.sdpa_backends, card.cublas_workspace_bytes) == (("math",), 0)


def test_cards_of_one_s_own_come_before_those_that_come_along(tmp_path):
    file = card_file(tmp_path, "t4", "other")
    assert find_card("T4", file).capacity_bytes == round(23.5 * GIB)
    assert find_card("l4", file) is find_card("l4")
    with pytest.raises(ConfigError, match=r"^--gpu othr: unknown; did you mean other\? \(allowed: t4, other, t4, p100"):
        find_card("othr", file)


@pytest.mark.parametrize("key", ["title", *VALUES])
def test_a_card_that_lacks_a_key_is_one_line(key, tmp_path):
    file = card_file(tmp_path, "mine", **{key: None})
    with pytest.raises(ConfigError) as caught:
        find_card("mine", file)
    (line,) = caught.value.problems
    assert line.startswith(f"--gpu-file {file}: card mine: {key} is missing (allowed: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", 5), ("capacity", 24), ("capacity", "a lot"), ("capacity", "0 GiB"), ("context", "-1 GiB"),
        ("context", True), ("capability", "8.9"), ("capability", [8]), ("capability", [8.0, 9.0]),
        ("capability", [True, False]), ("capability", [-8, 9]), ("multiprocessors", 0), ("multiprocessors", "100"),
        ("multiprocessors", True), ("bfloat16", "yes"), ("sdpa_backends", []), ("sdpa_backends", "flash"),
        ("sdpa_backends", ["cudnn"]), ("sdpa_backends", [["flash"]]), ("cublas_workspace", -1),
        ("cublas_workspace", "8 MiB"), ("aliases", "other"), ("aliases", [1]), ("sources", "a data sheet"),
        ("speeds", 65), ("speeds", [65, 8.1]), ("speeds", [65, 8.1, 0]), ("speeds", [65, "8.1", 320]),
        ("speeds", [True, 1, 1]),
    ],
)  # fmt: skip
def test_a_value_of_a_card_that_cannot_be_used_is_one_line(key, value, tmp_path):
    file = card_file(tmp_path, "mine", **{key: value})
    with pytest.raises(ConfigError) as caught:
        find_card("mine", file)
    (line,) = caught.value.problems
    assert line.startswith(f"--gpu-file {file}: card mine: {key} {value!r} is not usable (allowed: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read .*: No such file"),
        ("[cards", "cannot read .* as TOML"),
        ("", "holds no card; write a table"),
        ("cards = 5", "holds no card; write a table"),
        ("[cards]\nmine = 5", "card mine: is a value; write a table"),
        ("[cards.mine]\ncapacty = 5", "card mine: unknown key capacty; did you mean capacity"),
    ],
)
def test_a_file_of_cards_that_cannot_be_used(content, words, tmp_path):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rf"^--gpu-file:? .*{words}"):
        find_card("mine", str(path))


def test_a_context_as_large_as_the_card_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"card mine: context 24 GiB: the card has 23\.50 GiB; lower it$"):
        find_card("mine", card_file(tmp_path, "mine", context="24 GiB"))


def test_unknown_names_are_errors():
    with pytest.raises(
        ConfigError, match=r"^--gpu a100: unknown; did you mean a100-40gb or a100-80gb\? \(allowed: t4, p100"
    ):
        find_card("a100")
    with pytest.raises(ConfigError, match=r"^--model gpt-5: unknown"):
        find_model("gpt-5")


def test_a_folder_with_a_config_is_a_checkpoint(tmp_path):
    assert not is_local_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert is_local_checkpoint(str(tmp_path))
    assert not is_local_checkpoint("llama-3.1-8b")
