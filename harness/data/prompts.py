"""Questions to be answered, from a CSV of the user's."""

from __future__ import annotations

from pathlib import Path

from memory_harness.harness.data.clean import normalise, replace_personal_data
from memory_harness.harness.data.corpus import ReadReport, Row, read_table, select_rows
from memory_harness.harness.log.errors import DataError

COLUMN = "question"


def read_prompts(path: str) -> tuple[list[str], ReadReport]:
    """Return the questions, normalised and without personal data as those in training, and what became of every row.

    Raises:
        DataError: missing, empty, not UTF-8, not CSV, without the column, or without a usable question.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"no file at --prompts {file}; give a CSV with a column {COLUMN}")
    table = read_table(file, "--prompts", (COLUMN,))
    names = [name for name in table.columns if name.casefold() in (COLUMN, "questions")]  # the corpus has the plural
    if len(names) != 1:
        found = ", ".join(map(repr, table.columns))
        raise DataError(f"{file} has {len(names) or 'no'} columns {COLUMN}: found {found}; --prompts needs one")
    rows = []
    place = table.columns.index(names[0])
    for cells in table.rows:
        question = as_in_training(cells[place])
        rows.append(Row("", "", question, question))
    # a row of the corpus is unusable for the same reasons
    usable = select_rows(rows, file.name, table.num_malformed)
    if not usable.rows:
        raise DataError(f"{file} has no usable question: {usable.report.line()}; give another file with --prompts")
    return [row.question for row in usable.rows], usable.report


def as_in_training(text: str) -> str:
    """Return a question normalised and without personal data."""
    question, _ = replace_personal_data(normalise(text))
    return question
