"""Corpora as files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from memory_harness.harness.data.corpus import COLUMNS, Row


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a CSV that `read_corpus` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((row.topic, row.title, row.question, row.answer) for row in rows)
