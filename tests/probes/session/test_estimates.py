"""Answers that are kept: which change makes another key, and what becomes of a cache that cannot be used."""

from importlib import metadata

import pytest

from memory_harness.configs.schema import RunConfig
from memory_harness.probes.session import estimates
from memory_harness.probes.session.estimates import Estimate, estimate_key, keep_estimate, kept_estimate

CONFIG = RunConfig().with_fields(model="tiny-llama", samples=24, max_length=64)
ESTIMATE = Estimate("Fits.", 0, 10, 20, 30)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_where_it_is_simulated_and_written_makes_no_difference():
    other = CONFIG.with_fields(output="elsewhere", device="auto")
    assert estimate_key(other) == estimate_key(CONFIG)


@pytest.mark.parametrize("fields", [{"samples": 25}, {"max_length": 65}, {"gpu": "l4"}, {"lora_rank": 9}])
def test_a_setting_makes_another_key(fields):
    assert estimate_key(CONFIG.with_fields(**fields)) != estimate_key(CONFIG)


def test_what_a_file_holds_makes_another_key(tmp_path):
    data = tmp_path / "rows.txt"
    data.write_text("one\n")
    config = CONFIG.with_fields(data=str(data))
    before = estimate_key(config)
    data.write_text("two\n")
    assert estimate_key(config) != before


def test_a_file_in_a_folder_makes_another_key(tmp_path):
    config = CONFIG.with_fields(data=str(tmp_path))
    before = estimate_key(config)
    (tmp_path / "more.txt").write_text("more\n")
    assert estimate_key(config) != before


def test_a_package_makes_another_key(monkeypatch):
    before = estimate_key(CONFIG)
    monkeypatch.setattr(metadata, "distributions", list)
    assert estimate_key(CONFIG) != before


def test_the_programs_own_files_make_another_key(tmp_path, monkeypatch):
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(estimates, "PARTS_FOLDER", tmp_path)
    before = estimate_key(CONFIG)
    (tmp_path / "harness" / "a.py").write_text("a = 2\n")
    assert estimate_key(CONFIG) != before


def test_what_is_kept_comes_back(cache):
    assert kept_estimate("k") is None
    keep_estimate("k", ESTIMATE)
    assert kept_estimate("k") == ESTIMATE


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sentence": 1}', "\0"])
def test_what_is_damaged_counts_for_nothing(cache, content):
    keep_estimate("k", ESTIMATE)
    (cache / "memory-harness" / "estimates" / "k.json").write_text(content)
    assert kept_estimate("k") is None


def test_a_cache_that_cannot_be_written_is_none(cache):
    cache.write_text("a file\n")
    keep_estimate("k", ESTIMATE)
    assert kept_estimate("k") is None
