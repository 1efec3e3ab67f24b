"""Whatever the user gets wrong is one clear line and exit code 2, before the run and before PyTorch is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memory_harness.configs.places import has_gpu_driver
from tests.e2e.commands import ROOT, run_probe

HEADER = "Topics,Question-Title,Questions,Answers\n"
CORPUS = HEADER + "".join(f"দুঃখ,শিরোনাম,প্রশ্ন {i} কী?,উত্তর {i}।\n" for i in range(3))
FILES = {
    "corpus.csv": CORPUS.encode(),
    "empty.csv": b"",
    "columns.csv": b"frage,antwort\na,b\n",
    "undecodable.csv": HEADER.encode() + b"a,b,\xff\xfe,d\n",
    "rows.csv": HEADER.encode() + b"a,b,,\n",
    "key.toml": b"[train]\nepoch = 3\n",
    "file": b"",
    "log.jsonl": b'{"kind": "step"}\n',
    "bigint.toml": b"[train]\nepochs = " + b"9" * 5000,
    "deep.toml": b"a = " + b"[" * 20_000,
    "nul.toml": b'[output]\noutput = "a\\u0000b"\n',
    "large.toml": b"# " + b"x" * 5_000_000,
}

CASES = {
    "a missing corpus": (["--data", "nowhere.csv"], ["--data nowhere.csv", "no corpus"]),
    "an empty corpus": (["--data", "empty.csv"], ["empty.csv is empty", "Topics, Question-Title, Questions, Answers"]),
    "other columns": (
        ["--data", "columns.csv"],
        ["--data columns.csv", "the columns frage, antwort", "--columns question=A,answer=B"],
    ),
    "an undecodable corpus": (["--data", "undecodable.csv"], ["undecodable.csv is not UTF-8", "0xff", "--data"]),
    "no usable row": (["--data", "rows.csv"], ["rows.csv has no usable row", "1 blank", "--data"]),
    "samples 0": (["--samples", "0"], ["--samples 0", "allowed: 1 to"]),
    "no GPU": (["--num-gpus", "0"], ["--num-gpus 0", "allowed: 1 to"]),
    "more GPUs than sequences in a step": (["--num-gpus", "3"], ["--num-gpus 3", "1 to 2", "--gradient-accumulation"]),
    "one GPU that shares": (["--sharding", "fsdp"], ["--sharding fsdp", "one GPU", "--num-gpus 2"]),
    "two GPUs that share nothing": (
        ["--sharding", "none", "--num-gpus", "2"],
        ["--sharding none", "--num-gpus 2 idle", "ddp, fsdp, split"],
    ),
    "shards of a layer that is passed by": (
        ["--sharding", "fsdp", "--num-gpus", "2", "--loss", "chunked"],
        ["--sharding fsdp", "--loss chunked", "allowed with it: full"],
    ),
    "Unsloth on two GPUs": (["--num-gpus", "2", "--strategy", "unsloth"], ["--num-gpus 2", "one GPU", "qlora"]),
    "negative samples": (["--samples", "-4000"], ["--samples -4000", "allowed: 1 to"]),
    "samples that are no number": (["--samples", "all"], ["--samples", "'all'", "whole number or none"]),
    "more samples than rows": (["--data", "corpus.csv", "--samples", "4"], ["--samples 4", "3 usable rows", "at most"]),
    "one question": (["--data", "corpus.csv", "--samples", "1"], ["--samples 1", "nothing to evaluate"]),
    "an unknown model": (["--model", "llama-4"], ["--model llama-4", "llama-3.1-8b", "mistral-7b"]),
    "an unknown card": (["--gpu", "t40"], ["--gpu t40", "did you mean t4", "h200"]),
    "an unknown preset": (["--preset", "published"], ["--preset published", "as_published", "smoke_cpu"]),
    "an unknown flag": (["--max-lenght", "2048"], ["--max-lenght", "did you mean --max-length?"]),
    "an unknown key": (["--preset", "key.toml"], ["key.toml", "[train] epoch", "did you mean epochs?"]),
    "an unknown cause": (["--explain", "gremlins"], ["--explain gremlins"]),
    "an unknown fault": (
        ["--fault", "kept-loses"],
        ["--fault kept-loses", "did you mean kept-losses?", "retained-graph"],
    ),
    "no unit": (["--budget", "14.4"], ["--budget", "'14.4' has no unit", "'14.4 GiB'"]),
    "no script": (["--dry-run", "nowhere.py"], ["--dry-run nowhere.py", "no such file"]),
    "two things to do": (["--watch", "a.py", "--replay", "b"], ["--watch and --replay", "give one of them"]),
    "a flag of another task": (["--replay", ".", "--goal", "speed"], ["--goal", "has no meaning beside --replay"]),
    "no size": (["--budget", "14 gigs"], ["--budget", "'14 gigs'", "GiB"]),
    "no tokenizer": (["--tokenizer", "file"], ["--tokenizer file", "tokenizer.json"]),
    "an output folder that is a file": (["--output", "file"], ["--output file", "give another folder"]),
    "an output folder below a file": (["--output", "file/runs"], ["--output file/runs", "give another folder"]),
    "an output folder that nobody can make": (["--output", "/proc/x"], ["--output /proc/x", "give another folder"]),
    "JSON below a file": (["--json", "file/report.json"], ["--json file/report.json", "cannot be written"]),
    "JSON over the corpus": (["--data", "corpus.csv", "--json", "corpus.csv"], ["--json corpus.csv", "no report"]),
    "a picture over a folder": (["--svg", "."], ["--svg .", "no report"]),
    "two reports in one file": (["--json", "new", "--html", "./new"], ["--html new", "--json writes the same file"]),
    "a page over the corpus": (["--data", "corpus.csv", "--html", "corpus.csv"], ["--html corpus.csv", "no report"]),
    "no log": (["--replay", "nowhere.jsonl"], ["--replay", "nowhere.jsonl", "No such file"]),
    "a log without a run": (["--replay", "log.jsonl"], ["--replay", "log.jsonl", "no run record"]),
    "an epoch count of 5000 digits": (["--preset", "bigint.toml"], ["bigint.toml", "thousands of digits"]),
    "a rank beyond all layers": (["--lora-rank", str(10**30)], ["--lora-rank", "more than 19 digits"]),
    "a rank that a pattern gives": (["--rank-pattern", f"q_proj={10**30}"], ["--rank-pattern", "more than any layer"]),
    "samples without end": (["--samples", "99999999999"], ["--samples", "allowed: 1 to 10000000"]),
    "epochs without end": (["--epochs", "999999999"], ["--epochs", "allowed: 1 to 10000"]),
    "replies without end": (
        ["--replies-per-prompt", "999999", "--temperature", "1"],
        ["--replies-per-prompt", "allowed: 1 to 1000"],
    ),
    "an infinite learning rate": (["--learning-rate", "inf"], ["--learning-rate inf", "more than 0, and finite"]),
    "a budget beyond all machines": (["--budget", "9" * 400 + " GiB"], ["--budget", "more than any machine has"]),
    "replies longer than the context": (
        ["--model", "tiny-llama", "--max-new-tokens", "1000000"],
        ["--max-new-tokens 1000000", "tiny-llama", "context of"],
    ),
    "TOML nested deeply": (["--preset", "deep.toml"], ["deep.toml", "nested too deeply"]),
    "TOML with a path that no system takes": (["--preset", "nul.toml"], ["[output] output", "NUL character"]),
    "TOML of many megabytes": (["--preset", "large.toml"], ["large.toml", "more than 4 MiB"]),
    "none for a run to go on with": (["--resume", "none", "--fault", "none", "--gpu", "t40"], ["--gpu t40"]),
    "a name longer than any file's": (["--replay", "x" * 300], ["xxx", "File name too long"]),
    "a preset's name longer than any file's": (["--preset", "x" * 300], ["xxx", "File name too long"]),
    "links in a circle": (["--replay", "circle"], ["--replay circle", "symbolic links"]),
    "links in a circle for two reports": (["--json", "circle", "--html", "circle"], ["--json writes the same file"]),
    "a pipe for a log": (["--replay", "pipe"], ["--replay pipe", "it is a named pipe, not a file"]),
    "a pipe for a preset": (["--preset", "pipe.toml"], ["pipe.toml", "it is a named pipe, not a file"]),
    "a pipe for cards": (["--gpu-file", "pipe.toml"], ["pipe.toml", "it is a named pipe, not a file"]),
    "a pipe for a recipe": (["--import-recipe", "pipe"], ["pipe", "it is a named pipe, not a file"]),
    "a pipe for a traceback": (["--traceback", "pipe"], ["--traceback pipe", "it is a named pipe, not a file"]),
    "a pipe for a sheet": (["--score-sheet", "pipe"], ["--score-sheet pipe", "it is a named pipe, not a file"]),
    "a pipe for the corpus": (["--data", "pipe.csv"], ["pipe.csv"]),
    "a device for a log": (["--replay", "/dev/zero"], ["--replay /dev/zero", "it is a device, not a file"]),
    "a device for a report": (["--json", "/dev/full"], ["--json /dev/full", "no report"]),
    "a line feed in a value": (["--gpu", "t4\nt5"], ["--gpu t4\\nt5"]),
    "no folder of a probe": (["--replay", "."], ["--replay", "as_configured.jsonl", "No such file"]),
}

if not has_gpu_driver():
    CASES["no GPU for --device cuda"] = (["--device", "cuda"], ["--device cuda", "no GPU here", "leave it out"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the cases name."""
    folder = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "circle").symlink_to(folder / "circle")
    for pipe in ("pipe", "pipe.toml", "pipe.csv"):
        os.mkfifo(folder / pipe)
    # a torch that cannot be imported: a case that needed it would die with exit code 3
    (folder / "without_torch").mkdir()
    (folder / "without_torch" / "torch.py").write_text("raise ImportError('torch is not needed to refuse this')\n")
    return folder


ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from memory_harness.reports.entry import main

