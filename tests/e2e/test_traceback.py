"""`--traceback` beside the simulation of the same run, as a user runs it."""

import json

import pytest

from tests.e2e.commands import run_probe
from tests.probes.traceback.test_traces import EVALUATION

TINY = ("--preset", "smoke_cpu", "--epochs", "1", "--generate-prompts", "0", "--tensors", "fake", "--max-length", "256")


@pytest.mark.slow
def test_the_run_that_is_named_is_simulated_beside_it(tmp_path):
    (tmp_path / "oom.txt").write_text(EVALUATION.format(outer="evaluate"))
    ran = run_probe("--traceback", "oom.txt", *TINY, "--json", "report.json", folder=tmp_path)
    assert ran.code == 1, ran.stderr
    assert "The same run simulated" in ran.stdout
    simulated = json.loads((tmp_path / "report.json").read_text("utf-8"))["simulated"]
    assert simulated["outcome"] == "completed"
    assert "EVAL" in simulated["phases"]
    assert simulated["budget_bytes"] == pytest.approx(
        (12 + 100 / 1024 + 3.1) * 2**30, rel=0.001
    )  # the traceback's card
    held = run_probe("--traceback", "oom.txt", *TINY, "--budget", "40 MiB", "--json", "report.json", folder=tmp_path)
    assert held.code == 1, held.stderr
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["simulated"]["outcome"] == "oom"
