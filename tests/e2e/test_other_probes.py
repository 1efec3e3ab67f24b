"""Small probes, and runs that die."""

from __future__ import annotations

import re

import pytest

from tests.e2e.commands import run_probe

TINY_AND_TOO_SMALL = ("--model", "tiny-llama", "--samples", "24", "--max-length", "64", "--budget", "4 MiB")


@pytest.mark.slow
def test_the_tiny_model_trains_evaluates_and_generates_on_a_cpu(tmp_path):
    ended = run_probe("--preset", "smoke_cpu", folder=tmp_path)
    assert (ended.code, ended.stderr) == (0, "")
    assert "FITS" in ended.stdout.splitlines()[0]
    assert re.search(r"GENERATE +\d", ended.stdout)


@pytest.mark.slow
def test_without_fixes_a_run_that_does_not_fit_is_exit_code_1(tmp_path):
    ended = run_probe(*TINY_AND_TOO_SMALL, "--no-fixes", "--json", "report.json", folder=tmp_path)
    assert (ended.code, ended.stderr) == (1, "")
    assert "DOES NOT FIT" in ended.stdout.splitlines()[0]
    assert "Fixes" not in ended.stdout
    assert (tmp_path / "report.json").exists()


@pytest.mark.slow
def test_a_run_that_dies_shows_its_traceback(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "bitsandbytes.py").write_text("raise RuntimeError('libcudart is broken')\n")
    ended = run_probe(*TINY_AND_TOO_SMALL, folder=tmp_path, environment={"PYTHONPATH": str(broken)})
    assert (ended.code, ended.stdout) == (3, "")
    *traceback, last = ended.stderr.splitlines()
    assert traceback[0].startswith("Traceback")
    assert traceback[-1] == "RuntimeError: libcudart is broken"
    assert "run_probe.py: the run 'as configured' died with exit code 1" in last
