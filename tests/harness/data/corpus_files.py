"""Corpora as files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from memory_harness.harness.data.corpus import COLUMNS, Row


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a CSV that `read_corpus` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)
