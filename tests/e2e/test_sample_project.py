"""A project with a loop and a conftest of its own uses marker, fixture, recorder and callback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_sample_project(tmp_path):
    project = shutil.copytree(ROOT / "tests" / "sample_project", tmp_path / "project")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "memory_harness.probes.pytest_plugin", "--memory-report"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = result.stdout
    assert "2 failed, 11 passed" in lines, lines
    assert "limited to 64.00 MiB but STEP allocated" in lines
    assert "limited to a leak of 16.00 KiB but" in lines
    assert "kept by global `history` of check_memory: list of" in " ".join(lines.split())
    assert "check_memory.py::test_a_step_fits (simulated)" in lines
