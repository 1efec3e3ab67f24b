"""The synthetic corpus: as many usable rows as asked for, the lengths it promises, dirt where it says."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.tables import read_toml
from memory_harness.harness.data import synthetic
from memory_harness.harness.data.clean import clean, normalise, replace_personal_data
from memory_harness.harness.data.corpus import DROPPED, MAX_FIELD_CHARS, read_corpus
from memory_harness.harness.data.synthetic import (
    ANSWER_LENGTHS,
    LONG_SHARE,
    NUM_ROWS,
    QUESTION_LENGTHS,
    synthetic_corpus,
    synthetic_rows,
)
from memory_harness.harness.data.tokenizer import estimate_tokens
from tests.harness.data.corpus_files import write_csv


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_exactly_the_rows_asked_for_are_left_once_cleaned(num_usable: int, seed: int) -> None:
    cleaned, _ = clean(synthetic_corpus(num_usable, seed))
    assert len(cleaned.rows) == num_usable


def test_the_same_seed_gives_the_same_corpus() -> None:
    assert synthetic_rows(200, 1) == synthetic_rows(200, 1)
    assert synthetic_rows(200, 1) != synthetic_rows(200, 2)


def test_it_is_called_synthetic_and_survives_a_file(tmp_path: Path) -> None:
    rows, corpus = [row for row, _ in synthetic_rows(300, 5)], synthetic_corpus(300, 5)
    assert corpus.name == "synthetic"
    write_csv(rows, tmp_path / "corpus.csv")
    read = read_corpus(tmp_path / "corpus.csv")
    assert (read.rows, read.report) == (corpus.rows, corpus.report)


def test_dirt_is_where_it_is_said_to_be() -> None:
    rows, kinds = zip(*synthetic_rows(4000, 42), strict=True)
    corpus = synthetic_corpus(4000, 42)
    _, report = clean(corpus)
    counts = Counter(filter(None, kinds))
    columns = read_toml(Path(synthetic.__file__).with_name("synthetic.toml"))["dirt"]
    assert set(counts) == {*columns, "duplicate", "personal"}
    assert {kind: corpus.report.dropped[kind] for kind in DROPPED} == {kind: counts.get(kind, 0) for kind in DROPPED}
    assert len(report.crisis) == counts["crisis"]
    assert report.dropped["self_harm_method"] == counts["self_harm_method"]
    assert report.dropped["medication_dosage"] == counts["medication_dosage"]
    assert sum(report.placeholders.values()) == counts["personal"]

    def at(kind: str) -> list[str]:
        return [row.question + row.answer for row, of_kind in zip(rows, kinds, strict=True) if of_kind == kind]

    assert all("\ufffd" in text for text in at("undecodable"))
    assert all(len(text) > MAX_FIELD_CHARS for text in at("oversized"))
    assert all(replace_personal_data(text)[1].total() == 1 for text in at("personal"))
    assert all(row in rows[:i] for i, row in enumerate(rows) if kinds[i] == "duplicate")


def test_lengths_follow_the_mixture_long_rows_first() -> None:
    rows = synthetic_corpus(NUM_ROWS, 0).rows
    num_long = round(LONG_SHARE * NUM_ROWS)
    for kind, part in (("long", rows[:num_long]), ("short", rows[num_long:])):
        answers = [estimate_tokens(row.answer) for row in part]
        questions = [estimate_tokens(row.question) for row in part]
        for lengths, expected in ((answers, ANSWER_LENGTHS[kind]), (questions, QUESTION_LENGTHS[kind])):
            one_sigma_up = sorted(lengths)[int(0.841 * len(lengths))]
            assert median(lengths) == pytest.approx(expected.median, rel=0.06)
            assert one_sigma_up == pytest.approx(expected.median * math.exp(expected.sigma), rel=0.1)
            assert max(lengths) <= expected.longest + 35  # personal data comes on top


def test_questions_repeat_with_other_answers_and_texts_are_normal_bengali() -> None:
    rows = clean(synthetic_corpus(1000, 0))[0].rows
    assert len({row.question for row in rows}) < len(rows) == len(set(rows))
    assert len({row.topic for row in rows}) > 3
    for row in rows[::50]:
        assert row.question[-1] in "।?"
        assert row.title
        assert normalise(row.question) == row.question


def test_the_corpus_is_the_same_whatever_the_hash_seed() -> None:
    script = (
        "from memory_harness.harness.data.synthetic import synthetic_corpus; print(repr(synthetic_corpus(50, 42).rows))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
