"""People's ratings of generated replies: a blind sheet to fill in, and what a filled one says; never imports torch.

`HumanEvaluation.csv` has a row for each reply, in random order, without a word about who gave it; that is in
`HumanEvaluationKey.json`, for the one who scores, not for those who rate.
"""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.inputs import read_json, read_text
from memory_harness.configs.printable import cell_of
from memory_harness.harness.results.experiments import read_responses, write_new
from memory_harness.harness.results.replies import BASE, TUNED, VETTED

SHEET, KEY = "HumanEvaluation.csv", "HumanEvaluationKey.json"

CRITERIA = ("empathy", "relevance", "fluency", "safety")
LOWEST, HIGHEST = 1, 5
KEY_FIELDS = ("experiment_id", "prompt_id", "sample_id", "answered_by")
COLUMNS = ("row", "question", "response", *CRITERIA, "comment")


@dataclass(frozen=True)
class Rating:
    """What all raters of one criterion gave to one model."""

    criterion: str
    answered_by: str
    num_ratings: int
    mean: float
    margin: float | None
    """half the width of the mean's 95 % interval; None where there is but one rating"""


@dataclass(frozen=True)
class SheetScores:
    """What a filled sheet says."""

    num_rows: int
    num_blank: int
    """cells without a rating"""
    ratings: tuple[Rating, ...]
    gains: dict[str, tuple[float, int]]
    """criterion -> mean of tuned less base over questions where both were rated, and the number of questions"""


def write_sheet(folder: Path, seed: int) -> Path:
    """Write sheet and key for the replies of the last run in the folder; return the sheet.

    Raises:
        ConfigError: no replies there, or a sheet is there already: it may hold somebody's ratings.
    """
    if not folder.is_dir():
        raise ConfigError(f"--human-sheet {folder}: no such folder; give the one with GeneratedResponses.json")
    last = _last_replies(folder)
    if not last:
        raise ConfigError(f"--human-sheet {folder}: no replies of a model in it; generate some first")
    Random(seed).shuffle(last)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    key = {}
    for row, response in enumerate(last, 1):
        texts = [cell_of(response["question"]), cell_of(response["response"])]
        writer.writerow([row, *texts, *[""] * (len(CRITERIA) + 1)])
        key[str(row)] = {name: response[name] for name in KEY_FIELDS}
    write_new({folder / KEY: json.dumps(key, indent=1) + "\n", folder / SHEET: "\ufeff" + text.getvalue()})
    return folder / SHEET


def _last_replies(folder: Path) -> list[dict[str, Any]]:
    """Return what models have answered in the last run."""
    responses = read_responses(folder)
    last = []
    for response in responses:
        if response["experiment_id"] == responses[-1]["experiment_id"] and response["answered_by"] != VETTED:
            last.append(response)
    return last


def score_sheet(sheet: Path) -> SheetScores:
    """Return what the ratings in a filled sheet amount to; its key is beside it.

    Raises:
        ConfigError: sheet or key cannot be read, or a cell is no rating; all problems at once.
    """
    rows, key = _read_sheet(sheet), _read_key(sheet)
    problems: list[str] = []
    ratings = list(_ratings(rows, key, problems))
    if problems:
        raise ConfigError([f"--score-sheet {sheet}: {problem}" for problem in problems])
    if not ratings:
        raise ConfigError(
            f"--score-sheet {sheet}: nothing is rated; fill the columns {', '.join(CRITERIA)} with 1 to 5"
        )
    return SheetScores(
        num_rows=len(rows),
        num_blank=len(rows) * len(CRITERIA) - len(ratings),
        ratings=tuple(_summaries(ratings)),
        gains=_gains(ratings),
    )


@dataclass(frozen=True)
class _Cell:
    criterion: str
    answered_by: str
    prompt_id: int
    value: int


