"""Lines of code in a report: those that ran, of files that a log may name, or none."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from memory_harness.reports.html.excerpt import LINES_AROUND, excerpt

CODE = "import math\n\n\ndef outer():\n    x = 1\n\n    def inner():\n        return math.pi\n\n    return inner\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "user" / "project"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(CODE)
    (folder / "secret.txt").write_text("password\n" * 20)
    (tmp_path / "user" / "other.py").write_text("password = 1\n" * 20)
    monkeypatch.chdir(folder)
    return folder


def test_the_lines_around_the_one_that_is_meant(here):
    found = excerpt("train.py:8", ["inner"], {})
    assert found is not None
    assert (found.first, found.marked) == (8 - LINES_AROUND, 8)
    assert found.lines[found.marked - found.first] == "        return math.pi"


def test_a_path_shortened_to_its_last_parts_is_found(here):
    assert excerpt("user/project/train.py:5", ["outer"], {}) is not None


@pytest.mark.parametrize("line", [1, 10])
def test_at_the_ends_of_a_file_there_are_fewer_lines(here, line):
    found = excerpt(f"train.py:{line}", [], {})
    assert len(found.lines) == LINES_AROUND + 1


@pytest.mark.parametrize(
    "where",
    ["secret.txt:3", "../other.py:3", "user/../../other.py:3", "user/other.py:3", "/etc/passwd:1", "train.py", "",
     "train.py:0", "train.py:11", "train.py:-1", "train.py:²", ":3", "train.py:x"],
)  # fmt: skip
def test_nothing_else_is_opened(here, where):
    assert excerpt(where, [], {}) is None


def test_an_absolute_path_is_not_opened(here):
    assert excerpt(f"{here}/train.py:5", [], {}) is None


def test_a_line_of_another_function_is_not_shown(here):
    assert excerpt("train.py:5", ["inner"], {}) is None
    assert excerpt("train.py:8", ["outer"], {}) is not None
    assert excerpt("train.py:1", ["<module>"], {}) is not None


def test_a_library_is_shown_in_the_version_that_ran_only():
    version = metadata.version("rich")
    assert excerpt("rich/text.py:10", [], {"rich": version}) is not None
    assert excerpt("rich/text.py:10", [], {"rich": "0.1"}) is None


def test_a_file_of_the_project_is_found(here):
    assert excerpt("harness/train/loop.py:3", [], {}) is not None
    assert not Path("harness").exists()
