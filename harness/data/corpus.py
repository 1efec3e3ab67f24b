"""The corpus: reading the CSV, counting every row that cannot be used, taking the first samples."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import regex

from memory_harness.configs.inputs import read_input
from memory_harness.harness.data import table
from memory_harness.harness.data.table import Table, TableError, parse_table
from memory_harness.harness.log.errors import DataError

COLUMNS = ("Topics", "Question-Title", "Questions", "Answers")

CORPUS_FILES = ("BengaliEmpatheticConversationsCorpus .csv", "BengaliEmpatheticConversationsCorpus.csv")
"""The corpus is published with a space before `.csv`; some copies have lost it."""

MAX_FIELD_CHARS = 20_000
"""Longest usable question or answer: about three times its longest (7000 tokens at 1.2 tokens per character)."""

DROPPED = {
    "malformed": "with too many fields or a quote out of place",
    "undecodable": "with replacement characters",
    "blank": "blank",
    "missing": "NaN",
    "oversized": f"longer than {MAX_FIELD_CHARS} characters",
    "duplicate": "equal to an earlier one",
}
"""Kinds of unusable row, in the order in which they are tested, and how a report calls them."""

_MISSING = frozenset({"nan", "null", "none", "n/a", "na", "<na>"})
_BENGALI_LETTER = regex.compile(r"[\p{Bengali}&&\p{L}]", regex.V1)


@dataclass(frozen=True)
class Row:
    """One row of the corpus, columns in file order."""

    topic: str
    title: str
    question: str
    answer: str
    turns: tuple[tuple[str, str], ...] = ()
    """who said what before the question, in people's own data: (role, text), roles as chat templates call them"""
    rejected: str = ""
    """an answer that the other one is preferred to, where there is one"""


@dataclass(frozen=True)
class ReadReport:
    """What became of every row: `num_rows` = `num_usable` + all of `dropped`."""

    num_rows: int
    num_usable: int
    dropped: dict[str, int]
    """rows by kind, every key of `DROPPED`; of people's own data those of `conversations.DROPPED`"""
    num_without_bengali: int
    """usable rows without a single Bengali letter: used all the same"""

    def line(self, titles: Mapping[str, str] = DROPPED) -> str:
        """Return the report as one line, kinds that did not occur left out."""
        usable = f"{self.num_usable} usable"
        if self.num_without_bengali:
            usable += f" ({self.num_without_bengali} without Bengali letters)"
        return f"{self.num_rows} rows read: " + ", ".join([usable, *count_phrases(self.dropped, titles)])


def count_phrases(counts: Mapping[str, int], titles: Mapping[str, str]) -> list[str]:
    """Return `3 blank` and the like for each kind that occurred, in the order of the titles."""
    return [f"{counts[kind]} {title}" for kind, title in titles.items() if counts.get(kind)]


@dataclass(frozen=True)
class Corpus:
    """Rows that can be used, and the count of those that cannot. `name` is `synthetic` or the file's name."""

    name: str
    rows: tuple[Row, ...]
    report: ReadReport


def read_corpus(path: Path | str) -> Corpus:
    """Read a corpus from a CSV file, or from a folder that holds it under either of its two names.

    Raises:
        DataError: missing, empty, not UTF-8, not CSV, wrong columns, or no usable row.
    """
    file = _find(Path(path))
    found = read_table(file, "--data", COLUMNS)
    missing = [name for name in COLUMNS if name not in found.columns]
    if missing:
        raise DataError(
            f"{file} lacks {_quoted(missing)}: found {_quoted(found.columns)}; --data needs {_quoted(COLUMNS)}, or the "
            "names of others with --columns question=A,answer=B"
        )
    places = [found.columns.index(name) for name in COLUMNS]
    rows = (_row(cells, places) for cells in found.rows)
    corpus = select_rows(rows, file.name, found.num_malformed)
    if not corpus.rows:
        raise DataError(f"{file} has no usable row: {corpus.report.line()}; give another file with --data")
    return corpus


def _row(cells: Sequence[str], places: Sequence[int]) -> Row:
    topic, title, question, answer = (cells[place] for place in places)
    return Row(topic, title, question, answer)


