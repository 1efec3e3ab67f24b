"""The notebook: a valid file, whose code compiles and whose commands the command line knows."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from memory_harness.configs.cli import parse_args

PATH = Path(__file__).resolve().parent.parent / "notebooks" / "bengali_t4.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CODE = {cell["id"]: "".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"}
COMMANDS = [
    line.strip(" #!")
    for text in CODE.values()
    for line in text.splitlines()
    if re.match(r"[# ]*!python run_probe\.py", line)
]


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
    lines = [re.sub(r"^(\s*)!.*", r"\1pass", line) for line in CODE[name].splitlines()]
    ast.parse("\n".join(lines))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_the_command_line_takes(command, tmp_path, monkeypatch):
    """In a folder where an earlier run lies, as the notebook's later cells find it."""
    run = tmp_path / "runs" / "20260101-000000-x-train"
    (run / "adapter").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(parse_args(["--preset", "t4"]).config.to_dict()))
    monkeypatch.chdir(tmp_path)
    parsed = parse_args(shlex.split(command.replace("{adapter}", str(run / "adapter")))[2:])
    assert parsed.config.model.model == "llama-3.1-8b"


def test_probe_and_training_are_of_the_same_configuration():
    """Else the training would not find the probe before it."""
    probe, train = (next(c for c in COMMANDS if ("--train" in c) is training) for training in (False, True))
    configs = [parse_args(shlex.split(command)[2:]).config for command in (probe, train)]
    assert configs[0].fingerprint() == configs[1].fingerprint()
