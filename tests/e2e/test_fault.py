"""A mistake planted from the command line is found, and the report says that it was planted."""

from __future__ import annotations

import json

import pytest

from memory_harness.harness.log.runlog import read_run_log
from memory_harness.probes.fault_names import fault_names
from memory_harness.probes.faults import FAULTS
from tests.e2e.commands import run_probe

FAKE = ("--preset", "smoke_cpu", "--tensors", "fake", "--dtype", "float16")


@pytest.mark.slow
def test_a_planted_mistake_is_found_at_its_line(tmp_path):
    ended = run_probe("--preset", "smoke_cpu", "--fault", "kept-losses", "--json", "report.json", folder=tmp_path)
    assert (ended.code, ended.stderr) == (1, "")
    assert "The mistake kept-losses was planted in this run on purpose." in ended.stdout
    assert "at probes/faults/kept_losses.py:" in ended.stdout
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["fault"] == "kept-losses"
    assert "retained-graph" in {finding["cause"] for finding in report["findings"]}
    replayed = run_probe("--replay", str(next(tmp_path.glob("runs/*"))), folder=tmp_path)
    assert "The mistake kept-losses was planted" in replayed.stdout


@pytest.mark.slow
def test_a_mistake_in_a_run_that_resumes(tmp_path):
    ended = run_probe("--preset", "smoke_cpu", "--fault", "resume-on-gpu", "--max-steps", "2", folder=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "at probes/faults/resume_on_gpu.py:" in ended.stdout
    (log,) = tmp_path.glob("runs/*/*.jsonl")
    assert read_run_log(log).run.fault == "resume-on-gpu"


@pytest.mark.slow
def test_a_mistake_in_what_is_loaded_needs_values(tmp_path):
    refused = run_probe(*FAKE, "--fault", "resume-on-gpu", folder=tmp_path)
    assert refused.code == 2
    assert refused.stderr.splitlines() == [
        "run_probe.py: --fault resume-on-gpu: needs tensors with values; use --preset smoke_cpu"
    ]


@pytest.mark.slow
def test_tensors_without_values_take_a_mistake_step_by_step(tmp_path):
    ended = run_probe(
        *FAKE,
        *("--gradient-accumulation", "1", "--train-batch-size", "1", "--max-length", "64", "--max-steps", "12"),
        *("--generate-prompts", "0", "--fault", "retained-graph"),
        folder=tmp_path,
    )
    assert ended.code == 1, ended.stderr
    assert "GROWS" in ended.stdout
    assert "at probes/faults/retained_graph.py:" in ended.stdout


@pytest.mark.slow
def test_a_run_that_would_take_hours_is_refused_with_the_flags_that_shorten_it(tmp_path):
    ended = run_probe("--fault", "retained-graph", folder=tmp_path)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert "--fault retained-graph" in line
    assert "--max-steps" in line
    assert "--preset smoke_cpu" in line


def test_names_are_known_without_the_faults_themselves():
    assert fault_names() == sorted(FAULTS)
