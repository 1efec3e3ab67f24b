"""Installed as a wheel, installed editable, and as a bare checkout, beside a project with folders of all four names."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT

PARTS = ("configs", "harness", "probes", "reports")
PACKAGED = {".py", ".toml", ".css", ".js", ".json", ".typed"}
IMPORT_BOTH = """
import memory_harness
from memory_harness import MemoryCallback, Recorder
from memory_harness.harness.log import records
print(memory_harness.__file__, records.__file__, Recorder.__name__, MemoryCallback.__name__, sep="\\n")
"""
PLACE = "import memory_harness; print(memory_harness.__file__)"
FIND_BARE = f"import importlib.util; print([name for name in {PARTS} if importlib.util.find_spec(name)])"

MEMORY_TEST = """
import pytest
import torch


@pytest.mark.memory_budget("16 MiB", device="simulated")
def test_it_fits():
    torch.zeros(1000).sum()


@pytest.mark.memory_budget("16 MiB", device="simulated")
def test_it_does_not_fit():
    torch.zeros(10**7).sum()


def test_the_project_finds_its_own_folders():
    import configs.train
    import harness, probes, reports

    assert [configs.train.BATCH, harness.NAME, probes.NAME, reports.NAME] == [2, "harness", "probes", "reports"]
"""

MODEL = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import configs.train
import harness, probes, reports

assert [harness.NAME, probes.NAME, reports.NAME] == ["harness", "probes", "reports"]
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, use_cache=False
    )
)
ids = torch.arange(16).repeat(configs.train.BATCH, 1)
"""

WATCHED = (
    MODEL
    + """
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print("trained")
"""
)

RECORDED = (
    MODEL
    + """
from transformers import Trainer, TrainingArguments

from memory_harness import MemoryCallback, Recorder

optimizer = torch.optim.AdamW(model.parameters())
with Recorder.open("recorded", device="simulated", budget="64 MiB") as recorder:
    for _ in range(3):
        with recorder.step(ids):
            with recorder.phase("forward"):
                loss = model(input_ids=ids, labels=ids).loss
            with recorder.phase("backward"):
                loss.backward()
            with recorder.phase("optimizer"):
                optimizer.step()
                optimizer.zero_grad()
recorder.report()

rows = [{"input_ids": row, "labels": row} for row in ids]
arguments = TrainingArguments("out", max_steps=2, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True)
memory = MemoryCallback("called_back", device="simulated", budget="64 MiB")
Trainer(model, arguments, train_dataset=rows, callbacks=[memory]).train()
"""
)


def run(*command: object, folder: Path, code: int = 0) -> str:
    """Run a command in a folder, without what this process was told of import paths; return its output."""
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout


def make_environment(folder: Path) -> Path:
    """Make a virtual environment that has everything of this one but the harness; return its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder.parent)
    python = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    # path files that lie there are not read: an editable install of the harness stays out
    (site_packages / "zz_others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def install(python: Path, *what: object) -> None:
    """Install into the Python's environment, with the pip of this one and without a network."""
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet", "install")
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", *what, folder=python.parent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("installed")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    """What a build reads, copied: it leaves folders of its own behind."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / "source" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("memory_harness.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    return folder / "source"


@pytest.fixture(scope="module")
def wheel(folder: Path, source: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel")
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(folder: Path, wheel: Path) -> Path:
    """The Python of an environment into which the wheel is installed."""
    python = make_environment(folder / "wheel")
    install(python, wheel)
    return python


@pytest.fixture(scope="module")
def project(folder: Path) -> Path:
    """A user's project, with folders of all four names."""
    for part in PARTS:
        (folder / "project" / part).mkdir(parents=True)
        (folder / "project" / part / "__init__.py").write_text(f"NAME = {part!r}\n", encoding="utf-8")
    (folder / "project" / "configs" / "train.py").write_text("BATCH = 2\n", encoding="utf-8")
    files = {"test_memory.py": MEMORY_TEST, "watched.py": WATCHED, "recorded.py": RECORDED}
    for name, text in files.items():
        (folder / "project" / name).write_text(text, encoding="utf-8")
    return folder / "project"


def test_the_wheel_holds_one_package_and_all_of_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "memory_harness.py",
        "memory_harness",
        "qlora_memory_harness",
    }
    files = [path for part in PARTS for path in (ROOT / part).rglob("*") if path.suffix in PACKAGED]
    expected = {f"memory_harness/{path.relative_to(ROOT).as_posix()}" for path in files}
    packed = {name for name in names if name.startswith("memory_harness/")}
    assert packed == expected, "list the folder under packages in pyproject.toml"


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    headers, _, readme = text.partition("\n\n")
    assert "Classifier: Topic :: Software Development :: Debuggers" in headers
    assert "Description-Content-Type: text/markdown" in headers
    assert readme.lstrip().startswith("# QLoRA memory harness")
    assert "Requires-Dist: torch\n" in headers, "pip must not replace the PyTorch that is there"


