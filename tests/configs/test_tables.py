"""The tables of cards and models against what is known of them."""

from pathlib import Path

import pytest

from memory_harness.configs import cards
from memory_harness.configs.cards import find_card, load_cards
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import ModelShape, find_model, is_local_checkpoint, load_models
from memory_harness.configs.tables import read_toml
from memory_harness.configs.units import GIB

CARDS = list(load_cards().values())
MODELS = list(load_models().values())


def num_parameters(model: ModelShape) -> int:
    query, key = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    attention = model.hidden_size * (2 * query + 2 * key) + (query + 2 * key if model.attention_bias else 0)
    block = attention + 3 * model.hidden_size * model.intermediate_size + 2 * model.hidden_size
    tables = 1 if model.tie_word_embeddings else 2
    return model.num_layers * block + model.hidden_size + tables * model.vocab_size * model.hidden_size


NUM_PARAMETERS = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-7b": 7_615_616_512,
    "mistral-7b": 7_248_023_552,
}
"""as published"""

OWN_SHAPES = {"tiny-llama"}
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
    assert model.num_heads % model.num_kv_heads == 0
    assert model.pad_token_id not in model.eos_token_ids
    assert max(model.pad_token_id, model.bos_token_id, *model.eos_token_ids) < model.vocab_size


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_follows_from_its_capability(card):
    major = card.capability[0]
    assert card.has_bfloat16 == (major >= 8)
    assert ("flash" in card.sdpa_backends) == (major >= 8)
    assert card.sdpa_backends[-2:] == ("memory_efficient", "math")
    assert card.cublas_workspace_bytes == (32 * 2**20 if major == 9 else 4096 * 1024 * 2 + 16 * 1024 * 8)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_leaves_a_budget_and_names_its_sources(card):
    assert 0.9 * card.capacity_bytes < card.budget_bytes == card.capacity_bytes - card.context_bytes
    table = read_toml(Path(cards.__file__).with_name("gpus.toml"))["cards"][card.name]
    assert set(card.sources) == set(table) - {"title", "sources"}
    assert all(card.sources.values())


def test_the_t4_is_the_one_of_the_published_failure():
    card = find_card("t4")
    assert card.capacity_bytes == round(14.56 * GIB)
    assert card.capability == (7, 5)


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
