"""The main promise: the published recipe at full size, without a GPU, explained and cured by one command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memory_harness.configs.units import GIB
from tests.e2e.commands import Ended, run_probe

ARGUMENTS = ("--max-length", "2048", "--samples", "4000")
LOGITS_BYTES = 8 * 2048 * 128256 * 4
MAX_RSS_BYTES = 2 * GIB


class Default(NamedTuple):
    ended: Ended
    report: dict[str, Any]
    folder: Path

    @property
    def logs(self) -> Path:
        (logs,) = (self.folder / "runs").iterdir()
        return logs


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Default:
    """One run of the default command, for all tests of this file."""
    folder = tmp_path_factory.mktemp("default")
    ended = run_probe(*ARGUMENTS, "--json", "report.json", "--svg", "report.svg", folder=folder)
    return Default(ended, json.loads((folder / "report.json").read_text(encoding="utf-8")), folder)


def test_it_passes_with_fixes_and_says_nothing_on_stderr(default):
    assert (default.ended.code, default.ended.stderr) == (0, "")
    assert default.report["verdict"] == "pass_with_fixes"


def test_the_json_keeps_its_contract(default):
    report = default.report
    assert set(report) >= {
        *("schema_version", "source", "verdict", "gpu", "as_configured", "with_fixes", "findings", "fixes"),
    }
    assert report["source"] == "simulated"
    assert report["gpu"]["name"] == "Tesla T4"
    assert type(report["gpu"]["budget_bytes"]) is int
    for run in (report["as_configured"], report["with_fixes"]):
        assert list(run) == ["outcome", "oom", "caught", "phases", "memory", "outside"]
        layers = run["memory"]["FORWARD"]["layers"][0]
        assert (layers["first"], layers["last"]) == ("layers.0", "layers.31")
        assert layers["each"]["activations"] > 32 * 2**20  # the input of each, which is kept to compute it again
        for peaks in run["phases"].values():
            assert {name: type(value) for name, value in peaks.items()} == {
                "peak_allocated_bytes": int,
                "peak_reserved_bytes": int,
            }
    names = ["cause", "severity", "title", "phase", "steps", "bytes", "where", "evidence", "explanation"]
    assert all(list(finding) == names for finding in report["findings"])
    names = ["name", "addresses", "verified", "before_peak_bytes", "after_peak_bytes", "slowdown", "proved_with"]
    assert all(list(fix) == names for fix in report["fixes"])


def test_it_finds_where_and_why_the_recipe_dies(default):
    oom = {"step": 1600, "total_steps": 3200, "phase": "EVAL", "requested_bytes": LOGITS_BYTES}
    assert default.report["as_configured"]["outcome"] == "oom"
    assert default.report["as_configured"]["oom"] == oom
    finding = default.report["findings"][0]
    assert (finding["cause"], finding["severity"]) == ("eval-batch-logits", "error")
    assert (finding["phase"], finding["steps"], finding["bytes"]) == ("EVAL", [1600, 1600], 8405385216)
    assert re.fullmatch(r"transformers/loss/loss_utils\.py:\d+", finding["where"])
    assert "8 × 2048 × 128256 × 4 B = 7.83 GiB" in finding["explanation"]


def test_the_fix_is_proved_by_a_run_to_the_end(default):
    (fix,) = default.report["fixes"]
    assert (fix["name"], fix["addresses"], fix["verified"]) == ("eval-batch", ["eval-batch-logits"], True)
    budget = default.report["gpu"]["budget_bytes"]
    assert fix["after_peak_bytes"] < budget < fix["before_peak_bytes"]
    assert fix["slowdown"] is None, "nothing was measured"
    fixed = default.report["with_fixes"]
    assert (fixed["outcome"], fixed["oom"]) == ("completed", None)
    assert {"EVAL", "CHECKPOINT", "GENERATE"} <= set(fixed["phases"])
    assert max(peaks["peak_reserved_bytes"] for peaks in fixed["phases"].values()) <= budget


def test_the_same_happens_at_other_numbers_of_samples(default):
    ends = [(count["samples"], count["step"], count["total_steps"]) for count in default.report["other_counts"]]
    assert ends == [(600, 240, 480), (2000, 800, 1600), (4000, 1600, 3200)]
    assert {count["outcome"] for count in default.report["other_counts"]} == {"oom"}
    assert default.ended.stdout.count(" 50%  out of memory") == 3


def test_the_report_begins_with_the_verdict_and_the_next_command(default):
    lines = default.ended.stdout.splitlines()
    assert "FITS WITH 1 FIX" in lines[0]
    assert any("simulated on: Tesla T4" in line for line in lines[:6])
    begin = " ".join(line.strip(" \\") for line in lines[:24])
    assert "--eval-batch-size 1 --train" in begin


def test_piped_output_is_plain_text_of_80_columns(default):
    assert all(len(line) <= 80 and line == line.rstrip() for line in default.ended.stdout.splitlines())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", default.ended.stdout)


def test_the_picture_shows_the_report(default):
    picture = (default.folder / "report.svg").read_text(encoding="utf-8")
    assert picture.startswith("<svg ")
    assert "eval-batch-logits" in picture


def test_it_needs_no_more_memory_than_promised(default):
    assert 0 < default.ended.peak_rss_bytes <= MAX_RSS_BYTES


def test_nothing_else_is_written(default):
    names = {path.name for path in default.folder.iterdir()}
    assert names == {"report.json", "report.svg", "runs", ".stdout", ".stderr"}
    logs = {"as_configured.jsonl", "1_eval-batch.jsonl"}
    assert {path.name for path in default.logs.iterdir()} == {*logs, "outcome.json"}


def test_the_folder_replayed_gives_the_same_report(default):
    ended = run_probe("--replay", str(default.logs), "--json", "replayed.json", folder=default.folder)
    assert (ended.code, ended.stderr) == (0, "")
    replayed = json.loads((default.folder / "replayed.json").read_text(encoding="utf-8"))
    # the command to go on names the settings that the log holds, in place of those that were given
    others = {"next": None, "written_at": None, "written_by": None}
    assert {**replayed, **others} == {**default.report, **others}


@pytest.mark.slow
def test_each_log_replayed_gives_its_own_verdict(default):
    failed = run_probe("--replay", str(default.logs / "as_configured.jsonl"), folder=default.folder)
    passed = run_probe("--replay", str(default.logs / "1_eval-batch.jsonl"), folder=default.folder)
    assert (failed.code, passed.code) == (1, 0)
    assert "eval-batch-logits" in failed.stdout
    assert "FITS" in passed.stdout.splitlines()[0]


def test_a_log_that_lost_its_last_line_gives_the_same_verdict(default):
    lines = (default.logs / "as_configured.jsonl").read_bytes().splitlines(keepends=True)
    cut = default.folder / "cut.jsonl"
    cut.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    ended = run_probe("--replay", cut.name, "--json", "cut.json", folder=default.folder)
    cut.unlink()
    report = json.loads((default.folder / "cut.json").read_text(encoding="utf-8"))
    assert (ended.code, report["verdict"]) == (1, "fail")
    # the line was the peak of the last phase
    assert {**report["as_configured"], "memory": {}} == {**default.report["as_configured"], "memory": {}}
    assert report["findings"][0]["cause"] == "eval-batch-logits"
    assert "1 line could not be read" in ended.stdout


@pytest.mark.slow
def test_a_log_cut_in_the_middle_is_not_decided(default):
    content = (default.logs / "as_configured.jsonl").read_bytes()
    cut = default.folder / "half.jsonl"
    cut.write_bytes(content[: len(content) // 2])
    ended = run_probe("--replay", cut.name, folder=default.folder)
    cut.unlink()
    assert ended.code == 3
    assert "Not decided: the log ends after step" in ended.stdout
