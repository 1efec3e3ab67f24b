"""Real programs, run with `--watch` and without: what they print, how they end, their weights and random numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "tests" / "scripts" / "same"
HELPERS = {"digest", "words"}
NAMES = sorted({path.stem for path in SCRIPTS.glob("*.py")} - HELPERS)
CODES = {"failing": (1, 3), "functional": (0, 3), "process": (0, 3)}
"""exit codes alone and watched; a script that ends well has 0, and watched 0 or 1, as its memory fits or not; 3 where
no training step is to be seen"""


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


def watch(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    flags = ("--device", "simulated", "--output", str(folder / "runs"))
    return run(folder, str(ROOT / "run_probe.py"), *flags, "--watch", *command)


def timeless(text: str) -> str:
    """Return the text without what tells the time: the speed in progress bars, and the profiler's own lines."""
    return re.sub(r"\[\d\d:\d\d.*?\]|^USDT:.*$", "", text, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_program_does_the_same(name, tmp_path):
    script = str(SCRIPTS / f"{name}.py")
    plain, watched = run(tmp_path, script), watch(tmp_path, script)
    code, watched_code = CODES.get(name, (0, 0))
    assert plain.returncode == code, plain.stderr
    assert watched.stdout[: len(plain.stdout)] == plain.stdout
    assert timeless(watched.stderr) == timeless(plain.stderr)
    assert watched.returncode == watched_code, watched.stdout
