"""What a report says to do next: always something, called as it is here, with flags that the command line takes."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from memory_harness.configs import program
from memory_harness.configs.cli import parse_args
from memory_harness.harness.log.records import Outcome
from memory_harness.probes.detectors.reading import config_of
from memory_harness.reports.next_step import (
    after_comparison,
    after_replay,
    after_shardings,
    after_traceback,
    applied_fixes,
    flags_against,
    next_step,
)
from memory_harness.reports.sections import probe_sections
from memory_harness.reports.summary import ProbeResult, result_of_log
from tests.builders import as_published_oom
from tests.reports.html.test_page import RESULTS
from tests.reports.results import FITS, fixed_result, planned_result, unfixed_result


def arguments_of(command: str) -> list[str]:
    words = shlex.split(command)
    return words[len(program.program()) :]


@pytest.mark.parametrize("name", RESULTS)
def test_no_report_ends_without_a_next_command_that_is_taken(name, tmp_path, monkeypatch):
    sections = [section for section in probe_sections(RESULTS[name]) if section.name == "next"]
    assert len(sections) == 1
    result = replace(RESULTS[name], next_step=None)
    monkeypatch.chdir(tmp_path)
    arguments = arguments_of(next_step(result).command)
    if arguments != ["--help"]:
        parse_args(arguments)


def test_what_fits_is_trained_with_its_fixes():
    (fix,) = applied_fixes(fixed_result())
    assert fix.flags == "--eval-batch-size 1"
    step = next_step(fixed_result(), ["--preset", "mine.toml"])
    assert step.words == "Train with what fits, on a machine that has the GPU:"
    assert arguments_of(step.command)[:5] == ["--preset", "mine.toml", "--eval-batch-size", "1", "--train"]
    log_alone = parse_args(arguments_of(next_step(fixed_result()).command))
    assert log_alone.train
    assert log_alone.config.with_fields(output="runs") == FITS_CONFIG.with_fields(output="runs", samples=40)


FITS_CONFIG = parse_args(["--max-length", "2048", "--eval-batch-size", "1", "--device", "simulated"]).config


def test_what_does_not_fit_is_planned_then_explained():
    step = next_step(unfixed_result(), ["--samples", "40"])
    assert arguments_of(step.command) == ["--samples", "40", "--goal", "memory", "--limits"]
    planned = replace(unfixed_result(), plan=planned_result().plan)
    assert arguments_of(next_step(planned).command) == ["--explain", "eval-batch-logits"]
    untried = ProbeResult(as_published_oom(), unfixed_result().findings, "fail")
    assert arguments_of(next_step(untried, ["--samples", "40", "--no-fixes"]).command) == ["--samples", "40"]


def test_a_watched_script_is_shown_as_a_page():
    watched = result_of_log(replace(FITS, run=replace(FITS.run, script="train.py", config={})))
    arguments = ["--watch", "train.py", "--", "--epochs", "1"]
    step = next_step(watched, arguments)
    assert arguments_of(step.command) == ["--watch", "train.py", "--html", "report.html", "--", "--epochs", "1"]


def test_an_earlier_run_that_is_on_a_page_already_is_not_put_there_again():
    log = replace(FITS, run=replace(FITS.run, config={}, script="train.py"))
    assert "--html" in after_replay(Path("runs/x"), result_of_log(log)).command
    assert "--html" not in after_replay(Path("runs/x"), result_of_log(log), is_on_a_page=True).command


def test_a_training_run_is_known_by_its_log_too(tmp_path):
    result = result_of_log(replace(FITS, run=replace(FITS.run, let_in_by="the probe in runs/x")))
    for path in (tmp_path, tmp_path / "run.jsonl"):
        assert arguments_of(after_replay(path, result).command)[:2] == ["--generate", str(tmp_path)]


def test_what_comes_after_two_runs_a_traceback_and_a_choice_of_shardings():
    assert arguments_of(after_comparison(Path("runs/b")).command) == ["--replay", "runs/b"]
    assert arguments_of(after_traceback("eval-batch-logits", None).command) == ["--explain", "eval-batch-logits"]
    assert arguments_of(after_traceback(None, None).command) == ["--explain"]
    simulated = parse_args(arguments_of(after_traceback(None, as_published_oom()).command)).config
    assert simulated.fingerprint() == config_of(as_published_oom()).fingerprint()
    asked = parse_args(["--sharding", "all", "--num-gpus", "2"]).config
    assert parse_args(arguments_of(after_shardings(asked, "fsdp").command)).config.device.engine == "fsdp"
    assert parse_args(arguments_of(after_shardings(asked, None).command)).config.device.num_gpus == 1


def test_a_run_that_died_is_run_again():
    died = replace(FITS, end=replace(FITS.end, outcome=Outcome.ERROR))
    assert arguments_of(next_step(result_of_log(died), ["--samples", "5"]).command) == ["--samples", "5"]


def test_every_finding_says_the_flag_against_it():
    log = as_published_oom()
    (error, *_) = fixed_result().findings
    assert flags_against(error, log) == "--eval-batch-size 1"
    assert flags_against(error, replace(log, run=replace(log.run, config={}))) == ""


@pytest.mark.parametrize(
    ("started", "called"),
    [
        ("/elsewhere/run_probe.py", ["python", "/elsewhere/run_probe.py"]),
        ("run_probe.py", ["python", "run_probe.py"]),
        ("/env/bin/run-probe", ["run-probe"]),
        ("/env/lib/memory_harness.py", ["python", "-m", "memory_harness"]),
    ],
)
def test_the_program_is_called_as_it_was_started(monkeypatch, tmp_path, started, called):
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for name in ("python", "run-probe"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.program() == called
    monkeypatch.setenv("PATH", "/nowhere")  # an environment that is not activated
    monkeypatch.chdir(tmp_path.parent)
    assert program.program()[0].startswith(f"{tmp_path.name}/")
