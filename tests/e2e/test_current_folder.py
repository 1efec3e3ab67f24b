"""Nothing of the folder that a command is started in is ever imported, however its processes start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest

from memory_harness.probes.plan.pool import start_processes
from memory_harness.probes.session import fork_server
from memory_harness.probes.session.fork_server import can_fork, process_context
from memory_harness.probes.session.process import start_worker
from tests.e2e.commands import ROOT, run_probe

NAMES = (
    "configs/__init__.py", "harness/__init__.py", "probes/__init__.py", "reports/__init__.py", "memory_harness.py",
    "random.py", "signal.py", "json.py", "pickle.py", "threading.py", "socket.py", "torch.py", "numpy.py",
    "transformers.py", "peft.py", "bitsandbytes.py", "pyarrow.py", "yaml.py", "regex.py", "rich.py", "pip.py",
    "resource.py", "multiprocessing.py", "concurrent.py", "mine.py",
)  # fmt: skip
"""names of parts of the harness, of the standard library and of libraries, some of which are imported late"""

MARK = "RAN"

FORKS = (pytest.mark.slow, pytest.mark.skipif(not can_fork(), reason="processes are not forked here"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with modules that leave a mark where they are imported."""
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(tmp_path / MARK)!r}, 'a').write(__name__ + ' ')\n")
    return tmp_path


def imported(folder: Path) -> str:
    mark = folder / MARK
    return mark.read_text() if mark.exists() else ""


def path_there() -> list[str]:
    with start_processes(1, process_context()) as pool:
        return pool.submit(partial(eval, "__import__('sys').path")).result()


@pytest.mark.parametrize("forks", [False, pytest.param(True, marks=FORKS)])
def test_processes_import_nothing_of_it_though_their_parent_would(folder, monkeypatch, forks):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(ROOT), ""]))
    monkeypatch.setattr(fork_server, "can_fork", lambda: forks)
    with patch.object(sys, "path", [str(folder), "", *sys.path]):
        path = path_there()
    assert not {"", ".", str(folder)} & set(path)
    assert imported(folder) == ""


def test_a_worker_imports_nothing_of_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", "")
    with start_worker() as worker:
        worker.process.stdin.close()
        assert worker.process.wait() == 0
    assert imported(folder) == ""


TINY = ("--preset", "smoke_cpu", "--epochs", "1", "--generate-prompts", "1", "--samples", "24", "--max-length", "64")
SCRIPT = "import torch\nx = torch.ones(3, requires_grad=True)\nx.sum().backward()\nprint(torch.__version__)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "codes"),
    [
        pytest.param(TINY, {0}, id="probe"),
        pytest.param((*TINY, "--tensors", "fake", "--budget", "1 MiB", "--goal", "memory", "--limits"), {1}, id="plan"),
        pytest.param((*TINY, "--train", "--force"), {0}, id="train"),
        pytest.param((*TINY, "--train", "--force", "--num-gpus", "2"), {0}, id="two GPUs"),
        pytest.param(("--watch", "scripts/train.py"), {0, 3}, id="watch"),
        pytest.param(("--dry-run", "scripts/train.py", "--no-fixes"), {0, 3}, id="dry run"),
        pytest.param((*TINY, "--data", "rows.csv"), {0}, id="data"),
    ],
)
def test_a_command_imports_nothing_of_it(folder, arguments, codes):
    (folder / "scripts").mkdir()
    (folder / "scripts" / "train.py").write_text(SCRIPT)
    rows = "".join(f"question {i} about?,answer {i} helps\n" for i in range(30))
    (folder / "rows.csv").write_text("question,answer\n" + rows)
    ended = run_probe(*arguments, folder=folder, environment={"PYTHONPATH": ""})
    assert imported(folder) == ""
    assert ended.code in codes, ended.stderr


@pytest.mark.slow
def test_a_script_imports_from_its_own_folder_and_no_other(folder):
    (folder / "scripts").mkdir()
    (folder / "scripts" / "mine.py").write_text("here = __file__\n")
    (folder / "scripts" / "train.py").write_text("import mine\nprint(mine.here)\n" + SCRIPT)
    ended = run_probe("--watch", "scripts/train.py", folder=folder, environment={"PYTHONPATH": ""})
    assert str(folder / "scripts" / "mine.py") in ended.stdout
    assert imported(folder) == ""


@pytest.mark.slow
def test_the_plugin_imports_nothing_of_it(folder):
    tests = folder / "suite"
    tests.mkdir()
    recipe = ROOT / "configs" / "presets" / "smoke_cpu.toml"
    shutil.copy(recipe, tests / "mine.toml")
    (tests / "test_recipe.py").write_text(
        "import pytest\n\n@pytest.mark.memory_budget('14 GiB', gpu='t4')\ndef test_it(memory_probe):\n"
        f"    assert memory_probe.run({str(tests / 'mine.toml')!r}, samples=24, epochs=1).fits\n"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "memory_harness.probes.pytest_plugin", str(tests)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in ended.stdout, ended.stdout
    assert imported(folder) == ""
