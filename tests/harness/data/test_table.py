"""Tables: rows read and rows refused are the rows there, whatever dirt is among them, or the file is refused."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.harness.data.corpus import read_corpus
from memory_harness.harness.data.records import read_records
from memory_harness.harness.data.table import TableError, parse_table
from memory_harness.harness.log.errors import DataError

HEADER = "Topics,Question-Title,Questions,Answers\n"
GOOD = ["t,title,question,answer\n", 't,title,"a, b\nand ""c""",answer\n', "t,title\n", '"","","",""\n', ",,,\n"]
MALFORMED = ["t,title,question,answer,more\n", 't,"title"x,question,answer\n', 't,title,"q" ,answer\n']
NO_ROWS = ["\n", "   \n"]
RUINOUS = ['t,title,"never closed,answer\n', 't,title,"two\nlines"x,answer\n']


def of_line(line: str) -> list[str]:
    return parse_table(HEADER + line).rows and list(parse_table(HEADER + line).rows[0])


@given(st.lists(st.sampled_from(GOOD + MALFORMED + NO_ROWS), max_size=30), st.sampled_from(["\n", "\r\n", "\r"]))
def test_rows_read_and_rows_refused_are_the_rows_there(lines: list[str], line_end: str) -> None:
    text = (HEADER + "".join(lines)).replace("\n", line_end)
    if not any(line in GOOD for line in lines) and MALFORMED[0] in lines:
        with pytest.raises(TableError, match="more fields than its header"):
            parse_table(text)
        return
    table = parse_table(text)
    assert len(table.rows) == sum(line in GOOD for line in lines)
    assert table.num_malformed == sum(line in MALFORMED for line in lines)
    expected = [of_line(line) for line in lines if line in GOOD]
    assert [[cell.replace(line_end, "\n") for cell in row] for row in table.rows] == expected


@given(st.lists(st.sampled_from(GOOD + MALFORMED), max_size=10), st.sampled_from(RUINOUS), st.data())
def test_a_quote_that_hides_how_many_rows_there_are_refuses_the_file(
    lines: list[str], ruinous: str, data: st.DataObject
) -> None:
    lines.insert(data.draw(st.integers(0, len(lines))), ruinous)
    try:
        table = parse_table(HEADER + "".join(lines))
    except TableError:
        return
    # what came after it has closed the quote: it is one row then, as a spreadsheet has it
    assert len(table.rows) + table.num_malformed < len(lines)
    assert '"' in "".join(lines[lines.index(ruinous) + 1 :])


def test_a_long_row_does_not_hide_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    rows = [f"t,title {i},question {i},answer {i}\n" for i in range(1000)]
    rows[5:5] = ["t,t,q extra,a,b\n"]
    rows[400:400] = ['t,title,"never closed,answer\n']
    file = tmp_path / "corpus.csv"
    file.write_text(HEADER + "".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match="row of line 402 that is never closed; correct it, or give another file"):
        read_corpus(file)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_a_repeated_column_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith("parquet"):
        import pyarrow
        import pyarrow.parquet

        columns = [pyarrow.array(["q"]), pyarrow.array(["a"]), pyarrow.array(["b"])]
        pyarrow.parquet.write_table(pyarrow.table(columns, names=["question", "answer", "answer"]), file)
    else:
        separator = "\t" if name.endswith("tsv") else ","
        file.write_text(separator.join(["question", "answer", " answer"]) + "\nq\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"column.*more than once"):
        read_records(file)


JSON_ROWS = st.dictionaries(st.sampled_from(["question", "answer"]), st.text(max_size=5), max_size=2)
JSON_LINES = st.one_of(
    JSON_ROWS.map(lambda row: (json.dumps(row), True)),
    st.sampled_from([("{", False), ("[1]", False), ("null", False), ('{"a": 1, "a": 2}', False), ("x" * 9, False)]),
)


@settings(max_examples=25)  # each writes a file
@given(st.lists(JSON_LINES, max_size=20), st.lists(st.sampled_from(["", "  "]), max_size=3))
def test_lines_of_json_are_read_or_counted(lines: list[tuple[str, bool]], blank: list[str]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("\n".join([*(line for line, _ in lines), *blank]), encoding="utf-8")
        num_good = sum(is_good for _, is_good in lines)
        if not num_good:
            with pytest.raises(DataError):
                read_records(file)
            return
        records = read_records(file)
    assert (len(records.rows), records.num_unreadable) == (num_good, len(lines) - num_good)


@settings(max_examples=25)  # each writes a file
@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=20))
def test_every_row_of_parquet_is_there(texts: list[str | None]) -> None:
    import pyarrow
    import pyarrow.parquet

    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())}), file)
        records = read_records(file)
    assert [row["text"] for row in records.rows] == texts
