"""Which tokenizer is found, and what each promises."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.chat_format import render
from memory_harness.harness.data.examples import build_example
from memory_harness.harness.data.tokenizer import (
    CharacterTokenizer,
    LengthEstimate,
    TransformersTokenizer,
    load_tokenizer,
)
from memory_harness.harness.log.errors import DataError
from tests.harness.data.tokenizer_files import write_tokenizer

VOCAB_SIZE = 128_256
BENGALI = "আমি ভালো নেই।"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what this machine has cached or installed is found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("memory_harness.harness.data.tokenizer.find_spec", lambda name: None)


LLAMA_SPECIALS = [
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|finetune_right_pad_id|>",
]


def test_without_any_tokenizer_lengths_are_estimated_and_it_says_so() -> None:
    tokenizer = load_tokenizer(RunConfig(), VOCAB_SIZE)
    assert isinstance(tokenizer, LengthEstimate)
    assert "0.46 tokens per UTF-8 byte" in tokenizer.name
    assert (tokenizer.vocab_size, tokenizer.pad_id) == (VOCAB_SIZE, 128004)
    assert tokenizer.stop_ids == (128001, 128008, 128009)
    assert tokenizer.count("ক" * 100) == 138
    assert tokenizer.count("<|begin_of_text|>" + "ক" * 100 + "<|eot_id|>") == 140
    assert tokenizer.encode(BENGALI) is None


def test_a_tiny_model_gets_characters_that_match_its_special_tokens() -> None:
    tokenizer = load_tokenizer(RunConfig().with_fields(model="tiny-llama"), 1024)
    assert isinstance(tokenizer, CharacterTokenizer)
    assert (tokenizer.pad_id, tokenizer.stop_ids) == (0, (2,))
    assert tokenizer.encode("<|begin_of_text|>ক।a") == [1, *tokenizer.encode("ক"), *tokenizer.encode("।"), 5 + ord("a")]
    assert tokenizer.count(BENGALI) == len(BENGALI)


@given(st.text(st.characters(codec="utf-8")))
def test_characters_decode_to_the_text(text: str) -> None:
    tokenizer = CharacterTokenizer()
    ids = tokenizer.encode(text.replace("<|", ""))
    assert tokenizer.decode([1, *ids, 2]) == text.replace("<|", "")
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_a_folder_given_is_used_with_llamas_chat_format(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", LLAMA_SPECIALS)
    tokenizer = load_tokenizer(RunConfig().with_fields(tokenizer=str(folder)), VOCAB_SIZE)
    assert isinstance(tokenizer, TransformersTokenizer)
    assert tokenizer.name == str(folder)
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.stop_ids) == (263, 262, (260, 261, 257))
    example, truncated = build_example(tokenizer, "কেমন আছ?", BENGALI, 2048)
    assert not truncated
    assert example.input_ids is not None
    assert example.input_ids.count(256) == 1
    assert example.input_ids[0] == 256
    assert example.input_ids[-1] == 257
    assert tokenizer.decode(example.input_ids[example.num_prompt_tokens :]) == BENGALI


def test_a_model_folder_is_searched_and_one_without_a_tokenizer_passed_over(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "model", LLAMA_SPECIALS)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert load_tokenizer(RunConfig().with_fields(model=str(folder)), VOCAB_SIZE).name == str(folder)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    estimate = load_tokenizer(RunConfig().with_fields(model=str(tmp_path / "bare")), 50_000)
    assert isinstance(estimate, LengthEstimate)
    assert estimate.pad_id < 50_000


def test_another_familys_own_chat_template_is_used(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}reply:{% endif %}"
    )
    folder = write_tokenizer(tmp_path / "tokenizer", ["<s>", "</s>"], template)
    tokenizer = load_tokenizer(RunConfig().with_fields(tokenizer=str(folder)), VOCAB_SIZE)
    assert render(BENGALI, tokenizer.chat).endswith(f"<s>user: {BENGALI}\nreply:")
    assert tokenizer.chat.end == "</s>"
    bare = write_tokenizer(tmp_path / "bare", ["<s>", "</s>"])
    with pytest.raises(DataError, match=r"has no chat template.*--tokenizer"):
        load_tokenizer(RunConfig().with_fields(tokenizer=str(bare)), VOCAB_SIZE)


def test_a_bad_tokenizer_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    large = write_tokenizer(tmp_path / "large", LLAMA_SPECIALS)
    for folder, vocab_size, reason in (
        (tmp_path / "nowhere", VOCAB_SIZE, "no tokenizer in --tokenizer"),
        (tmp_path / "broken", VOCAB_SIZE, "cannot load the tokenizer"),
        (large, 200, "has 263 tokens, the model only 200"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            load_tokenizer(RunConfig().with_fields(tokenizer=str(folder)), vocab_size)
        assert "--tokenizer" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_hub_cache_is_searched(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--meta-llama--Llama-3.1-8B-Instruct"
    write_tokenizer(repo / "snapshots" / "abc", LLAMA_SPECIALS)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    tokenizer = load_tokenizer(RunConfig(), VOCAB_SIZE)
    assert tokenizer.name == "meta-llama/Llama-3.1-8B-Instruct (local cache)"


TIKTOKEN_LOAD = """
import base64
def load_tiktoken_bpe(path):
    return {base64.b64decode(t): int(i) for t, i in (line.split() for line in open(path, "rb").read().splitlines())}
"""


def test_metas_tokenizer_file_is_converted_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "llama_models" / "llama3").mkdir(parents=True)
    (site / "tiktoken").mkdir()
    (site / "tiktoken" / "__init__.py").touch()
    (site / "tiktoken" / "load.py").write_text(TIKTOKEN_LOAD)
    ranks = "".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256))
    (site / "llama_models" / "llama3" / "tokenizer.model").write_text(ranks)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("memory_harness.harness.data.tokenizer.find_spec", importlib.util.find_spec)
    first = load_tokenizer(RunConfig(), VOCAB_SIZE)
    for name in [name for name in sys.modules if name.startswith("tiktoken")]:
        monkeypatch.delitem(sys.modules, name)
    (site / "tiktoken" / "load.py").write_text("raise AssertionError('converted twice')")
    second = load_tokenizer(RunConfig(), VOCAB_SIZE)
    for tokenizer in (first, second):
        assert tokenizer.name == "Llama 3 (from llama-models)"
        # The file has 256 tokens here in place of 128000: special tokens keep their distance to them.
        assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.stop_ids) == (512, 260, (257, 264, 265))
        assert tokenizer.encode("<|begin_of_text|>a<|eot_id|>") == [256, ord("a"), 265]
        assert tokenizer.decode(tokenizer.encode(BENGALI) or []) == BENGALI
    assert len(list((tmp_path / "cache").glob("*/llama3-tokenizer-*/tokenizer.json"))) == 1


def test_code_that_comes_with_a_tokenizer_is_not_run_and_nobody_is_asked(tmp_path: Path, capfd) -> None:
    mark, folder = tmp_path / "ran", tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "mine.py").write_text(f"open({str(mark)!r}, 'w')\nclass Mine: pass\n")
    about = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="it comes with code of its own, which is never run; give another"):
        load_tokenizer(RunConfig().with_fields(tokenizer=str(folder)), VOCAB_SIZE)
    assert not mark.exists()
    assert "custom code" not in "".join(capfd.readouterr())
