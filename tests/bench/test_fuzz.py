"""Every reader gives a result or refuses in one line, whatever it is given; `python -m tests.bench.fuzz` goes on."""

import contextlib
import io
import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_harness.configs.errors import ConfigError
from tests.bench import fuzz
from tests.bench.fuzz_readers import READERS, Reader

SLOW = {"command line", "log reports", "replays", "models", "tables"}
LONG_RUN = Path(__file__).parent / "results" / "fuzz.json"


@pytest.mark.parametrize("name", READERS)
def test_a_result_or_one_clear_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tally = fuzz.Tally(name)

    @settings(
        max_examples=3 if name in SLOW else 20,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(number=st.integers(0, 10**9))
    def try_one(number):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fuzz.try_input(READERS[name], number, tmp_path, tally)
        assert not tally.examples

    try_one()
    assert tally.inputs == tally.results + tally.refused > 0


def fails(given):
    raise ZeroDivisionError


def says_two_lines(given):
    error = ConfigError("one")
    error.lines = ("one\ntwo",)
    raise error


def waits(given):
    time.sleep(60)


@pytest.mark.parametrize(
    ("read", "where"), [(fails, "ZeroDivisionError"), (says_two_lines, "more than one line"), (waits, "hangs")]
)
def test_what_is_no_clear_line_is_found(read, where, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "LIMIT_WAITING_SECONDS", 0.05)
    tally = fuzz.Tally("a reader")
    fuzz.try_input(Reader(lambda rng, folder: None, read), 1, tmp_path, tally)
    (found,) = tally.failures
    assert where in found


@pytest.mark.parametrize("asked", [["--version"], ["--help"], ["--help", "all"]])
def test_what_the_program_says_of_itself_is_a_result(asked, tmp_path, capsys):
    """It ends the program, and must not end the run."""
    tally = fuzz.Tally("command line")
    fuzz.try_input(Reader(lambda rng, folder: asked, READERS["command line"].read), 1, tmp_path, tally)
    assert (tally.results, tally.failures.total()) == (1, 0)


def test_the_long_run_found_nothing():
    content = json.loads(LONG_RUN.read_text("utf-8"))
    assert content["failures"] == 0
    assert {row["reader"] for row in content["readers"]} == set(READERS)
    assert all(row["inputs"] == row["results"] + row["refused"] for row in content["readers"])
    assert content["inputs"] >= 1_000_000
