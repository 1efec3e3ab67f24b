"""Models of the Hugging Face Hub: from the local cache, or fetched first; there is no network here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import CONFIG_FILES, find_model, hub_id, is_hub_name
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.tokenizer import load_tokenizer
from memory_harness.harness.strategies.architecture import transformers_config
from memory_harness.harness.strategies.weights import DOWNLOADED, download_checkpoint, find_checkpoint
from tests.harness.data.test_tokenizer import LLAMA_SPECIALS
from tests.harness.data.tokenizer_files import write_tokenizer

REPO = "someone/tiny-model"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
}


def snapshot(cache: Path) -> Path:
    """Make what huggingface_hub keeps of the repository, its config.json alone."""
    repository = cache / "models--someone--tiny-model"
    folder = repository / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_model_in_the_cache_needs_no_download(cache):
    folder = snapshot(cache)
    config = parse_args(["--model", REPO]).config
    shape = find_model(config.model.model)
    assert (shape.name, shape.folder, hub_id(shape)) == (REPO, folder, REPO)
    assert shape.vocab_size == transformers_config(shape).vocab_size == CONFIG["vocab_size"]
    assert find_checkpoint(shape) is None
    (folder / "model.safetensors").touch()
    assert find_checkpoint(shape) == folder


def test_its_tokenizer_is_taken_from_the_cache_too(cache):
    write_tokenizer(snapshot(cache), LLAMA_SPECIALS)
    config = RunConfig().with_fields(model=REPO)
    assert load_tokenizer(config, CONFIG["vocab_size"]).name == f"{REPO} (local cache)"


def test_a_model_that_is_not_there_is_one_line(cache):
    with pytest.raises(
        ConfigError, match=rf"^--model {REPO}: .*not in the local Hugging Face cache.*--download"
    ) as error:
        parse_args(["--model", REPO])
    assert "\n" not in str(error.value)


def test_a_download_fetches_what_the_model_is_and_no_weights(cache, monkeypatch):
    asked = []

    def fetch(repo, allow_patterns, repo_type):
        asked.append((repo, allow_patterns))
        return snapshot(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert parse_args(["--model", REPO, "--download"]).config.model.model == REPO
    assert asked == [(REPO, list(CONFIG_FILES))]
    assert not any("safetensors" in pattern for pattern in CONFIG_FILES)


@pytest.mark.parametrize(("weights", "patterns"), [(True, DOWNLOADED), (False, CONFIG_FILES)])
def test_weights_are_fetched_where_they_are_asked_for(cache, monkeypatch, weights, patterns):
    folder, asked = snapshot(cache), []

    def fetch(_, allow_patterns, repo_type):
        asked.append(allow_patterns)
        return folder

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert download_checkpoint(find_model(REPO), weights=weights) == folder
    assert asked == [list(patterns)]


def test_a_download_that_fails_is_one_line(cache, monkeypatch):
    def fail(repo, allow_patterns, repo_type):
        raise OSError(f"404 for {repo}\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ConfigError, match=rf"^--download: cannot get {REPO} \(404 for {REPO}\)") as error:
        parse_args(["--model", REPO, "--download"])
    assert "\n" not in str(error.value)


def test_a_folder_and_a_name_of_the_table_are_no_names_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("someone/here").mkdir(parents=True)
    assert is_hub_name(REPO)
    assert not any(map(is_hub_name, ["someone/here", "llama-3.1-8b", "a/b/c", "/a/b", "./b", "../b", "a/", "b c/d"]))