def test_an_installed_program_is_called_by_its_name(installed, project):
    program = installed.with_name("run-probe")
    assert run(program, "--version", folder=project).startswith("qlora-memory-harness ")
    assert run(installed, "-m", "memory_harness", "--version", folder=project).startswith("qlora-memory-harness ")
    assert f" {program} --resume\n" in run(program, "--help", folder=project)
    assert f" {installed} -m memory_harness --resume\n" in run(
        installed, "-m", "memory_harness", "--help", folder=project
    )
    refused = run(program, "--budget", "14.4", "--html", "new/page.html", folder=project, code=2)
    assert refused == ""
    assert not (project / "new").exists()


@pytest.mark.slow
def test_pytest_measures_in_a_project_that_has_the_same_folders(installed, project):
    shown = run(installed, "-m", "pytest", "--memory-report", folder=project, code=1)
    assert "1 failed, 2 passed" in shown
    assert "limited to 16.00 MiB" in shown
    assert "test_memory.py::test_it_fits (simulated)" in shown


@pytest.mark.slow
def test_a_watched_script_imports_what_it_would_under_python(installed, project):
    shown = run(installed.with_name("run-probe"), "--watch", "watched.py", "--device", "simulated", folder=project)
    assert shown.startswith("trained\n")
    assert "The script fits" in shown


@pytest.mark.slow
def test_a_loop_and_a_trainer_are_recorded(installed, project):
    assert "simulated on" in run(installed, "recorded.py", folder=project)
    for name in ("recorded", "called_back"):
        assert '"completed"' in (project / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[-1]


@pytest.mark.slow
def test_all_cells_of_the_notebook_run(installed, folder):
    cpu = ("/usr/bin/env", "HARNESS_PRESET=smoke_cpu")
    (folder / "notebook").mkdir()
    shell, notebook = ROOT / "tests" / "notebook_shell.py", ROOT / "notebooks" / "bengali_t4.ipynb"
    shown = run(*cpu, installed, shell, notebook, folder=folder / "notebook")
    assert "TRAINED" in shown
    assert "retained-graph" in shown  # the last cell's mistake
    assert str(ROOT) not in shown


def test_a_probe_runs_in_a_process_of_its_own(installed, project):
    tiny = ("--model", "tiny-llama", "--samples", "24", "--max-length", "64", "--budget", "4 MiB", "--no-fixes")
    shown = run(installed.with_name("run-probe"), *tiny, "--html", "page.html", folder=project, code=1)
    assert "DOES NOT FIT" in shown.splitlines()[0]
    assert str(installed.with_name("run-probe")) in shown, "the next command"
    assert "<style>" in (project / "page.html").read_text(encoding="utf-8")


def test_a_wheel_brings_one_name(installed, folder):
    assert run(installed, "-c", FIND_BARE, folder=folder) == "[]\n"
    assert run(installed, "-c", PLACE, folder=folder).endswith("/site-packages/memory_harness.py\n")


@pytest.mark.slow
def test_an_editable_install_brings_one_name(folder, source):
    python = make_environment(folder / "editable")
    install(python, "--editable", source)
    assert run(python, "-c", FIND_BARE, folder=folder) == "[]\n"
    assert run(python, "-c", IMPORT_BOTH, folder=folder) == imported_from(source)


@pytest.mark.slow
def test_a_bare_checkout_is_imported_by_the_same_name(folder):
    python = make_environment(folder / "bare")
    assert run(python, "-c", IMPORT_BOTH, folder=ROOT) == imported_from(ROOT)
    by_path = run("/usr/bin/env", f"PYTHONPATH={ROOT}", python, "-c", PLACE, folder=folder)
    assert by_path == f"{ROOT / 'memory_harness.py'}\n"


def imported_from(checkout: Path) -> str:
    """Return what `IMPORT_BOTH` prints where the package is that checkout."""
    records = checkout / "harness" / "log" / "records.py"
    return f"{checkout / 'memory_harness.py'}\n{records}\nRecorder\nMemoryCallback\n"
