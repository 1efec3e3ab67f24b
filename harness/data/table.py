"""Tables of separated values: every record is read, counted as malformed, or the whole file is refused.

A record ends where a spreadsheet ends it: at a line end that no quote encloses. One with more fields than the header,
or with something behind a closing quote, is malformed. Where such a quote encloses line ends, nobody can say how many
records went into it, so that the file is refused.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_END_IN_QUOTES = "unexpected end of data"
"""the message of Python's reader"""


class TableError(ValueError):
    """It is no table of which every record can be told from the next."""


@dataclass(frozen=True)
class Table:
    """A table's cells as texts; each row has as many as there are columns."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    num_malformed: int


def parse_table(text: str, separator: str = ",") -> Table:
    """Return the cells of a table; names of columns are stripped, fields that a row lacks are empty, as are no rows.

    Raises:
        TableError: without a header, with a column twice, or with a quote that encloses more than one record.
    """
    with _fields_of_any_length():
        records = _records(text, separator)
        columns = tuple(name.strip() for name in next(records, None) or ())
        _check_columns(columns)
        rows: list[tuple[str, ...]] = []
        num_malformed = num_too_long = 0
        for fields in records:
            if fields is None or len(fields) > len(columns):
                num_malformed += 1
                num_too_long += fields is not None
            else:
                rows.append((*fields, *[""] * (len(columns) - len(fields))))
    if num_too_long and not rows:
        raise TableError("has rows with more fields than its header")
    return Table(columns, rows, num_malformed)


def header_of(text: str) -> list[str]:
    """Return the names of a table's columns, stripped."""
    with _fields_of_any_length():
        return [name.strip() for name in next(csv.reader(io.StringIO(text, newline="")), [])]


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Within, Python's reader takes fields of any length: a row too long is counted further on, by its kind."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_columns(columns: tuple[str, ...]) -> None:
    if not any(columns):
        raise TableError("has no header")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise TableError(f"has the column {', '.join(map(repr, twice))} more than once")


class _Lines:
    """Lines of a text, with those that the record being read has taken so far."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        return line


def _records(text: str, separator: str) -> Iterator[list[str] | None]:
    """Yield the fields of each record that is not a blank line, None for one that is malformed."""
    lines = _Lines(text)
    begin = 1
    for fields in csv.reader(lines, delimiter=separator):
        taken, lines.taken = lines.taken, []
        if len(fields) > 1 or any(line.strip() for line in taken):
            yield fields if _is_well_formed(taken, separator, begin) else None
        begin += len(taken)


def _is_well_formed(lines: list[str], separator: str, begin: int) -> bool:
    """Return whether nothing stands behind a closing quote of a record.

    Raises:
        TableError: something does, in a record of several lines, or a quote is never closed.
    """
    if not any('"' in line for line in lines):
        return True
    try:
        return len(list(_strictly(lines, separator))) == 1
    except csv.Error as error:
        if str(error) == _END_IN_QUOTES:
            raise TableError(f"opens a quote in the row of line {begin} that is never closed") from None
        if len(lines) > 1:
            end = begin + len(lines) - 1
            raise TableError(f"opens a quote in the row of line {begin} that ends in line {end}, before text") from None
        return False


def _strictly(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=separator, strict=True)
