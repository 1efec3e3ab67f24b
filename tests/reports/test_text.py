"""Bars, columns and words."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.units import GIB
from memory_harness.reports.bars import EIGHTHS_ACROSS, EIGHTHS_UP, bar, column_chart, to_ascii
from memory_harness.reports.levels import Level
from memory_harness.reports.text import plural, split_formula, wrap_command

sizes = st.integers(0, 40 * GIB)
levels = st.builds(Level, sizes, sizes, sizes)


@given(level=levels, width=st.integers(1, 60), budget=st.integers(1, 40 * GIB))
def test_a_bar_is_as_wide_as_asked_and_grows_with_allocated(level, width, budget):
    drawn = bar(level, width, 40 * GIB, budget).plain
    assert len(drawn) == width
    full = drawn.count("█")
    assert abs(full - level.allocated_bytes / (40 * GIB / width)) <= 1


def test_a_bar_shows_allocated_reserved_request_and_budget():
    assert bar(Level(4 * GIB, 6 * GIB), 10, 10 * GIB, 8 * GIB).plain == "████░░  │ "
    assert bar(Level(4 * GIB, 6 * GIB, 5 * GIB), 10, 10 * GIB, 8 * GIB).plain == "████▒▒▒▒│ "
    assert bar(Level(5 * GIB, 6 * GIB, 3 * GIB, 1 * GIB), 10, 10 * GIB, 8 * GIB).plain == "█████▒▒ │ "


@given(columns=st.lists(levels, max_size=30), budget=st.integers(GIB, 40 * GIB))
def test_a_chart_has_one_budget_line_and_reaches_its_highest_column(columns, budget):
    rows = column_chart(columns, budget, 5)
    assert all(len(row) == len(columns) for row, _ in rows)
    assert [is_budget for _, is_budget in reversed(rows)].index(True) == 5
    assert sum(is_budget for _, is_budget in rows) == 1
    assert len(rows) * budget / 5 >= max((level.top_bytes for level in columns), default=0) - 1


@pytest.mark.parametrize("characters", [EIGHTHS_ACROSS, EIGHTHS_UP, "×→–—…·✓✗░▒╌│▲", "বাংলা"])
def test_ascii_keeps_the_width(characters):
    assert to_ascii(characters).isascii()
    assert len(to_ascii(characters)) == len(characters)


@given(st.lists(st.from_regex(r"--[a-z]{2,10} [a-z0-9]{1,12}", fullmatch=True), max_size=12), st.integers(40, 100))
def test_a_wrapped_command_is_still_the_command(flags, width):
    command = " ".join(["python run_probe.py", *flags])
    lines = wrap_command(command, width)
    assert all(len(line) <= width for line in lines)
    assert " ".join(line.removesuffix("\\").strip() for line in lines) == command


def test_a_value_without_room_beside_its_flag_goes_to_a_line_of_its_own():
    """Folded by the terminal, the backslash behind it would stand alone, and what follows be another command."""
    path = f"/data/{'x' * 30}/'my run'"
    command = f"python run_probe.py --replay {path} --html report.html"
    lines = wrap_command(command, 54)
    assert lines == ["python run_probe.py --replay \\", f"    {path} \\", "    --html report.html"]
    assert " ".join(line.removesuffix("\\").strip() for line in lines) == command


@pytest.mark.parametrize("width", [40, 60, 78, 400])
def test_rules_longer_than_a_line_are_still_one_value_to_a_shell_and_to_their_reader(width):
    rules = ",".join(f"{tokens}:{tokens // 512}+{tokens // 64 % 8}" for tokens in range(1024, 3000, 128))
    lines = wrap_command(f"--preset t4 --recompute {rules} --train", width)
    assert all(len(line) <= width for line in lines)
    printed = subprocess.run(
        ["sh", "-c", "printf '%s\\n' " + "\n".join(lines)], capture_output=True, text=True, check=True
    )
    arguments = printed.stdout.splitlines()
    assert [*arguments[:3], arguments[4]] == ["--preset", "t4", "--recompute", "--train"]
    assert len(arguments) == 5
    config = RunConfig()
    as_printed, as_given = (config.with_fields(recompute=text).model.recompute_rules for text in (arguments[3], rules))
    assert as_printed == as_given


def test_a_formula_is_taken_out_of_an_explanation():
    text = "The loss needs 8 × 2 × 4 B = 64 B (sequences × tokens × bytes). More."
    assert split_formula(text) == ("The loss needs", "8 × 2 × 4 B = 64 B", "sequences × tokens × bytes", "More.")
    assert split_formula("Nothing to compute.") == ("Nothing to compute.", "", "", "")


def test_plurals():
    assert [plural(1, "fix", "fixes"), plural(2, "fix", "fixes"), plural(0, "line")] == ["1 fix", "2 fixes", "0 lines"]