def _read_sheet(sheet: Path) -> list[dict[str, str]]:
    try:
        text = read_text(sheet).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"--score-sheet {sheet}: cannot be read ({reason})") from None
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        columns, rows = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        raise ConfigError(f"--score-sheet {sheet}: is no CSV ({error})") from None
    if missing := [name for name in ("row", *CRITERIA) if name not in columns]:
        raise ConfigError(f"--score-sheet {sheet}: lacks the columns {', '.join(missing)}")
    return rows


def _delimiter(text: str) -> str:
    """Return what stands between the columns: spreadsheets in many countries save semicolons, or tabs."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _read_key(sheet: Path) -> dict[str, dict[str, Any]]:
    file = sheet.with_name(KEY)
    try:
        key = read_json(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise ConfigError(f"--score-sheet {sheet}: needs its key {file} beside it ({reason})") from None
    if not isinstance(key, dict) or not all(map(_is_key_entry, key.values())):
        raise ConfigError(f"--score-sheet {sheet}: {file} is not the key that was written with it")
    return key


def _is_key_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    return isinstance(entry.get("prompt_id"), int) and isinstance(entry.get("answered_by"), str)


def _ratings(rows: list[dict[str, str]], key: Mapping[str, Any], problems: list[str]) -> Iterator[_Cell]:
    seen: set[str] = set()
    for row in rows:
        name = (row["row"] or "").strip()
        if not any(row[column] for column in ("row", *CRITERIA)):  # spreadsheets save empty rows below the last
            continue
        if name not in key or name in seen:
            problems.append(f"row {name!r}: {'twice' if name in seen else 'not in the key'}")
            continue
        seen.add(name)
        for criterion in CRITERIA:
            cell = (row[criterion] or "").strip()
            if cell and (value := _rating(cell)) is None:
                problems.append(f"row {name}, {criterion} {cell!r}: allowed are {LOWEST} to {HIGHEST}, or nothing")
            elif cell and value is not None:
                yield _Cell(criterion, key[name]["answered_by"], key[name]["prompt_id"], value)


def _rating(cell: str) -> int | None:
    """Return the rating in a cell, Bengali digits and a spreadsheet's `4.0` included; None where it is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    if value.is_integer() and LOWEST <= value <= HIGHEST:
        return int(value)
    return None


def _summaries(cells: list[_Cell]) -> Iterator[Rating]:
    for criterion in CRITERIA:
        for answered_by in (TUNED, BASE):
            values = [c.value for c in cells if (c.criterion, c.answered_by) == (criterion, answered_by)]
            if values:
                yield Rating(criterion, answered_by, len(values), fmean(values), _margin(values))


def _margin(values: list[int]) -> float | None:
    if len(values) < 2:
        return None
    return 1.96 * stdev(values) / math.sqrt(len(values))


def _gains(cells: list[_Cell]) -> dict[str, tuple[float, int]]:
    """Return, by criterion, the mean difference over the questions with ratings of both models, and their number."""
    values: defaultdict[tuple[str, int, str], list[int]] = defaultdict(list)
    for cell in cells:
        values[cell.criterion, cell.prompt_id, cell.answered_by].append(cell.value)
    differences: defaultdict[str, list[float]] = defaultdict(list)
    for (criterion, prompt_id, answered_by), tuned in values.items():
        base = values.get((criterion, prompt_id, BASE))
        if answered_by == TUNED and base is not None:
            differences[criterion].append(fmean(tuned) - fmean(base))
    return {name: (fmean(differences[name]), len(differences[name])) for name in CRITERIA if name in differences}


def score_lines(scores: SheetScores) -> list[str]:
    """Return the scores as lines of text."""
    lines = [f"{scores.num_rows} replies, {scores.num_blank} cells left blank"]
    for rating in scores.ratings:
        margin = "" if rating.margin is None else f" ± {rating.margin:.2f}"
        lines.append(
            f"{rating.criterion:<10} {rating.answered_by:<6} {rating.mean:.2f}{margin}  ({rating.num_ratings} ratings)"
        )
    for criterion, (gain, number) in scores.gains.items():
        lines.append(f"{criterion:<10} tuned less base {gain:+.2f}  ({number} questions)")
    return lines
