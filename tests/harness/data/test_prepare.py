"""From a corpus to examples: the split, the counts, the prompts, and no torch on the way."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.corpus import CORPUS_FILES, Row
from memory_harness.harness.data.prepare import prepare, split_by_question
from memory_harness.harness.data.synthetic import synthetic_rows
from memory_harness.harness.log.errors import DataError
from tests.harness.data.corpus_files import write_csv

TINY = RunConfig().with_fields(model="tiny-llama", max_length=256)


@given(st.lists(st.integers(0, 12), max_size=60), st.floats(0.05, 0.95), st.integers(0, 3))
def test_no_question_is_on_both_sides(questions: list[int], fraction: float, seed: int) -> None:
    rows = [Row("", "", f"প্রশ্ন {q}", f"উত্তর {i}") for i, q in enumerate(questions)]
    train, evaluation = split_by_question(rows, fraction, seed)
    assert sorted([*train, *evaluation], key=rows.index) == rows
    assert not {row.question for row in train} & {row.question for row in evaluation}
    if len(set(questions)) > 1:
        assert train
        assert evaluation
    assert (train, evaluation) == split_by_question(rows, fraction, seed)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.floats(0.05, 0.95))
def test_the_split_is_as_near_as_whole_questions_allow(sizes: list[int], fraction: float) -> None:
    rows = [Row("", "", f"প্রশ্ন {q}", f"উত্তর {i}") for q, size in enumerate(sizes) for i in range(size)]
    _, evaluation = split_by_question(rows, fraction, 0)
    reachable = {0}
    for size in sizes:
        reachable |= {s + size for s in reachable}
    nearest = min(abs(s - fraction * len(rows)) for s in reachable if 0 < s < len(rows))
    assert abs(len(evaluation) - fraction * len(rows)) == pytest.approx(nearest)


def test_the_split_is_drawn_by_the_seed_not_by_position() -> None:
    rows = [Row("", "", f"প্রশ্ন {i}", "উত্তর") for i in range(200)]
    positions = [sorted(rows.index(row) for row in split_by_question(rows, 0.2, seed)[1]) for seed in (0, 1)]
    assert positions[0] != positions[1]
    assert all(60 < sum(p) / len(p) < 140 for p in positions)


@pytest.mark.parametrize("samples", [2, 5, 24, 600])
def test_synthetic_samples_are_exactly_those_asked_for(samples: int) -> None:
    prepared = prepare(TINY.with_fields(samples=samples))
    assert prepared.corpus_name == "synthetic"
    assert prepared.clean_report.num_kept == len(prepared.train) + len(prepared.eval) == samples
    assert abs(len(prepared.eval) - 0.2 * samples) < 1
    assert prepared.num_truncated <= samples


def test_prepared_data_fits_the_model_and_says_what_happened() -> None:
    prepared = prepare(TINY.with_fields(samples=40, generate_prompts=3))
    examples = prepared.train + prepared.eval
    assert all(e.input_ids is not None and len(e.input_ids) == e.num_tokens <= 256 for e in examples)
    assert all(max(e.input_ids or ()) < prepared.tokenizer.vocab_size <= 1024 for e in examples)
    assert all(e.num_target_tokens > 0 for e in examples)
    assert len({p.question for p in prepared.prompts}) == 3
    assert all(p.references and p.num_tokens == len(p.input_ids or ()) for p in prepared.prompts)
    text = "\n".join(prepared.lines())
    assert "corpus: synthetic" in text
    assert "tokenizer: characters" in text
    assert "40 kept" in text
    assert f"{len(prepared.train)} to train" in text
    assert prepare(TINY.with_fields(samples=40, generate_prompts=3)) == prepared


def test_references_keep_what_their_authors_wrote() -> None:
    prepared = prepare(TINY.with_fields(samples=300, generate_prompts=1000))
    written = {row.answer for row, _ in synthetic_rows(300, TINY.data.seed)}
    references = [r for p in prepared.prompts for r in p.references if "[" not in r]
    assert references
    assert set(references) <= written
    assert prepared.num_prefixed > 0


def test_a_file_is_read_taken_from_its_head_and_named(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    write_csv([row for row, _ in synthetic_rows(100, 3)], file)
    prepared = prepare(TINY.with_fields(data=str(file), samples=50))
    assert prepared.corpus_name == "some.csv"
    assert prepared.clean_report.num_rows == 50
    assert prepared.read_report.num_usable == 103  # three are for cleaning to find
    with pytest.raises(DataError, match="--samples 104 is more than the 103 usable rows"):
        prepare(TINY.with_fields(data=str(file), samples=104))


def test_a_corpus_that_cleaning_empties_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "crisis.csv"
    write_csv([Row("", "", "আমি মরতে চাই।", "উত্তর")], file)
    with pytest.raises(DataError, match=r"nothing is left of crisis\.csv: .*1 set aside"):
        prepare(TINY.with_fields(data=str(file)))


def test_the_training_loss_counts_prompts_where_it_is_told_to() -> None:
    masked, counted = (prepare(TINY.with_fields(samples=12, train_on_prompts=told)) for told in (False, True))
    assert [example.input_ids for example in counted.train] == [example.input_ids for example in masked.train]
    assert all(example.num_target_tokens == example.num_tokens - 1 for example in counted.train)
    assert all(example.num_target_tokens < example.num_tokens - 1 for example in masked.train)
    assert counted.eval == masked.eval


def test_one_question_is_enough_where_nothing_is_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"question": "Why?", "answer": "Because."}\n')
    prepared = prepare(TINY.with_fields(data=str(file), do_eval=False))
    assert (len(prepared.train), len(prepared.eval)) == (1, 0)


def test_one_question_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"nothing to evaluate on: synthetic has one question at --samples 1;"):
        prepare(TINY.with_fields(samples=1))


def test_four_thousand_samples_take_seconds() -> None:
    start = time.process_time()  # of this process alone, whatever else the machine does
    prepared = prepare(RunConfig().with_fields(samples=4000, model="qwen2.5-7b"))
    assert (len(prepared.train), len(prepared.eval)) == (3200, 800)
    assert time.process_time() - start < 10  # 0.8 s on two idle cores


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from memory_harness.configs.schema import RunConfig;"
        "from memory_harness.harness.data.prepare import prepare;"
        "prepare(RunConfig().with_fields(samples=8, model='tiny-llama'));"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", CORPUS_FILES)
@pytest.mark.parametrize("given", ["folder", *CORPUS_FILES])
@pytest.mark.parametrize("samples", [6, None])
def test_what_became_of_a_dirty_file_adds_up_to_its_rows(
    tmp_path: Path, name: str, given: str, samples: int | None
) -> None:
    rows = [f"a,b,প্রশ্ন {i},উত্তর {i} কথা" for i in range(8)]
    rows += [rows[0], "a,b,,উত্তর", "a,b,প্রশ্ন,NaN", "a,b,ক\ufffd,খ", "a,b,ক,খ,গ", f"a,b,ক,{'খ' * 20_001}"]
    rows = ["a,b,আমি মরতে চাই,পাশে আছি", "a,b,জ্বর,দিনে 500 mg খান", *rows, "a,b,প্রশ্ন 1, উত্তর  1  কথা"]
    (tmp_path / name).write_text("\ufeffTopics,Question-Title,Questions,Answers\n" + "\n".join(rows), encoding="utf-8")
    path = tmp_path if given == "folder" else tmp_path / given
    prepared = prepare(TINY.with_fields(data=str(path), samples=samples))
    assert prepared.corpus_name == name
    fates = {fate: count for fate, count in prepared.fates.items() if count}
    assert sum(fates.values()) == prepared.read_report.num_rows == len(rows)
    assert fates["set aside for vetted replies"] == fates["giving a dose of medicine"] == 1
    assert fates["with too many fields or a quote out of place"] == fates["with replacement characters"] == 1
    assert fates["trained on"] + fates["evaluated on"] == (4 if samples else 8)
    assert fates.get("not taken") == (5 if samples else None)
    assert fates.get("equal to an earlier one once cleaned") == (None if samples else 1)


def test_bytes_of_held_out_answers_are_those_of_their_tokens() -> None:
    whole = prepare(TINY.with_fields(samples=12, max_length=2048))
    cut = prepare(TINY.with_fields(samples=12, max_length=64))
    ids = [e.input_ids[e.num_prompt_tokens :] for e in whole.eval if e.input_ids]
    assert whole.eval_answer_bytes == sum(len(whole.tokenizer.decode(i).encode()) for i in ids)
    assert 0 < (cut.eval_answer_bytes or 0) < whole.eval_answer_bytes


def test_one_question_is_asked_in_place_of_others() -> None:
    prepared = prepare(TINY.with_fields(samples=12, ask="How do I\u00a0sleep? Write to a@b.com"))
    (prompt,) = prepared.prompts
    assert "a@b.com" not in prompt.question
    assert prompt.question.startswith("How do I sleep?")


def test_rows_that_are_left_out_are_counted_by_why() -> None:
    prepared = prepare(TINY.with_fields(samples=12))
    left_out = sum(prepared.left_out.values())
    assert left_out + len(prepared.train) + len(prepared.eval) == prepared.read_report.num_rows
    assert set(prepared.left_out) <= set(prepared.fates) - {"trained on", "evaluated on"}
