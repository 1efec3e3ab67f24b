"""Every command and every block of Python in the documents does what it is there for."""

import importlib.util
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

import memory_harness
from memory_harness.configs.cli import parse_args
from memory_harness.configs.preset import load_preset
from tests.documents import ROOT, Command, commands, python_blocks
from tests.e2e.commands import run_probe

COMMANDS = commands()
PROBES = [command for command in COMMANDS if "run_probe.py" in command.text]
MODULES = [command for command in COMMANDS if " -m " in command.text and "pytest" not in command.text]
MAKES = [command for command in COMMANDS if command.text.startswith("make")]

TRAIN = """
import argparse
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = torch.nn.Linear(8, 8).to(device)
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(5 * parser.parse_args().epochs):
    model(torch.ones(2, 8, device=device)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""

SMALLER = {
    "--preset t4": "--preset smoke_cpu",  # which trains on a CPU
    "--download": "",  # there is no hub
    "--max-length 2048 --samples 4000 --train": "--train",
}
"""what is replaced in commands that train, and why"""

OUT_OF_MEMORY = """Traceback (most recent call last):
  File "/home/me/train.py", line 42, in <module>
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.74 GiB of which
1.10 GiB is free. Process 7 has 13.64 GiB memory in use. Of the allocated memory 12.90 GiB is allocated by PyTorch, and
600.00 MiB is reserved by PyTorch but unallocated.
"""
BLOCK = {"size": 2**30, "requested_size": 2**30, "state": "active_allocated", "address": 0}
FRAMES = [{"filename": "/home/me/train.py", "line": 42, "name": "step"}]
SEGMENT = {"device": 0, "address": 0, "total_size": 2**30, "allocated_size": 2**30, "stream": 0}
SNAPSHOT = {"segments": [SEGMENT | {"blocks": [BLOCK | {"frames": FRAMES}]}], "device_traces": []}

NUM_ROWS = 700
"""of the corpus: the default recipe takes 600"""

EXIT_CODES = {
    "--estimate": (0, 1),
    "--model path/to/checkpoint": (0, 1),
    "--preset mine.toml": (0, 1),
    "--fault retained-graph": (1,),
    "--traceback oom.txt": (1,),
    "--replay snapshot.pickle": (3,),
}
"""of commands that show a run which may fit or not, or a planted leak; 0 for others"""


def name_of(command: Command) -> str:
    return f"{command.document}: {command.text}"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder that holds what the documents' commands name: recipe, corpus, checkpoint, script, earlier runs."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "configs" / "presets" / "smoke_cpu.toml", folder / "mine.toml")
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "questions.csv").write_text("question\nকেমন আছেন?\n", encoding="utf-8")
    rows = [f"মন,মন,আমার মন খারাপ {number},বিশ্রাম নিন আর কথা বলুন {number}" for number in range(NUM_ROWS)]
    header = "Topics,Question-Title,Questions,Answers"
    (folder / "corpus.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / "oom.txt").write_text(OUT_OF_MEMORY, encoding="utf-8")
    for name in ("snapshot", "before", "after"):
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(SNAPSHOT))
    checkpoint = folder / "path" / "to" / "checkpoint"
    checkpoint.mkdir(parents=True)
    shape = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    shape.save_pretrained(checkpoint)
    for name in ("FOLDER", "OTHER"):
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps(load_preset("smoke_cpu").to_dict()), encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", PROBES, ids=name_of)
def test_flags_and_values_of_a_command_are_known(command, project, monkeypatch):
    monkeypatch.chdir(project)
    words = command.words
    parse_args(words[words.index("run_probe.py") + 1 :])


@pytest.mark.parametrize("command", MODULES, ids=name_of)
def test_modules_that_are_run_exist(command):
    words = command.words
    module = words[words.index("-m") + 1]
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("command", MAKES, ids=name_of)
def test_make_knows_the_targets(command):
    done = subprocess.run([*command.words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_is_of_a_kind_that_is_tested():
    others = [c.text for c in COMMANDS if c not in {*PROBES, *MODULES, *MAKES}]
    for text in others:
        assert "-m pytest" in text or text.startswith(
            ("pytest ", "pip install ", "pip wheel ", "run-probe --completion ")
        ), text


@pytest.mark.parametrize(("document", "block"), python_blocks())
def test_python_in_documents_is_python(document, block):
    compile(block, document, "exec")


def test_the_loop_of_the_readme_is_recorded(tmp_path, monkeypatch, capfd):
    block = next(block for document, block in python_blocks() if document == "README.md" and "Recorder.open" in block)
    monkeypatch.chdir(tmp_path)

    class Model(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> object:
            return type("Output", (), {"loss": super().forward(x).sum()})

    model = Model(4, 4)
    names = {
        "loader": [{"x": torch.ones(2, 4)}] * 3,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters()),
    }
    exec(compile(block, "README.md", "exec"), names)
    assert "FITS" in capfd.readouterr().out
    assert (tmp_path / "runs" / "mine.jsonl").exists()
    assert names["Recorder"] is memory_harness.Recorder


@pytest.fixture(scope="module")
def runs(project) -> None:
    """Two earlier runs of the project, in folders of the names that the documents use."""
    ended = run_probe("--preset", "smoke_cpu", "--train", folder=project)
    assert ended.code == 0, ended.stderr
    (trained,) = (project / "runs").glob("*-train")
    for name in ("FOLDER", "OTHER"):
        shutil.copytree(trained, project / "runs" / name, dirs_exist_ok=True)


WITHOUT_INDEX = [command for command in PROBES if "--against" not in command.text]
"""but for what fetches packages, see test_against.py"""


@pytest.mark.slow
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("command", WITHOUT_INDEX, ids=name_of)
def test_a_command_does_what_it_says(command, project):
    text = command.text
    if "--train" in text:
        for words, smaller in SMALLER.items():
            text = text.replace(words, smaller)
    text = text.replace("--fault NAME", "--fault retained-graph")
    arguments = shlex.split(text, comments=True)
    arguments = arguments[arguments.index("run_probe.py") + 1 :]
    ended = run_probe(*arguments, folder=project, environment=dict(os.environ))
    allowed = next((codes for words, codes in EXIT_CODES.items() if words in text), (0,))
    assert ended.code in allowed, f"{sys.executable} run_probe.py {shlex.join(arguments)}\n{ended.stderr}"
    assert "Traceback" not in ended.stderr
