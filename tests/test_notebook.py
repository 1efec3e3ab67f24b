"""The notebook: a valid file, whose code compiles, whose commands are known, and whose cells run from top to bottom."""

import ast
import json
import re
import shlex
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest

import memory_harness
from memory_harness.configs.cli import parse_args
from memory_harness.configs.units import parse_bytes
from memory_harness.reports.notebook import _showing_its_frames_alone
from tests.notebook_shell import Shell, code_of

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "notebooks" / "bengali_t4.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CODE = code_of(PATH)
SIZES = {
    "PRESET": "t4",
    "SIZE": "--max-length 2048 --samples 4000",
    "DOWNLOAD": "--download",
    "adapter": "ADAPTER",
    "DRAWN": "",
}
"""what the commands' variables hold on a T4"""
PROGRAM = "{sys.executable} -m memory_harness "
COMMANDS = []
for _text in CODE.values():
    for _line in _text.splitlines():
        _command = _line.strip(" #!")
        if _command.startswith(PROGRAM) and "--version" not in _command:
            COMMANDS.append(_command.removeprefix(PROGRAM).format(**SIZES))


def test_it_is_a_notebook_of_format_4_5():
    """What nbformat's schema of version 4.5 demands of every cell."""
    assert set(NOTEBOOK) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell["id"])
        assert isinstance(cell["metadata"], dict)
        assert all(isinstance(line, str) for line in cell["source"])
        extra = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | extra


def test_it_was_saved_without_outputs():
    assert all(not cell["outputs"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")


@pytest.mark.parametrize("name", CODE)
def test_the_code_compiles(name):
    lines = [re.sub(r"^(\s*)[!%].*", r"\1pass", line) for line in CODE[name].splitlines()]
    ast.parse("\n".join(lines))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_the_command_line_takes(command, tmp_path, monkeypatch):
    """In a folder where an earlier run lies, as the notebook's later cells find it."""
    run = tmp_path / "runs" / "20260101-000000-x-train"
    (run / "adapter").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(parse_args(["--preset", "t4"]).config.to_dict()))
    monkeypatch.chdir(tmp_path)
    parsed = parse_args(shlex.split(command.replace("ADAPTER", str(run / "adapter"))))
    assert parsed.config.model.model == "llama-3.1-8b"


def test_probe_and_training_are_of_the_same_configuration():
    """Else the training would not find the probe before it."""
    probe, train = (next(c for c in COMMANDS if ("--train" in c) is training) for training in (False, True))
    configs = [parse_args(shlex.split(command)).config for command in (probe, train)]
    assert configs[0].fingerprint() == configs[1].fingerprint()


@pytest.mark.slow
def test_all_cells_run_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_PRESET", "smoke_cpu")
    shell = Shell({"PYTHONPATH": str(ROOT)})
    for source in CODE.values():
        shell.run(source)
    text = "\n".join(map(str, shell.shown))
    assert "TRAINED" in text
    assert "retained-graph" in text  # the last cell's mistake
    assert len(list((tmp_path / "runs").glob("*-train"))) == 1


@pytest.mark.slow
def test_a_watched_cell_says_what_it_keeps_and_shows_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell = Shell({"PYTHONPATH": str(ROOT)})
    memory_harness.load_ipython_extension(shell)
    shell.run(CODE["watch"].replace('"64 MiB"', '"64 MiB" --device simulated'))
    (report,) = [shown for shown in shell.shown if shown is not None]
    assert "GROWS" in str(report)
    assert "retained-graph" in str(report)
    page = report._repr_html_()
    assert page.startswith("<iframe sandbox")
    assert "<script" not in page
    assert memory_harness.replay(next(tmp_path.glob("runs/*/*.jsonl"))).verdict == "fail"


def test_a_notebook_completes_the_names():
    assert {*memory_harness.__all__} <= {*dir(memory_harness)}


def test_a_traceback_below_a_watched_cell_is_of_the_cell_alone():
    files = []

    def show():
        files.extend(frame.filename for frame in traceback.extract_tb(sys.exception().__traceback__))

    shell = SimpleNamespace(showtraceback=show)
    with _showing_its_frames_alone(shell):
        try:
            parse_bytes("a lot")
        except ValueError:
            shell.showtraceback()
    assert files == [__file__]


def test_what_a_magic_does_not_know_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shell = Shell({"PYTHONPATH": str(ROOT)})
    memory_harness.load_ipython_extension(shell)
    shell.run("%%watch --budget 14.4\n1")
    shell.run("%%watch --gpus t4\n1")
    first, second = capsys.readouterr().out.splitlines()
    assert "14.4 GiB" in first
    assert second.startswith("%%watch: --gpus: unknown (allowed: --budget")
    assert list(tmp_path.iterdir()) == []
