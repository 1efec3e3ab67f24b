"""A comparison as people and programs see it, and the command that makes it."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import pytest

from memory_harness.harness.log.runlog import LogWriter
from memory_harness.reports.comparison import (
    Names,
    comparison_exit_code,
    comparison_json,
    comparison_sentence,
    print_comparison,
)
from memory_harness.reports.entry import main
from memory_harness.reports.summary import NextStep
from memory_harness.reports.terminal import make_console
from tests.probes.test_compare import LOG, VARIANTS, compare, measured
from tests.reports import schema

NAMES = Names("runs/a.jsonl", "runs/b.jsonl")
STEP = NextStep("See B in full:", "run-probe --replay b.jsonl")


def printed(first, second):
    file = io.StringIO()
    print_comparison(compare(first, second), NAMES, STEP, make_console(file))
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    for name in ("identical", "worse peak", "cut off"):
        log = VARIANTS[name]
        records = [log.run, *log.begins, *log.phases, *log.steps, *([log.end] if log.end else [])]
        with LogWriter(folder / f"{name}.jsonl") as writer:
            for record in records:
                writer.write(record)
    (folder / "probe").mkdir()
    shutil.copy(folder / "identical.jsonl", folder / "probe" / "as_configured.jsonl")
    (folder / "no log.jsonl").write_text("{}\n")
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_it_fits_80_columns_and_begins_with_the_verdict(name):
    text = printed(LOG, VARIANTS[name])
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].split()[1] in ("WORSE", "BETTER", "NO")
    assert all(name in text for name in NAMES)


def test_what_limits_a_comparison_is_said():
    text = " ".join(printed(LOG, measured(VARIANTS["cut off"])).split())
    assert "A is simulated and B measured: part of the difference may come from that." in text
    assert "compared up to step 9, which both reached." in text
    assert "Times are not compared" in text
    assert "Times are not compared" not in printed(measured(LOG), measured(LOG))
    assert "3 lines of B could not be read" in printed(LOG, replace(LOG, num_unreadable_lines=3))


def test_the_sentence_names_what_decided():
    assert comparison_sentence(compare(LOG, LOG)) == "Nothing changed beyond the noise."
    sentence = comparison_sentence(compare(VARIANTS["another batch"], VARIANTS["out of memory"]))
    assert sentence.startswith("A completes, B runs out of memory; peak allocated")
    assert comparison_sentence(compare(LOG, VARIANTS["growing"])).startswith("growth per step: 0 B → 10.00 MiB, and")


@pytest.mark.parametrize("name", VARIANTS)
def test_programs_read_the_same(name):
    comparison = compare(LOG, VARIANTS[name])
    text = comparison_json(comparison, NAMES, STEP)
    content = json.loads(text)
    schema.check(content, "comparison")
    assert content["verdict"] == comparison.verdict
    assert comparison_exit_code(comparison) == (1 if content["verdict"] == "worse" else 0)
    assert [(c["kind"], c["phase"], c["verdict"]) for c in content["changes"]] == [
        (c.kind, c.phase, c.verdict) for c in comparison.changes
    ]
    sizes = [c[side] for c in content["changes"] if c["kind"] != "time" for side in ("before", "after")]
    assert all(size is None or type(size) is int for size in sizes)


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ("identical.jsonl", "identical.jsonl", 0),
        ("identical.jsonl", "worse peak.jsonl", 1),
        ("worse peak.jsonl", "identical.jsonl", 0),
        ("probe", "worse peak.jsonl", 1),
        ("probe", "identical.jsonl", 0),
        ("cut off.jsonl", "identical.jsonl", 0),
    ],
)
def test_the_command_ends_as_its_verdict(folder, capsys, first, second, code):
    report = folder / "changes.json"
    assert main(["--compare", str(folder / first), str(folder / second), "--json", str(report)]) == code
    assert "What changed" in capsys.readouterr().out
    assert (json.loads(report.read_text())["verdict"] == "worse") is (code == 1)


def test_the_folder_of_a_training_run_stands_for_its_log(folder, tmp_path, capsys):
    shutil.copy(folder / "worse peak.jsonl", tmp_path / "run.jsonl")
    assert main(["--compare", str(folder / "identical.jsonl"), str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["identical.jsonl", "nowhere.jsonl"], ["--compare", "nowhere.jsonl", "No such file"]),
        (["no log.jsonl", "identical.jsonl"], ["--compare", "no log.jsonl", "no run record"]),
        (["identical.jsonl"], ["--compare: expected 2 arguments"]),
        (["identical.jsonl", "probe", "--html", "x.html"], ["--html", "--compare"]),
        (["identical.jsonl", "probe", "--samples", "4"], ["--samples", "--compare"]),
        (["identical.jsonl", "probe", "--json", "probe"], ["--json probe", "no report"]),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(folder, capsys, monkeypatch, arguments, parts):
    monkeypatch.chdir(folder)
    assert main(["--compare", *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert all(part in line for part in parts), line


def test_names_that_the_console_would_take_for_markup_are_shown():
    file = io.StringIO()
    log = replace(LOG, run=replace(LOG.run, gpu_name="[red]x[/red]"))
    print_comparison(compare(LOG, log), Names("[bold]a", "b"), STEP, make_console(file))
    assert "[bold]a" in file.getvalue()
    assert "[red]x[/red]" in file.getvalue()
