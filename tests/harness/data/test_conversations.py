"""People's own data: each format and kind of file becomes the same conversations, and every row is accounted for."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.conversations import FORMATS, columns_named, corpus_of
from memory_harness.harness.data.corpus import Row
from memory_harness.harness.data.prepare import Prepared, prepare
from memory_harness.harness.data.records import Records, read_records
from memory_harness.harness.log.errors import DataError

TINY = RunConfig().with_fields(model="tiny-llama", max_length=512)
CODE = "def f(x):\n    if x > 0:\n        return  x\n"
PAIRS = [("How do I sort a list?", CODE), ("আমি কী করব?", "একটু থামুন, 500 mg নয়।"), ("None", "null")]


def texts(prepared: Prepared) -> list[str]:
    examples = [*prepared.train, *prepared.eval]
    return sorted(prepared.tokenizer.decode(example.input_ids or ()) for example in examples)


def rows_of(data_format: str) -> list[dict[str, Any]]:
    made = {
        "messages": lambda q, a: {"messages": [turn("user", q), turn("assistant", a)]},
        "sharegpt": lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
        "preference": lambda q, a: {"prompt": q, "chosen": a, "rejected": "no"},
        "alpaca": lambda q, a: {"instruction": q, "input": "", "output": a},
        "prompt-completion": lambda q, a: {"prompt": q, "completion": a},
        "question-answer": lambda q, a: {"question": q, "answer": a},
        "text": lambda q, a: {"text": f"{q}\n{a}"},
    }[data_format]
    return [made(question, answer) for question, answer in PAIRS]


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def write_lines(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("data_format", FORMATS)
def test_each_format_is_known_by_its_columns_and_taken_as_it_is(data_format, tmp_path):
    file = write_lines(rows_of(data_format), tmp_path / "rows.jsonl")
    prepared = prepare(TINY.with_fields(data=str(file)))
    assert prepared.corpus_name.startswith(f"rows.jsonl ({data_format}")
    assert len(texts(prepared)) == len(PAIRS)
    for question, answer in PAIRS:
        (text,) = [text for text in texts(prepared) if question in text]
        assert answer in text  # with its indentation, and whatever cleaning would have taken out
        assert "empathetic" not in text
    assert prepared.is_plain
    assert prepared.num_prefixed == 0


def test_a_format_can_be_chosen_and_its_columns_named(tmp_path):
    rows = [{"text": f"whole {i}", "prompt": f"q{i}", "completion": f"a{i}", "frage": f"f{i}"} for i in range(4)]
    config = TINY.with_fields(data=str(write_lines(rows, tmp_path / "rows.jsonl")))
    assert any("q0" in text for text in texts(prepare(config)))
    assert any("whole 0" in text for text in texts(prepare(config.with_fields(data_format="text"))))
    named = prepare(config.with_fields(columns="question=frage,answer=text"))
    assert any("f0" in text and "whole 0" in text for text in texts(named))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".jsonl.gz", ".csv.gz", "-16.csv"])
def test_each_kind_of_file_holds_the_same(suffix, tmp_path):
    import pandas as pd

    table = pd.DataFrame(PAIRS, columns=["question", "answer"])
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        table.to_parquet(file)
    elif suffix == ".json":
        table.to_json(file, orient="records", force_ascii=False)
    elif "jsonl" in suffix:
        table.to_json(file, orient="records", lines=True, force_ascii=False)
    else:
        encoding = "utf-16" if "16" in suffix else "utf-8"
        table.to_csv(file, index=False, sep="\t" if suffix == ".tsv" else ",", encoding=encoding)
    corpus = corpus_of(read_records(file), "auto", {})
    assert [(row.question, row.answer) for row in corpus.rows] == PAIRS


def test_fewer_rows_than_a_presets_samples_are_all_taken(tmp_path):
    file = write_lines(rows_of("alpaca"), tmp_path / "rows.jsonl")
    assert len(texts(prepare(TINY.with_fields(data=str(file), samples=600)))) == len(PAIRS)
    assert len(texts(prepare(TINY.with_fields(data=str(file), samples=2)))) == 2


def test_a_folder_of_datasets_and_a_text_file_are_read(tmp_path):
    import datasets

    datasets.Dataset.from_list(rows_of("alpaca")).save_to_disk(str(tmp_path / "saved"))
    assert len(corpus_of(read_records(tmp_path / "saved"), "auto", {}).rows) == len(PAIRS)
    (tmp_path / "book.txt").write_text("One.\nStill one.\n\nTwo.\n\n\n\nThree.", encoding="utf-8")
    assert [row.answer for row in corpus_of(read_records(tmp_path / "book.txt"), "auto", {}).rows] == [
        "One.\nStill one.",
        "Two.",
        "Three.",
    ]


def test_a_dataset_of_the_hub_is_read_from_the_local_cache(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows_of("messages"))
    (tmp_path / "data" / "train-00000-of-00001.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "data" / "test-00000-of-00001.jsonl").write_text('{"messages": []}\n', encoding="utf-8")
    (tmp_path / "LICENSE.txt").write_text("MIT", encoding="utf-8")
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["repo_type"], options["local_files_only"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    prepared = prepare(TINY.with_fields(data="user/chats"))
    assert asked == [("user/chats", "dataset", True)]
    assert prepared.corpus_name == "user/chats (messages)"
    assert len(prepared.train) + len(prepared.eval) == len(PAIRS)


def test_a_dataset_that_is_not_in_the_cache_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="no dataset of the Hugging Face Hub in the local cache; add --download"):
        prepare(TINY.with_fields(data="user/nosuch"))


def test_what_was_said_before_is_in_the_prompt_and_the_last_reply_is_learnt(tmp_path):
    before = [turn("system", "Be brief."), turn("user", "A"), turn("assistant", "B")]
    rows = []
    for i in range(4):
        asked = [turn("user", f"C{i}"), turn("assistant", f"D{i}"), turn("user", "thanks")]
        rows.append({"messages": [*before, *asked]})
    prepared = prepare(TINY.with_fields(data=str(write_lines(rows, tmp_path / "rows.jsonl"))))
    example = prepared.train[0]
    prompt = prepared.tokenizer.decode(example.input_ids[: example.num_prompt_tokens])
    reply = prepared.tokenizer.decode(example.input_ids[example.num_prompt_tokens :])
    assert [prompt.find(text) >= 0 for text in ("Be brief.", "A", "B", "C")] == [True] * 4
    assert reply.startswith("D")
    assert "thanks" not in prompt + reply


ODD = [
    ({"messages": [turn("developer", "S"), turn("User ", "A"), turn("assistant", "B")]}, "A", "B", (("system", "S"),)),
    ({"messages": [turn("user", [{"type": "text", "text": 5}]), turn("assistant", [{"text": 7}])]}, "5", "7", ()),
    ({"messages": [turn("user", "A\ud83d"), turn("assistant", "B")]}, "A?", "B", ()),
    ({"conversations": [turn("user", "A"), turn("assistant", "B")], "system": "S"}, "A", "B", (("system", "S"),)),
    (
        {"messages": [turn("user", "A"), turn("assistant", None) | {"tool_calls": [{"name": "f"}]}]},
        "A",
        '{"name": "f"}',
        (),
    ),
    ({"prompt": {"at": datetime.date(2026, 1, 2)}, "completion": 3}, '{"at": "2026-01-02"}', "3", ()),
]


@pytest.mark.parametrize(("record", "question", "answer", "turns"), ODD)
def test_odd_rows_lose_nothing(record, question, answer, turns):
    (row,) = corpus_of(Records("rows", [record], 0), "auto", {}).rows
    assert (row.question, row.answer, row.turns) == (question, answer, turns)


def test_one_conversation_is_a_row_and_only_files_of_training_are_taken(tmp_path):
    single = tmp_path / "single.json"
    single.write_text(json.dumps(rows_of("messages")[0]), encoding="utf-8")
    assert len(read_records(single).rows) == 1
    (tmp_path / "constraints.txt").write_text("no corpus", encoding="utf-8")
    write_lines(rows_of("alpaca"), tmp_path / "data-train.jsonl")
    assert len(read_records(tmp_path).rows) == len(PAIRS)


VALUES = st.none() | st.text(max_size=5) | st.integers() | st.lists(st.text(max_size=3), max_size=2)
TURNS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": VALUES}))


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["messages", "prompt", "completion", "text"]), VALUES | TURNS), max_size=8
    ),
    st.sampled_from(FORMATS),
    st.integers(0, 3),
)
def test_every_row_is_read_or_counted(rows, data_format, num_unreadable):
    records = Records("rows", [*rows, *rows_of(data_format)], num_unreadable)
    report = corpus_of(records, data_format, {}).report
    assert report.num_rows == len(records.rows) + num_unreadable
    assert report.num_usable + sum(report.dropped.values()) == report.num_rows
    assert report.num_usable >= len(PAIRS)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.json", b'{"a": "' + b"x" * 3_000_000, "is not JSON"),
        ("a.jsonl.gz", b"no gzip", "not gzip"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 500, mtime=0)[:-9], "damaged or cut off"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "ends in .gz"),
        ("a.parquet.gz", b"x", "of unknown format"),
        ("a.parquet", b"no parquet", "is not parquet"),
        ("a.jsonl", b"1\n2\n", "holds no row"),
        ("a.docx", b"x", "of unknown format"),
        ("a.jsonl", b'{"frage": 1}', "--columns question=A,answer=B"),
        ("a.jsonl", b'{"prompt": "a", "completion": ""}', "1 without a reply"),
        ("a.csv", "frage,antwort\n1,2\n".encode("utf-16")[:-1], "is not UTF-16"),
    ],
)
def test_what_cannot_be_read_is_one_short_line(name, content, line, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=line) as refused:
        prepare(TINY.with_fields(data=str(file)))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value).replace(str(tmp_path), "")) <= 200


@pytest.mark.parametrize("columns", ["frage", "question=", "q=a,answer=b", "question=a", "question=none,answer=prompt"])
def test_columns_that_are_not_there_are_one_line(columns, tmp_path):
    file = write_lines(rows_of("prompt-completion"), tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="--columns"):
        prepare(TINY.with_fields(data=str(file), columns=columns))


def test_the_bengali_corpus_goes_its_own_way_unless_asked_not_to(tmp_path):
    file = tmp_path / "corpus.csv"
    lines = ["Topics,Question-Title,Questions,Answers", *(f"পরিবার,,প্রশ্ন {i},উত্তর {i}" for i in range(6))]
    file.write_text("\n".join(lines), encoding="utf-8")
    prepared = prepare(TINY.with_fields(data=str(file)))
    assert not prepared.is_plain
    assert all("empathetic" in text for text in texts(prepared))
    plain = prepare(TINY.with_fields(data=str(file), data_style="plain"))
    assert plain.is_plain
    assert not any("empathetic" in text for text in texts(plain))


def test_named_columns_are_read_from_their_text():
    assert columns_named("question=Q, answer=A,system=S") == {"question": "Q", "answer": "A", "system": "S"}
    assert columns_named(None) == {}
    assert Row("", "", "q", "a").turns == ()


def said(role, content):
    return {"role": role, "content": content}


def test_a_chosen_reply_of_several_turns_keeps_the_prompt_before_it():
    reply = [said("assistant", "which?"), said("user", "this"), said("assistant", "so")]
    rows = [
        {"prompt": "asked", "chosen": reply, "rejected": "no"},
        {"prompt": "asked", "chosen": [said("user", "asked"), *reply], "rejected": "no"},
    ]
    found = corpus_of(Records("rows", rows, 0), "auto", {}).rows
    assert found[0].turns == found[1].turns == (("user", "asked"), ("assistant", "which?"))


@pytest.mark.parametrize("column", [pa.array([2**45], pa.timestamp("s")), pa.array([2**30], pa.date32())])
def test_a_date_that_python_cannot_say_is_one_line(column, tmp_path):
    pq.write_table(pa.table({"question": ["q"], "answer": ["a"], "date": column}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="holds what cannot be read"):
        read_records(tmp_path / "rows.parquet")
