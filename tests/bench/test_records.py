"""Committed results: a record a line, and the same values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.records import write_records

CONTENT = {
    "gpu": "π",
    "none": [],
    "runs": [{"name": "a", "rows": [{"x": 1}, {"x": [2, 3]}]}, {"name": "b", "rows": []}],
}
TEXT = """{
 "gpu": "π",
 "none": [],
 "runs": [
  {"name": "a", "rows": [{"x": 1}, {"x": [2, 3]}]},
  {"name": "b", "rows": []}
 ]
}
"""


def test_a_record_is_a_line(tmp_path):
    write_records(tmp_path / "results.json", CONTENT, 2)
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("num_levels", range(6))
def test_the_values_stay_whatever_the_form(tmp_path, num_levels):
    write_records(tmp_path / "results.json", CONTENT, num_levels)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == CONTENT


def test_committed_results_have_this_form():
    """A value a line is what a file of thousands of lines comes from."""
    for path in (Path(__file__).parent / "results").rglob("*.json"):
        lines = path.read_text(encoding="utf-8").splitlines()
        numbers = [line for line in lines if line.strip(" ,").lstrip("-").replace(".", "").isdigit()]
        assert not numbers, f"{path.name}: rewrite it with python -m tests.bench.records"


def test_the_readme_names_every_script_and_every_result():
    folder = Path(__file__).parent
    text = (folder / "README.md").read_text(encoding="utf-8")
    scripts = {path.stem for path in folder.glob("[!t]*.py") if "__main__" in path.read_text(encoding="utf-8")}
    assert not {name for name in scripts if f"`{name}" not in text}
    assert not {path.name for path in (folder / "results").iterdir() if f"`{path.name}" not in text}