def select_rows(rows: Iterable[Row], name: str, num_malformed: int = 0) -> Corpus:
    """Keep the usable rows in order and count the others by kind; `num_malformed` rows were lost while parsing."""
    usable: dict[Row, None] = {}
    counts = Counter(malformed=num_malformed)
    for row in rows:
        kind = _unusable_kind(row)
        if kind is not None:
            counts[kind] += 1
        elif row in usable:
            counts["duplicate"] += 1
        else:
            usable[row] = None
    without_bengali = sum(not _BENGALI_LETTER.search(row.question + row.answer) for row in usable)
    dropped = {kind: counts[kind] for kind in DROPPED}
    report = ReadReport(len(usable) + counts.total(), len(usable), dropped, without_bengali)
    return Corpus(name, tuple(usable), report)


def take(corpus: Corpus, samples: int | None) -> tuple[Row, ...]:
    """Return the first `samples` rows, all of them when None. Raises DataError: more are asked for than there are."""
    if samples is not None and samples > len(corpus.rows):
        raise DataError(
            f"--samples {samples} is more than the {len(corpus.rows)} usable rows of {corpus.name}; "
            f"give at most --samples {len(corpus.rows)}"
        )
    return corpus.rows[:samples]


def _unusable_kind(row: Row) -> str | None:
    if "\ufffd" in row.topic + row.title + row.question + row.answer:
        return "undecodable"
    question, answer = row.question.strip(), row.answer.strip()
    if not question or not answer:
        return "blank"
    if question.lower() in _MISSING or answer.lower() in _MISSING:
        return "missing"
    if max(len(row.question), len(row.answer)) > MAX_FIELD_CHARS:
        return "oversized"
    return None


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _find(path: Path) -> Path:
    """Return the file meant: `path`, the same with or without a space before its suffix, or that folder's corpus."""
    stem = path.stem[:-1] if path.stem.endswith(" ") else path.stem + " "
    candidates = [path, path.with_name(stem + path.suffix)]
    if path.is_dir():
        candidates = [path / name for name in CORPUS_FILES]
    for file in candidates:
        if file.is_file():
            return file
    looked_for = " and ".join(repr(str(file)) for file in candidates)
    raise DataError(f"no corpus at --data {path}: looked for {looked_for}; without --data a synthetic corpus is used")


def read_table(file: Path, flag: str, columns: Sequence[str]) -> Table:
    """Return a CSV's cells as texts.

    Args:
        file: UTF-8, with or without a byte order mark.
        flag: the one that named it.
        columns: what it should have, for the message about an empty file.

    Raises:
        DataError: it cannot be read as such.
    """
    return table_of(decode(_content(file, flag), file, flag, columns), file, flag)


def table_of(text: str, file: Path, flag: str, separator: str = ",") -> Table:
    """Return the cells of a table in a text; see `read_table`."""
    try:
        return parse_table(text, separator)
    except TableError as error:
        raise DataError(f"{file} {error}; correct it, or give another file with {flag}") from None


def _content(file: Path, flag: str) -> bytes:
    try:
        return read_input(file)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; give another file with {flag}") from None


def decode(content: bytes, file: Path, flag: str, columns: Sequence[str] = ()) -> str:
    """Return a file's text: UTF-8 with or without a byte order mark, or UTF-16 with one. Raises DataError: neither."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the byte order mark.
        position = error.start + len(content) - len(error.object)
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise DataError(
            f"{file} is not {name}: byte {position} (0x{content[position]:02x}) cannot be decoded; "
            f"save it as UTF-8, or give another file with {flag}"
        ) from None
    if not text.strip():
        noun = "column" if len(columns) == 1 else "columns"
        needed = f" a CSV with the {noun} {', '.join(columns)}" if columns else " another"
        raise DataError(f"{file} is empty; give{needed} with {flag}")
    return text


def find_own(path: Path) -> Path | None:
    """Return the file that may be the Bengali corpus: a CSV, or that of a folder; None where it is something else.

    Raises:
        DataError: there is no such file.
    """
    if path.is_dir():
        return next((path / name for name in CORPUS_FILES if (path / name).is_file()), None)
    return _find(path) if path.suffix.lower() == ".csv" or not path.exists() else None


def header_of(file: Path) -> list[str]:
    """Return the names of a CSV's columns. Raises DataError: it cannot be read."""
    return table.header_of(decode(_content(file, "--data"), file, "--data", COLUMNS))
