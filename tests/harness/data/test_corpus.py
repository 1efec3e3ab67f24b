"""Reading: every row of the file is accounted for, and every unusable file gets one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.harness.data.corpus import (
    CORPUS_FILES,
    DROPPED,
    MAX_FIELD_CHARS,
    Row,
    read_corpus,
    select_rows,
    take,
)
from memory_harness.harness.log.errors import DataError

HEADER = "Topics,Question-Title,Questions,Answers\n"
ROW = "পরিবার,মন খারাপ,আমার মন ভালো নেই।,পাশে আছি।\n"
PARSED = Row("পরিবার", "মন খারাপ", "আমার মন ভালো নেই।", "পাশে আছি।")


def write(folder: Path, content: str | bytes, name: str = "corpus.csv") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def error_line(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_corpus(path)
    assert "\n" not in str(caught.value)
    assert "--data" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", CORPUS_FILES)
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_either_spelling_is_found_in_a_folder_and_through_the_other(tmp_path: Path, name: str, bom: str) -> None:
    write(tmp_path, bom + HEADER + ROW, name)
    for path in (tmp_path, str(tmp_path), *(tmp_path / spelling for spelling in CORPUS_FILES)):
        corpus = read_corpus(path)
        assert corpus.rows == (PARSED,)
        assert corpus.name == name


def test_every_kind_of_dirt_is_counted(tmp_path: Path) -> None:
    rows = [
        ROW,
        ROW,
        "a,b,,উত্তর\n",
        "a,b,   ,উত্তর\n",
        ",,,\n",
        "a,b,প্রশ্ন,NaN\n",
        "a,b,nan,উত্তর\n",
        f"a,b,{'ক' * (MAX_FIELD_CHARS + 1)},উত্তর\n",
        "a,b,প্রশ্\ufffdন,উত্তর\n",
        "a,b,hello,world\n",
        ",,প্রশ্ন,উত্তর\n",
        'a,b,"দুই, বা\nতিন ""লাইন""",উত্তর\n',
    ]
    corpus = read_corpus(write(tmp_path, HEADER + "".join(rows)))
    report = corpus.report
    assert report.num_rows == len(rows)
    expected = {"duplicate": 1, "blank": 3, "missing": 2, "oversized": 1, "undecodable": 1, "malformed": 0}
    assert report.dropped == expected
    assert report.num_usable == len(corpus.rows) == 4
    assert report.num_without_bengali == 1
    assert corpus.rows[-1].question == 'দুই, বা\nতিন "লাইন"'
    assert corpus.rows[-2] == Row("", "", "প্রশ্ন", "উত্তর")
    assert report.line().startswith("12 rows read: 4 usable (1 without Bengali letters), ")


def test_rows_with_too_many_fields_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    corpus = read_corpus(write(tmp_path, HEADER + ROW + "a,b,c,d,e\n" + "a,b,প্রশ্ন,উত্তর\n"))
    assert (corpus.report.num_rows, corpus.report.num_usable, corpus.report.dropped["malformed"]) == (3, 2, 1)


def test_columns_may_be_padded_reordered_and_joined_by_others(tmp_path: Path) -> None:
    content = "id,Answers, Questions ,Topics,Question-Title\n1,পাশে আছি।,আমার মন ভালো নেই।,পরিবার,মন খারাপ\n"
    assert read_corpus(write(tmp_path, content)).rows == (PARSED,)


def test_a_missing_file_names_what_was_looked_for(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / CORPUS_FILES[0], tmp_path / CORPUS_FILES[1]):
        line = error_line(path)
        assert all(repr(str(tmp_path / name)) in line for name in CORPUS_FILES)


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: str) -> None:
    assert "is empty" in error_line(write(tmp_path, content))


def test_wrong_columns_names_those_found_and_those_needed(tmp_path: Path) -> None:
    line = error_line(write(tmp_path, "Topics,Question,Answers\na,b,c\n"))
    assert "lacks 'Question-Title', 'Questions'" in line
    assert "found 'Topics', 'Question', 'Answers'" in line
    assert "--columns question=A,answer=B" in line


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_undecodable_bytes_are_located(tmp_path: Path, bom: bytes) -> None:
    start = bom + HEADER.encode() + "ক,খ,".encode()
    line = error_line(write(tmp_path, start + b"\xff,x\n"))
    assert f"byte {len(start)} (0xff)" in line


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "0 rows read"),
        (",,,\n", "1 blank"),
        ('a,b,"never closed,d\n' * 3, "opens a quote in the row of line 2 that ends in line 3"),
        ("a,b,c,d,e\n", "more fields than its header"),
    ],
)
def test_a_file_without_usable_rows_says_why(tmp_path: Path, rows: str, reason: str) -> None:
    assert reason in error_line(write(tmp_path, HEADER + rows))


def test_taking_more_than_there_is_names_both_numbers_and_the_flag(tmp_path: Path) -> None:
    corpus = read_corpus(write(tmp_path, HEADER + ROW + "a,b,প্রশ্ন,উত্তর\n"))
    assert take(corpus, 1) == corpus.rows[:1]
    assert take(corpus, 2) == take(corpus, None) == corpus.rows
    with pytest.raises(DataError, match=r"--samples 3 is more than the 2 usable rows of corpus\.csv"):
        take(corpus, 3)


texts = st.sampled_from(["", " ", "NaN", "ক", "খ", "a", "\ufffd", "ক" * (MAX_FIELD_CHARS + 1)])


@given(st.lists(st.builds(Row, texts, texts, texts, texts), max_size=30), st.integers(0, 3))
def test_the_counts_always_add_up(rows: list[Row], num_malformed: int) -> None:
    corpus = select_rows(rows, "rows", num_malformed)
    report = corpus.report
    assert report.num_rows == len(rows) + num_malformed == report.num_usable + sum(report.dropped.values())
    assert report.num_usable == len(corpus.rows) == len(set(corpus.rows))
    assert set(report.dropped) == set(DROPPED)
