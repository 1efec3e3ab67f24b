"""`run_probe.py --watch SCRIPT`: the script runs as Python would run it, and the exit code says what was found."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from memory_harness.reports import entry

ROOT = Path(__file__).resolve().parent.parent.parent
LEAK = str(ROOT / "tests" / "watch_scripts" / "tensors_logged.py")


def watch(script: object, folder: Path, *flags: str) -> int:
    arguments = list(flags)
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    after = arguments[len(before) :]
    return entry.main(["--watch", str(script), "--device", "simulated", "--output", str(folder), *before, *after])


def script_of(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_leak_ends_with_code_1_and_the_report_of_a_probe(tmp_path, capsys):
    assert watch(LEAK, tmp_path, "--json", str(tmp_path / "report.json")) == 1
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "fail"
    assert report["source"] == "simulated"
    assert report["as_configured"]["outcome"] == "completed"
    assert [(f["cause"], f["severity"]) for f in report["findings"]] == [("tensors-logged", "error")]
    shown = capsys.readouterr().out
    assert "tests/watch_scripts/tensors_logged.py:14" in shown
    (log,) = tmp_path.glob("*/as_configured.jsonl")
    assert entry.main(["--replay", str(log.parent)]) == entry.main(["--replay", str(log)]) == 1


def test_a_script_of_which_nothing_was_seen_is_not_decided(tmp_path, capsys):
    script = script_of(tmp_path, "print('hello')\n")
    assert watch(script, tmp_path) == 3
    shown = capsys.readouterr().out
    assert shown.startswith("hello\n")
    assert "NOT DECIDED" in shown
    assert "no training step was seen" in " ".join(shown.split())


EVALUATION = "import sys, torch\ntorch.nn.Linear(1, 1).eval()(torch.zeros(1, 1))\n"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (EVALUATION + "sys.exit()", 0, ""),
        (EVALUATION + "sys.exit(0)", 0, ""),
        ("import sys\nsys.exit(4)", 3, ""),
        ("import sys\nsys.exit('no data here')", 3, "no data here\n"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt\n"),
        ("1 / 0", 3, "ZeroDivisionError: division by zero\n"),
        ("import nowhere_to_be_found", 3, "ModuleNotFoundError: No module named 'nowhere_to_be_found'\n"),
        ("def f(:\n    pass", 3, "SyntaxError: invalid syntax\n"),
        ("import torch\ntorch.zeros(2**26)", 1, "256.00 MiB"),
    ],
)
def test_how_a_script_ends(text, code, message, tmp_path, capsys):
    assert watch(script_of(tmp_path, text), tmp_path, "--budget", "64 MiB") == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing.py", "."])
def test_a_missing_script_is_one_line(name, tmp_path, capsys):
    assert watch(tmp_path / name, tmp_path / "runs") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"run_probe.py: --watch {tmp_path / name}: ")
    assert not (tmp_path / "runs").exists()


def test_arguments_of_nobody_are_refused(tmp_path, capsys):
    assert entry.main(["--samples", "10", "--", "x"]) == 2
    assert (
        capsys.readouterr().err
        == "run_probe.py: -- x: only a script has arguments of its own; add --watch SCRIPT or --dry-run SCRIPT\n"
    )


SCRIPTS = ROOT / "tests" / "watch_scripts"


def watch_in_process(
    name: str, folder: Path, *arguments: str, flags: Sequence[str] = ()
) -> tuple[int | None, dict[str, Any]]:
    """Watch a script in a process that it may leave as it likes; return the exit code and the report."""
    report = folder / "report.json"

    def run() -> None:
        torch.set_num_threads(1)  # those of the process that was forked are not here
        given = ("--json", str(report), *flags, *(("--", *arguments) if arguments else ()))
        sys.exit(watch(SCRIPTS / f"{name}.py", folder, *given))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return process.exitcode, json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "where"),
    [
        ("leaves_at_once", (), "leaves_at_once.py:17"),
        ("forked_leak", (), "forked_leak.py:21"),
        pytest.param("forked_leak", ("spawn",), "forked_leak.py:21", marks=pytest.mark.slow),
        pytest.param("forked_leak", ("forkserver",), "forked_leak.py:21", marks=pytest.mark.slow),
        pytest.param("subprocess_leak", (), "thread_leak.py:19", marks=pytest.mark.slow),
    ],
)
def test_what_a_process_does_that_ends_by_itself_or_is_started_is_seen(name, arguments, where, tmp_path):
    code, report = watch_in_process(name, tmp_path, *arguments)
    assert code == 1
    (finding,) = report["findings"]
    assert (finding["cause"], finding["severity"]) == ("tensors-logged", "error")
    assert finding["where"] == f"tests/watch_scripts/{where}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "budget", "causes"),
    [
        ("rank_gathers_state", (), "60 MiB", ["rank-gathers-state"]),
        ("rank_gathers_state", ("all",), "60 MiB", ["save-doubles"]),
        ("rank_imbalance", (), "50 MiB", ["rank-imbalance"]),
        ("rank_imbalance", (), "100 MiB", []),
    ],
    ids=["one rank gathers", "all ranks gather", "one has longer batches", "there is room for them"],
)
def test_what_shows_only_beside_other_ranks_is_found(name, arguments, budget, causes, tmp_path):
    _, report = watch_in_process(name, tmp_path, *arguments, flags=("--budget", budget))
    found = [finding["cause"] for finding in report["findings"] if finding["severity"] != "info"]
    assert [cause for cause in found if cause.startswith("rank") or cause == "save-doubles"] == causes


@pytest.mark.slow
def test_processes_that_keep_nothing_fit(tmp_path):
    code, report = watch_in_process("clean_processes", tmp_path)
    assert (code, report["verdict"], report["findings"]) == (0, "pass", [])
    assert len(list(tmp_path.glob("*/process-*.jsonl"))) == 2


INSPECT = """
import os, sys
import configs  # its own, not the harness's
print(sys.argv, sys.path[0] == os.path.dirname(__file__), os.getcwd(), __name__, __file__, configs.NAME)
print(sys.modules["__main__"].__dict__ is globals(), __spec__ and __spec__.name, __builtins__.__name__, __package__)

def helper():
    try:
        {}["key"]
    except KeyError as error:
        import torch
        class Failing(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 2)
            def forward(self, x):
                raise RuntimeError("not today") from error
        Failing()(torch.zeros(1))

helper()
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", [("project/script.py",), ("-m", "project.script")])
def test_a_script_sees_and_says_what_it_would_under_python(tmp_path, what):
    folder = tmp_path / "project"
    folder.mkdir()
    script = script_of(folder, INSPECT)
    # beside a script, and in the current folder of a module
    place = tmp_path if "-m" in what else folder
    (place / "configs.py").write_text("NAME = 'mine'\n", encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )

    plain = run(*what, "--lr", "1")
    flags = ("--device", "simulated", "--watch", *what, "--output", "runs", "--", "--lr", "1")
    watched = run(str(ROOT / "run_probe.py"), *flags)
    assert watched.returncode == 3
    assert watched.stdout.startswith(plain.stdout)
    own_lines = [line for line in plain.stderr.splitlines() if "<frozen runpy>" not in line]
    assert watched.stderr.splitlines() == own_lines
    assert "NOT DECIDED" in watched.stdout.removeprefix(plain.stdout)
    assert script.exists()
