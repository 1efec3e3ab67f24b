"""What is printed: readers may leave, and nothing that a log says is obeyed by what shows it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from memory_harness.configs.program import say
from memory_harness.harness.log.marks import is_marked
from memory_harness.harness.log.runlog import LogWriter
from memory_harness.reports.json import json_text
from memory_harness.reports.live import follow
from memory_harness.reports.output import Forgiving, forgiving_output
from memory_harness.reports.screen import cleaned
from memory_harness.reports.terminal import make_console, print_report, svg_text
from tests.builders import as_published_oom
from tests.e2e.commands import ROOT
from tests.reports.html.test_page import hostile

OBEYED = {chr(code) for code in (*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F))}


def test_nothing_that_a_log_says_is_obeyed_by_a_terminal():
    file = io.StringIO()
    print_report(hostile(), make_console(file))
    assert not OBEYED & set(file.getvalue())
    assert "<script>" in file.getvalue()
    file.getvalue().encode()


def test_nor_is_it_in_colour():
    file = io.StringIO()
    console = cleaned(Console(file=file, force_terminal=True, color_system="standard", width=80, highlight=False))
    console.print(Text("a\x1b[2Jb", "red"))
    assert file.getvalue() == "\x1b[31ma\ufffd[2Jb\x1b[0m\n"


def test_nor_is_it_while_a_run_trains(tmp_path):
    found = hostile().as_configured
    with LogWriter(tmp_path / "run.jsonl") as writer:
        for record in (found.run, *found.begins, *found.phases, *found.steps, *found.ooms, found.end):
            writer.write(record)
    file = io.StringIO()
    console = cleaned(Console(file=file, force_terminal=True, width=100, highlight=False, color_system=None))
    with follow(tmp_path / "run.jsonl", console) as update:
        update()
    shown = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", file.getvalue()).replace("\r", "")  # what moves the cursor
    assert shown.strip()
    assert not OBEYED & set(shown)


def test_nothing_that_a_log_says_is_obeyed_in_a_picture_or_by_a_program():
    picture = svg_text(hostile())
    assert not OBEYED & set(picture)
    ET.fromstring(picture)
    text = json_text(hostile())
    assert not OBEYED & set(text)
    assert "\x1b[31m\ufffd" in json.loads(text)["findings"][0]["title"]


def test_a_line_for_people_is_obeyed_by_nobody(capsys):
    say("no file at --data \x1b]0;owned\x07")
    assert capsys.readouterr().err == "run_probe.py: no file at --data \ufffd]0;owned\ufffd\n"


def test_a_stream_whose_reader_has_left_takes_everything():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        forgiving = Forgiving(stream)
        for _ in range(3):
            forgiving.write("x" * 100_000)
            forgiving.flush()


def test_a_full_disk_is_no_reader_that_left():
    with open("/dev/full", "w") as stream, pytest.raises(OSError, match=r"No space.*: '/dev/full'"):  # noqa: PT012
        forgiving = Forgiving(stream)
        forgiving.write("x")
        forgiving.flush()


def test_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), forgiving_output():
        raise KeyError
    assert (sys.stdout, sys.stderr) == before


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = as_published_oom()
    with LogWriter(tmp_path / "run.jsonl") as writer:
        for record in (found.run, *found.begins, *found.phases, *found.steps, *found.ooms, found.end):
            writer.write(record)
    return tmp_path / "run.jsonl"


@pytest.mark.parametrize("closed", ["true", "exec <&- >&- 2>&-"], ids=["pipe", "all"])
def test_files_are_written_and_the_exit_code_is_the_verdict_whoever_reads(log, closed):
    report = log.with_name("report.json")
    command = f"'{sys.executable}' '{ROOT / 'run_probe.py'}' --replay '{log}' --json '{report}'"
    piped = f"set -o pipefail; {command} | true" if closed == "true" else f"{closed}; {command}"
    ended = subprocess.run(["bash", "-c", piped], stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert is_marked("json", report)