ended = []
for arguments in json.load(sys.stdin):
    sys.argv = ["run_probe.py", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = exit.code
    ended.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def endings(folder: Path) -> dict[str, tuple[int, str, str]]:
    """Exit code, output and errors of each case, all in one process: to start one takes a second."""
    path = os.pathsep.join((str(folder / "without_torch"), str(ROOT)))
    process = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER],
        input=json.dumps([arguments for arguments, _ in CASES.values()]),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )
    return dict(zip(CASES, map(tuple, json.loads(process.stdout)), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_it_is_one_clear_line(endings, name):
    code, out, errors = endings[name]
    assert (code, out) == (2, ""), errors
    (line,) = errors.splitlines()
    assert line.startswith("run_probe.py: ")
    assert all(part in line for part in CASES[name][1]), line


def test_what_is_refused_leaves_everything_as_it_was(endings, folder):
    assert not list(folder.glob("runs/*")), "a refused run leaves no log behind"
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


def test_all_problems_are_told_at_once(folder):
    ended = run_probe("--samples", "0", "--gpu", "t40", folder=folder)
    assert ended.code == 2
    assert [line.split(":")[1] for line in ended.stderr.splitlines()] == [" --samples 0", " --gpu t40"]


def test_a_thousand_problems_are_twenty_and_a_count(tmp_path):
    (tmp_path / "keys.toml").write_text("[train]\n" + "".join(f"key{number} = 1\n" for number in range(1000)))
    ended = run_probe("--preset", "keys.toml", folder=tmp_path)
    lines = ended.stderr.splitlines()
    assert (ended.code, len(lines)) == (2, 21)
    assert "980 more" in lines[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable for root")
@pytest.mark.parametrize("arguments", [["--output", "locked"], ["--json", "locked/report.json"]])
def test_a_folder_without_permission_is_one_clear_line(tmp_path, arguments):
    (tmp_path / "locked").mkdir(mode=0o500)
    ended = run_probe(*arguments, folder=tmp_path)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert "Permission denied" in line
