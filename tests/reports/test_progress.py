"""How far a probe is: bars where they can be redrawn, and a line now and then where they cannot."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from memory_harness.reports.progress import SECONDS_BETWEEN_LINES, lines, steps_in_words
from memory_harness.reports.screen import can_redraw, in_ci, in_notebook


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(monkeypatch, **environment: str) -> Console:
    for name in ("CI", "JPY_PARENT_PID", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "PAGER", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Console(file=Terminal())


def test_a_terminal_is_drawn_over_and_nothing_else_is(monkeypatch):
    assert can_redraw(console(monkeypatch))
    assert not can_redraw(console(monkeypatch, CI="true"))
    assert not can_redraw(console(monkeypatch, TERM="dumb"))
    assert not can_redraw(console(monkeypatch, JPY_PARENT_PID="7"))
    assert not can_redraw(console(monkeypatch, COLAB_RELEASE_TAG="x"))
    assert not can_redraw(console(monkeypatch, TERM="xterm-color", PAGER="cat", CLICOLOR="1"))
    assert not can_redraw(Console(file=io.StringIO(), force_terminal=True)), "colours asked for, but no terminal"


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_variable_that_says_no_is_no_service(value):
    assert not in_ci({"CI": value})
    assert not in_notebook({"PAGER": "less"})


def test_lines_come_when_some_time_has_passed_and_say_how_far_it_is():
    seconds = [0.0]
    file = io.StringIO()
    show = lines(Console(file=file), lambda: seconds[0])
    for step in range(1, 721):
        seconds[0] += 0.1
        show("as configured", step, 720)
    printed = file.getvalue().splitlines()
    assert len(printed) == 72 / SECONDS_BETWEEN_LINES // 1
    assert printed[0].endswith("/720 steps")


def test_a_short_probe_prints_no_line():
    file = io.StringIO()
    show = lines(Console(file=file), lambda: 1.0)
    show("as configured", 1, 2)
    assert file.getvalue() == ""


def test_a_total_that_is_not_known_is_not_shown():
    assert (steps_in_words(0, 0), steps_in_words(3, 10)) == ("starting", "3/10 steps")
