"""The table of promises names tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = re.findall(r"^\| .* \| (.+) \|$", (TESTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
NAMED = [name for row in TABLE for name in re.findall(r"`([^` ]+)`", row)]


@pytest.mark.parametrize("name", [name for name in NAMED if ".py" in name])
def test_a_file_and_a_test_of_it_exist(name):
    path, _, test = name.partition("::")
    text = (TESTS / path).read_text(encoding="utf-8")
    assert not test or f"\ndef {test.removesuffix('...')}" in text


@pytest.mark.parametrize("name", [name for name in NAMED if name.startswith("test_")])
def test_a_test_named_alone_is_in_a_file_of_its_row(name):
    (row,) = [row for row in TABLE if f"`{name}`" in row]
    files = re.findall(r"`([^`:]+\.py)", row)
    assert any(f"\ndef {name}" in (TESTS / file).read_text(encoding="utf-8") for file in files)
